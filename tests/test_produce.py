"""`millpond local produce`: the same events for the same parameters, every oddity among them, a truth that holds."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest
from tests.recount import KEYS, Number, Recount

from millpond.local import LocalError
from millpond.local.events import Parameters
from millpond.local.produce import produce

PARTITIONS = 5
# Of every kind that a message can have; too_large and refused_by_server are about what MongoDB takes.
REASONS = {
    "empty", "invalid_utf8", "invalid_json", "not_object", "too_deep", "duplicate_key", "lone_surrogate", "no_field",
    "type", "time_unit", "bad_time",
}  # fmt: skip


def batch(seed, count=3_000, share=0.02, partitions=PARTITIONS):
    return Parameters(seed, count, 3, share, partitions, "2025-10-31")


def call(*words):
    command = [sys.executable, "-m", "millpond.local", "produce", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def content(servers, topic):
    """Everything that a topic holds, in order of partition and offset."""
    found = servers.read(servers.remote, topic)
    return sorted((m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value()) for m in found)


def test_the_truth_equals_a_naive_recount_and_every_oddity_occurs(servers, name, tmp_path):
    file = tmp_path / "truth.json"
    done = call(
        "--dir", servers.stack.directory, "--count", 12_000, "--seed", 7, "--days", 3, "--malformed-share", 0.05,
        "--partitions", PARTITIONS, "--topic", name, "--truth", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.match(rf"12,000 events into {name} in [\d.]+ s, [\d,]+ events/s", done.stdout)

    recount = Recount()
    kept = []
    for message in servers.read(servers.remote, name):
        event = recount.add(message.partition(), message.offset(), message.value())
        if event:
            kept.append((json.loads(message.value()), event))
    truth = json.loads(file.read_text())
    assert truth["topic"] == name
    assert truth["produced"] == 12_000 == recount.events + recount.tombstones + len(recount.letters)
    for what in ("events", "tombstones", "missing_time"):
        assert truth[what] == getattr(recount, what) > 0
    assert sorted(truth["dead_letters"]["records"]) == sorted(recount.letters)
    reasons = Counter(reason for _, _, reason in recount.letters)
    assert truth["dead_letters"]["by_reason"] == reasons
    assert truth["dead_letters"]["total"] == reasons.total()
    assert reasons.keys() == REASONS
    assert sorted(truth["dates"]) == ["2025-10-29", "2025-10-30", "2025-10-31"]
    reports = recount.reports(truth["dates"])
    assert truth["dates"] == reports
    assert all(count > 0 for rows in reports.values() for count in rows["excluded"].values())

    variety(kept)
    # What is odd only in fields that PRODUCT_VIEWS drops: BSON could not hold it exactly.
    raws = [raw for raw, _ in kept]
    assert any("a\0b" in raw for raw in raws)
    assert any({"_id", "_source_id"} <= raw.keys() for raw in raws)
    assert any("price" in raw for raw in raws)
    popularity(kept)


def variety(kept):
    """Both shapes, each with every spelling that the rules speak of."""
    stored, tracker = [[raw for raw, _ in kept if ("user_agent" in raw) is one] for one in (False, True)]
    for raws in (stored, tracker):
        assert len(raws) > len(kept) / 3
        assert {type(raw["product_id"]) for raw in raws} == {int, str, type(None)}
    times = [raw["time_stamp"] for raw in tracker if raw.get("time_stamp") is not None]
    assert {(type(time), len(str(time))) for time in times} == {(int, 10), (int, 13), (str, 10), (str, 13)}
    assert any("time_stamp" not in raw for raw in tracker)
    assert any(raw.get("time_stamp", 0) is None for raw in tracker)
    texts = [raw["timestamp"] for raw in stored if raw["timestamp"] is not None]
    for form in (r"\S+T\S+:\d\dZ", r"\S+\.\d{3}Z", r"\S+\+07:00", r"\S+ \S+z"):
        assert any(re.fullmatch(form, text) for text in texts), form
    for raws, name in ((stored, "store_id"), (stored, "referrer_url"), (tracker, "device_id")):
        assert any(name not in raw for raw in raws), name
        assert any(raw.get(name, 0) is None for raw in raws), name
    assert any(isinstance(event["product_id"], Number) for _, event in kept)
    assert {type(raw["option"]) for raw in tracker} == {str, list, dict}
    assert {type(raw["utm_source"]) for raw in tracker} == {bool, str}


def popularity(kept):
    """Zipf's products, about forty stores, referrers with query strings, devices that return."""
    events = [event for _, event in kept]
    counts = {name: Counter(event[name] for event in events if event[name] is not None) for name in KEYS.values()}
    ranked = [count for _, count in counts["product_id"].most_common()]
    assert 0.05 < ranked[0] / sum(ranked) < 0.3
    # The tenth sells about a tenth of the first, and most products sell little.
    assert 5 < ranked[0] / ranked[9] < 20
    assert len(ranked) > 1_000
    assert 35 <= len(counts["store_id"]) <= 45
    assert sum("?q=" in referrer for referrer in counts["referrer_url"]) > 100
    assert "" in counts["referrer_url"]
    devices = Counter(event["device_id"] for event in events if event["device_id"] is not None)
    assert sum(count > 1 for count in devices.values()) > 1_000


