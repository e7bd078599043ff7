"""Positions of a sink that no longer fit: refused with what was lost and the ways on, or accepted by name and reported;
and `millpond positions show|reset --collection`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.local_servers import until
from tests.test_positions import call
from tests.topics import SLOW, delete_before, empty, recreate, send_singly

import millpond


@pytest.fixture
def sink(servers, name):
    words = {"topic": name, "database": "tests", "collection": name}
    return lambda **more: millpond.sink(more.pop("source", servers.kafka), servers.mongo_uri, **words | more)


@pytest.fixture
def places(servers, name):
    source = json.dumps(servers.kafka)
    return ("--source", source, "--mongo-uri", servers.mongo_uri, "--database", "tests", "--collection", name)


def numbers(first, last, partition=0):
    return [(None, b'{"n":%d}' % number, partition) for number in range(first, last)]


def stored(servers, name, partition=0):
    with servers.mongo() as client:
        found = client["tests"][name].find().sort("_id", 1)
        return [one["n"] for one in found if one["_id"].binary[4:6] == partition.to_bytes(2, "big")]


def kept(servers, name):
    with servers.mongo() as client:
        found = list(client["tests"]["millpond_positions"].find({"_id.collection": name}))
    return {(one["_id"]["partition"], bool(one.get("closed"))): one["next"] for one in found}


def refused(run, *words):
    with pytest.raises(millpond.PositionError) as caught:
        run()
    told = str(caught.value)
    for word in (*words, "positions reset --database tests --collection"):
        assert word in told, told
    assert not caught.value.retryable


def test_retention_took_unread_events(servers, name, sink):
    servers.create(servers.kafka, name, 2)
    for partition in (0, 1):
        servers.send(servers.kafka, name, numbers(0, 10, partition))
    sink()
    for partition in (0, 1):
        servers.send(servers.kafka, name, numbers(10, 30, partition))
    delete_before(servers.kafka, name, {0: 15})
    for _ in range(2):
        refused(sink, f"topic {name} partition 0", "10..15", 'on_gap="earliest"')
    assert stored(servers, name) == list(range(10))
    result = sink(on_gap="earliest")
    assert result.gaps == [{"partition": 0, "from": 10, "to": 15}]
    assert result.read == 35
    assert any("10..15" in warning for warning in result.warnings)
    assert stored(servers, name) == [*range(10), *range(15, 30)]
    assert stored(servers, name, 1) == list(range(30))
    # Once gone on, it is not told again.
    again = sink(on_gap="earliest")
    assert (again.read, again.gaps, again.lag) == (0, [], 0)


def test_all_that_was_left_is_gone(servers, name, sink):
    """Nothing comes after the gap: the position moves all the same."""
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, numbers(0, 10))
    sink(max_events=5)
    empty(servers.kafka, name)
    refused(sink, "5..10")
    assert sink(on_gap="earliest").gaps == [{"partition": 0, "from": 5, "to": 10}]
    assert kept(servers, name) == {(0, False): 10}
    assert sink().read == 0


def test_a_topic_that_was_made_again(servers, name, sink, places):
    servers.create(servers.kafka, name, 2)
    servers.send(servers.kafka, name, numbers(0, 10) + numbers(0, 4, 1))
    sink()
    recreate(servers, servers.kafka, name, 2)
    servers.send(servers.kafka, name, numbers(100, 103))
    refused(sink, f"topic {name}", "recreated", "10..")
    shown = json.loads(call("show", *places, "--json").stdout)["positions"]
    assert {one["partition"]: one["next"] for one in shown} == {0: 10, 1: 4}
    assert all("recreated" in one["problem"] for one in shown)
    result = sink(on_gap="earliest")
    assert result.gaps == [{"partition": 0, "from": 10, "to": 0}, {"partition": 1, "from": 4, "to": 0}]
    assert sorted(stored(servers, name)) == [*range(10), 100, 101, 102]
    # What the older one left still counts, and says so.
    assert kept(servers, name) == {(0, True): 10, (1, True): 4, (0, False): 3, (1, False): 0}
    servers.send(servers.kafka, name, numbers(103, 105))
    assert (sink().read, sink().read) == (2, 0)


def test_a_log_that_ends_before_a_position_is_never_gone_on_from(servers, name, sink):
    """Its offsets come again for other events, whose `_id`s are taken."""
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, numbers(0, 5))
    sink()
    with servers.mongo() as client:
        client["tests"]["millpond_positions"].update_one({"_id.collection": name}, {"$set": {"next": 50.0}})
    for on_gap in ("fail", "earliest"):
        with pytest.raises(millpond.PositionError, match=r"position 50 lies past the log's end 5") as caught:
            sink(on_gap=on_gap)
        assert "another collection" in caught.value.hint


@pytest.mark.parametrize("on_gap", ["fail", "earliest"])
def test_retention_that_takes_events_while_they_are_read(servers, name, sink, on_gap):
    servers.create(servers.kafka, name, 1)
    send_singly(servers.kafka, name, [(None, b'{"n":%d,"x":"%s"}' % (n, b"x" * 900), 0) for n in range(300)])
    outcome: list[Any] = []

    def run():
        try:
            outcome.append(sink(source=servers.kafka | SLOW, on_gap=on_gap, batch_size=5))
        except millpond.Error as error:
            outcome.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    until(lambda: stored(servers, name))
    delete_before(servers.kafka, name, {0: 290})
    runner.join(180)
    found = stored(servers, name)
    read = len(found) - (10 if on_gap == "earliest" else 0)
    assert 0 < read < 290
    if on_gap == "fail":
        assert isinstance(outcome[0], millpond.PositionError), outcome
        assert f"topic {name} partition 0: offsets {read}..290" in str(outcome[0])
        assert found == list(range(read))
        # What was read is stored, and a rerun says the same.
        refused(sink, f"{read}..290")
    else:
        assert isinstance(outcome[0], millpond.SinkResult), outcome
        assert outcome[0].gaps == [{"partition": 0, "from": read, "to": 290}]
        assert (outcome[0].read, outcome[0].ended) == (read + 10, "end")
        assert found == [*range(read), *range(290, 300)]


CHILD = """
import millpond, sys
try:
    millpond.sink({source!r}, {uri!r}, **{words!r})
