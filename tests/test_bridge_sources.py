"""Sources as they come: compacted, stamped by the broker, of other counts; empty, huge and timeless events."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE
from tests import raw_records
from tests.local_servers import until
from tests.topics import log

import millpond


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out"}


def shape(message):
    return message.partition(), message.key(), message.value(), message.headers()


def test_tombstones_and_empty_and_large_events_and_odd_headers(servers, name, words):
    servers.create(servers.remote, name, 2, **{"max.message.bytes": "2000000"})
    headers = [("a", b"1"), ("a", None), ("", b""), ("a", b"1"), ("é", b"\xff\0")]
    contents = [
        (b"k", None, 0), (None, None, 0), (b"", b"", 0), (None, b"", 0), (b"\0\xff", b"\0" * 7, 0),
        (None, os.urandom(1_500_000), 1), (os.urandom(700_000), os.urandom(700_000), 1), (b"k", b"x", 1),
    ]  # fmt: skip
    large = servers.remote | {"message.max.bytes": "2000000"}
    servers.send(large, name, contents, headers=headers, timestamp=1_700_000_000_123)
    servers.send(large, name, contents[:3])
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.written) == (11, 11)
    there, here = servers.read(servers.remote, name), servers.read(servers.kafka, f"{name}-out")
    for partition in (0, 1):
        wanted, found = ([m for m in side if m.partition() == partition] for side in (there, here))
        assert [shape(m) for m in found] == [shape(m) for m in wanted]
        assert [m.timestamp() for m in found] == [m.timestamp() for m in wanted]
    assert [m.headers() for m in here if m.value() == b"x"] == [headers]


def test_times_of_zero_and_none(servers, name, words):
    """Between two topics of one cluster: batches made by hand go in without authentication."""
    servers.create(servers.kafka, name, 1)
    raw_records.produce(servers.kafka, name, 0, raw_records.batch([(-1, b"k", b"none"), (-1, None, b"none too")]))
    raw_records.produce(servers.kafka, name, 0, raw_records.batch([(0, b"k", b"zero"), (1, b"k", b"one")]))
    assert [m.timestamp()[1] for m in servers.read(servers.kafka, name)] in ([-1, -1, 0, 1], [0, 0, 0, 1])
    result = millpond.bridge(servers.kafka, servers.kafka, **words)
    assert (result.read, result.written, result.dead_letters_by_reason) == (4, 3, {"timestamp": 1})
    found = {m.value(): m.timestamp() for m in servers.read(servers.kafka, f"{name}-out")}
    # No time stays none; the client shows what it reads as it would show the source's.
    kinds = {TIMESTAMP_NOT_AVAILABLE, TIMESTAMP_CREATE_TIME}
    assert {value: time for value, (kind, time) in found.items() if kind in kinds} == {
        value: time[1]
        for value, time in ((m.value(), m.timestamp()) for m in servers.read(servers.kafka, name))
        if value != b"zero"
    }
    (letter,) = servers.read(servers.kafka, f"{name}-out.dead_letters")
    headers = dict(letter.headers())
    assert (letter.key(), letter.value(), headers["millpond.timestamp"]) == (b"k", b"zero", b"0")


def test_times_that_the_sources_broker_stamped_stay(servers, name, words):
    servers.create(servers.remote, name, 1, **{"message.timestamp.type": "LogAppendTime"})
    servers.send(servers.remote, name, [(None, b"%d" % n, 0) for n in range(5)], timestamp=1)
    millpond.bridge(servers.remote, servers.kafka, **words)
    stamped = [m.timestamp()[1] for m in servers.read(servers.remote, name)]
    assert min(stamped) > 1_700_000_000_000
    assert [m.timestamp() for m in servers.read(servers.kafka, f"{name}-out")] == [
        (TIMESTAMP_CREATE_TIME, time) for time in stamped
    ]


def murmur2(data: bytes) -> int:
    """As Java's `Utils.murmur2`, written from its description."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@pytest.mark.parametrize(("from_", "to"), [(7, 3), (2, 5)])
def test_other_counts_go_by_key_as_javas_producer_does(servers, name, words, from_, to):
    servers.create(servers.remote, name, from_)
    servers.create(servers.kafka, f"{name}-out", to)
    keys = [b"", b"\xff\xfe\xfd", "ключ".encode(), *(bytes([n]) for n in range(9))]
    keys += [b"key-%d" % n for n in range(200)]
    events: list[tuple[bytes | None, bytes, int]]
    events = [(key, b"%d" % n, n % from_) for n, key in enumerate(keys)]
    events += [(None, b"%d" % (1000 + n), n % from_) for n in range(70)]
    servers.send(servers.remote, name, events)
    assert millpond.bridge(servers.remote, servers.kafka, **words).written == len(events)
    wanted = {value: p % to if key is None else (murmur2(key) & 0x7FFFFFFF) % to for key, value, p in events}
    found = servers.read(servers.kafka, f"{name}-out")
    assert {m.value(): m.partition() for m in found} == wanted
    assert len(found) == len(events)


def test_a_compacted_source(servers, name, words):
    """Holes in the log, at its end as well: the position is the end, and no later gap is seen.

    Each writer leaves a batch without records: librdkafka takes those for events too large to fetch.
    """
    rolled = {"segment.bytes": "100", "min.cleanable.dirty.ratio": "0.001", "min.compaction.lag.ms": "0"}
    servers.create(servers.remote, name, 1, **{"cleanup.policy": "compact", "delete.retention.ms": "0"} | rolled)

    def write(n):
        servers.send(servers.remote, name, [(b"k%d" % (n % 4), b"%d" % n, 0)], sure=True)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(32)))
    first = millpond.bridge(servers.remote, servers.kafka, **words, max_events=3)
    assert first.read == 3
    # The last event of each key, and what stands in the segment that is written: nothing is left to do.
    until(lambda: len(servers.read(servers.remote, name)) <= 5, 240)
    left = [(m.offset(), m.value()) for m in servers.read(servers.remote, name)]
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    end = log(servers.remote, name)[1]
    assert (result.lag, result.positions[0]["next"], result.gaps) == (0, end, [])
    found = [m.value() for m in servers.read(servers.kafka, f"{name}-out")]
    assert len(found) == 3 + result.read
    assert found[3:] == [value for offset, value in left if offset >= first.positions[0]["next"]]
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 0
