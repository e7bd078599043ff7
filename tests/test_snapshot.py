"""Documents that come, go and move while a run reads: its report is that of one moment, which the ledger names."""

import datetime as dt
import subprocess
from collections import Counter
from typing import Any

import pymongo
import pytest
from bson import DatetimeMS, Int64, ObjectId
from bson.timestamp import Timestamp
from tests.fault_servers import met
from tests.report_tables import counts, store, until, views

import millpond
from millpond.local import mongo, ports

DAY, NEXT = "2025-10-31", "2025-11-01"


def events(count: int = 240) -> list[dict[str, Any]]:
    """Events over all hours of two dates and in both kinds of time."""
    made = [event for date in (DAY, NEXT) for event in views(date, count)]
    for i, event in enumerate(made):
        event["product_id"] = f"p{i % 7}"
        if i % 5 == 0:
            event["timestamp"] = DatetimeMS(dt.datetime.fromisoformat(event["timestamp"]))
    return made


def disturb(client: pymongo.MongoClient[dict[str, Any]], name: str) -> None:
    """Documents arrive, leave, and move between what was read already and what was not."""
    collection = client["tests"][name]
    collection.insert_many(events(24) + views("2025-11-02", 5))
    for n, hour in enumerate((1, 5, 23)):
        moved = {"device_id": hour, "timestamp": {"$type": "string"}}
        collection.update_many(moved, {"$set": {"timestamp": f"{(DAY, NEXT)[n % 2]}T{23 - hour:02}:30:00Z"}})
    collection.delete_many({"device_id": {"$gte": 100, "$lt": 130}})


def seen_at(client: pymongo.MongoClient[dict[str, Any]], name: str, read_at: str) -> Counter[tuple[str, str]]:
    """{(product, date): views} of the collection as it was at a moment that a ledger names."""
    moment = dt.datetime.fromisoformat(read_at)
    time = Timestamp(int(moment.replace(microsecond=0).timestamp()), moment.microsecond)
    find = {"find": name, "batchSize": 10_000, "readConcern": {"level": "snapshot", "atClusterTime": time}}
    found: Counter[tuple[str, str]] = Counter()
    for event in client["tests"].command(find)["cursor"]["firstBatch"]:
        found[event["product_id"], str(event["timestamp"])[:10]] += 1
    return found


@pytest.mark.parametrize(
    ("dates", "nth", "mutant"),
    [
        *[(dates, 1, "") for dates in ([DAY, NEXT], "latest")],
        *[(dates, nth, "by_the_index") for dates in ([DAY, NEXT], "latest") for nth in (1, 9, 20)],
        ("all", 1, ""),
        *[(dates, 9, "no_snapshot") for dates in ([DAY, NEXT], "latest")],
    ],
)
def test_a_report_is_of_the_moment_that_the_ledger_names(servers, name, postgres, dates, nth, mutant):
    store(servers, name, events())
    words = {"mongo_uri": servers.mongo_uri, "postgres_dsn": postgres, "database": "tests", "collection": name}
    with servers.mongo() as client:
        before = dict(client["tests"][name].aggregate([{"$count": "n"}]).next())["n"]
        with met(f"while_reading:{nth}", words | {"dates": dates}, mutant) as run:
            disturb(client, name)
        answer = run.answer
        (row,) = millpond.runs(postgres)
        assert dt.datetime.fromisoformat(row["read_at"]) == dt.datetime.fromisoformat(answer["read_at"])
        truth = seen_at(client, name, answer["read_at"])
        assert truth.total() == before == 480
    wanted = {NEXT} if dates == "latest" else {DAY, NEXT}
    found = {key: count for key, count in truth.items() if key[1] in wanted}
    assert (counts(postgres) == found) is (mutant != "no_snapshot")
    if mutant != "no_snapshot":
        assert (answer["snapshot"], answer["warnings"]) == (True, [])
        assert set(answer["dates"]) == wanted
        assert answer["scanned"] == answer["counted"] == 240 * len(wanted)


