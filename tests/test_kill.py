"""SIGKILL at random moments (I2): the state after the last rerun is that of a run that was never disturbed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import psycopg
import pytest

import millpond

ROUNDS = [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.chaos)]
EVENTS_A_ROUND = 1_000


def killed(code: str, seconds: float) -> bool:
    """Run a child, kill it after so many seconds; whether it was still running."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, told = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        return True
    assert child.returncode == 0, told.decode()
    return False


def dice() -> random.Random:
    seed = int(os.environ.get("MILLPOND_SEED", random.randrange(10**6)))
    print(f"MILLPOND_SEED={seed}")
    return random.Random(seed)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_bridge(servers, name, rounds):
    chance = dice()
    servers.create(servers.remote, name, 3)
    words = {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views"}
    code = f"import millpond; millpond.bridge({servers.remote!r}, {servers.kafka!r}, **{words!r})"
    sent = 0
    hits = 0
    for _ in range(rounds):
        events = []
        for i in range(sent, sent + EVENTS_A_ROUND):
            value = b"broken" if i % 97 == 0 else b'{"product_id":%d}' % i
            events.append((b"%d" % i, value, i % 3))
        servers.send(servers.remote, name, events)
        sent += EVENTS_A_ROUND
        hits += killed(code, chance.uniform(0.3, 4.0))
    assert hits >= rounds // 3, "hardly any kill met a run"
    millpond.bridge(servers.remote, servers.kafka, **words)
    for topic, wanted in ((f"{name}-out", False), (f"{name}-out.dead_letters", True)):
        found = servers.read(servers.kafka, topic)
        keys = [int(message.key()) for message in found]
        assert sorted(keys) == [i for i in range(sent) if (i % 97 == 0) == wanted], topic
        for partition in range(3):
            order = [int(message.key()) for message in found if message.partition() == partition]
            assert order == sorted(order), f"{topic} {partition}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_sink(servers, name, rounds):
    chance = dice()
    servers.create(servers.kafka, name, 3)
    words = {"topic": name, "database": "tests", "collection": name, "batch_size": 50}
    code = f"import millpond; millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})"
    sent = 0
    hits = 0
    for _ in range(rounds):
        events = []
        for i in range(sent, sent + EVENTS_A_ROUND):
            events.append((None, b"[]" if i % 97 == 0 else b'{"n":%d}' % i, i % 3))
        servers.send(servers.kafka, name, events)
        sent += EVENTS_A_ROUND
        hits += killed(code, chance.uniform(0.1, 1.2))
    assert hits >= rounds // 4, "hardly any kill met a run"
    millpond.sink(servers.kafka, servers.mongo_uri, **words)
    with servers.mongo() as client:
        stored = Counter(document["n"] for document in client["tests"][name].find({}, {"n": 1}))
        letters = client["tests"][f"{name}_dead_letters"].count_documents({})
    assert stored == Counter(i for i in range(sent) if i % 97)
    assert letters == sum(i % 97 == 0 for i in range(sent))


@pytest.mark.parametrize("rounds", ROUNDS)
def test_aggregate(servers, name, postgres, rounds):
    chance = dice()
    servers.create(servers.kafka, name, 3)
    store = {"topic": name, "database": "tests", "collection": name}
    report = {"database": "tests", "collection": name, "dates": "2025-10-31"}
    call = f"millpond.aggregate({servers.mongo_uri!r}, {postgres!r}, **{report!r})"
    code = f"import millpond\nfor _ in range(100): {call}"
    sent = 0
    torn: list[tuple[int, ...]] = []
    ended = threading.Event()

    def event(i: int) -> bytes:
        return b'{"product_id":%d,"store_id":"S%d","referrer_url":"r","timestamp":"2025-10-31T0%d:00:00Z"}' % (
            i % 400,
            i % 7,
            i % 10,
        )

    def grow() -> None:
        nonlocal sent
        servers.send(servers.kafka, name, [(None, event(i), i % 3) for i in range(sent, sent + EVENTS_A_ROUND)])
        sent += EVENTS_A_ROUND
        millpond.sink(servers.kafka, servers.mongo_uri, **store)

    tables = ("product_views_daily", "country_views_daily", "referrer_views_daily")
    total = "SELECT coalesce(sum(view_count), 0)::bigint FROM {}"

    def look() -> None:
        with psycopg.connect(postgres) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not ended.is_set():
                with connection.transaction():
                    sums = tuple(int(connection.execute(total.format(table)).fetchall()[0][0]) for table in tables)
                if len(set(sums)) != 1 or sums[0] % EVENTS_A_ROUND or not sums[0]:
                    torn.append(sums)
                time.sleep(0.002)

    grow()
    millpond.aggregate(servers.mongo_uri, postgres, **report)
    reader = threading.Thread(target=look)
    reader.start()
    try:
        hits = 0
        for _ in range(rounds):
            grow()
            hits += killed(code, chance.uniform(0.3, 1.2))
        assert hits >= rounds // 4, "hardly any kill met a run"
        millpond.aggregate(servers.mongo_uri, postgres, **report)
    finally:
        ended.set()
        reader.join()
    assert torn == []
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("SELECT product_id, view_count FROM product_views_daily").fetchall()
        found = {key: int(count) for key, count in rows}
    assert found == {str(key): count for key, count in Counter(i % 400 for i in range(sent)).items()}
