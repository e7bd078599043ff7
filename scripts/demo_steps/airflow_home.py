"""An Airflow of the demo's own: home, connections, scheduler, and one run of a DAG.

Owns Airflow's environment variables and its processes, which end with what they are for. Refuses to import Airflow:
that lives in an environment of its own.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg

from demo_steps.source import remote_properties

_PATIENCE_S = 1800
_DATABASE = "airflow"


@dataclass
class Run:
    """How a DAG run ended."""

    state: str = "unknown"
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    why: str = ""


class AirflowHome:
    """A home under one folder, its metadata beside the reports; one task at a time is enough for three in a row.

    No SQLite: that refuses a writer at once whose snapshot another process has overtaken, however long it may wait.
    """

    def __init__(self, home: Path, environment: Path, dags: Path, status: dict[str, Any]) -> None:
        """Keep the places; nothing is started."""
        self.home = home
        self.bin = environment.absolute() / "bin"
        self.env = os.environ | {
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata(status["postgres"]["dsn"]),
            # Only the run that is asked for: unpausing would add the run of the last two hours.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        self.env |= {f"AIRFLOW_CONN_{name.upper()}": json.dumps(one) for name, one in connections(status).items()}

    def run(self, dag_id: str, conf: dict[str, Any], tell: Callable[[str], None]) -> Run:
        """Trigger the DAG, let a scheduler of our own run it to its end, and return state and results."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.call("db", "migrate")
        run_id = f"demo-{time.strftime('%Y%m%dT%H%M%S')}"
        run = Run()
        with self.running("scheduler", "--skip-serve-logs") as scheduler:
            script = Path(__file__).with_name("dag_run.py")
            command = [str(self.bin / "python"), str(script), dag_id, run_id, json.dumps(conf), str(_PATIENCE_S)]
            with (self.home / "dag_run.log").open("a") as log:
                watch = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                for line in watch.stdout or ():
                    said = json.loads(line)
                    if "task" in said:
                        tell(f"{said['task']}: {said['state']}")
                    else:
                        run.state, run.results = said["state"], said["results"]
                    if scheduler.poll() is not None:
                        run.why = f"the scheduler ended with code {scheduler.returncode}"
                        break
            finally:
                if watch.poll() is None:
                    watch.terminate()
                watch.wait()
        if run.state != "success":
            run.why += self._last_lines(dag_id, run_id)
        return run

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Keep `airflow …` running; its output goes to a log beside the others."""
        with (self.home / f"{words[0]}.log").open("ab") as log:
            # A session of its own: its children outlive a SIGTERM to it alone.
            process = subprocess.Popen(
                [str(self.bin / "airflow"), *words], env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            for signum in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, signum)
                    process.wait(timeout=15)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue

    def call(self, *words: str) -> str:
        """Run `airflow …` to its end and return what it said.

        Raises:
            SystemExit: It failed; the end of what it said is shown.
        """
        done = subprocess.run([self.bin / "airflow", *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"demo: `airflow {' '.join(words[:2])}` failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def _last_lines(self, dag_id: str, run_id: str) -> str:
        logs = sorted(
            (self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}").rglob("*.log"),
            key=lambda file: file.stat().st_mtime,
        )
        if not logs:
            return f"no task began; see {self.home / 'scheduler.log'} and {self.home / 'dag_run.log'}"
        lines = logs[-1].read_text(errors="replace").splitlines()[-25:]
        return f"the end of {logs[-1]}:\n" + "\n".join(lines)


def metadata(dsn: str) -> str:
    """Make a database for Airflow on the server of a DSN when there is none, and return its address."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (_DATABASE,)).fetchall():
            connection.execute(f"CREATE DATABASE {_DATABASE}")
    scheme, _, server = dsn.rpartition("/")[0].partition("://")
    return f"{scheme}+psycopg2://{server}/{_DATABASE}"


def connections(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the four connections of the DAG, in the form that AIRFLOW_CONN_ variables take."""
    mongo, postgres = urlsplit(status["mongo"]["uri"]), urlsplit(status["postgres"]["dsn"])
    hosts = mongo.netloc.rpartition("@")[2]
    return {
        "kafka_remote": {"conn_type": "kafka", "extra": remote_properties(status)},
        "kafka_default": {"conn_type": "kafka", "extra": {"bootstrap.servers": status["kafka"]["bootstrap"]}},
        "mongo_default": {"conn_type": "mongo", "host": hosts, "extra": dict(parse_qsl(mongo.query))},
        "postgres_default": {
            "conn_type": "postgres",
            "host": postgres.hostname,
            "port": postgres.port,
            "login": unquote(postgres.username or ""),
            "password": unquote(postgres.password or ""),
            "schema": postgres.path.lstrip("/"),
            "extra": dict(parse_qsl(postgres.query)),
        },
    }
