"""bridge(): throttles, progress with rate, lag and time left, statistics, and what a result says of the rest."""

import json
import re
import threading
import time
from pathlib import Path

import pytest
from tests.promptness import within

import millpond


def filled(servers, name, count, partitions=4, size=0):
    servers.create(servers.remote, name, partitions)
    values = [(None, b"%d" % i + b"x" * size, i % partitions) for i in range(count)]
    servers.send(servers.remote, name, values)
    return {"source_topic": name, "target_topic": f"{name}-out"}


def test_events_per_second_holds_for_all_lanes_together(servers, name):
    words = filled(servers, name, 1_000, partitions=8)
    # By the run's own clock: when Python hears of it is the machine's matter.
    seen: list[tuple[float, int]] = []
    result = millpond.bridge(
        servers.remote, servers.kafka, **words, max_events_per_second=500,
        progress=lambda now: seen.append((now.seconds, now.read)),
    )  # fmt: skip
    assert (result.read, result.ended) == (1_000, "end")
    assert len({message.value() for message in servers.read(servers.kafka, f"{name}-out")}) == 1_000
    # Smoothly: from the first event on, no half second takes more than its share and the slack of a tenth.
    steps = [(at, read) for at, read in seen if read]
    for i, (at, read) in enumerate(steps):
        later = next((step for step in steps[i:] if step[0] >= at + 0.5), None)
        if later is not None:
            assert later[1] - read <= 500 * (later[0] - at + 0.1) + 60, steps
    assert steps[-1][0] - steps[0][0] >= 1_000 / 500 - 0.8


def test_bytes_per_second(servers, name):
    words = filled(servers, name, 300, size=1_000)
    began = time.monotonic()
    result = millpond.bridge(servers.remote, servers.kafka, **words, max_bytes_per_second=100_000)
    assert result.read == 300
    assert 2.7 < time.monotonic() - began < 60


@pytest.mark.parametrize(("limit", "value"), [("max_events_per_second", 0.2), ("max_bytes_per_second", 1)])
def test_a_stop_ends_a_throttled_run_within_two_seconds(servers, name, limit, value):
    words = filled(servers, name, 100, size=100)

    def once() -> float:
        token = millpond.CancelToken()
        stopped_at: list[float] = []

        def stop() -> None:
            stopped_at.append(time.monotonic())
            token.cancel()

        timer = threading.Timer(1, stop)

        def told(now: millpond.Progress) -> None:
            # Its lanes read: what there is to do is known.
            if now.total and not timer.is_alive() and not stopped_at:
                timer.start()

        with pytest.raises(millpond.Cancelled) as stopped:
            millpond.bridge(servers.remote, servers.kafka, **words, **{limit: value}, cancel=token, progress=told)
        took = time.monotonic() - stopped_at[0]
        # What was read for nothing does not count.
        assert stopped.value.outcome is not None
        assert stopped.value.outcome["read"] == stopped.value.outcome["written"] == 0
        return took

    within(2, once)
    assert millpond.bridge(servers.remote, servers.kafka, **words).read == 100


@pytest.mark.parametrize("value", [0, -1, float("nan"), "fast"])
def test_nonsense_is_no_limit(servers, name, value):
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    for limit in ("max_events_per_second", "max_bytes_per_second"):
        with pytest.raises(millpond.ConfigError, match=limit):
            millpond.bridge(servers.remote, servers.kafka, **words, **{limit: value})


def test_progress_tells_rate_lag_and_time_left(servers, name):
    words = filled(servers, name, 800)
    seen: list[millpond.Progress] = []
    millpond.bridge(servers.remote, servers.kafka, **words, max_events_per_second=200, progress=seen.append)
    middle = [now for now in seen if 200 <= now.read <= 750]
    assert len(middle) > 5
    for now in middle:
        assert now.total == 800
        assert now.lag == 800 - now.read
        assert now.seconds_left == pytest.approx(now.lag / now.rate)
    # The rate counts from the start of the run, in which it connects first.
    assert 10 < middle[-1].rate < 220
    assert (seen[-1].lag, seen[-1].written, seen[-1].seconds_left) == (0, 800, 0)


def test_time_left_knows_the_limits_of_the_run(servers, name):
    words = filled(servers, name, 1_000)
    seen: list[millpond.Progress] = []
    millpond.bridge(
        servers.remote, servers.kafka, **words, max_events=300, max_events_per_second=400, progress=seen.append
    )
    assert (seen[-1].read, seen[-1].lag, seen[-1].seconds_left) == (300, 700, 0)
    seen.clear()
    millpond.bridge(
        servers.remote, servers.kafka, **words, max_seconds=1.5, max_events_per_second=1, progress=seen.append
    )
    assert all(now.seconds_left is None or now.seconds_left <= 1.5 for now in seen)
    assert (seen[-1].lag or 0) > 600


