"""A source that is written by transactions: aborted ones are not read, open ones are waited for or named."""

import threading
import time

import pytest
from confluent_kafka import Producer
from tests.topics import delete_before, log, positions

import millpond


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out", "job": name}


def opened(servers, name, suffix, events):
    """A transaction with these events in it, written and not ended."""
    producer = Producer(dict(servers.remote) | {"transactional.id": f"{name}-{suffix}", "linger.ms": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    for value, partition in events:
        producer.produce(name, value, None, partition)
    assert producer.flush(60) == 0
    return producer


def arrived(servers, name):
    return [m.value() for m in servers.read(servers.kafka, f"{name}-out")]


def test_aborted_events_are_not_read_and_markers_are_no_events(servers, name, words):
    servers.create(servers.remote, name, 1)
    opened(servers, name, "a", [(b"gone", 0)] * 3).abort_transaction(20)
    opened(servers, name, "b", [(b"kept", 0)] * 2).commit_transaction(20)
    # Three aborted, two kept, two markers, of which one is the log's last.
    assert log(servers.remote, name) == (0, 7)
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.lag, result.held_back) == (2, 0, 0)
    assert result.positions[0]["next"] == 7
    assert arrived(servers, name) == [b"kept"] * 2
    # Nothing but markers and aborted events: no gap, and nothing to do.
    delete_before(servers.remote, name, {0: -1})
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 0
    opened(servers, name, "a", [(b"gone", 0)]).abort_transaction(20)
    last = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (last.read, last.lag, last.positions[0]["next"]) == (0, 0, 9)
    assert arrived(servers, name) == [b"kept"] * 2


def test_an_open_transaction_is_named_and_its_events_are_read_once_it_ends(servers, name, words):
    servers.create(servers.remote, name, 2)
    servers.send(servers.remote, name, [(b"k", b"before", 0), (b"k", b"before", 1)])
    hours = [time.strftime("%Y-%m-%dT%H", time.gmtime())]
    producer = opened(servers, name, "a", [(b"open", 0)] * 3)
    hours.append(time.strftime("%Y-%m-%dT%H", time.gmtime()))
    servers.send(servers.remote, name, [(b"k", b"behind", 0)])
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    # An event behind an open one waits with it; the other partition does not.
    assert (result.read, result.lag, result.held_back) == (2, 0, 4)
    assert [place["held_back"] for place in result.positions] == [4, 0]
    (warning,) = result.warnings
    for word in (f"topic {name}", "partition 0: 4", "describe-producers", "--partition 0"):
        assert word in warning, warning
    # It began in one hour, or between two.
    assert any(f"since {hour}" in warning for hour in hours), warning
    assert "partition 1" not in warning
    producer.commit_transaction(20)
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.held_back, result.warnings) == (4, 0, [])
    assert sorted(arrived(servers, name)) == [b"before"] * 2 + [b"behind"] + [b"open"] * 3


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_an_open_transaction_is_waited_for(servers, name, words, end):
    servers.create(servers.remote, name, 2)
    producer = opened(servers, name, "a", [(b"open", 0)] * 3)
    servers.send(servers.remote, name, [(b"k", b"behind", 0)])
    ends = producer.commit_transaction if end == "commit" else producer.abort_transaction
    timer = threading.Timer(2.5, ends)
    began = time.monotonic()
    timer.start()
    result = millpond.bridge(servers.remote, servers.kafka, **words, wait_for_open_transactions=60)
    assert 2.5 < time.monotonic() - began < 50, "not until the wait was over"
    timer.join()
    assert (result.read, result.held_back, result.warnings) == (4 if end == "commit" else 1, 0, [])


def test_a_transaction_that_hangs_is_waited_for_so_long_and_no_longer(servers, name, words):
    servers.create(servers.remote, name, 2)
    servers.send(servers.remote, name, [(b"k", b"before", 0), (b"k", b"before", 1)])
    producer = opened(servers, name, "a", [(b"open", 0)])
    began = time.monotonic()
    result = millpond.bridge(servers.remote, servers.kafka, **words, wait_for_open_transactions=2)
    assert 2 < time.monotonic() - began < 45
    assert (result.read, result.held_back, result.ended) == (2, 1, "end")
    assert any("waited 2" in warning and "partition 0: 1" in warning for warning in result.warnings), result.warnings
    assert positions(servers, name)[0]["next"] == 1
    # The wait is part of a run's time.
    limited = millpond.bridge(servers.remote, servers.kafka, **words, wait_for_open_transactions=600, max_seconds=1)
    assert limited.seconds < 45
    producer.abort_transaction(20)
