"""Everything at once against one sink (I2, I3): kills at named steps and random moments, signals, runs side by side,
members of the replica set killed, frozen and stepped down, brokers killed. At the end 0 lost, 0 doubled, all in order;
all the while positions never go back and never lie ahead of what a majority holds.

`make chaos-sink EVENTS=… KILLS=… SEED=…` runs it at length; the short form, of `make chaos`, meets each kind once.
"""

import os
import random
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
from pymongo.errors import PyMongoError
from tests.conftest import Servers
from tests.sunk import Numbers
from tests.test_mutants import SABOTAGE

import millpond
from millpond.local import Stack

EVENTS = int(os.environ.get("EVENTS") or 12_000)
SEED = int(os.environ.get("SEED") or random.randrange(10**6))
BROKERS = ["kafka-1", "kafka-2", "kafka-3"]
MEMBERS = ["mongo-1", "mongo-2", "mongo-3"]
# What a scheduler tries again.
ENDS = (millpond.ExternalError, millpond.Cancelled)
STEPS = ["before_write", "before_letters", "between_letters", "before_positions", "after_positions"]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="millpond-sink-chaos-", ignore_cleanup_errors=True) as directory:
        stack = Stack(Path(directory) / "stack")
        try:
            yield Servers(stack, stack.up(["kafka", "mongo"], mongo_nodes=3))
        finally:
            stack.down(delete=True)


class Chaos:
    """One sink and what happens to it."""

    def __init__(self, servers: Servers, name: str) -> None:
        self.stack, self.chance = servers.stack, random.Random(SEED)
        self.numbers = Numbers(servers, name, servers.mongo_uri, bad_every=23)

    @contextmanager
    def child(self, at: str = "", **more: Any) -> "Iterator[subprocess.Popen[bytes]]":
        """A run in a process of its own; it is over when the block is left."""
        numbers = self.numbers
        call = f"millpond.sink({numbers.servers.kafka!r}, {numbers.uri!r}, **{numbers.words | more!r})"
        code = f"""
import millpond, signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    {call}
except ({", ".join(f"millpond.{end.__name__}" for end in ENDS)}) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
        extra = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": at}
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | extra, stderr=subprocess.PIPE)
        try:
            yield process
            _, told = process.communicate(timeout=240)
            last = (told.decode().splitlines() or [""])[-1]
            expected = last.startswith(tuple(f"{end.__name__}: " for end in ENDS))
            # A signal may come before the run has begun.
            assert process.returncode in (0, -9, -15) or expected, told.decode()
        finally:
            process.kill()

    def moment(self, most: float = 0.8) -> None:
        time.sleep(self.chance.uniform(0.05, most))

    # What happens to a run.

    def killed_at_a_step(self) -> None:
        with self.child(f"KILL:sink.{self.chance.choice(STEPS)}:{self.chance.randrange(1, 4)}"):
            pass

    def killed_at_any_moment(self) -> None:
        with self.child(max_events_per_second=3_000.0) as process:
            self.moment(1.5)
            process.kill()

    def terminated(self) -> None:
        with self.child(max_events_per_second=3_000.0) as process:
            self.moment(1.5)
            process.terminate()
            asked = time.monotonic()
            process.wait(10)
            assert time.monotonic() - asked < 4, "a stop takes two seconds"

    def overtaken(self) -> None:
        """One hangs before it writes what another one has long written."""
        with self.child(f"STOP:sink.before_write:{self.chance.randrange(1, 4)}") as process:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                self.numbers.until_done()
                process.send_signal(18)

    def two_layouts_at_once(self) -> None:
        with self.child(shard=(0, 2)), self.child(shard=(1, 2)), self.child(shard=(0, 3)), self.child():
            pass

    def less_than_a_majority(self) -> None:
        self.among(lambda: self.moment(0.4), write_concern=1)

    def among(self, disturb: Callable[[], None], **more: Any) -> None:
        """Runs in a row while servers are disturbed."""
        over, failures = threading.Event(), list[BaseException]()

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
                self.numbers.run(max_events_per_second=5_000.0, **more)
            except ENDS:
                time.sleep(0.1)
        thread.join()
        assert not failures, failures

    def _killed(self, victim: str) -> Callable[[], None]:
        def disturb() -> None:
            self.stack.kill(victim)
            self.moment(2)
            self.stack.restart(victim)

        return disturb

    def a_member_killed(self) -> None:
        self.among(self._killed(self.chance.choice(MEMBERS)))

    def a_member_killed_under_less_than_a_majority(self) -> None:
        self.among(self._killed(self.chance.choice(MEMBERS)), write_concern=1)

    def a_member_frozen(self) -> None:
        victim = self.chance.choice(MEMBERS)

        def disturb() -> None:
            self.stack.stop(victim)
            self.moment(3)
            self.stack.cont(victim)

        self.among(disturb)

    def stepped_down(self) -> None:
        def disturb() -> None:
            with self.numbers.client() as client:
                try:
                    client.admin.command("replSetStepDown", 3, secondaryCatchUpPeriodSecs=2)
                except PyMongoError:
                    # No secondary was near enough: it stays.
                    return

        self.among(disturb)

    def a_broker_killed(self) -> None:
        self.among(self._killed(self.chance.choice(BROKERS)))


KINDS = [
    Chaos.killed_at_a_step,
    Chaos.killed_at_any_moment,
    Chaos.terminated,
    Chaos.overtaken,
    Chaos.two_layouts_at_once,
    Chaos.less_than_a_majority,
    Chaos.a_member_killed,
    Chaos.a_member_killed_under_less_than_a_majority,
    Chaos.a_member_frozen,
    Chaos.stepped_down,
    Chaos.a_broker_killed,
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
    with chaos.numbers.watched() as looks:
        for _ in range(KILLS):
            turn = turn or chaos.chance.sample(KINDS, len(KINDS))
            kind = turn.pop()
            chaos.numbers.feed(EVENTS // KILLS)
            kind(chaos)
            met[kind.__name__] += 1
        chaos.numbers.until_done()
    print(f"{dict(met)}: {chaos.numbers.sent} sent, {looks['looks']} looks at positions meanwhile")
    chaos.numbers.check()
