"""A whole Airflow, of either major, for tests: scheduler and triggerer, and for 3.x the API server and DAG processor.

Owns processes, each in a session of its own: children of Airflow outlive a SIGTERM to their parent. Refuses to wait
without a deadline.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from tests.airflow_environment import MAJORS, Airflow
from tests.local_servers import until

from millpond.local import ports

_CONSOLE = Path(__file__).with_name("airflow_console.py")


class Services(Airflow):
    """One home and the processes that serve it."""

    def __init__(self, home: Path, major: int, dsn: str) -> None:
        """Its metadata database goes with `down`."""
        super().__init__(home, environment=MAJORS[major], dsn=dsn)
        self.major = major
        # Of those that no outgoing connection takes before they are bound.
        self.port, self.health_port = ports.reserve(home, 2)
        secret = secrets.token_hex(32)
        self.env |= {
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
            "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "True",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "True",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.health_port),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            # A triggerer that was killed is missed after a few seconds.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
        }
        if major == 3:
            self.env |= {
                # A busy machine is no failure.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
                # How soon a task learns that it was marked.
                "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
                "AIRFLOW__API_AUTH__JWT_SECRET": secret,
                "AIRFLOW__API__SECRET_KEY": secret,
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(self.port),
                "AIRFLOW__API__WORKERS": "1",
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            }
        else:
            self.env["AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC"] = "1"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._console: subprocess.Popen[str] | None = None

    def up(self) -> None:
        """Start all; the database is migrated already."""
        if self.major == 3:
            self.serve("api-server")
            self.serve("dag-processor")
            # A task that cannot reach it fails.
            until(self._answers, 400)
        self.serve("scheduler")
        self.serve("triggerer")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def serve(self, name: str) -> None:
        """Start one of them."""
        command = [str(self.bin / "airflow"), name]
        if name in ("scheduler", "triggerer"):
            command.append("--skip-serve-logs")
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def end(self, name: str, signum: int = signal.SIGTERM) -> None:
        """End one of them with all its children."""
        process = self.processes.pop(name)
        for one in (signum, signal.SIGKILL):
            try:
                os.killpg(process.pid, one)
                process.wait(timeout=10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue

    def down(self) -> None:
        """End all."""
        for name in list(self.processes):
            self.end(name)
        if self._console is not None:
            self._console.kill()
            self._console.communicate()
        self.drop()

    def ask(self, do: str, **words: Any) -> Any:
        """Ask the console, which starts once."""
        if self._console is None:
            with (self.home / "console.log").open("ab") as log:
                self._console = subprocess.Popen(
                    [str(self.bin / "python"), str(_CONSOLE)],
                    env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
            self._read()
        assert self._console.stdin is not None
        self._console.stdin.write(json.dumps({"do": do} | words) + "\n")
        self._console.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._console is not None
        assert self._console.stdout is not None
        line = self._console.stdout.readline()
        assert line, (self.home / "console.log").read_text()[-3000:]
        return json.loads(line)

    def make_run(self, dag_id: str, conf: dict[str, Any], seconds: float = 300) -> str:
        """Make a run as soon as the DAG's file has been read."""
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        until(lambda: self.ask("trigger", dag_id=dag_id, run_id=run_id, conf=conf) == "made", seconds)
        return run_id

    def tasks(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Tell how a run's tasks stand."""
        tasks: dict[str, Any] = self.ask("stand", dag_id=dag_id, run_id=run_id)[run_id]["tasks"]
        return tasks

    def ended(self, dag_id: str, run_id: str, seconds: float = 500) -> dict[str, Any]:
        """Wait for the end of a run and return its state and its tasks'."""
        deadline = time.monotonic() + seconds
        while True:
            run: dict[str, Any] = self.ask("stand", dag_id=dag_id, run_id=run_id)[run_id]
            if run["state"] in ("success", "failed"):
                return run
            assert time.monotonic() < deadline, f"{run}\n{self.logs(dag_id, run_id)}"
            time.sleep(0.3)

    def logs(self, dag_id: str, run_id: str) -> str:
        """Return the logs of a run's tasks."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        return "".join(file.read_text(errors="replace") for file in sorted(folder.rglob("*.log*")))