def test_a_seed_decides_every_byte(servers, name, tmp_path):
    one, same, other = (f"{name}-{i}" for i in range(3))
    done = call(
        "--dir", servers.stack.directory, "--count", 3_000, "--seed", 4, "--malformed-share", 0.02,
        "--partitions", PARTITIONS, "--topic", one, "--truth", tmp_path / one,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    produce(servers.remote, same, batch(4), tmp_path / same)
    produce(servers.remote, other, batch(5), tmp_path / other)
    first = content(servers, one)
    assert len(first) == 3_000
    assert {partition for partition, *_ in first} == set(range(PARTITIONS))
    assert content(servers, same) == first
    truths = [json.loads((tmp_path / topic).read_text()) for topic in (one, same, other)]
    for part in ("dates", "dead_letters", "events"):
        assert truths[0][part] == truths[1][part] != truths[2][part]
    again = content(servers, other)
    equal = sum(a == b for a, b in zip(first, again, strict=True))
    assert equal < len(first) / 20, "only what has no content of its own may coincide"


def test_what_would_spoil_the_truth_is_refused(servers, name, tmp_path):
    file = tmp_path / "truth.json"
    produce(servers.remote, name, batch(1, 100), file)
    before = file.read_bytes()
    for parameters, topic, hint in (
        (batch(1, 100), name, "give another --seed"),
        (batch(2, 100), f"{name}-else", "give another --truth"),
        (batch(2, 100, partitions=PARTITIONS + 1), name, f"say --partitions {PARTITIONS}"),
    ):
        with pytest.raises(LocalError, match=hint):
            produce(servers.remote, topic, parameters, file)
    assert file.read_bytes() == before
    assert len(content(servers, name)) == 100
    late = call("--dir", servers.stack.directory, "--count", 1, "--end-date", "2025-02-30")
    assert (late.returncode, "2025-02-30" in late.stderr) == (2, True)
    nowhere = call("--dir", tmp_path / "nothing", "--count", 1)
    assert (nowhere.returncode, "millpond local up --dir" in nowhere.stderr) == (1, True)
    assert "Traceback" not in late.stderr + nowhere.stderr


PEAK = """
import json, resource, sys
from pathlib import Path
from millpond.local.events import Parameters
from millpond.local.produce import produce
remote, topic, count, file = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
produce(remote, topic, Parameters(1, count, 3, 0.002, 3, "2025-10-31"), file)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_batch(servers, name, tmp_path):
    # I4: eight times the events, the same peak; what is allowed is the noise of allocators.
    peaks = []
    for count in (50_000, 400_000):
        words = [json.dumps(servers.remote), f"{name}-{count}", str(count), str(tmp_path / str(count))]
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] * 1.2, f"{peaks[0]:.0f} MiB for 50,000 events, {peaks[1]:.0f} MiB for 400,000"
