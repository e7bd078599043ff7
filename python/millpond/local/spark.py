"""A standalone Spark cluster: one master and its workers, as the reference deployment has them, on 127.0.0.1.

The daemons are those of the package `pyspark`, in this or in another environment. Refuses to start a session: that is
what its users do.
"""

import importlib.util
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from millpond.local import ports, processes
from millpond.local.errors import LocalError
from millpond.local.startup import end_of_log

_PATIENCE_S = 240.0


def home(environment: Path | None = None) -> Path:
    """Return the directory of the package `pyspark`, of this Python's environment or of another one.

    Raises:
        LocalError: It is not installed there.
    """
    if environment is not None:
        for found in environment.glob("lib/python3.*/site-packages/pyspark"):
            return found
    else:
        spec = importlib.util.find_spec("pyspark")
        for place in (spec.submodule_search_locations or []) if spec else []:
            return Path(place)
    raise LocalError("Spark is not installed: pip install 'millpond[spark]'")


@dataclass
class Cluster:
    """A running cluster; `start`, `stop` and `kill` are for tests that disturb it."""

    directory: Path
    home: Path
    python: Path
    cores: int = 1
    memory: str = "1g"
    ports: list[int] = field(default_factory=list)

    @property
    def master(self) -> str:
        """The address that a session connects to."""
        return f"spark://127.0.0.1:{self.ports[0]}"

    @property
    def page(self) -> str:
        """The master's page."""
        return f"http://127.0.0.1:{self.ports[1]}"

    def state(self) -> dict[str, Any]:
        """Return what the master tells of its workers and applications; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.page}/json/", timeout=2) as answer:  # noqa: S310 - http, and our own
                told: dict[str, Any] = json.load(answer)
                return told
        except (OSError, ValueError):
            return {}

    def start(self, workers: int) -> None:
        """Start the master and its workers, and wait until all have registered.

        Raises:
            LocalError: Java is missing, or a daemon did not come up; the message ends with its log.
        """
        if shutil.which("java") is None:
            raise LocalError("java is not on the PATH: install JDK 17 (Debian: apt-get install openjdk-17-jdk)")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory = self.directory.resolve()
        self.ports = self.ports or ports.reserve(self.directory, 2)
        port, page = map(str, self.ports)
        options = ["--host", "127.0.0.1", "--port", port, "--webui-port", page]
        self._spawn("spark-master", "org.apache.spark.deploy.master.Master", options)
        self._await("spark-master", lambda told: told.get("status") == "ALIVE")
        for number in range(1, workers + 1):
            self.start_worker(number)
        self._await(f"spark-worker-{workers}", lambda told: told.get("aliveworkers") == workers)

    def start_worker(self, number: int, host: str = "127.0.0.1") -> None:
        """Start worker `number` at a loopback address, which Spark takes for a host, and do not wait for it."""
        options = ["--host", host, "--webui-port", "0", "--cores", str(self.cores), "--memory", self.memory]
        options += ["--work-dir", str(self.directory / f"work-{number}"), self.master]
        self._spawn(f"spark-worker-{number}", "org.apache.spark.deploy.worker.Worker", options)

    def stop_worker(self, number: int) -> None:
        """End worker `number` and its executors."""
        name = f"spark-worker-{number}"
        processes.end([process for mark, process in processes.marked(self.directory) if mark == name])

    def stop(self) -> None:
        """End the daemons and their executors."""
        processes.end([process for _, process in processes.marked(self.directory)])

    def executors(self) -> list[psutil.Process]:
        """Return the JVMs of the executors that run now."""
        found = []
        for _, process in processes.marked(self.directory):
            try:
                if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _spawn(self, name: str, daemon: str, options: list[str]) -> None:
        settings = {
            "SPARK_HOME": self.home,
            "PYSPARK_PYTHON": self.python,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_LOCAL_DIRS": self.directory / "scratch",
        }
        # What the executors are to import is said by sessions, not by whoever starts a worker.
        command = ["env", "-u", "PYTHONPATH", *(f"{key}={value}" for key, value in settings.items())]
        command += [str(self.home / "bin" / "spark-class"), daemon, *options]
        processes.spawn(command, stack=self.directory, server=name, log=self._log(name), cwd=self.directory)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _await(self, name: str, ready: Any) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not ready(self.state()):
            if name not in processes.running(self.directory) or time.monotonic() > deadline:
                log = self._log(name)
                raise LocalError(f"{name} did not come up; {end_of_log(log, processes.last_start(log))}")
            time.sleep(0.2)


@contextmanager
def cluster(
    directory: Path, *, environment: Path | None = None, workers: int = 2, cores: int = 1, memory: str = "1g"
) -> Iterator[Cluster]:
    """Run a cluster as long as the block does.

    Args:
        directory: Where logs and scratch files go; removed at the end.
        environment: A virtual environment with `pyspark`, whose Python the executors run. Default: this one.
        workers: How many workers.
        cores: Cores of each.
        memory: Memory for the executors of each, as Spark spells it.

    Raises:
        LocalError: As `home` and `Cluster.start`.
    """
    import sys

    python = Path(sys.executable) if environment is None else environment / "bin" / "python"
    made = Cluster(directory, home(environment).absolute(), python.absolute(), cores, memory)
    try:
        made.start(workers)
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)
