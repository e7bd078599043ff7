"""Dead letters sent again through a corrected transform: once each, as their events would have come."""

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.local_servers import until
from tests.test_cli import call, toml
from tests.test_kill import again
from tests.test_mutants import SABOTAGE

import millpond

STORE = b'{"product_id":%d,"local_time":"2025-10-31 03:22:11"}'
# Without a zone an event that has no time of its own is written; a broken one never is.
BROKEN = b'{"product_id":'


def lettered(servers, name, events, partitions=2, **words):
    """Make letters of events (key, value, partition): a bridge with a transform that takes none of them."""
    servers.create(servers.remote, name, partitions)
    servers.send(servers.remote, name, events, **words)
    result = millpond.bridge(
        servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out", transform="product_views"
    )
    return result, {"target_topic": f"{name}-out"}


def shape(message):
    return message.key(), message.value(), message.headers(), message.timestamp()


def test_events_come_back_as_they_were(servers, name):
    """Key, repeated and null headers, no key at all, and the event's own time; raw bytes without a transform."""
    headers = [("a", b"1"), ("a", None), ("__connect.errors.topic", b"of another letter"), ("b", b"")]
    events = [(b"k%d" % i if i % 3 else None, BROKEN + b"%d" % i, i % 2) for i in range(30)]
    result, words = lettered(servers, name, events, headers=headers, timestamp=1_600_000_000_123)
    assert (result.dead_lettered, result.written) == (30, 0)
    books = millpond.replay_dead_letters(servers.kafka, **words)
    assert (books.read, books.chosen, books.written, books.failed, books.already_replayed) == (30, 30, 30, 0, 0)
    there, here = servers.read(servers.remote, name), servers.read(servers.kafka, f"{name}-out")
    assert sorted(map(repr, map(shape, there))) == sorted(map(repr, map(shape, here)))
    for partition in range(2):
        assert [m.value() for m in there if m.partition() == partition] == [
            m.value() for m in here if m.partition() == partition
        ]
    # The letters stay, and a second replay writes nothing.
    assert len(servers.read(servers.kafka, f"{name}-out.dead_letters")) == 30
    books = millpond.replay_dead_letters(servers.kafka, **words)
    assert (books.chosen, books.written, books.already_replayed) == (30, 0, 30)
    assert len(servers.read(servers.kafka, f"{name}-out")) == 30


def test_letters_that_fail_again_stay_and_are_told(servers, name):
    events = [(b"%d" % i, BROKEN if i % 4 == 0 else b"[]", 0) for i in range(8)]
    _, words = lettered(servers, name, events)
    books = millpond.replay_dead_letters(servers.kafka, **words, transform=millpond.PRODUCT_VIEWS)
    assert (books.chosen, books.written, books.failed, books.transactions) == (8, 0, 8, 0)
    assert books.failed_by_reason == {"invalid_json": 2, "not_object": 6}
    first = books.failures[0]
    assert (first["source"], first["reason"], first["offset"]) == (f"{name}/0/0", "invalid_json", 0)
    assert servers.read(servers.kafka, f"{name}-out") == []
    # They can be sent later.
    later = millpond.replay_dead_letters(servers.kafka, **words, reasons="not_object")
    assert (later.chosen, later.written) == (6, 6)
    rest = millpond.replay_dead_letters(servers.kafka, **words)
    assert (rest.chosen, rest.written, rest.already_replayed) == (8, 2, 6)


