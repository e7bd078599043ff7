"""SIGKILL at random moments, servers killed among them (I2): the state after the last rerun is that of a run that was
never disturbed: 0 lost, 0 doubled, order kept, no half report seen.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Servers, started

import millpond
from millpond.local import Stack

KILLS = [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.chaos)]
EVENTS_A_ROUND = 1_000
# Every so many rounds a server is killed as well.
DISTURB_EVERY = 4
# Every so many the time that a run takes is looked at again: other work on the machine, and what is stored, change it.
MEASURE_EVERY = 15
RETRYABLE = 3


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A stack of this module's own, since its servers are killed."""
    with tempfile.TemporaryDirectory(prefix="millpond-kill-", ignore_cleanup_errors=True) as directory:
        yield from started(Path(directory) / "stack")


@contextmanager
def disturbed(stack: Stack, victim: str | None, seconds: float) -> Iterator[None]:
    """Kill a server so many seconds after the block began, and have it back when the block is left."""
    failures: list[BaseException] = []

    def disturb() -> None:
        assert victim is not None
        try:
            time.sleep(seconds)
            stack.kill(victim)
            stack.restart(victim)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=disturb)
    if victim is not None:
        thread.start()
    try:
        yield
    finally:
        if victim is not None:
            thread.join()
    assert not failures, failures


