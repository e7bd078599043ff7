"""Positions that no longer fit: refused with what was lost and the ways on, or accepted by name and reported.

`on_gap` is about the source. What became of the target is refused whatever it says.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from tests.local_servers import until
from tests.topics import EAGER, SLOW, delete_before, empty, forge, positions, recreate, send_singly, written

import millpond


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out", "job": name}


@pytest.fixture
def bridge(servers, words):
    return lambda **more: millpond.bridge(servers.remote, servers.kafka, **words | more)


def numbers(first, last, partition=0):
    return [(None, b"%d" % number, partition) for number in range(first, last)]


def arrived(servers, name, partition=0):
    return [int(m.value()) for m in servers.read(servers.kafka, f"{name}-out") if m.partition() == partition]


def refused(call, *words):
    """The error names what was lost and both ways on; nothing retryable about it."""
    with pytest.raises(millpond.PositionError) as caught:
        call()
    told = str(caught.value)
    for word in (*words, "positions reset --job"):
        assert word in told, told
    assert not caught.value.retryable


def test_retention_took_unread_events(servers, name, bridge):
    servers.create(servers.remote, name, 2)
    for partition in (0, 1):
        servers.send(servers.remote, name, numbers(0, 10, partition))
    bridge()
    for partition in (0, 1):
        servers.send(servers.remote, name, numbers(10, 30, partition))
    delete_before(servers.remote, name, {0: 15})
    for _ in range(2):
        refused(bridge, f"topic {name} partition 0", "10..15", 'on_gap="earliest"')
    assert arrived(servers, name) == list(range(10))
    result = bridge(on_gap="earliest")
    assert result.gaps == [{"partition": 0, "from": 10, "to": 15}]
    assert result.to_dict()["gaps"] == result.gaps
    assert any("10..15" in warning and f"{name} partition 0" in warning for warning in result.warnings)
    assert result.read == 35
    assert arrived(servers, name, 0) == [*range(10), *range(15, 30)]
    assert arrived(servers, name, 1) == list(range(30))
    # The books go on.
    books = {partition: (kept["next"], kept["read"]) for partition, kept in positions(servers, name).items()}
    assert books == {0: (30, 25), 1: (30, 30)}
    again = bridge()
    assert (again.read, again.gaps) == (0, [])


def test_retention_took_all_there_was(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(0, 10))
    bridge()
    servers.send(servers.remote, name, numbers(10, 30))
    delete_before(servers.remote, name, {0: -1})
    refused(bridge, "10..30")
    result = bridge(on_gap="earliest")
    assert (result.read, result.gaps) == (0, [{"partition": 0, "from": 10, "to": 30}])
    # Accepted once: the position moved though there was nothing to read.
    servers.send(servers.remote, name, numbers(30, 32))
    assert bridge().read == 2
    assert arrived(servers, name) == [*range(10), 30, 31]


def test_retention_that_takes_only_what_was_read_is_no_gap(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(0, 10))
    bridge()
    delete_before(servers.remote, name, {0: -1})
    assert bridge().gaps == []


def test_a_recreated_source(servers, name, bridge):
    """It has grown past the older position: its first events must not be taken for read ones."""
    more = 25
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(0, 10))
    bridge()
    recreate(servers, servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(100, 100 + more))
    refused(bridge, f"topic {name} partition 0", "recreated", 'on_gap="earliest"')
    result = bridge(on_gap="earliest")
    assert (result.read, result.gaps) == (more, [{"partition": 0, "from": 10, "to": 0}])
    assert arrived(servers, name) == [*range(10), *range(100, 100 + more)]
    assert positions(servers, name)[0]["read"] == 10 + more
    assert bridge().read == 0


def test_a_position_past_the_end(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(0, 10))
    bridge()
    forge(servers, name, 0, next=17)
    refused(bridge, f"topic {name} partition 0", "17", "10", 'on_gap="earliest"')
    result = bridge(on_gap="earliest")
    assert (result.read, result.gaps) == (10, [{"partition": 0, "from": 17, "to": 0}])
    assert arrived(servers, name) == [*range(10), *range(10)]
    assert bridge().read == 0


def test_an_end_is_asked_again_before_it_is_believed(servers, name, bridge):
    """A new leader's watermark may lag: here the events come between the two questions."""
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, numbers(0, 10))
    bridge()
    forge(servers, name, 0, next=15)
    asked: list[str] = []

    class Feed(logging.Handler):
        def emit(self, record):
            if "asked again" in record.getMessage() and not asked:
                asked.append(record.getMessage())
                servers.send(servers.remote, name, numbers(10, 20))

    logger, feed = logging.getLogger("millpond.bridge"), Feed()
    logger.addHandler(feed)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        result = bridge()
    finally:
        logger.removeHandler(feed)
        logger.setLevel(level)
    assert asked
    assert (result.read, result.gaps) == (5, [])
    assert arrived(servers, name) == [*range(10), *range(15, 20)]


