"""What must be true of the target, on real brokers: topics made right, others refused by name, records that fit."""

import time

import pytest
from tests.topics import described, settings

import millpond

HOUR_MS = 3_600_000


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out"}


@pytest.fixture
def bridge(servers, words):
    return lambda **more: millpond.bridge(servers.remote, servers.kafka, **words | more)


def ago(milliseconds):
    return int(time.time() * 1000) - milliseconds


def refused(call, *words):
    with pytest.raises(millpond.ConfigError) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_topics_that_are_made_take_after_the_source(servers, name, bridge):
    servers.create(servers.remote, name, 5, **{"max.message.bytes": "1900000", "retention.ms": str(HOUR_MS)})
    bridge()
    for topic in (f"{name}-out", f"{name}-out.dead_letters", f"millpond.positions.{name}-to-{name}-out"):
        assert described(servers.kafka, topic) == (5, 3)
        assert settings(servers.kafka, topic)["min.insync.replicas"] == "2"
    made = settings(servers.kafka, f"{name}-out")
    assert (made["max.message.bytes"], made["retention.ms"], made["cleanup.policy"]) == ("1900000", "-1", "delete")
    letters = settings(servers.kafka, f"{name}-out.dead_letters")
    assert int(letters["max.message.bytes"]) > 1_900_000
    assert letters["retention.ms"] == "-1"
    assert settings(servers.kafka, f"millpond.positions.{name}-to-{name}-out")["cleanup.policy"] == "compact"


def test_target_retention_is_never_below_the_sources(servers, name, bridge):
    servers.create(servers.remote, name, 1, **{"retention.ms": str(HOUR_MS)})
    refused(lambda: bridge(target_retention=3_599), "target_retention")
    bridge(target_retention=3_600)
    assert settings(servers.kafka, f"{name}-out")["retention.ms"] == str(HOUR_MS)