def test_letters_are_chosen_by_reason_time_and_offset(servers, name):
    events = [(None, BROKEN if i % 3 == 0 else b"[]", i % 2) for i in range(24)]
    lettered(servers, name, events)
    between = dt.datetime.now(dt.UTC)
    time.sleep(0.05)
    servers.send(servers.remote, name, [(None, b"7", 0), (None, b"8", 1)])
    bridge = {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views"}
    assert millpond.bridge(servers.remote, servers.kafka, **bridge).dead_lettered == 2

    def chosen(**choice):
        # Written to a topic of its own, so that nothing is replayed before.
        topic = f"{name}-{len(choice)}{abs(hash(str(choice)))}"
        servers.create(servers.kafka, topic, 2)
        place: dict[str, Any] = {
            "target_topic": topic,
            "dead_letter_topic": f"{name}-out.dead_letters",
            "job": f"{name}-to-{name}-out",
        }
        books = millpond.replay_dead_letters(servers.kafka, **place, **choice)
        assert books.chosen == books.written
        return books.written

    # `src/replay/letter.rs` tries every combination.
    assert chosen(reasons=["invalid_json"]) == 8
    assert chosen(reasons=["invalid_json", "not_object"], until=between.isoformat()) == 24
    assert chosen(since=between, source_topic=name) == 2
    assert chosen(partition=0, offsets=(2, 4)) == 3
    assert chosen(offsets="0..1", reasons="not_object") == 2


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ({"offsets": "a..b"}, "offsets"),
        ({"offsets": (5, 1)}, "offsets"),
        ({"since": "yesterday"}, "since"),
        ({"since": dt.datetime(2025, 1, 1)}, "since"),
        ({"partition": -1}, "partition"),
        ({"dead_letter_topic": "out"}, "dead_letter_topic"),
    ],
)
def test_nonsense_is_refused(servers, choice, word):
    with pytest.raises(millpond.ConfigError, match=word) as refused:
        millpond.replay_dead_letters(servers.kafka, **{"target_topic": "out"} | choice)
    assert refused.value.hint or word == "dead_letter_topic"


def test_what_is_missing_or_foreign_is_named(servers, name):
    with pytest.raises(millpond.ConfigError, match=f"{name}.dead_letters"):
        millpond.replay_dead_letters(servers.kafka, target_topic=name)
    _, words = lettered(servers, name, [(None, BROKEN, 0)])
    with pytest.raises(millpond.ConfigError, match="another keeps no positions") as refused:
        millpond.replay_dead_letters(servers.kafka, **words, job="another")
    assert "job=" in refused.value.hint
    servers.send(servers.kafka, f"{name}-out.dead_letters", [(None, b"foreign", 1)], headers=[("a", b"b")])
    books = millpond.replay_dead_letters(servers.kafka, **words)
    assert (books.chosen, books.written, books.failed_by_reason) == (2, 1, {"no_letter": 1})


def test_the_partition_is_the_one_that_the_bridge_would_have_chosen(servers, name):
    """Of another count: by the key, as the written events of the same keys."""
    servers.create(servers.kafka, f"{name}-out", 5)
    events = [(b"k%d" % (i % 10), BROKEN if i < 10 else STORE % i, i % 3) for i in range(20)]
    result, words = lettered(servers, name, events, partitions=3)
    assert (result.written, result.dead_lettered) == (10, 10)
    assert millpond.replay_dead_letters(servers.kafka, **words).written == 10
    places: dict[bytes, set[int]] = {}
    for message in servers.read(servers.kafka, f"{name}-out"):
        places.setdefault(message.key(), set()).add(message.partition())
    assert len(places) == 10
    assert all(len(partitions) == 1 for partitions in places.values()), places


def test_what_the_target_would_refuse_stays(servers, name):
    servers.create(servers.kafka, f"{name}-out", 1, **{"max.message.bytes": "2000"})
    events = [(None, BROKEN + b"x" * size, 0) for size in (10, 1_700, 3_000)]
    _, words = lettered(servers, name, events, partitions=1)
    books = millpond.replay_dead_letters(servers.kafka, **words)
    assert (books.written, books.failed_by_reason) == (2, {"too_large": 1})


