"""A session that a run starts itself, from a master's URL: made, used and ended; and what is no master."""

import json
import socket
import subprocess
import time
from typing import Any

import pytest
from tests.report_tables import published, store, views
from tests.spark_driver import rows
from tests.spark_sessions import Spark

import millpond

DAY = "2025-10-31"
RUN = """
import json, sys, millpond
words = json.loads(sys.argv[1])
try:
    result = millpond.aggregate(**words, engine="spark")
    told = {"books": result.to_dict(), "rows": {name: [[repr(cell) for cell in row] for row in frame]
                                                for name, frame in result.tables.items()}}
except millpond.Error as error:
    told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
from pyspark import SparkContext
told["left"] = SparkContext._active_spark_context is not None
print(json.dumps(told))
"""


@pytest.fixture
def words(servers: Any, name: str, postgres: str) -> dict[str, Any]:
    """A call on a collection with a report that stands, and an event since."""
    place = {"mongo_uri": servers.mongo_uri, "postgres_dsn": postgres, "database": "tests", "collection": name}
    store(servers, name, views(DAY, 50))
    millpond.aggregate(**place)
    store(servers, name, views(DAY, 30, key="q"))
    return place


def run(spark: Spark, words: dict[str, Any], **more: str) -> dict[str, Any]:
    """Run a driver to its end; what it says last."""
    command = [str(spark.cluster.python), "-c", RUN, json.dumps(words)]
    environment = {name: value for name, value in (spark.environment | more).items() if value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("master", ["standalone", pytest.param("local[2]", marks=pytest.mark.chaos)])
def test_a_masters_url_starts_and_ends_a_session(words, spark, master):
    url = spark.cluster.master if master == "standalone" else master
    # Nobody says which Python a local one runs: it is this one, whatever python3 is.
    told = run(spark, words | {"spark": url}, **({} if master == "standalone" else {"PYSPARK_PYTHON": ""}))
    assert told["books"]["counted"] == 80, told
    assert not told["left"]
    mine = millpond.aggregate(**words | {"postgres_dsn": None, "mode": "full"})
    assert told["rows"] == rows(mine.tables)
    deadline = time.monotonic() + 20
    while spark.cluster.state()["activeapps"] or spark.cluster.executors():
        assert time.monotonic() < deadline, "something is left running"
        time.sleep(0.2)


def refused(spark: Spark, words: dict[str, Any], url: str) -> dict[str, Any]:
    before = published(words["postgres_dsn"])
    told = run(spark, words | {"spark": url})
    assert published(words["postgres_dsn"]) == before
    assert not told["left"]
    return told


def test_a_master_that_is_not_there_is_named_at_once(words, spark):
    began = time.monotonic()
    told = refused(spark, words, "spark://127.0.0.1:1,127.0.0.1:2")
    assert told["kind"] == "ExternalError", told
    assert "no master answers at spark://127.0.0.1:1,127.0.0.1:2" in told["message"]
    assert "refused" in told["message"]
    assert "running" in told["hint"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("url", ["127.0.0.1:7077", "spark://127.0.0.1", "sc://127.0.0.1:15002"])
def test_what_is_no_masters_url_is_refused(words, spark, url):
    told = refused(spark, words, url)
    assert told["kind"] == "ConfigError", told
    assert url in told["message"]
    assert "spark://host:7077" in told["hint"]


@pytest.mark.chaos
def test_a_server_that_is_no_master_is_told(words, spark):
    """It takes connections and says nothing: Spark gives up after a minute, and that is not tried again."""
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"spark://127.0.0.1:{listener.getsockname()[1]}"
        told = refused(spark, words, url)
    assert told["kind"] == "ExternalError", told
    assert url in told["message"]
    assert "same Spark version" in told["hint"]
    assert time.monotonic() - began < 110
