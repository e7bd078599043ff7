"""bridge(): the copy is exact, positions are kept, a foreign target is refused."""

import pytest

import millpond


def test_every_byte_key_header_and_timestamp_stays(servers, name):
    servers.create(servers.remote, name, 3)
    events = [(b"k%d" % i if i % 2 else None, bytes([i % 256]) * (i % 40), i % 3) for i in range(300)]
    headers = [("a", b"1"), ("a", None), ("b", b"")]
    servers.send(servers.remote, name, events, headers=headers, timestamp=1_600_000_000_123)
    result = millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out")
    assert (result.read, result.written) == (300, 300)
    there, here = servers.read(servers.remote, name), servers.read(servers.kafka, f"{name}-out")

    def shape(message):
        return message.partition(), message.key(), message.value(), message.headers(), message.timestamp()

    assert sorted(map(repr, map(shape, there))) == sorted(map(repr, map(shape, here)))
    for partition in range(3):
        assert [m.value() for m in there if m.partition() == partition] == [
            m.value() for m in here if m.partition() == partition
        ]
    assert millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out").read == 0


def test_max_events_is_exact_and_a_rerun_goes_on(servers, name):
    servers.create(servers.remote, name, 4)
    servers.send(servers.remote, name, [(None, b"%d" % i, i % 4) for i in range(1_000)])
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    first = millpond.bridge(servers.remote, servers.kafka, **words, max_events=333)
    assert (first.read, first.ended) == (333, "max_events")
    rest = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (rest.read, rest.ended, rest.lag) == (667, "end", 0)
    assert sorted(int(m.value()) for m in servers.read(servers.kafka, f"{name}-out")) == list(range(1_000))


def test_a_target_that_others_filled_is_refused_until_adopted(servers, name):
    servers.create(servers.remote, name, 1)
    servers.create(servers.kafka, f"{name}-out", 1)
    servers.send(servers.remote, name, [(None, b"new", 0)])
    servers.send(servers.kafka, f"{name}-out", [(None, b"old", 0)])
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    with pytest.raises(millpond.PositionError, match=f"{name}-out") as refused:
        millpond.bridge(servers.remote, servers.kafka, **words)
    assert "start" in refused.value.hint
    assert millpond.bridge(servers.remote, servers.kafka, **words, start="earliest").written == 1


def test_the_first_dead_letter_ends_a_run_without_a_topic_for_it(servers, name):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, [(None, b'{"product_id":1}', 0), (None, b"{", 0)])
    words = {"source_topic": name, "target_topic": f"{name}-out", "transform": millpond.PRODUCT_VIEWS}
    with pytest.raises(millpond.DataError, match=f"{name} partition 0 offset 1"):
        millpond.bridge(servers.remote, servers.kafka, **words, dead_letter_topic=None)
    # Nothing of the transaction is there, and a rerun with a place for dead letters loses nothing.
    assert servers.read(servers.kafka, f"{name}-out") == []
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.written, result.dead_lettered) == (1, 1)
