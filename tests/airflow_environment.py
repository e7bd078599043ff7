"""Airflow in an environment of its own, 2.10.4 unless another is named, for tests: a home, connections, ways to run.

Owns the subprocesses. Refuses to stand in for Airflow: all of it is the real one.
"""

import json
import os
import secrets
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "dags"
ENVIRONMENT = Path(os.environ.get("MILLPOND_TEST_AIRFLOW", ROOT / ".venv" / "airflow-2.10")).absolute()
ENVIRONMENT_3 = Path(os.environ.get("MILLPOND_TEST_AIRFLOW_3", ROOT / ".venv" / "airflow-3")).absolute()
MAJORS = {2: ENVIRONMENT, 3: ENVIRONMENT_3}

_TRIGGER = """
import json, sys
from airflow.api.common.trigger_dag import trigger_dag
from airflow.models import DagBag
from airflow.settings import DAGS_FOLDER
bag = DagBag(DAGS_FOLDER, include_examples=False)
assert not bag.import_errors, bag.import_errors
bag.sync_to_db()
trigger_dag(dag_id=sys.argv[1], run_id=sys.argv[2], conf=json.loads(sys.argv[3]))
"""
_OUTCOME = """
import json, sys
from airflow.models import DagRun, XCom
from airflow.utils.session import create_session
dag_id, task_id, run_id = sys.argv[1:]
with create_session() as session:
    run = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)[0]
    task = run.get_task_instance(task_id, session=session)
    row = session.query(XCom).filter_by(dag_id=dag_id, task_id=task_id, run_id=run_id, key="return_value").one_or_none()
    print("ANSWER" + json.dumps({
        "state": str(task.state),
        "books": row and row.value,
        "xcom_bytes": len(json.dumps(row and row.value)),
    }))
"""


@dataclass
class Outcome:
    """How a task ended."""

    state: str
    books: dict[str, Any] | None
    xcom_bytes: int
    log: str


class Airflow:
    """One AIRFLOW_HOME. What runs in it keeps its metadata in a database of its own on the server of `dsn`.

    No SQLite: that refuses a writer at once whose snapshot another process has overtaken, however long it may wait; and
    each task is two processes.
    """

    def __init__(
        self,
        home: Path,
        connections: dict[str, dict[str, Any]] | None = None,
        environment: Path = ENVIRONMENT,
        dsn: str = "",
    ) -> None:
        """Make the home, and the database: `drop` removes it."""
        self.home = home
        self.bin = environment / "bin"
        self.dags = home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        self.env = os.environ | {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            # A task that ends would put the next one in a queue that nobody empties here.
            "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
            # Of what only imports.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        for name, told in (connections or {}).items():
            self.connect(name, told)
        self._dsn, self._database = dsn, f"t{secrets.token_hex(5)}"
        if dsn:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {self._database}")
            scheme, _, server = dsn.rpartition("/")[0].partition("://")
            self.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"{scheme}+psycopg2://{server}/{self._database}"

    def drop(self) -> None:
        """Remove the database, whoever is still connected."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self._database} WITH (FORCE)")

    def connect(self, name: str, connection: dict[str, Any] | str) -> None:
        """Define a connection, as a mapping or a URI, for what is started from now on."""
        text = connection if isinstance(connection, str) else json.dumps(connection)
        self.env[f"AIRFLOW_CONN_{name.upper()}"] = text

    def trigger(self, dag_id: str, source: str, conf: dict[str, Any] | None = None) -> str:
        """Write a DAG file, make a run and return its id. No scheduler runs: tasks are ours to run."""
        (self.dags / f"{dag_id}.py").write_text(source)
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        self.python("-c", _TRIGGER, dag_id, run_id, json.dumps(conf or {}))
        return run_id

    def start_task(self, dag_id: str, task_id: str, run_id: str) -> subprocess.Popen[str]:
        """Start a task as a worker does: a job that forks, watches and, on SIGTERM, ends it."""
        return self.start("tasks", "run", dag_id, task_id, run_id, "--local", "--subdir", str(self.dags))

    def child_ended(self, job: subprocess.Popen[str]) -> bool:
        """Whether the process that runs the operator's code is gone."""
        try:
            children = psutil.Process(job.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return True
        return not any(child.status() != psutil.STATUS_ZOMBIE for child in children)

    def run_task(self, dag_id: str, task_id: str, run_id: str, timeout: float = 480) -> "Outcome":
        """Run a task to its end."""
        with self.start_task(dag_id, task_id, run_id) as job:
            job.communicate(timeout=timeout)
        return self.outcome(dag_id, task_id, run_id)

    def outcome(self, dag_id: str, task_id: str, run_id: str) -> "Outcome":
        """Return how a task ended, what it left in XCom, and its log."""
        said = self.python("-c", _OUTCOME, dag_id, task_id, run_id)
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        log = "".join(file.read_text() for file in sorted(folder.glob("*.log")))
        return Outcome(log=log, **json.loads(said.partition("ANSWER")[2]))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `airflow …` with its output, both streams, in one pipe."""
        command = [str(self.bin / "airflow"), *words]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def call(self, *words: str, timeout: float = 480) -> str:
        """Run `airflow …` to its end and return what it said; a failure shows it."""
        return self._finish([str(self.bin / "airflow"), *words], timeout)

    def python(self, *words: str, timeout: float = 480) -> str:
        """Run Python in Airflow's environment and return what it said; a failure shows it."""
        return self._finish([str(self.bin / "python"), *words], timeout)

    def _finish(self, command: list[str], timeout: float) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{command}: code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout
