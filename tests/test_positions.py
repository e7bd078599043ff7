"""`millpond positions show|reset`: what a job has read, and the way on past what was lost."""

import json
import subprocess
import sys
import threading

import pytest
from confluent_kafka import OFFSET_BEGINNING
from tests.local_servers import until
from tests.topics import EAGER, delete_before, empty, forge, positions, recreate, written

import millpond


def call(*words, code=0):
    program = "from millpond.cli import main; main()"
    command = [sys.executable, "-c", program, "positions", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def words(name):
    return {"source_topic": name, "target_topic": f"{name}-out", "job": name}


@pytest.fixture
def places(servers, name):
    """The flags that name the clusters and the job."""
    return ("--source", json.dumps(servers.remote), "--target", json.dumps(servers.kafka), "--job", name)


def fed(servers, name, words, counts):
    servers.create(servers.remote, name, len(counts))
    for partition, count in enumerate(counts):
        servers.send(servers.remote, name, [(None, b"%d" % n, partition) for n in range(count)], timestamp=10**12)
    return millpond.bridge(servers.remote, servers.kafka, **words)


def arrived(servers, name, partition):
    found = servers.read(servers.kafka, f"{name}-out", OFFSET_BEGINNING)
    return [int(m.value()) for m in found if m.partition() == partition]


def test_show_lists_what_is_kept_beside_the_log(servers, name, words, places):
    fed(servers, name, words, [10, 4, 0])
    servers.send(servers.remote, name, [(None, b"%d" % n, 0) for n in range(10, 16)])
    delete_before(servers.remote, name, {0: 12})
    shown = json.loads(call("show", *places, "--json").stdout)
    assert (shown["job"], shown["source_topic"]) == (name, name)
    columns = ("partition", "next", "start", "end", "lag", "held_back")
    assert [tuple(place[column] for column in columns) for place in shown["positions"]] == [
        (0, 10, 12, 16, 4, 0), (1, 4, 0, 4, 0, 0), (2, 0, 0, 0, 0, 0),
    ]  # fmt: skip
    assert ["10..12" in place["problem"] for place in shown["positions"]] == [True, False, False]
    kept = shown["positions"][0]["kept"]
    assert (kept["read"], kept["written"], kept["target_topic"], kept["transform"]) == (10, 10, f"{name}-out", "none")
    # For people: the same, and a source that is not given leaves the logs out.
    told = call("show", *places).stdout
    for word in (name, f"{name}-out", "12..16", "10..12 were deleted"):
        assert word in told
    alone = json.loads(call("show", *places[2:], "--json").stdout)
    assert [(place["next"], place["end"]) for place in alone["positions"]] == [(10, None), (4, None), (0, None)]


def test_a_job_without_positions_is_told(servers, name, places):
    done = call("show", *places, code=2)
    assert name in done.stderr
    assert "--job" in done.stderr


def test_reset_moves_to(servers, name, words, places):
    """In each partition ten events of the year 2001 were read, five came later, retention took the first two."""
    moves = [
        ("earliest", 2, 8, 0),
        ("latest", 15, 0, 5),
        ("12", 12, 0, 2),
        ("2001-09-09T01:46:41Z", 10, 0, 0),
        (None, 10, 0, 0),
    ]
    fed(servers, name, words, [10] * len(moves))
    for partition in range(len(moves)):
        servers.send(servers.remote, name, [(None, b"%d" % n, partition) for n in range(10, 15)])
    delete_before(servers.remote, name, dict.fromkeys(range(len(moves)), 2))
    for partition, (to, after, repeats, skips) in enumerate(moves):
        place = () if to is None else ("--to", to)
        moved = json.loads(call("reset", *places, "--yes", "--json", "--partition", partition, *place).stdout)
        assert moved["written"]
        columns = ("partition", "before", "after", "repeats", "skips")
        assert [tuple(place[column] for column in columns) for place in moved["positions"]] == [
            (partition, 10, after, repeats, skips)
        ]
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.gaps) == (sum(15 - after for _, after, *_ in moves), [])
    for partition, (_, after, *_) in enumerate(moves):
        assert arrived(servers, name, partition) == [*range(10), *range(after, 15)]
        # What was read stays read.
        assert positions(servers, name)[partition]["read"] == 10 + 15 - after


def test_reset_tells_people_what_will_be_repeated_and_skipped(servers, name, words, places):
    fed(servers, name, words, [10, 10])
    servers.send(servers.remote, name, [(None, b"x", 1)] * 5)
    told = call("reset", *places, "--yes", "--to", "earliest", "--partition", 0).stdout
    assert "partition 0: 10 -> 0; 10 offsets will be copied again" in told
    assert "partition 1" not in told
    told = call("reset", *places, "--yes", "--to", "latest").stdout
    assert "partition 1: 10 -> 15; 5 offsets will be skipped" in told


def test_reset_refuses(servers, name, words, places):
    fed(servers, name, words, [10])
    # Where nobody can be asked.
    assert "--yes" in call("reset", *places, "--to", "earliest", code=2).stderr
    for to in ("11", "yesterday", "2025-10-31T00:00:00", "-1"):
        call("reset", *places, "--yes", f"--to={to}", code=2)
    call("reset", *places, "--yes", "--to", "earliest", "--partition", 7, code=2)
    # Without the source that the job reads, or with another one.
    assert "source" in call("reset", *places[2:], "--yes", code=2).stderr
    assert "cluster" in call("reset", "--source", json.dumps(servers.kafka), *places[2:], "--yes", code=2).stderr
    assert positions(servers, name)[0]["next"] == 10


@pytest.mark.parametrize("lost", ["events", "source", "target", "target_events"])
def test_after_a_plain_reset_the_run_goes_on(servers, name, words, places, lost):
    """Without --to, positions stay where they fit; where not, the log's start."""
    fed(servers, name, words, [10, 10])
    servers.send(servers.remote, name, [(None, b"%d" % n, 0) for n in range(10, 20)])
    wanted = {0: list(range(10, 20)), 1: []}
    if lost == "events":
        delete_before(servers.remote, name, {0: 15})
        forge(servers, name, 1, next=25)
        wanted = {0: list(range(15, 20)), 1: list(range(10))}
    elif lost == "source":
        recreate(servers, servers.remote, name, 2)
        servers.send(servers.remote, name, [(None, b"%d" % n, 0) for n in range(100, 130)])
        wanted = {0: list(range(100, 130)), 1: []}
    elif lost == "target":
        recreate(servers, servers.kafka, f"{name}-out", 2)
    else:
        empty(servers.kafka, f"{name}-out")
    with pytest.raises(millpond.PositionError, match=f"positions reset --job {name}"):
        millpond.bridge(servers.remote, servers.kafka, **words)
    call("reset", *places, "--yes")
    before = [] if lost.startswith("target") else list(range(10))
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    assert (result.read, result.gaps) == (sum(map(len, wanted.values())), [])
    for partition in (0, 1):
        assert arrived(servers, name, partition) == before + wanted[partition]
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 0


def test_reset_fences_what_runs(servers, name, words, places):
    servers.create(servers.remote, name, 2)
    events = [(None, b"%d" % n, partition) for n in range(200) for partition in (0, 1)]
    millpond.bridge(servers.remote, servers.kafka, **words)
    servers.send(servers.remote, name, events)
    outcome: list[object] = []

    def run():
        try:
            # Fifty seconds for all of them.
            outcome.append(millpond.bridge(servers.remote, servers.kafka | EAGER, **words, max_events_per_second=8))
        except millpond.Error as error:
            outcome.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    until(lambda: written(servers.kafka, f"{name}-out"))
    moved = json.loads(call("reset", *places, "--yes", "--json", "--to", "earliest").stdout)
    runner.join(180)
    assert isinstance(outcome[0], millpond.FencedError | millpond.ExternalError), outcome
    # Exactly what was committed before is there, and then all of it again.
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 400
    for place in moved["positions"]:
        assert arrived(servers, name, place["partition"]) == [*range(place["before"]), *range(200)]