def test_progress_of_a_source_with_holes_ends_at_nothing(servers, name):
    """A target of transactions is the sink's source: its markers are offsets without an event."""
    words = filled(servers, name, 400, partitions=2)
    for _ in range(2):
        millpond.bridge(servers.remote, servers.kafka, **words, max_events=200)
    seen: list[millpond.Progress] = []
    millpond.bridge(
        servers.kafka, servers.kafka, source_topic=f"{name}-out", target_topic=f"{name}-again", progress=seen.append
    )
    assert (seen[-1].read, seen[-1].total, seen[-1].lag) == (400, 400, 0)
    seen.clear()
    place = {"database": "tests", "collection": name}
    millpond.sink(servers.kafka, servers.mongo_uri, topic=f"{name}-out", **place, progress=seen.append)
    assert (seen[-1].read, seen[-1].total, seen[-1].lag) == (400, 400, 0)


def test_the_bar_shows_them(servers, name, capsys):
    from millpond.progress import Progress, pace

    now = Progress(10, 10, 0, 100, 1.0, rate=1_234.5, lag=90, seconds_left=61.4)
    assert pace(now) == "1,234/s, lag 90, 1:01 left"
    assert pace(Progress(10, 10, 0, 0, 1.0)) == "0/s"
    words = filled(servers, name, 10)
    millpond.bridge(servers.remote, servers.kafka, **words, progress=True)
    assert "lag 0" in capsys.readouterr().out


def test_the_result_says_how_many_events_remain(servers, name):
    words = filled(servers, name, 1_000)
    first = millpond.bridge(servers.remote, servers.kafka, **words, max_events=333)
    assert (first.ended, first.lag, first.held_back) == ("max_events", 667, 0)
    assert sum(position["lag"] for position in first.positions) == 667
    second = millpond.bridge(servers.remote, servers.kafka, **words, max_seconds=1.5, max_events_per_second=50)
    assert second.ended == "max_seconds"
    assert second.lag == 667 - second.read
    late = [(None, b"late", 0)] * 7

    def send(now: millpond.Progress) -> None:
        if now.read:
            servers.send(servers.remote, name, late)
            late.clear()

    # Events that came meanwhile count too: the ends are asked when the run ends.
    third = millpond.bridge(servers.remote, servers.kafka, **words, max_events_per_second=200, progress=send)
    assert (third.ended, third.read, third.lag) == ("end", second.lag, 7)
    assert millpond.bridge(servers.remote, servers.kafka, **words).lag == 0


def test_statistics_are_small_and_asked_for(servers, name):
    words = filled(servers, name, 2_000, size=500)
    silent = millpond.bridge(servers.remote, servers.kafka, **words, max_events=500)
    assert "statistics" not in silent.to_dict()
    result = millpond.bridge(servers.remote, servers.kafka, **words, max_events_per_second=1_000, statistics=True)
    assert result.read == 1_500
    counted = result.to_dict()["statistics"]
    assert len(json.dumps(counted)) < 2_000
    assert set(counted) == {"source", "target"}
    for side in counted.values():
        assert all(isinstance(value, int) and value >= 0 for value in side.values())
        assert side["clients"] >= 2
        assert side["requests"] > 20
        assert side["connects"] >= 2
        assert (side["errors"], side["timeouts"]) == (0, 0)
        assert 0 < side["round_trip_us_average"] <= side["round_trip_us_max"]
    # The source's events came compressed or not: each was fetched.
    assert counted["source"]["bytes_received"] > 1_500 * 100
    assert counted["source"]["queued_events_max"] > 100
    # The target's were compressed by the bridge: how well depends on the batches they came in.
    assert counted["target"]["bytes_sent"] > 1_000


DOCUMENTED = (Path(__file__).resolve().parent.parent / "docs" / "operations.md").read_text()


def test_documented(servers, name):
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENTED, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, [(None, b"one", 0)])
    said = {"millpond": millpond, "source": servers.remote, "target": servers.kafka}
    for block in blocks:
        exec(block.replace('"product_views"', repr(name)).replace('"copy"', repr(f"{name}-out")), said)
    assert (said["result"].written, said["books"].chosen) == (1, 0)
    # Every number of the result is explained.
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    counted = millpond.bridge(servers.remote, servers.kafka, **words, statistics=True).statistics
    assert not [word for word in counted["source"] if f"`{word}`" not in DOCUMENTED]
    progress = millpond.Progress.__dataclass_fields__
    assert not [word for word in progress if f"`{word}`" not in DOCUMENTED]
