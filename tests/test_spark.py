"""The same reports on a Spark cluster: every row as the native engine makes it, and executors that may be killed."""

import random
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest
from tests.hand_sunk import Collection
from tests.report_tables import COLUMNS, published, store
from tests.spark_driver import registered, rows
from tests.spark_sessions import Session, Spark
from tests.test_reports import DATES, document_of

import millpond
from millpond import functions
from millpond import reports as r

BOOKS = ("scanned", "counted", "excluded", "excluded_keys", "dates", "rows", "positions", "repeatable", "unplaced")
REPORTS = [
    r.Report(
        table="by_region",
        key={"region": r.call("region", "store_id"), "hour": r.hour()},
        metrics={"n": r.count(), "visitors": r.count_distinct("device_id"), "spent": r.sum("price"),
                 "least": r.min("price"), "mean": r.mean("price"), "first": r.min("product_id")},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def session(spark: Spark) -> Iterator[Session]:
    """One session for all tests that do not disturb it."""
    with spark.session() as made:
        yield made


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(functions, "_REGISTRY", {})
    registered()


def native(*positional: Any, **keywords: Any) -> dict[str, Any]:
    result = millpond.aggregate(*positional, **keywords)
    return {"books": result.to_dict(), "tables": rows(result.tables)}


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Every row and every count; what differs by engine and moment is left out."""
    assert "error" not in one, one
    assert one["tables"] == other["tables"]
    for name in BOOKS:
        assert one["books"][name] == other["books"][name], name
    assert one["books"]["engine"] == "spark"


def collection(servers: Any, name: str, count: int) -> random.Random:
    """Random documents of every kind of time and key, late ones and huge keys among them."""
    chance = random.Random(name)
    documents = [document_of(chance, DATES) | {"price": chance.choice([1, 2.5, -3, None, "x"])} for _ in range(count)]
    documents = list({repr(document["_id"]): document for document in documents}.values())
    store(servers, name, documents)
    return chance


def empty(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in COLUMNS:
            connection.execute(f"DROP TABLE IF EXISTS {table} CASCADE")


def test_every_row_is_the_native_one(servers, name, postgres, session):
    collection(servers, name, 3_000)
    words = {"database": "tests", "collection": name}
    for number, dates in enumerate(["all", "latest", f"{DATES[5]}..{DATES[8]}"]):
        empty(postgres)
        mine = native(servers.mongo_uri, postgres, **words, dates=dates)
        there = published(postgres)
        empty(postgres)
        tasks = {"spark.millpond.tasks": "173"[number], "spark.millpond.merges": "143"[number]}
        theirs = session.aggregate(servers.mongo_uri, postgres, **words, dates=dates, conf=tasks)
        print(dates, tasks, theirs["seconds"], theirs["books"]["phases"])
        alike(theirs, mine)
        assert published(postgres) == there
    with psycopg.connect(postgres) as connection:
        engines = connection.execute("SELECT engine FROM millpond_runs ORDER BY created_at").fetchall()
    assert [engine for (engine,) in engines] == ["native", "spark"] * 3


def test_native_incremental_and_spark_give_the_same_rows(servers, name, postgres, session):
    """Random events, late ones among them, and functions: one Partial kept and added to, and two readings of it all."""
    chance = random.Random(name)
    reports = r.definitions(["product_views", *REPORTS])
    words = {"database": "tests", "collection": name, "reports": reports, "keep_partials_days": 36_500}

    def events(dates: list[str], count: int) -> list[dict[str, Any]]:
        made = [document_of(chance, dates) | {"price": chance.choice([1, 2.5, -3, None, "x"])} for _ in range(count)]
        # Times in a list stand in the index on dates that they are not of: such dates are read as a whole.
        kept = [event for event in made if not isinstance(event.get("timestamp"), list)]
        return [{field: value for field, value in event.items() if field != "_id"} for event in kept]

    with servers.mongo() as client:
        stored = Collection(client, name, topics=2)
        stored.arrive(events(DATES, 1_500), partition=1)
        native(servers.mongo_uri, postgres, **words, dates="all")
        for late in (DATES[:4], DATES[5:7], DATES):
            stored.arrive(events(late, 200), partition=chance.randrange(3), topic=1)
            native(servers.mongo_uri, postgres, **words, dates="changed")
        stored.land(events(DATES, 50), topic=1)
        words["dates"] = native(servers.mongo_uri, None, **words, dates="all", mode="full")["books"]["dates"]
        kept = native(servers.mongo_uri, postgres, **words)
        assert (kept["books"]["mode"], kept["books"]["full_scans"]) == ("incremental", {})
        mine = native(servers.mongo_uri, None, **words, mode="full")
        there = published(postgres)
        empty(postgres)
        conf = {"spark.millpond.tasks": "5", "spark.millpond.merges": "2"}
        theirs = session.aggregate(servers.mongo_uri, postgres, **words, conf=conf)
        alike(theirs, mine)
        assert theirs["tables"] == kept["tables"]
        assert published(postgres) == there
        assert len(there["product_views_daily"]) > 100
        assert len(theirs["tables"]["by_region"]) > 20


def test_own_reports_and_functions(servers, name, session):
    collection(servers, name, 2_000)
    words = {"database": "tests", "collection": name, "dates": "all"}
    reports = r.definitions(REPORTS)
    mine = native(servers.mongo_uri, None, **words, reports=reports)
    theirs = session.aggregate(servers.mongo_uri, None, **words, reports=reports, conf={"spark.millpond.tasks": "4"})
    alike(theirs, mine)
    broken = r.definitions(r.Report("t", {"k": r.call("broken", "store_id")}, {"n": r.count()}))
    told = session.aggregate(servers.mongo_uri, None, **words, reports=broken)["error"]
    assert told["kind"] == "DataError"
    assert "broken raised ValueError" in told["message"]
    assert "executor on" in told["message"]


SLOW = r.Report(
    "by_store", {"store": r.call("slowly", "store_id")}, {"n": r.count(), "v": r.count_distinct("device_id")}
)


@pytest.mark.parametrize("victim", ["executor", pytest.param("worker", marks=pytest.mark.chaos)])
def test_a_killed_executor_changes_no_row(servers, name, spark, session, victim):
    collection(servers, name, 2_500)
    words = {"database": "tests", "collection": name, "dates": "all", "reports": r.definitions(SLOW)}
    mine = native(servers.mongo_uri, None, **words)
    session.send(servers.mongo_uri, None, **words, conf={"spark.millpond.tasks": "8"})
    killed = kill(spark, victim)
    assert killed.wait(10) is not None or not killed.is_running()
    alike(session.answer(), mine)


def test_a_cancelled_run_ends_its_spark_job(servers, name, session):
    collection(servers, name, 2_500)
    words = {"database": "tests", "collection": name, "dates": "all", "reports": r.definitions(SLOW)}
    session.send(servers.mongo_uri, None, **words, conf={"spark.millpond.tasks": "40"}, cancel_after=2)
    told = session.answer()
    assert told["error"]["kind"] == "Cancelled"
    # Far from the time that its tasks would take, however slow the machine is.
    assert told["seconds"] < 2 + 10
    # What was left of its forty tasks does not stand in the way.
    began = time.monotonic()
    assert "error" not in session.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="latest")
    assert time.monotonic() - began < 40


def kill(spark: Spark, victim: str) -> psutil.Process:
    """SIGKILL to an executor that folds, or to a Python process of one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for executor in spark.cluster.executors():
            busy = [child for child in executor.children(recursive=True) if mapped(child)]
            if busy:
                chosen = executor if victim == "executor" else busy[-1]
                time.sleep(0.5)
                chosen.kill()
                return chosen
        time.sleep(0.05)
    raise AssertionError("no executor folds")


def mapped(process: psutil.Process) -> bool:
    """Whether the kernel is loaded there, and at work."""
    try:
        loaded = any("_native" in region.path for region in process.memory_maps())
        return loaded and process.num_threads() > 2
    except psutil.Error:
        return False


def test_no_credential_is_shown_or_logged(servers, name, postgres, spark, session):
    collection(servers, name, 500)
    secret = f"secret-of-{name}"
    uri = f"{servers.mongo_uri}&appName={secret}"
    told = session.aggregate(uri, postgres, database="tests", collection=name, dates="all")
    page, application = told["books"]["spark"]["page"], told["books"]["spark"]["application"]
    api = f"{page}/api/v1/applications/{application}"
    shown = ""
    for address in (
        f"{api}/environment", f"{api}/jobs", f"{api}/stages?details=true",
        f"{api}/sql?details=true&planDescription=true",
        f"{page}/environment/", f"{page}/SQL/", f"{page}/jobs/", f"{page}/stages/",
    ):  # fmt: skip
        with urllib.request.urlopen(address, timeout=20) as answer:
            shown += answer.read().decode()
    assert "MapInArrow" in shown
    assert f"millpond: tests.{name}" in shown
    logs = [*spark.events.iterdir(), spark.folder / "driver.log", *spark.cluster.directory.rglob("std*")]
    kept = "".join(log.read_text(errors="replace") for log in logs)
    assert f"millpond: tests.{name}" in kept, "the event log is looked at"
    for hidden in (secret, servers.mongo_uri, "millpond-local-only"):
        assert hidden not in shown
        assert hidden not in kept