@pytest.mark.parametrize("on_gap", ["fail", "earliest"])
def test_retention_that_takes_events_while_they_are_read(servers, name, words, on_gap):
    servers.create(servers.remote, name, 1)
    send_singly(servers.remote, name, [(None, b"%08d" % number + b"x" * 900, 0) for number in range(300)])
    outcome: list[Any] = []

    def run():
        try:
            outcome.append(millpond.bridge(servers.remote | SLOW, servers.kafka | EAGER, **words, on_gap=on_gap))
        except millpond.Error as error:
            outcome.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    # Uncommitted events arrive: it reads.
    until(lambda: written(servers.kafka, f"{name}-out"))
    delete_before(servers.remote, name, {0: 290})
    runner.join(180)
    found = [int(m.value()[:8]) for m in servers.read(servers.kafka, f"{name}-out")]
    read = len(found) - (10 if on_gap == "earliest" else 0)
    assert 0 < read < 290
    if on_gap == "fail":
        assert isinstance(outcome[0], millpond.PositionError), outcome
        assert f"topic {name} partition 0: offsets {read}..290" in str(outcome[0])
        assert found == list(range(read))
        # What was read is committed, and a rerun says the same.
        refused(lambda: millpond.bridge(servers.remote, servers.kafka, **words), f"{read}..290")
    else:
        assert outcome[0].gaps == [{"partition": 0, "from": read, "to": 290}]
        assert (outcome[0].read, outcome[0].ended) == (read + 10, "end")
        assert found == [*range(read), *range(290, 300)]


CHILD = """
import millpond, sys
try:
    millpond.bridge({source!r}, {target!r}, **{words!r})
except millpond.PositionError as error:
    sys.exit(str(error))
"""


def test_a_source_that_is_recreated_while_it_is_read(servers, name, words):
    """The client would go on in the new topic at the offset where it was: nothing of that is committed."""
    servers.create(servers.remote, name, 1)
    send_singly(servers.remote, name, [(None, b"%08d" % number + b"x" * 900, 0) for number in range(240)])
    code = CHILD.format(source=servers.remote | SLOW, target=servers.kafka | EAGER, words=words)
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        until(lambda: written(servers.kafka, f"{name}-out"))
        # Stopped meanwhile: an empty topic would be noticed by the offset.
        os.kill(child.pid, signal.SIGSTOP)
        recreate(servers, servers.remote, name, 1)
        send_singly(servers.remote, name, [(None, b"%08d" % number + b"y" * 900, 0) for number in range(280)])
    finally:
        os.kill(child.pid, signal.SIGCONT)
    told = child.communicate(timeout=300)[1].decode()
    assert child.returncode == 1, told
    assert f"topic {name} was recreated" in told, told
    found = [m.value()[:9] for m in servers.read(servers.kafka, f"{name}-out")]
    assert found == [b"%08dx" % number for number in range(len(found))]
    result = millpond.bridge(servers.remote, servers.kafka, **words, on_gap="earliest")
    assert result.read == 280
    found = [m.value()[:9] for m in servers.read(servers.kafka, f"{name}-out")]
    assert found[-280:] == [b"%08dy" % number for number in range(280)]


@pytest.mark.parametrize("change", ["recreated", "emptied"])
@pytest.mark.parametrize("suffix", ["out", "out.dead_letters"])
def test_what_became_of_the_target_is_never_stepped_over(servers, name, bridge, suffix, change):
    servers.create(servers.remote, name, 2)
    events = [(None, b"{", 0), (None, b'{"product_id":"1"}', 0), (None, b'{"product_id":"2"}', 1)]
    servers.send(servers.remote, name, events)
    assert bridge(transform=millpond.PRODUCT_VIEWS).dead_lettered == 1
    topic = f"{name}-{suffix}"
    if change == "recreated":
        recreate(servers, servers.kafka, topic, 2, **{"max.message.bytes": "3000000"})
    else:
        empty(servers.kafka, topic)
    refused(lambda: bridge(transform=millpond.PRODUCT_VIEWS, on_gap="earliest"), topic, change)


def test_a_target_whose_own_retention_emptied_it_is_none_of_it(servers, name, bridge):
    servers.create(servers.remote, name, 1)
    servers.create(servers.kafka, f"{name}-out", 1, **{"retention.ms": "3600000"})
    servers.send(servers.remote, name, numbers(0, 3))
    bridge()
    empty(servers.kafka, f"{name}-out")
    servers.send(servers.remote, name, numbers(3, 5))
    assert bridge().read == 2


def test_a_job_has_one_source_in_every_partition(servers, name):
    """Only partition 5 has a position: a source of two partitions must not look new."""
    servers.create(servers.remote, name, 6)
    servers.create(servers.remote, f"{name}-other", 2)
    servers.send(servers.remote, name, [(None, b"one", 5)])
    words = {"target_topic": f"{name}-out", "job": name}
    millpond.bridge(servers.remote, servers.kafka, source_topic=name, shard=(5, 6), **words)
    with pytest.raises(millpond.PositionError, match=f"{name}-other"):
        millpond.bridge(servers.remote, servers.kafka, source_topic=f"{name}-other", start="earliest", **words)


def test_on_gap_says_what_it_takes(servers, name, bridge):
    began = time.monotonic()
    with pytest.raises(millpond.ConfigError, match="on_gap") as caught:
        bridge(on_gap="latest")
    assert "earliest" in caught.value.hint
    assert time.monotonic() - began < 5
