"""The highest version wins: concurrent processes, shards, retries and a zombie against a model in Python (I2, I3).

`MILLPOND_SEED` repeats a run; a failure prints it.
"""

import json
import os
import random
import secrets
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from bson import Int64
from confluent_kafka import Producer
from tests.test_mutants import stopped

import millpond

SEED = int(os.environ.get("MILLPOND_SEED") or secrets.randbits(32))
KEYS, EVENTS, PARTITIONS = 10_500, 30_000, 4
BATCH = 250


def feed(servers: Any, topic: str, events: list[tuple[bytes | None, bytes | None, int, int]]) -> None:
    """Write (key, value, partition, timestamp)."""
    producer = Producer(servers.kafka | {"acks": "all", "max.in.flight.requests.per.connection": 1, "linger.ms": 5})
    for key, value, partition, timestamp in events:
        producer.produce(topic, value, key, partition, timestamp=timestamp)
        producer.poll(0)
    assert producer.flush(180) == 0


def drawn(draw: random.Random, numbers: range, *, keyed: bool) -> list[tuple[bytes | None, bytes | None, int, int]]:
    """Events of few hot keys and many cold ones. A key stays in its partition; a field's value comes from anywhere."""
    events: list[tuple[bytes | None, bytes | None, int, int]] = []
    for n in numbers:
        key = n if n < KEYS else draw.choice([draw.randrange(KEYS), draw.randrange(20)])
        value: bytes | None = json.dumps({"n": n, "k": {"id": f"k{key}"}, "$set": {"n": "$n"}}).encode()
        if keyed and draw.random() < 0.2:
            value = None
        partition = key % PARTITIONS if keyed else draw.randrange(PARTITIONS)
        # Of a field the time decides: many are equal, many come out of order.
        events.append((b"k%d" % key, value, partition, 1_700_000_000_000 + draw.randrange(500)))
    return events


def model(records: list[Any], *, keyed: bool) -> dict[str, tuple[dict[str, Any], int | None]]:
    """By `_id`: the version, and the number of the event, None for a marker."""
    found: dict[str, tuple[tuple[int, ...], dict[str, Any], int | None]] = {}
    for record in records:
        partition, offset, time = record.partition(), record.offset(), record.timestamp()[1]
        value = None if record.value() is None else json.loads(record.value())["n"]
        rank: tuple[int, ...] = (offset, partition) if keyed else (time, partition, offset)
        version = {"offset": offset, "partition": partition} if keyed else {
            "timestamp": time, "partition": partition, "offset": offset,
        }  # fmt: skip
        name = record.key().decode()
        if name not in found or found[name][0] < rank:
            found[name] = (rank, version, value)
    return {name: (version, value) for name, (_, version, value) in found.items()}


def stored(servers: Any, collection: str) -> dict[str, tuple[dict[str, Any], int | None]]:
    found = {}
    with servers.mongo() as client:
        kept = client["tests"]["millpond_positions"].find({"_id.collection": collection})
        (source,) = {one["_id"]["source"] for one in kept}
        for document in client["tests"][collection].find():
            name, beside, number = document.pop("_id"), document.pop("_millpond"), document.get("n")
            if number is None:
                assert (document, list(beside)) == ({}, ["v", "source", "deleted"])
            else:
                # What looks like an operator, or like a path, is neither.
                assert document == {"n": number, "k": {"id": name}, "$set": {"n": "$n"}}
                assert list(beside) == ["v", "source"]
            assert beside["source"] == source
            found[name] = (beside["v"], number)
    return found


def beside_each_other(servers: Any, words: dict[str, Any], shards: list[Any]) -> list[dict[str, Any]]:
    """One process for each shard, at once; their books."""
    code = "import json, sys, millpond; w = json.loads(sys.argv[1]); print(json.dumps(millpond.sink(**w).to_dict()))"
    settings = {"source": servers.kafka, "mongo_uri": servers.mongo_uri, **words}
    running = [
        subprocess.Popen([sys.executable, "-c", code, json.dumps(settings | {"shard": shard})], stdout=subprocess.PIPE)
        for shard in shards
    ]
    answers = []
    for process in running:
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0
        answers.append(json.loads(out))
    return answers


