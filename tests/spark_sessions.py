"""A standalone Spark cluster of one master and two workers for tests, and sessions on it in processes of their own.

Spark lives in an environment of its own (`.venv/spark`, or MILLPOND_TEST_SPARK), without millpond: drivers get a copy
of the package by PYTHONPATH, executors by what is tested.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import millpond
from millpond.local.spark import Cluster, cluster

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = Path(os.environ.get("MILLPOND_TEST_SPARK", ROOT / ".venv" / "spark")).absolute()


@dataclass
class Session:
    """A driver's process, and what it was told."""

    process: subprocess.Popen[str]
    application: str

    def send(
        self, *positional: Any, conf: dict[str, str] | None = None, cancel_after: float = 0, **keywords: Any
    ) -> None:
        assert self.process.stdin is not None
        call: dict[str, Any] = {"positional": positional, "keywords": keywords, "conf": conf or {}}
        call["cancel_after"] = cancel_after
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the driver died"
        told: dict[str, Any] = json.loads(line)
        return told

    def aggregate(self, *positional: Any, conf: dict[str, str] | None = None, **keywords: Any) -> dict[str, Any]:
        self.send(*positional, conf=conf, **keywords)
        return self.answer()


@dataclass
class Spark:
    """A running cluster and the folder of its tests."""

    cluster: Cluster
    folder: Path

    @property
    def package(self) -> Path:
        """A folder that holds the package alone, as a driver's PYTHONPATH."""
        place = self.folder / "driver"
        if not place.exists():
            source = Path(millpond.__file__).parent
            shutil.copytree(source, place / "millpond", ignore=shutil.ignore_patterns("__pycache__", "local"))
        return place

    @property
    def events(self) -> Path:
        """Where sessions write their event logs."""
        place = self.folder / "events"
        place.mkdir(exist_ok=True)
        return place

    @property
    def environment(self) -> dict[str, str]:
        """What a driver is started with."""
        return os.environ | {"PYTHONPATH": str(self.package), "PYSPARK_PYTHON": str(self.cluster.python)}

    @contextmanager
    def session(self, python: str = "", **settings: str) -> Iterator[Session]:
        """A session; a name's two underscores stand for a dot. `python`: what executors run, if not its own."""
        given = {
            "spark.master": self.cluster.master,
            "spark.driver.host": "127.0.0.1",
            "spark.ui.showConsoleProgress": "false",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": self.events.as_uri(),
        }
        given |= {name.replace("__", "."): value for name, value in settings.items()}
        command = [str(self.cluster.python), str(ROOT / "tests" / "spark_driver.py"), json.dumps(given)]
        environment = self.environment | ({"PYSPARK_PYTHON": python} if python else {})
        with (self.folder / "driver.log").open("a") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            made = Session(process, "")
            made.application = made.answer()["application"]
            yield made
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def spark_servers() -> Iterator[Spark]:
    """A cluster of two workers with a core and a gigabyte each, as long as the block."""
    with tempfile.TemporaryDirectory(prefix="millpond-spark-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory)
        with cluster(folder / "cluster", environment=ENVIRONMENT) as running:
            yield Spark(running, folder)
