"""Dead letters of a sink stored after all: once each, with a trail, whatever happens in between."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.test_cli import call, toml
from tests.test_mutants import SABOTAGE

import millpond

CHUNK = 15 * 1024 * 1024


@pytest.fixture
def sink(servers, name):
    words = {"topic": name, "database": "tests", "collection": name}
    return lambda **more: millpond.sink(servers.kafka, servers.mongo_uri, **words | more)


@pytest.fixture
def replay(servers, name):
    words = {"database": "tests", "collection": name}
    return lambda **more: millpond.replay_stored_letters(servers.mongo_uri, **words | more)


def refusing(servers, name, numbers, partitions=2):
    """Make letters: a validator takes none of these numbers. Returns how to let it go."""
    servers.create(servers.kafka, name, partitions)
    events = [(b"k%d" % n, b'{"n":%d,"timestamp":"2025-10-31T00:00:00Z"}' % n, n % partitions) for n in numbers]
    servers.send(servers.kafka, name, events, headers=[("h", b"1"), ("h", None)], timestamp=1_600_000_000_123)
    with servers.mongo() as client:
        client["tests"].create_collection(name, validator={"n": {"$lt": 0}})

    def relent():
        with servers.mongo() as client:
            client["tests"].command("collMod", name, validator={})

    return relent


def stored(servers, name):
    with servers.mongo() as client:
        return sorted(one["n"] for one in client["tests"][name].find())


def letters(servers, name):
    with servers.mongo() as client:
        return list(client["tests"][f"{name}_dead_letters"].find({"_id": {"$type": "objectId"}}).sort("_id", 1))


def test_once_each_with_a_trail(servers, name, sink, replay):
    relent = refusing(servers, name, range(40))
    assert sink(metadata="from").dead_letters_by_reason == {"refused_by_server": 40}
    # Nothing was put right yet: they fail again, and stay.
    failed = replay(metadata="from")
    assert (failed.chosen, failed.failed, failed.inserted) == (40, 40, 0)
    assert failed.failed_by_reason == {"refused_by_server": 40}
    assert failed.failures[0]["source"] == f"{name}/0/0"
    relent()
    books = replay(metadata="from")
    assert (books.chosen, books.inserted, books.failed, books.already_replayed) == (40, 40, 0, 0)
    assert stored(servers, name) == list(range(40))
    again = replay(metadata="from")
    assert (again.chosen, again.inserted, again.already_replayed) == (40, 0, 40)
    # As a sink would have stored them, in its order, and a rerun of it reads nothing.
    assert sink().read == 0
    with servers.mongo() as client:
        database = client["tests"]
        found = list(database[name].find().sort("_id", 1))
        assert [one["n"] for one in found] == [*range(0, 40, 2), *range(1, 40, 2)]
        assert {key: found[1]["from"][key] for key in ("topic", "partition", "offset", "key")} == {
            "topic": name, "partition": 0, "offset": 1, "key": b"k2",
        }  # fmt: skip
        assert found[1]["from"]["headers"] == [{"key": "h", "value": b"1"}, {"key": "h", "value": None}]
        assert found[1]["from"]["timestamp"].timestamp() > 0
        # The trail: on each letter what became of it, and of each replay who it was.
        for letter in database[f"{name}_dead_letters"].find():
            assert [note["outcome"] for note in letter["replays"]] == ["failed", "stored"]
            assert [note["run"] for note in letter["replays"]] == [failed.run, books.run]
            assert letter["replays"][0]["reason"] == "refused_by_server"
            assert letter["replays"][1]["transform"] == "none"
            assert letter["value"].startswith(b'{"n":')
        runs = {one["_id"]: one for one in database["millpond_replays"].find({"collection": name})}
        assert set(runs) == {failed.run, books.run, again.run}
        assert runs[books.run]["books"]["inserted"] == 40
        assert runs[books.run]["began"] <= runs[books.run]["ended"]
        assert (runs[books.run]["error"], runs[books.run]["version"]) == (None, millpond.__version__)
    reported = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="2025-10-31")
    assert reported.counted == 40


def test_through_a_corrected_transform(servers, name, sink, replay):
    """What no BSON number is becomes one where the transform says so; what it leaves out is left; the rest fails."""
    servers.create(servers.kafka, name, 1)
    exact = b"0.1000000000000000055511151231257827021181583404541015626"
    values = [b'{"n":1,"p":%s}' % exact, b'{"n":2,"p":%s,"skip":true}' % exact, b'{"n":3', b'{"n":4,"p":1}']
    servers.send(servers.kafka, name, [(None, value, 0) for value in values])
    assert sink().dead_letters_by_reason == {"number_inexact": 2, "invalid_json": 1}
    rules = {
        "fields": {"n": {"type": "int"}, "p": {"type": "float"}},
        "drop_if": [{"field": "skip", "equals": True}],
    }
    books = replay(transform=rules)
    assert (books.chosen, books.inserted, books.filtered, books.failed) == (3, 1, 1, 1)
    assert books.failed_by_reason == {"invalid_json": 1}
    with servers.mongo() as client:
        found = {one["n"]: one["p"] for one in client["tests"][name].find()}
    assert found == {1: 0.1, 4: 1}
    # What was left out may be wanted by another one.
    books = replay(transform={"fields": rules["fields"]}, reasons="number_inexact")
    assert (books.chosen, books.inserted, books.already_replayed) == (2, 1, 1)


def test_letters_are_chosen(servers, name, sink, replay):
    relent = refusing(servers, name, range(20))
    sink()
    servers.send(servers.kafka, name, [(None, b"[]", 1)], timestamp=1_700_000_000_000)
    sink()
    relent()
    assert replay(reasons="empty").chosen == 0
    assert replay(partition=1, offsets="2..4").inserted == 3
    assert replay(partition=0, offsets=0).inserted == 1
    assert replay(source_topic="another").chosen == 0
    assert replay(since=1_650_000_000_000).failed_by_reason == {"not_object": 1}
    rest = replay(until="2020-12-31T00:00:00Z", reasons=["refused_by_server"])
    assert (rest.chosen, rest.inserted, rest.already_replayed) == (20, 16, 4)
    with pytest.raises(millpond.ConfigError, match="offsets"):
        replay(offsets=(4, 2))
    with pytest.raises(millpond.ConfigError, match="no collection"):
        replay(collection=f"{name}-another")


def test_letters_in_pieces_come_back_whole(servers, name, sink, replay):
    """Large keys, values and headers, over 15 MiB each, alone and together; and a value that is stored after all."""
    servers.create(servers.kafka, name, 1, **{"max.message.bytes": "60000000"})
    producer = Producer(servers.kafka | {"message.max.bytes": 60_000_000, "compression.type": "lz4"})

    def large(size: int, seed: int) -> bytes:
        return (b"%09d," % seed) * (size // 10 + 1)

    # A document of 12 MB that the validator refuses, beside 20 MB of key; spaces make 33 MB of the second.
    small = b'{"n":1,"x":"%s"}' % (b"y" * 12_000_000)
    spaced = b'{"n":2,' + b" " * 33_000_000 + b'"x":1}'
    events: list[tuple[bytes, bytes, Any]] = [
        (large(20_000_000, 1), small, [("h", b"v")]),
        (b"k", spaced, [("h", None), ("h", b"")]),
        (b"k", b'{"n":3}', [("big", large(17_000_000, 3)), ("after", b"v")]),
        (large(16_000_000, 4), b"[]", [("one", large(9_000_000, 5)), ("two", large(9_000_000, 6)), ("two", None)]),
    ]
    for key, value, headers in events:
        producer.produce(name, value, key, headers=headers)
        assert producer.flush(180) == 0
    with servers.mongo() as client:
        client["tests"].create_collection(name, validator={"n": {"$lt": 0}})
    assert sink().dead_lettered == 4
    with servers.mongo() as client:
        found = list(client["tests"][f"{name}_dead_letters"].find())
    pieces: dict[int, list[dict[str, Any]]] = {}
    for one in sorted(found, key=lambda one: (one["offset"], one["chunk"])):
        pieces.setdefault(one["offset"], []).append(one)
    for offset, (key, value, headers) in enumerate(events):
        mine = pieces[offset]
        assert [one["chunk"] for one in mine] == list(range(mine[0]["chunks"]))
        # As docs/store.md says how to put one together.
        whole = {"key": b"", "value": b""}
        entries: list[list[Any]] = []
        for one in mine:
            whole["value"] += one["value"] or b""
            if one["chunk"] and not one.get("continued"):
                continue
            whole["key"] += one["key"] or b""
            for entry in one["headers"]:
                text = entry["key"].encode() if isinstance(entry["key"], str) else entry["key"]
                if entry.get("continued"):
                    entries[-1][0] += text
                    entries[-1][1] = (entries[-1][1] or b"") + (entry["value"] or b"")
                else:
                    entries.append([text, entry["value"]])
        assert (whole["key"], whole["value"]) == (key, value)
        assert entries == [[head.encode(), told] for head, told in headers]
    with servers.mongo() as client:
        client["tests"].command("collMod", name, validator={})
    books = replay()
    assert (books.chosen, books.inserted, books.failed_by_reason) == (4, 3, {"not_object": 1})
    assert stored(servers, name) == [1, 2, 3]
    # A piece that is gone is told, and nothing is stored of the rest.
    with servers.mongo() as client:
        client["tests"][name].delete_many({})
        kept = client["tests"][f"{name}_dead_letters"]
        kept.update_many({}, {"$unset": {"replays": 1}})
        assert kept.delete_one({"_id.event": pieces[1][0]["_id"], "_id.chunk": 1}).deleted_count == 1
    books = replay()
    assert books.failed_by_reason == {"incomplete": 1, "not_object": 1}
    assert stored(servers, name) == [1, 3]


def test_a_sink_killed_between_the_pieces_of_a_letter(servers, name, sink, replay):
    """The piece by which a letter counts as decided is the last one: the rerun writes it whole."""
    servers.create(servers.kafka, name, 1, **{"max.message.bytes": "60000000"})
    producer = Producer(servers.kafka | {"message.max.bytes": 60_000_000, "compression.type": "lz4"})
    value = b'{"n":1,' + b" " * (2 * CHUNK) + b'"x":1'
    producer.produce(name, value, b"k")
    assert producer.flush(180) == 0
    words = {"topic": name, "database": "tests", "collection": name}
    code = f"import millpond; millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})"
    for nth in (1, 2):
        at = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": f"KILL:sink.between_letters:{nth}"}
        child = subprocess.run([sys.executable, "-c", code], env=os.environ | at, capture_output=True, check=False)
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        assert letters(servers, name) == []
    assert sink().dead_letters_by_reason == {"invalid_json": 1}
    with servers.mongo() as client:
        found = sorted(client["tests"][f"{name}_dead_letters"].find(), key=lambda one: one["chunk"])
    assert [one["chunk"] for one in found] == [0, 1, 2]
    assert b"".join(one["value"] for one in found) == value


@pytest.mark.parametrize("step", ["before_write", "after_write", "after_write:2", "random", "twice at once"])
def test_killed_in_the_middle(servers, name, sink, replay, step):
    relent = refusing(servers, name, range(3_000))
    assert sink().dead_lettered == 3_000
    relent()
    words = {"database": "tests", "collection": name}
    code = f"import millpond; millpond.replay_stored_letters({servers.mongo_uri!r}, **{words!r})"
    command = [sys.executable, "-c", code]
    if step == "twice at once":
        for child in [subprocess.Popen(command) for _ in range(2)]:
            assert child.wait(300) == 0
    elif step == "random":
        for _ in range(3):
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0.1, 0.6))
            child.kill()
            child.wait()
    else:
        at = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": f"KILL:sink_replay.{step}"}
        done = subprocess.run(command, env=os.environ | at, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    books = replay()
    assert books.chosen == 3_000 == books.inserted + books.already_present + books.already_replayed
    assert books.failed == 0
    assert stored(servers, name) == list(range(3_000))
    assert all(any(n["outcome"] == "stored" for n in letter["replays"]) for letter in letters(servers, name))


def test_a_sink_that_comes_back_does_not_wipe_the_trail(servers, name, sink, replay):
    """Positions are gone and the letters too old to be known as decided: the letter stays what it is."""
    relent = refusing(servers, name, range(5), partitions=1)
    sink()
    relent()
    replay()
    kept = letters(servers, name)
    with servers.mongo() as client:
        client["tests"]["millpond_positions"].delete_many({"_id.collection": name})
    again = sink()
    assert (again.read, again.dead_lettered, again.inserted) == (5, 5, 0)
    assert letters(servers, name) == kept


def test_the_command(servers, name, sink, tmp_path):
    relent = refusing(servers, name, range(10))
    sink()
    file = tmp_path / "m.toml"
    file.write_text(
        toml({"mongo": {"uri": servers.mongo_uri}, "sink": {"topic": name, "database": "tests", "collection": name}})
    )
    command = ("replay", "dead-letters", "--config", file, "--collection", name)
    done = call(*command, "--json")
    assert (done.returncode, json.loads(done.stdout)["replay"]["failed"]) == (6, 10)
    relent()
    done = call(*command, "--offsets", "0..1")
    assert done.returncode == 0, done.stderr
    assert "inserted 4" in done.stdout
    done = call(*command, "--reason", "refused_by_server", "--json")
    books = json.loads(done.stdout)["replay"]
    assert (books["chosen"], books["inserted"], books["already_replayed"]) == (10, 6, 4)
    wrong = call("replay", "dead-letters", "--config", file, "--mongo-uri", servers.mongo_uri)
    assert wrong.returncode == 2
    assert "--collection" in wrong.stderr
