"""Each wrong ordering is caught by the very scenario that the right one survives (I2).

The package with the test-only feature stands in `.build/sabotage`. A scenario stops a run at a named step, with SIGKILL
or by letting another run overtake it, runs again undisturbed, and compares. Without the mutant the state is exact; with
it, it must not be: a scenario that a mutant survives proves nothing.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import millpond

SABOTAGE = os.environ.get("MILLPOND_TEST_SABOTAGE", str(Path(__file__).resolve().parent.parent / ".build" / "sabotage"))
EVENTS = 900


def child(call: str, mutant: str | None, at: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE": mutant or "", "MILLPOND_SABOTAGE_AT": at}
    code = f"import millpond, pathlib; assert pathlib.Path(millpond.__file__).is_relative_to({SABOTAGE!r}); {call}"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)


def die(call: str, mutant: str | None, step: str) -> None:
    """Run until the step kills it; a step that is never reached is an error."""
    process = child(call, mutant, f"KILL:{step}")
    _, told = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, told.decode()


@contextmanager
def stopped(call: str, mutant: str | None, step: str) -> Iterator[None]:
    """Run until the step stops it; it goes on, to its end, when the block is left."""
    process = child(call, mutant, f"STOP:{step}")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), process.communicate()[1].decode()
    yield
    os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=300)


def numbered(servers, cluster, name, numbers=range(EVENTS)):
    if numbers.start == 0:
        servers.create(cluster, name, 3)
    servers.send(cluster, name, [(b"%d" % i, b'{"n":%d}' % i, i % 3) for i in numbers])


def exactly_once_in_order(servers, topic):
    """Every event once, and per partition in the order of the source."""
    numbers: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for message in servers.read(servers.kafka, topic):
        numbers[message.partition()].append(int(message.key()))
    return numbers == {partition: list(range(partition, EVENTS, 3)) for partition in numbers}


BRIDGE_STEPS = ["before_init", "after_init", "before_commit", "after_commit"]


@pytest.mark.parametrize(
    ("mutant", "step", "exact"),
    [
        *[(None, step, True) for step in BRIDGE_STEPS],
        ("position_outside_transaction", "before_commit", False),
    ],
)
def test_a_bridge_killed_at(servers, name, mutant, step, exact):
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    numbered(servers, servers.remote, name, range(EVENTS // 3))
    # Positions are there: a target that holds events without any is refused, which would hide the mutant.
    millpond.bridge(servers.remote, servers.kafka, **words)
    numbered(servers, servers.remote, name, range(EVENTS // 3, EVENTS))
    die(f"millpond.bridge({servers.remote!r}, {servers.kafka!r}, **{words!r})", mutant, f"bridge.{step}")
    millpond.bridge(servers.remote, servers.kafka, **words)
    assert exactly_once_in_order(servers, f"{name}-out") is exact


@pytest.mark.parametrize(
    ("mutant", "step", "exact"),
    [
        *[(None, step, True) for step in BRIDGE_STEPS],
        ("positions_before_init", "before_init", False),
    ],
)
def test_a_bridge_overtaken_at(servers, name, mutant, step, exact):
    numbered(servers, servers.remote, name)
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    with stopped(f"millpond.bridge({servers.remote!r}, {servers.kafka!r}, **{words!r})", mutant, f"bridge.{step}"):
        millpond.bridge(servers.remote, servers.kafka, **words)
    assert exactly_once_in_order(servers, f"{name}-out") is exact


@pytest.mark.parametrize(
    ("mutant", "step", "exact"),
    [
        *[(None, step, True) for step in ("before_write", "before_positions", "after_positions")],
        ("position_before_acknowledgement", "before_write", False),
    ],
)
def test_a_sink_killed_at(servers, name, mutant, step, exact):
    numbered(servers, servers.kafka, name)
    words = {"topic": name, "database": "tests", "collection": name, "batch_size": 100}
    die(f"millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})", mutant, f"sink.{step}")
    millpond.sink(servers.kafka, servers.mongo_uri, **words)
    with servers.mongo() as client:
        found = Counter(document["n"] for document in client["tests"][name].find())
    assert (found == Counter(range(EVENTS))) is exact


@pytest.mark.parametrize(
    ("mutant", "step", "exact"),
    [
        *[(None, step, True) for step in ("before_commit", "after_commit")],
        ("delete_and_insert_in_two_transactions", "before_commit", False),
    ],
)
def test_an_aggregate_killed_at(servers, name, postgres, mutant, step, exact):
    """A reader finds the old reports or the new ones, in all three tables."""
    with servers.mongo() as client:
        events = client["tests"][name]
        events.create_index("timestamp")
        event = {"product_id": "p", "store_id": "s", "referrer_url": "r", "timestamp": "2025-10-31T01:00:00Z"}
        words = {"database": "tests", "collection": name, "dates": "2025-10-31"}
        for _ in range(2):
            events.insert_many([dict(event) for _ in range(EVENTS)])
            if events.count_documents({}) == EVENTS:
                millpond.aggregate(servers.mongo_uri, postgres, **words)
    die(f"millpond.aggregate({servers.mongo_uri!r}, {postgres!r}, **{words!r})", mutant, f"aggregate.{step}")
    tables = ("product_views_daily", "country_views_daily", "referrer_views_daily")
    with psycopg.connect(postgres) as connection:
        found = [connection.execute(f"SELECT view_count FROM {table}").fetchall() for table in tables]
    generation = EVENTS if step == "before_commit" else 2 * EVENTS
    assert (found == [[(generation,)]] * 3) is exact