@pytest.mark.parametrize("identity", ["key", "field:k.id"])
def test_the_highest_version_wins_whatever_the_order(servers, name, identity):
    draw, keyed = random.Random(SEED), identity == "key"
    servers.create(servers.kafka, name, PARTITIONS)
    first, second = range(EVENTS * 2 // 3), range(EVENTS * 2 // 3, EVENTS)
    words = {"topic": name, "database": "tests", "collection": name, "id": identity, "batch_size": BATCH}
    feed(servers, name, drawn(draw, first, keyed=keyed))
    call = f"millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})"
    # A zombie holds its fifth batch in its hands, with some on their way, while all others write later events.
    with stopped(call, None, "sink.before_write:5"):
        feed(servers, name, drawn(draw, second, keyed=keyed))
        answers = beside_each_other(servers, words, [[0, 2], [1, 2], [0, 1]])
    records = servers.read(servers.kafka, name)
    assert len(records) == EVENTS
    expected = model(records, keyed=keyed)
    assert len(expected) == KEYS
    assert stored(servers, name) == expected, f"seed {SEED}"
    parts = ("inserted", "already_present", "replaced", "superseded", "deleted", "dead_lettered")
    for books in answers:
        assert books["read"] == sum(books[part] for part in parts)
        assert books["dead_lettered"] == 0
    # Everything again, older events over newer ones, by three at once: tombstones stay deleted, nothing changes.
    with servers.mongo() as client:
        assert client["tests"]["millpond_positions"].delete_many({"_id.collection": name}).deleted_count == PARTITIONS
    again = beside_each_other(servers, words, [[0, 1], [0, 1], [1, 2]])
    assert stored(servers, name) == expected, f"seed {SEED}"
    total = Counter({part: sum(books[part] for books in again) for part in parts})
    assert total["inserted"] == total["replaced"] == total["deleted"] == total["dead_lettered"] == 0
    # One that starts late finds positions that another has moved.
    assert sum(books["read"] for books in again) >= EVENTS
    assert again[0]["already_present"] <= KEYS
    with servers.mongo() as client:
        indexes = client["tests"][name].index_information()
    ages = [index.get("expireAfterSeconds") for index in indexes.values() if index["key"] == [("_millpond.deleted", 1)]]
    assert ages == ([30 * 86_400] if keyed else [])


def test_the_books_of_a_first_run_are_exact(servers, name):
    servers.create(servers.kafka, name, 1)
    words = {"topic": name, "database": "tests", "collection": name, "id": "key", "batch_size": 2}
    value = b'{"a":1}'

    def run() -> tuple[int, ...]:
        books = millpond.sink(servers.kafka, servers.mongo_uri, **words, in_flight=1)
        return (
            books.read, books.inserted, books.replaced, books.superseded, books.deleted, books.already_present,
        )  # fmt: skip

    # Batches of two: (a, a), (b, b deleted), (a, c deleted), (c).
    order = [(b"a", value), (b"a", value), (b"b", value), (b"b", None), (b"a", value), (b"c", None), (b"c", value)]
    servers.send(servers.kafka, name, [(key, event, 0) for key, event in order])
    assert run() == (7, 1, 2, 2, 2, 0)
    assert run() == (0, 0, 0, 0, 0, 0)
    with servers.mongo() as client:
        client["tests"]["millpond_positions"].update_many({"_id.collection": name}, {"$set": {"next": Int64(4)}})
    assert run() == (3, 0, 0, 1, 0, 2)
    with servers.mongo() as client:
        living = client["tests"][name].find({"_millpond.deleted": {"$exists": False}})
        assert {one["_id"] for one in living} == {"a", "c"}