def test_the_command_reads_the_bridges_section(servers, name, tmp_path):
    events = [(None, BROKEN, 0), (None, b"[]", 1)]
    lettered(servers, name, events)
    file = tmp_path / "millpond.toml"
    bridge = {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views", "max_events": 1}
    file.write_text(toml({"target": servers.kafka, "bridge": bridge}))
    command = ("replay", "dead-letters", "--config", file, "--reason", "not_object")
    done = call(*command)
    assert done.returncode == 6
    assert f"{name}/1/0" in done.stderr
    assert "not_object" in done.stderr
    # A transform that is told as nothing, and both reasons.
    bridge.pop("transform")
    file.write_text(toml({"target": servers.kafka, "bridge": bridge}))
    done = call(*command, "--reason", "invalid_json", "--json")
    assert done.returncode == 0, done.stderr
    books = json.loads(done.stdout)["replay"]
    assert (books["chosen"], books["written"], books["failed"]) == (2, 2, 0)


LETTERS = 6_000


def numbers(servers, name):
    return sorted(int(message.key()) for message in servers.read(servers.kafka, f"{name}-out"))


def arrived(servers, name, count):
    """Read what is there, once it is at least so much."""
    found: list[int] = []

    def enough():
        found[:] = numbers(servers, name)
        return len(found) >= count

    until(enough)
    return found


def test_killed_in_the_middle_each_letter_is_sent_once(servers, name):
    """At steps of its second transaction, then at random moments; after each kill what is there is there once."""
    _, words = lettered(servers, name, [(b"%d" % i, b"broken", i % 2) for i in range(LETTERS)])
    code = f"import millpond; millpond.replay_dead_letters({servers.kafka!r}, **{words!r})"
    chance = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")
    sent = 0
    for at in ("before_commit:2", "after_commit:2", None, None, None):
        step = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": f"KILL:replay.{at}"} if at else {}
        child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | step, stderr=subprocess.PIPE)
        if at is None:
            time.sleep(chance.uniform(0.2, 1.5))
            child.kill()
        _, told = child.communicate(timeout=300)
        assert child.returncode == -signal.SIGKILL or at is None, told.decode()
        # A transaction of a thousand letters, or two; brokers write its end a moment after they have promised to.
        sent += {"before_commit:2": 1_000, "after_commit:2": 2_000}.get(at or "", 0)
        found = arrived(servers, name, sent)
        assert found == sorted(set(found)), "a letter was sent twice"
        assert len(found) == sent or at is None
        sent = len(found)
    books = []
    again(lambda: books.append(millpond.replay_dead_letters(servers.kafka, **words)))
    assert books[0].chosen == LETTERS == books[0].already_replayed + books[0].written
    assert books[0].already_replayed >= sent
    assert numbers(servers, name) == list(range(LETTERS))


@pytest.mark.parametrize(
    ("stop", "step", "mutant", "exact"),
    [
        *[(stop, step, None, True) for stop in ("KILL", "STOP") for step in ("before_commit", "after_commit")],
        ("KILL", "before_commit", "mark_outside_transaction", False),
    ],
)
def test_killed_or_overtaken_at_a_step(servers, name, stop, step, mutant, exact):
    """Each letter once, also where a second replay overtakes one that hangs in its commit; not so with the mutant."""
    _, words = lettered(servers, name, [(b"%d" % i, b"broken", i % 2) for i in range(50)])
    code = f"import millpond; millpond.replay_dead_letters({servers.kafka!r}, **{words!r})"
    at = {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": f"{stop}:replay.{step}", "MILLPOND_SABOTAGE": mutant or ""}
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | at, stderr=subprocess.PIPE)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) if stop == "STOP" else os.WIFSIGNALED(status)
    books = millpond.replay_dead_letters(servers.kafka, **words)
    assert books.written == (50 if step == "before_commit" else 0)
    assert books.chosen == books.written + books.already_replayed == 50
    if stop == "STOP":
        os.kill(child.pid, signal.SIGCONT)
        child.communicate(timeout=300)
    assert (numbers(servers, name) == list(range(50))) is exact
