"""Dates read from both ends of their collection: each document once, as by the index, whatever happens beside."""

import logging
import os
from typing import Any

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS
from tests.fault_servers import met
from tests.report_tables import counts, published, store, views

import millpond
from millpond.local import Stack

DAY, NEXT = "2025-10-31", "2025-11-01"
# Beside these one question does not do, and ranges of the index are asked for.
FAR = ["1990-01-01", "1990-01-03", "1990-01-05"]


def run(servers: Any, name: str, dsn: str | None, dates: Any = DAY, **words: Any) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, dates=dates, **words)


@pytest.fixture
def told(caplog):
    """Whether the last run said that it read from both ends."""
    caplog.set_level(logging.INFO)

    def so() -> bool:
        said = "from both ends" in caplog.text
        caplog.clear()
        return said

    return so


def events(count: int, *, padding: int = 0) -> list[dict[str, Any]]:
    """A tenth is of another date, and a tenth has a BSON date."""
    made = views(DAY, count)
    for i, event in enumerate(made):
        event |= {"product_id": f"p{i % 1_000}", "padding": "x" * padding}
        if i % 10 == 0:
            event["timestamp"] = event["timestamp"].replace(DAY, NEXT)
        if i % 10 == 1:
            event["timestamp"] = DatetimeMS(1_761_868_800_000 + i)
    return made


def test_each_document_is_counted_once_however_the_readers_meet(servers, name, postgres, told):
    """Ten batches and more, so that they meet in the middle of any of them."""
    store(servers, name, events(60_000, padding=400))
    indexed = run(servers, name, postgres, [DAY, *FAR])
    rows = published(postgres, DAY)
    assert not told()
    for _ in range(10):
        both = run(servers, name, postgres)
        assert told()
        assert (both.scanned, both.counted, both.excluded) == (54_000, 54_000, indexed.excluded)
        assert published(postgres, DAY) == rows
    whole = run(servers, name, postgres, "all")
    assert told()
    assert (whole.scanned, whole.counted) == (60_000, 60_000)
    assert published(postgres, DAY) == rows


@pytest.mark.parametrize("share", [1, 50])
def test_what_is_little_of_a_large_collection_is_fetched(servers, name, told, share):
    """By a sample, which is a rough one; two readers pass by, and as many fetch as there are cores."""
    count = 101_000
    store(servers, name, views(DAY, count // share) + views(NEXT, count - count // share))
    result = run(servers, name, None)
    both = share == 1 and len(os.sched_getaffinity(0)) <= 8
    assert (result.scanned, result.counted, told()) == (count // share, count // share, both)


def test_one_moment_is_read_whatever_comes_meanwhile(servers, name, postgres):
    """Stopped after the first batch: documents come at both ends, go, grow, and change their date."""
    store(servers, name, events(60_000))
    words = {"mongo_uri": servers.mongo_uri, "postgres_dsn": postgres, "database": "tests", "collection": name}
    with servers.mongo() as client, met("while_reading:1", words | {"dates": DAY}) as stopped:
        collection = client["tests"][name]
        collection.insert_many(views(DAY, 1_000, "new"))
        collection.delete_many({"device_id": {"$gte": 100, "$lt": 20_000}})
        collection.update_many({"device_id": {"$gte": 20_000, "$lt": 40_000}}, {"$set": {"padding": "x" * 1_000}})
        collection.update_many({"device_id": {"$gte": 50_000}}, {"$set": {"timestamp": f"{NEXT}T00:00:00Z"}})
    assert (stopped.answer["scanned"], stopped.answer["counted"]) == (54_000, 54_000)
    assert sum(counts(postgres).values()) == 54_000


def test_without_an_index_one_pass_finds_every_form(servers, name, told):
    times = [f"{DAY}T00:00:00Z", f"{DAY} 01:00:00", f"{NEXT}T05:00:00+07:00", DatetimeMS(1_761_868_800_000), [f"{DAY}"]]
    with servers.mongo() as client:
        client["tests"][name].insert_many([{"product_id": "p", "timestamp": time} for time in [*times, NEXT, None]])
    result = run(servers, name, None, allow_scan=True)
    assert (result.scanned, result.counted, told()) == (4, 4, True)


def test_where_collections_may_not_be_scanned_the_index_is_used(tmp_path, told):
    stack = Stack(tmp_path / "stack")
    try:
        uri = stack.up(["mongo"])["mongo"]["uri"]
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            client["tests"]["events"].create_index("timestamp")
            client["tests"]["events"].insert_many(events(100))
            client.admin.command("setParameter", 1, notablescan=True)
        for dates, counted in ((DAY, 90), ("all", 100)):
            result = millpond.aggregate(uri, None, database="tests", collection="events", dates=dates)
            assert (result.scanned, result.counted, told()) == (counted, counted, False)
    finally:
        stack.down(delete=True)


def test_what_has_no_past_is_read_by_the_index(servers, name, told):
    """Both readers have to see the same documents."""
    with servers.mongo() as client:
        client["tests"].create_collection(name, capped=True, size=1_000_000)
    store(servers, name, views(DAY, 3))
    assert (run(servers, name, None).counted, told()) == (3, False)