def test_a_target_that_would_delete_the_oldest_unread_event(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.create(servers.kafka, f"{name}-out", 1, **{"retention.ms": str(HOUR_MS)})
    servers.send(servers.remote, name, [(None, b"young", 0)], timestamp=ago(HOUR_MS // 2))
    assert bridge().written == 1
    servers.send(servers.remote, name, [(None, b"old", 0)], timestamp=ago(2 * HOUR_MS))
    refused(bridge, f"topic {name}-out", "partition 0 offset 1", "retention")
    assert [m.value() for m in servers.read(servers.kafka, f"{name}-out")] == [b"young"]
    assert bridge(allow=["retention"]).written == 1


def test_a_target_that_stamps_anew(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    stamps = {"message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": str(HOUR_MS)}
    servers.create(servers.kafka, f"{name}-out", 1, **stamps)
    servers.send(servers.remote, name, [(None, b"x", 0)], timestamp=ago(2 * HOUR_MS))
    refused(bridge, f"topic {name}-out", "LogAppendTime", "log_append_time")
    # Its limits are for times that it keeps: there is nothing to refuse then.
    result = bridge(allow=["log_append_time"])
    assert (result.written, result.dead_lettered) == (1, 0)


def test_a_compacted_target_takes_no_event_without_a_key(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.create(servers.kafka, f"{name}-out", 1, **{"cleanup.policy": "compact"})
    servers.send(servers.remote, name, [(b"k", b"one", 0), (None, b"two", 0), (b"", b"three", 0)])
    result = bridge(allow=["compaction"])
    assert (result.written, result.dead_letters_by_reason) == (2, {"no_key": 1})
    assert [m.value() for m in servers.read(servers.kafka, f"{name}-out")] == [b"one", b"three"]


def test_a_compacted_dead_letter_topic(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    policy = {"cleanup.policy": "compact,delete", "max.message.bytes": "2000000"}
    servers.create(servers.kafka, f"{name}-out.dead_letters", 1, **policy)
    refused(lambda: bridge(allow=["compaction"]), f"{name}-out.dead_letters", "compacted")


def test_a_dead_letter_topic_that_takes_less_than_the_source(servers, name, bridge):
    servers.create(servers.remote, name, 1, **{"max.message.bytes": "1500000"})
    servers.create(servers.kafka, f"{name}-letters", 1, **{"max.message.bytes": "1500000"})
    refused(lambda: bridge(dead_letter_topic=f"{name}-letters"), f"{name}-letters", "1500000", "max.message.bytes=")


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_positions_topic_that_would_lose_positions(servers, name, bridge, policy):
    servers.create(servers.remote, name, 1)
    servers.create(servers.kafka, f"millpond.positions.{name}", 1, **{"cleanup.policy": policy})
    refused(lambda: bridge(job=name), f"millpond.positions.{name}", "cleanup.policy=compact")


def test_times_outside_the_targets_limits_are_dead_letters(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    limits = {"message.timestamp.before.max.ms": str(HOUR_MS), "message.timestamp.after.max.ms": str(HOUR_MS)}
    servers.create(servers.kafka, f"{name}-out", 1, **limits)
    for distance in (-2 * HOUR_MS, -HOUR_MS // 2, 0, HOUR_MS // 2, 2 * HOUR_MS):
        servers.send(servers.remote, name, [(None, b"%d" % distance, 0)], timestamp=ago(distance))
    result = bridge()
    assert (result.written, result.dead_letters_by_reason) == (3, {"timestamp": 2})
    assert sorted(int(m.value()) for m in servers.read(servers.kafka, f"{name}-out.dead_letters")) == [
        -2 * HOUR_MS,
        2 * HOUR_MS,
    ]


def letter(servers, name):
    (found,) = servers.read(servers.kafka, f"{name}-out.dead_letters")
    return found, dict(found.headers())


def test_an_event_too_large_for_the_target_goes_whole_to_the_dead_letters(servers, name, bridge):
    servers.create(servers.remote, name, 3)
    servers.create(servers.kafka, f"{name}-out", 3, **{"max.message.bytes": "10000"})
    # By content: neither compression nor the batch around it is asked.
    for size in (9_000, 9_990, 9_000, 20_000):
        servers.send(servers.remote, name, [(b"k", b"x" * size, 2)], headers=[("h", b"%d" % size)])
    result = bridge()
    assert (result.written, result.dead_letters_by_reason) == (2, {"too_large": 2})
    found = servers.read(servers.kafka, f"{name}-out.dead_letters")
    assert [len(message.value()) for message in found] == [9_990, 20_000]
    headers = dict(found[1].headers())
    assert (found[1].key(), headers["h"]) == (b"k", b"20000")
    assert (headers["__connect.errors.topic"], headers["__connect.errors.partition"]) == (name.encode(), b"2")
    assert (headers["__connect.errors.offset"], headers["millpond.reason"]) == (b"3", b"too_large")
    assert "millpond.omitted" not in headers


def test_a_letter_that_only_compression_would_fit_is_cut_down_and_can_be_fetched(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    # Compressed, it is under every limit; what a producer makes of it later, nobody can promise.
    packed = servers.remote | {"compression.type": "gzip", "message.max.bytes": "5000000"}
    value = b"0123456789" * 400_000
    servers.send(packed, name, [(b"before", b"1", 0), (b"large", value, 0), (b"after", b"2", 0)], headers=[("h", b"1")])
    result = bridge()
    assert (result.written, result.dead_letters_by_reason) == (2, {"too_large": 1})
    found, headers = letter(servers, name)
    assert (found.key(), found.value(), headers["h"]) == (b"large", None, b"1")
    assert (headers["millpond.omitted"], headers["millpond.value_bytes"]) == (b"value", b"4000000")
    place = int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])
    (fetched,) = [m for m in servers.read(servers.remote, name) if (m.partition(), m.offset()) == place]
    assert fetched.value() == value


def test_a_letter_whose_key_alone_is_too_large(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    packed = servers.remote | {"compression.type": "gzip", "message.max.bytes": "5000000"}
    servers.send(packed, name, [(b"k" * 3_000_000, b"v", 0)])
    assert bridge().dead_letters_by_reason == {"too_large": 1}
    found, headers = letter(servers, name)
    assert (found.key(), found.value()) == (None, None)
    assert (headers["millpond.omitted"], headers["__connect.errors.offset"]) == (b"value,key,headers", b"0")


def test_an_unknown_waiver_is_refused(bridge):
    refused(lambda: bridge(allow=["retentoin"]), "allow", "retention")
