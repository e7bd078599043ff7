"""Everything at once against one job (I2, I3): kills at named steps and random moments, signals, runs beside each
other, brokers killed, frozen and restarted in turn, replicas lost. At the end 0 lost, 0 doubled, all in order.

`make chaos-bridge EVENTS=… KILLS=… SEED=…` runs it at length; the short form, of `make chaos`, meets each kind once.
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

import pytest
from confluent_kafka import Producer
from tests.conftest import Servers, started
from tests.test_mutants import SABOTAGE

import millpond

EVENTS = int(os.environ.get("EVENTS") or 12_000)
SEED = int(os.environ.get("SEED") or random.randrange(10**6))
PARTITIONS = 3
BROKERS = ["kafka-1", "kafka-2", "kafka-3"]
# Of the sabotaged build alone, and how often brokers look for transactions that outlived theirs.
TIMEOUT_MS = 3_000
LOOK_S = 10
# What a scheduler tries again, and what it does not since another run took over.
ENDS = (millpond.ExternalError, millpond.FencedError, millpond.Cancelled)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="millpond-chaos-", ignore_cleanup_errors=True) as directory:
        yield from started(Path(directory) / "stack")


class Chaos:
    """One job, its source, and what has been sent."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.servers, self.name, self.target = servers, name, f"{name}-out"
        self.chance = random.Random(SEED)
        self.sent: dict[int, list[bytes | None]] = {partition: [] for partition in range(PARTITIONS)}
        self.count = 0
        servers.create(servers.remote, name, PARTITIONS)
        self.producer = Producer(servers.remote | {"transactional.id": f"{name}-source", "linger.ms": 5})
        self.producer.init_transactions(30)

    def feed(self, events: int) -> None:
        """Write events in transactions, every fourth of them aborted: nobody may see those."""
        keys = 0
        while keys < events:
            self.producer.begin_transaction()
            batch = [(self.chance.randrange(PARTITIONS), self.chance.random() < 0.1) for _ in range(events // 4 + 1)]
            aborted = self.chance.random() < 0.25
            for partition, tombstone in batch:
                key = b"%d" % self.count
                self.count += 1
                value = None if tombstone else key * self.chance.randrange(1, 40)
                self.producer.produce(self.name, value, key, partition, headers=[("h", None), ("h", key)])
                self.producer.poll(0)
                if not aborted:
                    self.sent[partition].append(key)
                    keys += 1
            if aborted:
                self.producer.flush(30)
                self.producer.abort_transaction(30)
            else:
                self.producer.commit_transaction(30)

    @property
    def words(self) -> dict[str, Any]:
        return {"source_topic": self.name, "target_topic": self.target}

    def run(self, **more: Any) -> None:
        """One try."""
        millpond.bridge(self.servers.remote, self.servers.kafka, **self.words, **more)

    def until_done(self) -> None:
        """What a scheduler does."""
        deadline = time.monotonic() + 240
        while True:
            try:
                return self.run()
            except ENDS:
                assert time.monotonic() < deadline, "the job never ended well"

    @contextmanager
    def child(self, at: str = "", **more: Any) -> "Iterator[subprocess.Popen[bytes]]":
        """A run in a process of its own; it is over when the block is left."""
        call = f"millpond.bridge({self.servers.remote!r}, {self.servers.kafka!r}, **{self.words | more!r})"
        code = f"""
import millpond, signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    {call}
except ({", ".join(f"millpond.{end.__name__}" for end in ENDS)}) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
        extra = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": at, "MILLPOND_SABOTAGE_TIMEOUT_MS": str(TIMEOUT_MS)}
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | extra, stderr=subprocess.PIPE)
        try:
            yield process
            _, told = process.communicate(timeout=240)
            # Behind what it logged stands why it ended.
            last = (told.decode().splitlines() or [""])[-1]
            expected = last.startswith(tuple(f"{end.__name__}: " for end in ENDS))
            assert process.returncode in (0, -signal.SIGKILL) or expected, told.decode()
        finally:
            process.kill()

    def moment(self, most: float = 0.8) -> None:
        time.sleep(self.chance.uniform(0.05, most))

    # What happens to a run.

    def killed_at_a_step(self) -> None:
        step = self.chance.choice(["before_init", "after_init", "before_positions", "before_commit", "after_commit"])
        nth = 1 if step.endswith("init") else self.chance.randrange(1, 4)
        with self.child(f"KILL:bridge.{step}:{nth}"):
            pass

    def killed_at_any_moment(self) -> None:
        with self.child() as process:
            self.moment(1.5)
            process.kill()

    def terminated(self) -> None:
        with self.child() as process:
            self.moment(1.5)
            process.terminate()
            asked = time.monotonic()
            process.wait(10)
            assert time.monotonic() - asked < 4, "a stop takes two seconds"

    def frozen_past_the_time_out(self) -> None:
        """Frozen with an open transaction, which the broker ends; another run has long gone on when it wakes."""
        with self.child(f"STOP:bridge.before_commit:{self.chance.randrange(1, 3)}") as process:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            time.sleep(TIMEOUT_MS / 1000 + LOOK_S)
            self.until_done()
            process.send_signal(signal.SIGCONT)

    def two_at_once(self) -> None:
        with self.child(), self.child():
            pass

    def two_layouts_at_once(self) -> None:
        with self.child(shard=(0, 2)), self.child(shard=(1, 2)), self.child(shard=(0, 3)), self.child():
            pass

    def among(self, disturb: Callable[[], None]) -> None:
        """Runs in a row while servers are disturbed."""
        over = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self.moment()
                disturb()
            except BaseException as error:
                failures.append(error)
            finally:
                over.set()

        thread = threading.Thread(target=work)
        thread.start()
        while not over.is_set():
            try:
                self.run()
            except ENDS:
                time.sleep(0.1)
        thread.join()
        assert not failures, failures

    def a_broker_killed(self) -> None:
        victim = self.chance.choice([*BROKERS, "remote"])

        def disturb() -> None:
            self.servers.stack.kill(victim)
            self.moment(2)
            self.servers.stack.restart(victim)

        self.among(disturb)

    def a_broker_frozen(self) -> None:
        victim = self.chance.choice([*BROKERS, "remote"])

        def disturb() -> None:
            self.servers.stack.stop(victim)
            self.moment(4)
            self.servers.stack.cont(victim)

        self.among(disturb)

    def a_rolling_restart(self) -> None:
        def disturb() -> None:
            for broker in BROKERS:
                self.servers.stack.restart(broker)

        self.among(disturb)

    def replicas_lost(self) -> None:
        """Two of three: fewer than min.insync.replicas are left, until they come back."""
        victims = self.chance.sample(BROKERS, 2)

        def disturb() -> None:
            for victim in victims:
                self.servers.stack.kill(victim)
            self.moment(2)
            for victim in victims:
                self.servers.stack.restart(victim)

        self.among(disturb)


KINDS = [
    Chaos.killed_at_a_step,
    Chaos.killed_at_any_moment,
    Chaos.terminated,
    Chaos.two_at_once,
    Chaos.two_layouts_at_once,
    Chaos.frozen_past_the_time_out,
    Chaos.a_broker_killed,
    Chaos.a_broker_frozen,
    Chaos.a_rolling_restart,
    Chaos.replicas_lost,
]
KILLS = int(os.environ.get("KILLS") or len(KINDS))


@pytest.mark.chaos
@pytest.mark.timeout(14_400)
def test_nothing_is_lost_or_doubled_whatever_happens(servers, name):
    print(f"SEED={SEED} EVENTS={EVENTS} KILLS={KILLS}")
    chaos = Chaos(servers, name)
    met: Counter[str] = Counter()
    # Each kind in turn, each turn in another order.
    turn: list[Callable[[Chaos], None]] = []
    for _ in range(KILLS):
        turn = turn or chaos.chance.sample(KINDS, len(KINDS))
        kind = turn.pop()
        chaos.feed(EVENTS // KILLS)
        kind(chaos)
        met[kind.__name__] += 1
    chaos.until_done()
    found: dict[int, list[bytes | None]] = {partition: [] for partition in range(PARTITIONS)}
    for message in servers.read(servers.kafka, chaos.target):
        found[message.partition()].append(message.key())
    sent = Counter(key for keys in chaos.sent.values() for key in keys)
    there = Counter(key for keys in found.values() for key in keys)
    print(f"{dict(met)}: {sent.total()} sent, {(sent - there).total()} lost, {(there - sent).total()} doubled")
    assert (sent - there, there - sent) == (Counter(), Counter())
    assert found == chaos.sent