def test_positions_and_documents_are_of_one_moment(servers, name, postgres):
    """A sink goes on while a run reads: neither its position nor its documents are of a later time."""
    servers.create(servers.kafka, name, 2)
    value = b'{"product_id":"p","timestamp":"2025-10-31T%02d:00:00Z"}'
    servers.send(servers.kafka, name, [(None, value % (i % 24), i % 2) for i in range(100)])
    place = {"database": "tests", "collection": name}
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, **place)
    words = {"mongo_uri": servers.mongo_uri, "postgres_dsn": postgres, "dates": "latest", **place}
    with met("while_reading:4", words) as run:
        later = [(None, value.replace(b"10-31", b"11-%02d" % (1 + i % 2)) % (i % 24), i % 2) for i in range(60)]
        servers.send(servers.kafka, name, [*later, *[(None, value % (i % 24), i % 2) for i in range(60)]])
        millpond.sink(servers.kafka, servers.mongo_uri, topic=name, **place)
    assert sorted(run.answer["positions"].values()) == [50, 50]
    assert (run.answer["dates"], run.answer["counted"]) == ([DAY], 100)
    assert (run.answer["excluded"], run.answer["repeatable"]) == ({}, True)
    assert millpond.aggregate(servers.mongo_uri, postgres, **place).dates == ["2025-11-02"]


def test_what_the_uri_prefers_is_not_read(servers, name):
    """A secondary may lack what positions promise; a concern of the URI's cannot be a snapshot's."""
    store(servers, name, events(24))
    words = {"database": "tests", "collection": name, "dates": DAY}
    for preference in ("readPreference=secondary", "readConcernLevel=local", "readConcernLevel=majority"):
        result = millpond.aggregate(f"{servers.mongo_uri}&{preference}", None, **words)
        assert (result.counted, result.snapshot) == (24, True), preference


def test_a_capped_collection_has_no_snapshot_and_the_result_says_so(servers, name):
    with servers.mongo() as client:
        client["tests"].create_collection(name, capped=True, size=1_000_000)
    store(servers, name, views(DAY, 3))
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name)
    assert (result.counted, result.snapshot, result.repeatable) == (3, False, False)
    assert "without a snapshot" in result.warnings[0]
    assert "capped" in result.warnings[0]


def test_a_collection_that_is_not_there_yet_is_empty(servers, name):
    words = {"database": "tests", "collection": name, "allow_scan": True}
    for dates in ("latest", "all", DAY):
        result = millpond.aggregate(servers.mongo_uri, None, **words, dates=dates)
        assert (result.scanned, result.snapshot) == (0, False)


@pytest.fixture(scope="module")
def lone(tmp_path_factory) -> Any:
    """A server that is no replica set."""
    folder = tmp_path_factory.mktemp("lone")
    (port,) = ports.reserve(folder, 1)
    command = [str(mongo.binary()), "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    uri = f"mongodb://127.0.0.1:{port}"
    with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=200) as client:

        def answers() -> bool:
            try:
                return bool(client.admin.command("ping"))
            except pymongo.errors.PyMongoError:
                return False

        until(answers)
        yield client, uri
    process.kill()
    process.wait()


def test_a_server_alone_is_read_as_it_passes_and_the_result_says_so(lone, name, postgres):
    client, uri = lone
    client["tests"][name].create_index("timestamp")
    client["tests"][name].insert_many(views(DAY, 5))
    result = millpond.aggregate(uri, postgres, database="tests", collection=name)
    assert (result.counted, result.snapshot, result.repeatable) == (5, False, False)
    assert "replica set" in result.warnings[0]
    assert counts(postgres) == {("p", DAY): 5}
    # Positions make it repeatable all the same.
    client["tests"]["millpond_sources"].insert_one({"_id": Int64(7), "cluster": "c", "topic": "t"})
    place = {"collection": f"{name}k", "source": Int64(7), "partition": 0}
    client["tests"]["millpond_positions"].insert_one({"_id": place, "next": Int64(2)})
    client["tests"][f"{name}k"].create_index("timestamp")
    stored = [event | {"_id": ObjectId(f"{7:08x}{0:04x}{i:012x}")} for i, event in enumerate(views(DAY, 3))]
    client["tests"][f"{name}k"].insert_many(stored)
    result = millpond.aggregate(uri, postgres, database="tests", collection=f"{name}k", dates=DAY)
    assert (result.counted, result.snapshot, result.repeatable) == (2, False, True)
    assert (result.excluded, result.warnings) == ({"beyond_position": 1}, [])