except millpond.PositionError as error:
    sys.exit(str(error))
"""


def test_a_topic_that_is_made_again_while_it_is_read(servers, name):
    """The client would go on in the new topic at the offset where it was: nothing of that is stored."""
    servers.create(servers.kafka, name, 1)
    send_singly(servers.kafka, name, [(None, b'{"n":%d,"x":"%s"}' % (n, b"x" * 900), 0) for n in range(240)])
    words = {"topic": name, "database": "tests", "collection": name, "batch_size": 3}
    code = CHILD.format(source=servers.kafka | SLOW, uri=servers.mongo_uri, words=words)
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        until(lambda: stored(servers, name))
        # Stopped meanwhile: an empty topic would be noticed by the offset.
        os.kill(child.pid, signal.SIGSTOP)
        recreate(servers, servers.kafka, name, 1)
        send_singly(
            servers.kafka, name, [(None, b'{"n":%d,"x":"%s"}' % (n, b"y" * 900), 0) for n in range(1_000, 1_280)]
        )
    finally:
        os.kill(child.pid, signal.SIGCONT)
    told = child.communicate(timeout=300)[1].decode()
    assert child.returncode == 1, told
    assert f"topic {name} was recreated" in told, told
    found = stored(servers, name)
    assert found == list(range(len(found)))


def test_positions_of_a_collection_are_shown_and_moved(servers, name, sink, places):
    servers.create(servers.kafka, name, 2)
    for partition in (0, 1):
        servers.send(servers.kafka, name, numbers(0, 20, partition))
    sink()
    servers.send(servers.kafka, name, numbers(20, 30))
    shown = json.loads(call("show", *places, "--json").stdout)
    first = shown["positions"][0]
    assert (first["partition"], first["next"], first["start"], first["end"], first["lag"]) == (0, 20, 0, 30, 10)
    assert (first["topic"], first["id"], first["problem"], first["closed"]) == (name, "kafka", "", False)
    for word in (name, "0..30"):
        assert word in call("show", *places).stdout
    # What is moved back is found present; what is moved on is skipped.
    told = call("reset", *places, "--to", "15", "--partition", "0", "--yes").stdout
    assert "20 -> 15" in told
    assert "5 offsets will be read again" in told
    result = sink()
    assert (result.read, result.already_present, result.inserted) == (15, 5, 10)
    call("reset", *places, "--to", "latest", "--yes", "--json")
    call("reset", *places, "--to", "99", "--yes", code=2)
    call("reset", *places, "--to", "earliest", "--partition", "7", "--yes", code=2)
    delete_before(servers.kafka, name, {0: -1, 1: -1})
    servers.send(servers.kafka, name, numbers(30, 33))
    assert sink().read == 3


@pytest.mark.parametrize("what", ["deleted", "recreated", "collection"])
def test_a_reset_is_a_way_on(servers, name, sink, places, what):
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, numbers(0, 20))
    sink(max_events=10)
    if what == "deleted":
        delete_before(servers.kafka, name, {0: 15})
    elif what == "recreated":
        recreate(servers, servers.kafka, name, 1)
        servers.send(servers.kafka, name, numbers(40, 43))
    else:
        with servers.mongo() as client:
            client["tests"][name].drop()
    with pytest.raises(millpond.PositionError, match="positions reset"):
        sink()
    call("reset", *places, "--yes", *(["--to", "earliest"] if what == "collection" else []))
    sink()
    expected = {"deleted": [*range(10), *range(15, 20)], "recreated": [*range(10), 40, 41, 42], "collection": range(20)}
    assert sorted(stored(servers, name)) == list(expected[what])
    assert sink().read == 0
