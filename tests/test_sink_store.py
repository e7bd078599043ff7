"""The shape of the store: what is refused by name before the first read, and what options do to a real server."""

import datetime as dt
import json
import secrets
import subprocess
import time
from typing import Any

import pytest
from tests.test_cli import call, toml

import millpond
from millpond.local.jars import kafka_jars


@pytest.fixture(scope="module")
def topic(servers):
    """One for all: each test has a collection of its own."""
    return fed(servers, f"t{secrets.token_hex(5)}")


def fed(servers, name):
    servers.create(servers.kafka, name, 2)
    servers.send(servers.kafka, name, [(None, b'{"n":%d}' % n if n % 5 else b"[]", n % 2) for n in range(100)])
    return name


@pytest.fixture
def sink(servers, name, topic):
    words = {"topic": topic, "database": "tests", "collection": name}
    return lambda **more: millpond.sink(servers.kafka, more.pop("uri", servers.mongo_uri), **words | more)


@pytest.mark.parametrize("which", ["", "_dead_letters"])
@pytest.mark.parametrize("kind", ["view", "capped", "timeseries"])
def test_collections_of_another_shape_are_refused_by_name(servers, name, sink, kind, which):
    place = f"{name}{which}"
    shapes: dict[str, dict[str, Any]] = {
        "view": {"viewOn": "other", "pipeline": []},
        "capped": {"capped": True, "size": 100_000},
        "timeseries": {"timeseries": {"timeField": "timestamp"}},
    }
    with servers.mongo() as client:
        client["tests"].create_collection(place, **shapes[kind])
        with pytest.raises(millpond.ConfigError) as caught:
            sink()
        assert f"tests.{place} is " in str(caught.value)
        assert kind in str(caught.value)
        assert caught.value.hint
        # Nothing was read, nothing was kept.
        assert client["tests"]["millpond_positions"].count_documents({"_id.collection": name}) == 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("write_concern", 0), ("write_concern", {"w": 0}), ("write_concern", {"x": 1}), ("write_concern", True),
        ("compressors", ["gzip"]), ("dead_letter_ttl", 5), ("dead_letter_ttl", -1), ("ordered", True),
        ("on_gap", "latest"), ("max_events_per_second", 0), ("max_bytes_per_second", -1),
    ],
)  # fmt: skip
def test_an_option_that_means_nothing_is_refused_by_name(sink, argument, value):
    with pytest.raises(millpond.ConfigError, match=argument) as caught:
        sink(**{argument: value})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("concern", "told"),
    [
        (None, "majority"), ("majority", "majority"), (1, "1"), ({"w": 1, "j": True}, "1, journaled"),
        ({"j": False}, "majority, not journaled"), ({"w": "majority", "wtimeout": 5_000}, "majority"),
    ],
)  # fmt: skip
def test_write_concerns(sink, concern, told):
    result = sink(write_concern=concern, ordered=False)
    assert (result.write_concern, result.inserted, result.dead_lettered) == (told, 80, 20)
    assert sink(write_concern=concern).read == 0


def test_the_write_concern_of_the_uri(servers, sink):
    uri = f"{servers.mongo_uri}&w=1&journal=true"
    assert sink(uri=uri, max_events=10).write_concern == "1, journaled"
    assert sink(uri=uri, max_events=10, write_concern="majority").write_concern == "majority"
    with pytest.raises(millpond.ConfigError, match="w=0"):
        sink(uri=f"{servers.mongo_uri}&w=0")


@pytest.mark.parametrize("by", ["argument", "uri"])
@pytest.mark.parametrize("compressor", ["zstd", "snappy", "zlib"])
def test_what_is_sent_is_compressed(servers, sink, compressor, by):
    def counted() -> int:
        with servers.mongo() as client:
            found = client.admin.command("serverStatus")["network"]["compression"][compressor]
        return int(found["decompressor"]["bytesIn"])

    before = counted()
    if by == "argument":
        assert sink(compressors=[compressor]).inserted == 80
    else:
        assert sink(uri=f"{servers.mongo_uri}&compressors={compressor}").inserted == 80
    assert counted() > before


