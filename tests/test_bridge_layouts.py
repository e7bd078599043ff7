"""Lanes and shards in anger: any count of partitions, layouts changed between and during runs, two at once (I3).

0 lost, 0 doubled, and the order of each partition kept, by what is read back.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.local_servers import until
from tests.topics import EAGER, described, grow, positions, written

import millpond


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out", "job": name}


class Feed:
    """Events numbered per partition; `arrived` says whether all are there once, in order."""

    def __init__(self, servers, topic):
        self.servers, self.topic, self.sent = servers, topic, {}

    def more(self, partitions, count):
        """Write so many to each partition."""
        events = []
        for n in range(count):
            for partition in range(partitions):
                events.append((None, b"%d" % (self.sent.get(partition, 0) + n), partition))
        self.servers.send(self.servers.remote, self.topic, events)
        for partition in range(partitions):
            self.sent[partition] = self.sent.get(partition, 0) + count
        return len(events)

    def arrived(self):
        found: dict[int, list[int]] = {partition: [] for partition in self.sent}
        for message in self.servers.read(self.servers.kafka, f"{self.topic}-out"):
            found[message.partition()].append(int(message.value()))
        assert found == {partition: list(range(count)) for partition, count in self.sent.items()}


# Of 300 events each: a run of a minute, unless it gives way.
SLOWLY = {"max_events_per_second": 5}


def layout(servers, words, n):
    """Every shard of a layout at once: results and errors."""

    def shard(i):
        try:
            return millpond.bridge(servers.remote, servers.kafka | EAGER, **words, shard=(i, n))
        except millpond.Error as error:
            return error

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(shard, range(n)))


@pytest.mark.parametrize(
    ("partitions", "layouts"),
    [(1, (2, 1)), (16, (3, 1)), (17, (2, 3, 1)), (100, (4, 1))],
    ids=["1", "16", "17", "100"],
)
def test_a_job_of_so_many_partitions(servers, name, words, partitions, layouts):
    servers.create(servers.remote, name, partitions)
    feed = Feed(servers, name)
    for shards in layouts:
        count = feed.more(partitions, 20)
        results = layout(servers, words, shards)
        assert sum(result.read for result in results) == count, results
        assert sum(result.lag for result in results) == 0
        for i, result in enumerate(results):
            mine = [p for p in range(partitions) if p % 16 % shards == i]
            assert [place["partition"] for place in result.positions] == mine
            assert len(result.to_dict()["positions"]) == len(mine)
    feed.arrived()
    assert {p: kept["next"] for p, kept in positions(servers, name).items()} == dict.fromkeys(
        range(partitions), 20 * len(layouts)
    )


def test_partitions_added_between_runs(servers, name, words):
    servers.create(servers.remote, name, 2)
    servers.create(servers.kafka, f"{name}-out", 20)
    feed = Feed(servers, name)
    # Other counts than the target's: a null key goes to p % 20, which is p.
    feed.more(2, 10)
    millpond.bridge(servers.remote, servers.kafka, **words)
    grow(servers.remote, name, 20)
    feed.more(20, 10)
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.lag) == (200, 0)
    assert described(servers.kafka, f"millpond.positions.{name}")[0] == 20
    feed.arrived()
    # A position stands in the partition of its number.
    for message in servers.read(servers.kafka, f"millpond.positions.{name}"):
        assert b'"partition":%d}' % message.partition() in message.key().replace(b" ", b"")
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 0


def test_layouts_change_while_an_older_one_runs(servers, name, words):
    servers.create(servers.remote, name, 6)
    feed = Feed(servers, name)
    feed.more(6, 100)
    outcome = []
    older = threading.Thread(target=lambda: outcome.extend(layout(servers, words | SLOWLY, 2)))
    older.start()
    until(lambda: written(servers.kafka, f"{name}-out"))
    newer = layout(servers, words, 3)
    older.join(180)
    # One may have come to its end before the newer layout came to its lanes.
    assert any(isinstance(end, millpond.FencedError) for end in outcome), outcome
    assert all(isinstance(end, millpond.FencedError) or end.lag == 0 for end in outcome), outcome
    assert sum(result.lag for result in newer) == 0, newer
    feed.arrived()
    assert [result.read for result in layout(servers, words, 1)] == [0]


CHILD = """
import millpond, sys
try:
    millpond.bridge({source!r}, {target!r}, **{words!r}, shard=({i}, 2))
except millpond.FencedError:
    sys.exit(4)
except millpond.ExternalError:
    sys.exit(3)
"""


def test_layouts_change_while_an_older_shard_hangs(servers, name, words):
    """Stopped in the midst of a transaction; the newer layout runs to the end; then it goes on, and must not write."""
    servers.create(servers.remote, name, 6)
    feed = Feed(servers, name)
    millpond.bridge(servers.remote, servers.kafka, **words)
    feed.more(6, 100)
    places = {"source": servers.remote, "target": servers.kafka | EAGER, "words": words | SLOWLY}
    children = [subprocess.Popen([sys.executable, "-c", CHILD.format(**places, i=i)]) for i in range(2)]
    try:
        # Partitions 0 to 5 are lanes 0 to 5: each child has three of them.
        until(lambda: all(written(servers.kafka, f"{name}-out", partition) for partition in (0, 1)))
        for child in children:
            os.kill(child.pid, signal.SIGSTOP)
        results = layout(servers, words, 3)
        assert sum(result.lag for result in results) == 0, results
        feed.arrived()
    finally:
        for child in children:
            os.kill(child.pid, signal.SIGCONT)
    assert all(child.wait(180) in (3, 4) for child in children), [child.returncode for child in children]
    feed.more(6, 5)
    assert sum(result.read for result in layout(servers, words, 1)) == 30
    feed.arrived()


@pytest.mark.parametrize("fresh", [True, False], ids=["first", "later"])
def test_two_layouts_in_the_same_instant(servers, name, words, fresh):
    servers.create(servers.remote, name, 6)
    feed = Feed(servers, name)
    if not fresh:
        feed.more(6, 100)
        millpond.bridge(servers.remote, servers.kafka, **words)
    feed.more(6, 3_000)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda n: layout(servers, words, n), (2, 3)))
    errors = [outcome for outcomes in both for outcome in outcomes if isinstance(outcome, millpond.Error)]
    print(f"{len(errors)} of 5 shards gave way: {errors}")
    assert all(isinstance(error, millpond.FencedError | millpond.ExternalError) for error in errors), errors
    deadline = time.monotonic() + 120
    while True:
        (result,) = layout(servers, words, 1)
        if not isinstance(result, millpond.Error) and result.lag == 0:
            break
        assert isinstance(result, millpond.ExternalError) and time.monotonic() < deadline, result
    feed.arrived()