class Runs:
    """Child processes that run one call, each killed somewhere between its start and its end."""

    def __init__(self, stack: Stack, call: str, victims: list[str]) -> None:
        self.stack, self.victims = stack, victims
        seed = int(os.environ.get("MILLPOND_SEED", random.randrange(10**6)))
        print(f"MILLPOND_SEED={seed}")
        self.chance = random.Random(seed)
        self.code = f"import millpond, sys\ntry:\n {call}\nexcept millpond.ExternalError:\n sys.exit({RETRYABLE})"
        self.hits = self.done = self.failed = 0

    def undisturbed(self) -> float:
        """Run to the end and return the seconds that it took; servers that are not back yet are waited for."""
        deadline = time.monotonic() + 300
        while True:
            began = time.monotonic()
            done = subprocess.run([sys.executable, "-c", self.code], capture_output=True, timeout=300, check=False)
            if done.returncode == 0:
                return time.monotonic() - began
            assert done.returncode == RETRYABLE, done.stderr.decode()
            assert time.monotonic() < deadline, done.stderr.decode()

    def kill(self, count: int, feed: Callable[[], None]) -> None:
        """Feed, run, kill, until so many runs were killed, at moments spread over what a run takes here and now."""
        # The first run also makes topics, collections and tables.
        for _ in range(2):
            feed()
            usual = self.undisturbed()
        rounds = 0
        while self.hits < count:
            rounds += 1
            assert rounds < 4 * count, f"{self.hits} of {rounds} kills met a run"
            feed()
            if rounds % MEASURE_EVERY == 0:
                usual = self.undisturbed()
                feed()
            victim = self.chance.choice(self.victims) if rounds % DISTURB_EVERY == 0 else None
            # Runs among servers that come back take longer: some of them see that through.
            moment = self.chance.uniform(0.05, usual if victim is None else 4 * usual)
            began = time.monotonic()
            with disturbed(self.stack, victim, self.chance.uniform(0, usual)):
                ended = not self.killed_after(moment)
            if ended and victim is None:
                usual = time.monotonic() - began
        print(f"killed {self.hits}, ended {self.done}, failed and to be tried again {self.failed}")

    def killed_after(self, seconds: float) -> bool:
        """Run a child and kill it after so many seconds; false when it had ended by then."""
        child = subprocess.Popen([sys.executable, "-c", self.code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, told = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            self.hits += 1
            return True
        assert child.returncode in (0, RETRYABLE), told.decode()
        self.done += child.returncode == 0
        self.failed += child.returncode == RETRYABLE
        return False


def again(call: Callable[[], Any]) -> None:
    """Do what a scheduler does: try what may be tried again, until it ends well."""
    deadline = time.monotonic() + 300
    while True:
        try:
            call()
        except millpond.ExternalError:
            if time.monotonic() > deadline:
                raise
        else:
            return


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("kills", KILLS)
def test_bridge(servers, name, kills):
    servers.create(servers.remote, name, 3)
    words = {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views"}
    call = f"millpond.bridge({servers.remote!r}, {servers.kafka!r}, **{words!r})"
    sent = 0

    def feed() -> None:
        nonlocal sent
        events = []
        for i in range(sent, sent + EVENTS_A_ROUND):
            value = b"broken" if i % 97 == 0 else b'{"product_id":%d}' % i
            events.append((b"%d" % i, value, i % 3))
        servers.send(servers.remote, name, events, sure=True)
        sent += EVENTS_A_ROUND

    Runs(servers.stack, call, ["remote", "kafka-1", "kafka-2", "kafka-3"]).kill(kills, feed)
    again(lambda: millpond.bridge(servers.remote, servers.kafka, **words))
    for topic, wanted in ((f"{name}-out", False), (f"{name}-out.dead_letters", True)):
        found = servers.read(servers.kafka, topic)
        keys = [int(message.key()) for message in found]
        assert sorted(keys) == [i for i in range(sent) if (i % 97 == 0) == wanted], topic
        for partition in range(3):
            order = [int(message.key()) for message in found if message.partition() == partition]
            assert order == sorted(order), f"{topic} {partition}"


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("kills", KILLS)
def test_sink(servers, name, kills):
    servers.create(servers.kafka, name, 3)
    words = {"topic": name, "database": "tests", "collection": name, "batch_size": 50}
    call = f"millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})"
    sent = 0

    def feed() -> None:
        nonlocal sent
        events = []
        for i in range(sent, sent + EVENTS_A_ROUND):
            events.append((None, b"[]" if i % 97 == 0 else b'{"n":%d}' % i, i % 3))
        servers.send(servers.kafka, name, events, sure=True)
        sent += EVENTS_A_ROUND

    Runs(servers.stack, call, ["mongo-1", "mongo-1", "kafka-1", "kafka-2", "kafka-3"]).kill(kills, feed)
    again(lambda: millpond.sink(servers.kafka, servers.mongo_uri, **words))
    with servers.mongo() as client:
        stored = [document["n"] for document in client["tests"][name].find({}, {"n": 1}).sort("_id", 1)]
        letters = client["tests"][f"{name}_dead_letters"].count_documents({})
    assert sorted(stored) == [i for i in range(sent) if i % 97]
    # `_id` order is arrival order, partition by partition.
    assert stored == sorted(stored, key=lambda n: (n % 3, n))
    assert letters == sum(i % 97 == 0 for i in range(sent))


TABLES = ("product_views_daily", "country_views_daily", "referrer_views_daily")


def watch(dsn: str, ended: threading.Event, torn: list[tuple[int, ...]], looks: list[int]) -> None:
    """Look at the three tables of one snapshot as often as can be; note sums that no publication can have left."""
    total = "SELECT coalesce(sum(view_count), 0)::bigint FROM {}"
    while not ended.is_set():
        try:
            with psycopg.connect(dsn) as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                while not ended.is_set():
                    with connection.transaction():
                        sums = tuple(int(connection.execute(total.format(t)).fetchall()[0][0]) for t in TABLES)
                    looks.append(sums[0])
                    if len(set(sums)) != 1 or sums[0] % EVENTS_A_ROUND or not sums[0]:
                        torn.append(sums)
                    time.sleep(0.002)
        except psycopg.OperationalError:
            # The server was killed; it comes back.
            time.sleep(0.05)


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("kills", KILLS)
def test_aggregate(servers, name, postgres, kills):
    servers.create(servers.kafka, name, 3)
    store = {"topic": name, "database": "tests", "collection": name}
    report = {"database": "tests", "collection": name, "dates": "2025-10-31"}
    call = f"millpond.aggregate({servers.mongo_uri!r}, {postgres!r}, **{report!r})"
    sent = 0
    torn: list[tuple[int, ...]] = []
    looks: list[int] = []
    ended = threading.Event()

    def event(i: int) -> bytes:
        return b'{"product_id":%d,"store_id":"S%d","referrer_url":"r","timestamp":"2025-10-31T0%d:00:00Z"}' % (
            i % 400,
            i % 7,
            i % 10,
        )

    def feed() -> None:
        nonlocal sent
        events = [(None, event(i), i % 3) for i in range(sent, sent + EVENTS_A_ROUND)]
        servers.send(servers.kafka, name, events, sure=True)
        sent += EVENTS_A_ROUND
        again(lambda: millpond.sink(servers.kafka, servers.mongo_uri, **store))

    feed()
    millpond.aggregate(servers.mongo_uri, postgres, **report)
    reader = threading.Thread(target=watch, args=(postgres, ended, torn, looks))
    reader.start()
    try:
        # Three publications in a row, so that kills meet each step of one.
        Runs(servers.stack, f"for _ in range(3): {call}", ["mongo-1", "postgres"]).kill(kills, feed)
        again(lambda: millpond.aggregate(servers.mongo_uri, postgres, **report))
    finally:
        ended.set()
        reader.join()
    assert torn == []
    assert len(set(looks)) > kills // 4, "the reader hardly saw a new generation"
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("SELECT product_id, view_count FROM product_views_daily").fetchall()
        found = {key: int(count) for key, count in rows}
    assert found == {str(key): count for key, count in Counter(i % 400 for i in range(sent)).items()}