def test_dead_letters_expire(servers, name, sink):
    began = dt.datetime.now(dt.UTC)
    assert sink(dead_letter_ttl=dt.timedelta(hours=2)).dead_lettered == 20
    with servers.mongo() as client:
        letters = client["tests"][f"{name}_dead_letters"]
        (index,) = [one for one in letters.list_indexes() if list(one["key"]) == ["expires_at"]]
        assert index["expireAfterSeconds"] == 0
        for letter in letters.find():
            expires = letter["expires_at"].replace(tzinfo=dt.UTC)
            assert dt.timedelta(hours=1, minutes=59) < expires - began < dt.timedelta(hours=2, minutes=1)
    # Without the option they stay.
    other = sink(collection=f"{name}-kept")
    with servers.mongo() as client:
        letters = client["tests"][f"{name}-kept_dead_letters"]
        assert letters.count_documents({"expires_at": {"$exists": True}}) == 0
        assert [list(one["key"]) for one in letters.list_indexes()] == [["_id"]]
    assert other.dead_lettered == 20


def test_the_index_that_reports_need(servers, name, sink):
    sink()
    with servers.mongo() as client:
        events = client["tests"][name]
        assert [list(one["key"]) for one in events.list_indexes()] == [["_id"], ["timestamp"]]
        plan = events.find({"timestamp": {"$gte": "2025-10-31", "$lt": "2025-11-01"}}).explain()
        assert "timestamp_1" in json.dumps(plan, default=str)
        # One that begins with it does as well; another's of that name and other options is left alone, and told.
        for other, keys, options in (
            ("longer", [("timestamp", 1), ("store_id", 1)], {}),
            ("sparse", [("timestamp", 1)], {"sparse": True}),
            ("none", [], {}),
        ):
            events = client["tests"][f"{name}-{other}"]
            if keys:
                events.create_index(keys, **options)
            result = sink(collection=f"{name}-{other}", ensure_indexes=other != "none")
            assert len(list(events.list_indexes())) == (1 if other == "none" else 2)
            assert any("timestamp_1" in warning for warning in result.warnings) is (other == "sparse")


def test_a_rotten_topic_stops(servers, name, sink):
    fed(servers, name)
    servers.send(servers.kafka, name, [(None, b"rotten", 0) for _ in range(2_000)])
    with pytest.raises(millpond.DataError, match="dead letters, 50 are allowed") as caught:
        sink(topic=name, max_dead_letters=50, batch_size=100, in_flight=1)
    assert f"{name}_dead_letters" in caught.value.hint
    with servers.mongo() as client:
        letters = client["tests"][f"{name}_dead_letters"].count_documents({})
        kept = client["tests"]["millpond_positions"].find({"_id.collection": name})
        assert 50 < letters < 400
        # What was decided stays decided: a run that allows more goes on behind it.
        before = sum(one["next"] for one in kept)
    result = sink(topic=name)
    assert result.read == 2_100 - before
    assert result.dead_letters_by_reason.keys() <= {"invalid_json", "not_object"}


BAD = {
    "empty": b"",
    "invalid_utf8": b'{"a":"\xff"}',
    "invalid_json": b'{"a":1,}',
    "not_object": b"[1]",
    "too_deep": b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
    "duplicate_key": b'{"a":1,"\\u0061":2}',
    "lone_surrogate": b'{"a":"\\ud800"}',
    "nul_in_key": b'{"\\u0000":1}',
    "field_conflict": b'{"_id":1,"_source_id":2}',
    "number_inexact": b'{"a":0.1000000000000000055511151231257827021181583404541015626}',
    "refused_by_server": b'{"only":"taken"}',
}


