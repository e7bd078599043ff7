"""Airflow 2.10.4 in its own environment, for tests: a home, its connections, and ways to run things in it.

Owns the subprocesses. Refuses to stand in for Airflow: all of it is the real one.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "dags"
ENVIRONMENT = Path(os.environ.get("MILLPOND_TEST_AIRFLOW", ROOT / ".venv" / "airflow-2.10")).absolute()


class Airflow:
    """One AIRFLOW_HOME with a migrated database."""

    def __init__(self, home: Path, connections: dict[str, dict[str, Any]] | None = None) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        self.env = os.environ | {
            "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        for name, connection in (connections or {}).items():
            self.connect(name, connection)

    def connect(self, name: str, connection: dict[str, Any]) -> None:
        """Define a connection for what is started from now on."""
        self.env[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(connection)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `airflow …` with its output, both streams, in one pipe."""
        command = [str(ENVIRONMENT / "bin" / "airflow"), *words]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def call(self, *words: str, timeout: float = 180) -> str:
        """Run `airflow …` to its end and return what it said; a failure shows it."""
        return self._finish([str(ENVIRONMENT / "bin" / "airflow"), *words], timeout)

    def python(self, *words: str, timeout: float = 180) -> str:
        """Run Python in Airflow's environment and return what it said; a failure shows it."""
        return self._finish([str(ENVIRONMENT / "bin" / "python"), *words], timeout)

    def _finish(self, command: list[str], timeout: float) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{command}: code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout
