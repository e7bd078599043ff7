"""What a Spark cluster may lack or lose: an error that names the host and what to do, and the old report stays."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.mongo_proxy import Cut, Proxy
from tests.report_tables import published, store, until, views
from tests.spark_sessions import Session
from tests.test_spark import alike, collection, native, registry

import millpond
from millpond import reports as r

__all__ = ["registry"]
DAY = "2025-10-31"


def words(servers: Any, name: str) -> dict[str, Any]:
    return {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name, "dates": DAY}


def refused(**keywords: Any) -> millpond.ConfigError:
    with pytest.raises(millpond.ConfigError) as caught:
        millpond.aggregate("mongodb://127.0.0.1:1", None, database="d", collection="c", **keywords)
    return caught.value


def test_what_is_refused_before_anything_is_asked():
    """Here is no pyspark; and one of the two arguments alone is a mistake."""
    assert "pyspark cannot be imported" in str(refused(engine="spark", spark="spark://127.0.0.1:1"))
    assert "millpond[spark]" in refused(engine="spark", spark="spark://127.0.0.1:1").hint
    assert "give both" in refused(engine="spark").hint
    assert "give both" in refused(spark="spark://127.0.0.1:1").hint
    assert "native" in refused(engine="sparks").hint


@pytest.fixture
def stands(servers, name, postgres: str) -> str:
    """A collection with a report that must stay."""
    store(servers, name, views(DAY, 50))
    millpond.aggregate(postgres_dsn=postgres, **words(servers, name))
    store(servers, name, views(DAY, 50, key="q"))
    return postgres


def fails(session: Session, servers: Any, name: str, dsn: str, **more: Any) -> dict[str, str]:
    """The error, which leaves what stands."""
    before = published(dsn)
    answer = session.aggregate(postgres_dsn=dsn, **words(servers, name) | more)
    assert published(dsn) == before
    assert "error" in answer, answer
    error: dict[str, str] = answer["error"]
    return error


@pytest.mark.chaos
def test_a_prepared_image_is_sent_nothing(servers, name, stands, spark, tmp_path):
    prepared = tmp_path / "prepared"
    shutil.copytree(spark.package, prepared)
    described(prepared, millpond.__version__)
    with spark.session(spark__executorEnv__PYTHONPATH=str(prepared)) as session:
        answer = session.aggregate(postgres_dsn=stands, **words(servers, name))
    assert answer["books"]["counted"] == 100
    assert answer["archives"] == []


@pytest.mark.chaos
def test_executors_without_the_package_are_sent_it(servers, name, stands, spark, tmp_path):
    """Nothing there, or another version."""
    described(tmp_path, "0.0.1")
    for place in ("/nowhere", str(tmp_path)):
        with spark.session(spark__executorEnv__PYTHONPATH=place) as session:
            answer = session.aggregate(postgres_dsn=stands, **words(servers, name))
        assert answer["books"]["counted"] == 100
        assert len(answer["archives"]) == 1


def described(folder: Path, version: str) -> None:
    """Say that a version of the package is installed in a folder."""
    (folder / "millpond").mkdir(exist_ok=True)
    (folder / "millpond" / "__init__.py").touch()
    place = folder / f"millpond-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: millpond\nVersion: {version}\n")


@pytest.mark.chaos
def test_a_package_that_cannot_be_loaded_names_the_host(servers, name, stands, spark, tmp_path):
    described(tmp_path, millpond.__version__)
    (tmp_path / "millpond" / "_native.abi3.so").write_bytes(b"of another machine")
    with spark.session(spark__executorEnv__PYTHONPATH=str(tmp_path)) as session:
        error = fails(session, servers, name, stands)
    assert error["kind"] == "ConfigError"
    assert "ImportError" in error["message"]
    assert f"executor on {socket.gethostname()}" in error["message"]


@pytest.mark.chaos
def test_an_executor_without_pyarrow_is_named(servers, name, stands, spark, tmp_path):
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name, *rest: None if name == 'pyarrow' else find(name, *rest)\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    with spark.session(spark__executorEnv__PYTHONPATH=str(tmp_path)) as session:
        error = fails(session, servers, name, stands)
    assert error["kind"] == "ConfigError"
    assert f"pyarrow is missing on Spark's executor on {socket.gethostname()}" in error["message"]


CLAIM = """
import types, pyspark.worker_util as worker
compare = worker.check_python_version
def claimed(infile):
    own, worker.sys = worker.sys, types.SimpleNamespace(version_info=(3, 8))
    try:
        compare(infile)
    finally:
        worker.sys = own
worker.check_python_version = claimed
"""


def another_python(folder: Path) -> tuple[str, str, dict[str, str]]:
    """An interpreter of another minor version, its number and a session's settings.

    Where this machine has one version alone, its own one claims to be another when Spark compares.
    """
    here, places = f"python3.{sys.version_info[1]}", os.environ["PATH"].split(os.pathsep)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    places += [str(place) for place in pyenv.glob("versions/*/bin")]
    for path in (path for place in places for path in sorted(Path(place).glob("python3.*"))):
        minor = path.suffix[1:]
        if path.name != here and minor.isdecimal() and int(minor) > 7:
            # A shim may start another, or none.
            ask = [str(path), "-c", "import sys; print(sys.version_info[1])"]
            if subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() == minor:
                return str(path), minor, {}
    (folder / "sitecustomize.py").write_text(CLAIM)
    return "", "8", {"spark__executorEnv__PYTHONPATH": str(folder)}


def test_another_python_on_the_executors_is_told(servers, name, stands, spark, tmp_path):
    python, minor, settings = another_python(tmp_path)
    with spark.session(python, **settings) as session:
        error = fails(session, servers, name, stands)
    assert error["kind"] == "ConfigError", error
    assert "127.0.0.1" in error["message"]
    assert f"(3, {minor})" in error["message"], error
    assert f"Python 3.{sys.version_info[1]}" in error["hint"]
    assert "PYSPARK_PYTHON" in error["hint"]


@pytest.mark.chaos
def test_a_python_that_is_not_there_is_told(servers, name, stands, spark):
    with spark.session(python="/nowhere/python3") as session:
        error = fails(session, servers, name, stands)
    assert error["kind"] == "ExternalError"
    assert "127.0.0.1" in error["message"]
    assert "/nowhere/python3" in error["message"], error
    assert "PYSPARK_PYTHON" in error["hint"]


@pytest.mark.chaos
def test_another_spark_on_the_executors_is_told(servers, name, stands, spark, tmp_path):
    """No other Spark is on this machine: here the executors' own says that it is one."""
    (tmp_path / "sitecustomize.py").write_text("import pyspark\npyspark.__version__ = '3.4.4'\n")
    with spark.session(spark__executorEnv__PYTHONPATH=str(tmp_path)) as session:
        error = fails(session, servers, name, stands)
    assert error["kind"] == "ConfigError", error
    assert f"Spark 3.4.4 on the executor on {socket.gethostname()}" in error["message"]
    assert "pyspark==3.4.4" in error["hint"]


DIES = r.Report("t", {"k": r.call("dies", "store_id")}, {"n": r.count()})


@pytest.mark.parametrize("victim", ["python", pytest.param("executor", marks=pytest.mark.chaos)])
def test_executors_that_die_again_and_again_are_told(servers, name, stands, spark, victim):
    """What runs out of memory is killed, by the kernel: its Python process, where tasks fold, or the JVM above it."""
    with spark.session(spark__executorEnv__MILLPOND_TEST_DIES=victim) as session:
        error = fails(session, servers, name, stands, reports=r.definitions(DIES))
        assert error["kind"] == "ExternalError"
        assert "127.0.0.1" in error["message"], error
        assert "spark.millpond.tasks" in error["hint"]
        # The session is as good as before.
        assert session.aggregate(postgres_dsn=stands, **words(servers, name))["books"]["counted"] == 100


STRAGGLER = r.Report(
    "by_store", {"store": r.call("straggles", "store_id")}, {"n": r.count(), "v": r.count_distinct("device_id")}
)


@pytest.fixture
def another_host(spark):
    """A worker elsewhere: Spark runs no twin on the host where the first try runs."""
    workers = spark.cluster.state()["aliveworkers"]
    spark.cluster.start_worker(3, "127.0.0.2")
    until(lambda: spark.cluster.state().get("aliveworkers") == workers + 1)
    yield
    spark.cluster.stop_worker(3)
    until(lambda: spark.cluster.state().get("aliveworkers") == workers)


@pytest.mark.chaos
@pytest.mark.usefixtures("another_host")
def test_a_speculative_twin_changes_no_row(servers, name, spark):
    collection(servers, name, 2_500)
    place = {"database": "tests", "collection": name, "dates": "all", "reports": r.definitions(STRAGGLER)}
    mine = native(servers.mongo_uri, None, **place)
    eager = {"multiplier": "1.01", "quantile": "0.1", "interval": "50ms", "minTaskRuntime": "50ms"}
    # Spark would look at the records of each task first, of which these have one.
    eager |= {"efficiency__enabled": "false"}
    settings = {f"spark__speculation__{word}": value for word, value in eager.items()}
    with spark.session(spark__speculation="true", **settings) as made:
        told = made.aggregate(servers.mongo_uri, None, **place, conf={"spark.millpond.tasks": "8"})
    alike(told, mine)
    # Cold executors are slow themselves: what happened is in the log, not in the time it took.
    log = next(file for file in spark.events.iterdir() if made.application in file.name).read_text()
    assert '"Speculative":true' in log, "there were no twins"


class OnlyFor(Proxy):
    """Lets one process through and no other: a network that executors have no way into."""

    def __init__(self, port: int, process: int) -> None:
        super().__init__(port, Cut(b"none", after=False))
        self.process = process

    def _accept(self) -> None:
        while True:
            try:
                client, (_, port) = self._listener.accept()
                if self.process not in owners(port):
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                return
            self._open |= {client, server}
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()


def owners(port: int) -> set[int | None]:
    with suppress(psutil.Error):
        return {one.pid for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port}
    return set()


@pytest.mark.chaos
def test_a_mongodb_that_executors_cannot_reach(servers, name, stands, spark):
    port = servers.status["mongo"]["nodes"][0]["port"]
    with spark.session() as session, OnlyFor(port, session.process.pid) as proxy:
        error = fails(session, servers, name, stands, mongo_uri=proxy.uri)
    assert error["kind"] == "ExternalError"
    assert f"executor on {socket.gethostname()}" in error["message"]