@pytest.mark.parametrize("batch_size", [1, 1_000], ids=["alone", "among good ones"])
def test_every_kind_of_bad_event(servers, name, batch_size):
    servers.create(servers.kafka, name, 1)
    values = [b'{"only":"taken"}']
    for value in BAD.values():
        values += [b'{"good":1}', value, b'{"good":2}']
    servers.send(servers.kafka, name, [(b"k", value, 0) for value in values], headers=[("h", b"v")])
    with servers.mongo() as client:
        client["tests"][name].create_index("only", unique=True, sparse=True)
    words = {"topic": name, "database": "tests", "collection": name, "batch_size": batch_size}
    result = millpond.sink(servers.kafka, servers.mongo_uri, **words)
    assert (result.read, result.inserted, result.lag) == (len(values), 2 * len(BAD) + 1, 0)
    assert result.dead_letters_by_reason == dict.fromkeys(BAD, 1)
    with servers.mongo() as client:
        letters = list(client["tests"][f"{name}_dead_letters"].find().sort("_id", 1))
        stored = [one["good"] for one in client["tests"][name].find({"good": {"$exists": True}}).sort("_id", 1)]
    assert [(letter["reason"], letter["value"]) for letter in letters] == list(BAD.items())
    assert [letter["offset"] for letter in letters] == list(range(2, 3 * len(BAD), 3))
    assert all((letter["key"], letter["headers"]) == (b"k", [{"key": "h", "value": b"v"}]) for letter in letters)
    assert stored == [1, 2] * len(BAD)


def test_documents_are_stored_and_not_executed(servers, name):
    servers.create(servers.kafka, name, 1)
    values = [b'{"$set":{"a":1}}', b'{"a":"$$ROOT"}', b'{"$where":"1","b.c":"$a"}', b'{"$literal":{"$add":[1,2]}}']
    servers.send(servers.kafka, name, [(None, value, 0) for value in values])
    result = millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    assert (result.inserted, result.dead_lettered) == (4, 0)
    with servers.mongo() as client:
        found = [{k: v for k, v in one.items() if k != "_id"} for one in client["tests"][name].find().sort("_id", 1)]
    assert found == [json.loads(value) for value in values]


def test_the_pace_is_kept(sink):
    began = time.monotonic()
    assert sink(max_events_per_second=50).read == 100
    assert 1.5 < time.monotonic() - began < 60


def test_the_consumer_group_shows_the_right_lag(servers, name, sink):
    """As Kafka's own tool has it: after a whole run, and after one that ended early; shards side by side."""

    def lag() -> dict[int, tuple[int, int, int]]:
        command = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{kafka_jars()}/*"]
        command += ["org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--describe"]
        command += ["--bootstrap-server", servers.kafka["bootstrap.servers"], "--group", f"millpond-tests.{name}"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        rows = [line.split() for line in told.splitlines() if name in line and "GROUP" not in line]
        return {int(row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in rows}

    fed(servers, name)
    sink(topic=name, shard=(0, 2), max_events=20)
    sink(topic=name, shard=(1, 2))
    assert lag() == {0: (20, 50, 30), 1: (50, 50, 0)}
    assert sink(topic=name).read == 30
    servers.send(servers.kafka, name, [(None, b"{}", 1) for _ in range(7)])
    assert lag() == {0: (50, 50, 0), 1: (50, 57, 7)}


def test_options_of_a_file_and_of_the_command_line(servers, name, topic, tmp_path):
    file = tmp_path / "m.toml"
    section = {
        "topic": topic,
        "database": "tests",
        "collection": name,
        "compressors": ["zstd"],
        "dead_letter_ttl": 3_600,
    }
    file.write_text(toml({"target": servers.kafka, "mongo": {"uri": servers.mongo_uri}, "sink": section}))
    done = call("sink", "--config", file, "--json", "--write-concern", '{"w":1,"j":true}', "--max-events", "5")
    assert json.loads(done.stdout)["sink"]["write_concern"] == "1, journaled"
    done = call("sink", "--config", file, "--json", "--write-concern", "1", "--compressors", "zstd,snappy")
    assert json.loads(done.stdout)["sink"]["write_concern"] == "1"
    assert call("sink", "--config", file, "--on-gap", "sometimes").returncode == 2
