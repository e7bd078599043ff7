"""`millpond audit`: a loss, a duplicate and an edit are planted, and each is found; what is whole is said to be."""

import json
import random
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from bson import ObjectId
from tests.hand_sunk import Collection, visit, visits
from tests.test_changed import DATES, changed, client
from tests.test_incremental import MINE

import millpond

__all__ = ["client"]
COUNT = 3_000
VALUE = (
    b'{"product_id":"p%d","store_id":"US","device_id":"d%d","referrer_url":"r","timestamp":"2025-10-%02dT%02d:00:00Z"}'
)


class Path:
    """A topic that a bridge wrote and a sink stored, and its reports."""

    def __init__(self, servers: Any, name: str, dsn: str, count: int = COUNT) -> None:
        self.servers, self.name, self.dsn = servers, name, dsn
        servers.create(servers.remote, name, 3)
        values = [VALUE % (i % 40, i % 900, 20 + i % 5, i % 24) for i in range(count)]
        # Dead letters of the bridge and of the sink, and tombstones.
        values[10:14] = [b"{", b"[]", None, None]  # type: ignore[list-item]
        servers.send(servers.remote, name, [(b"%d" % i, value, i % 3) for i, value in enumerate(values)])
        self.carry()

    def carry(self) -> None:
        """What a schedule does."""
        kafka = self.servers.kafka
        words: dict[str, Any] = {
            "source_topic": self.name,
            "target_topic": f"{self.name}-t",
            "transform": "product_views",
        }
        millpond.bridge(self.servers.remote, kafka, **words)
        millpond.sink(kafka, self.servers.mongo_uri, topic=f"{self.name}-t", **self.place, batch_size=500)
        millpond.aggregate(self.servers.mongo_uri, self.dsn, dates="changed", **self.place)

    @property
    def place(self) -> dict[str, Any]:
        return {"database": "tests", "collection": self.name}

    def audit(self, **words: Any) -> millpond.AuditResult:
        job = {"target": self.servers.kafka, "bridge_job": f"{self.name}-to-{self.name}-t"}
        return millpond.audit(self.servers.mongo_uri, self.dsn, **self.place, **job | words)


def kinds(found: millpond.AuditResult) -> set[tuple[str, str]]:
    return {(one["stage"], one["kind"]) for one in found.findings}


def test_what_is_whole_balances_and_each_planted_fault_is_found(servers, client, name, postgres):
    path = Path(servers, name, postgres)
    whole = path.audit()
    assert whole.balanced, whole.findings
    assert whole.bridge["read"] == COUNT == whole.bridge["written"] + whole.bridge["dead_lettered"]
    assert sum(one["documents"] + one["dead_letters"] for one in whole.partitions) == COUNT - 4
    # Only the partition with the tombstones had to be read.
    assert sum(one["compared"] is not None for one in whole.partitions) <= 2
    deep = path.audit(deep=True)
    assert deep.balanced, deep.findings
    assert sum(one["tombstones"] for one in deep.partitions) == 2
    assert all(one["recounted"] for one in deep.reports)
    assert sum(one["counted"] for one in deep.reports) == 3 * (COUNT - 4)

    events = client["tests"][name]
    (victim, *_) = events.find().sort("_id", -1).limit(1)
    raw = victim["_id"].binary
    place = (int.from_bytes(raw[4:6], "big"), int.from_bytes(raw[6:], "big"))

    events.delete_one({"_id": victim["_id"]})
    lost = path.audit()
    assert ("sink", "lost") in kinds(lost)
    assert (lost.first_hole["partition"], lost.first_hole["offset"]) == place
    assert lost.first_hole["topic"].endswith(f"{name}-t")
    assert ("report", "rows") in kinds(lost), "a document less than the report counts"
    events.insert_one(victim)
    assert path.audit().balanced

    # Beside the log: an offset that holds a commit marker, or none at all.
    for twin in (ObjectId(raw[:6] + (place[1] + 1).to_bytes(6, "big")), ObjectId()):
        events.insert_one(victim | {"_id": twin})
        extra = path.audit()
        assert not extra.balanced
        assert ("sink", "extra") in kinds(extra) or extra.ahead == 1
        events.delete_one({"_id": twin})

    events.update_one({"_id": victim["_id"]}, {"$set": {"product_id": "another"}})
    assert path.audit().balanced, "no count tells"
    edited = path.audit(deep=True)
    assert kinds(edited) == {("sink", "edited"), ("report", "rows")}
    (one,) = [one for one in edited.findings if one["kind"] == "edited"]
    assert (one["partition"], one["offset"]) == place
    events.replace_one({"_id": victim["_id"]}, victim)

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "UPDATE country_views_daily SET view_count = view_count + 1 WHERE report_date = '2025-10-22'"
        )
        rows = path.audit()
        assert [(one["table"], one["date"]) for one in rows.findings] == [("country_views_daily", "2025-10-22")]
        report = millpond.audit_report(servers.mongo_uri, postgres, date="2025-10-22", **path.place)
        assert {one["table"] for one in report.findings} == {"country_views_daily"}
        assert "US" in report.findings[0]["text"]
        connection.execute(
            "UPDATE country_views_daily SET view_count = view_count - 1 WHERE report_date = '2025-10-22'"
        )
    assert path.audit(deep=True).balanced
    # Not yet stored, not yet reported.
    servers.send(servers.remote, name, [(b"k", VALUE % (1, 1, 21, 1), 0)])
    millpond.bridge(
        servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-t", transform="product_views"
    )
    behind = path.audit()
    assert behind.balanced, behind.findings
    assert sum(one["ahead"] for one in behind.partitions) == 1
    millpond.sink(servers.kafka, servers.mongo_uri, topic=f"{name}-t", **path.place)
    assert path.audit(deep=True).balanced


@pytest.mark.chaos
def test_one_event_of_a_million_is_found(servers, client, name, postgres, capsys):
    """By books and counts of indexes; then the one partition that does not agree is read."""
    path = Path(servers, name, postgres, 1_000_000)
    whole = path.audit()
    assert whole.balanced, whole.findings
    events = client["tests"][name]
    (victim,) = events.find({}, {}).sort("_id", 1).skip(777_777).limit(1)
    raw = victim["_id"].binary
    events.delete_one({"_id": victim["_id"]})
    lost = path.audit()
    deep = path.audit(deep=True)
    for found in (lost, deep):
        hole = found.first_hole
        assert (hole["partition"], hole["offset"]) == (int.from_bytes(raw[4:6], "big"), int.from_bytes(raw[6:], "big"))
        assert [one["kind"] for one in found.findings if one["stage"] == "sink"] == ["lost"]
    with capsys.disabled():
        print(f"\nwhole {whole.seconds:.1f} s, one of a million lost {lost.seconds:.1f} s, deep {deep.seconds:.1f} s")


def test_the_first_hole_is_the_first_by_topic_however_many_there_are(servers, client, name, postgres):
    first, second = f"{name}-a", f"{name}-b"
    for topic in (first, second):
        servers.create(servers.kafka, topic, 3)
        servers.send(servers.kafka, topic, [(b"%d" % i, VALUE % (i, i, 20, 1), i % 3) for i in range(600)])
        millpond.sink(servers.kafka, servers.mongo_uri, topic=topic, database="tests", collection=name)
    events, sources = client["tests"][name], client["tests"]["millpond_sources"]

    def ids(topic: str, partition: int) -> list[ObjectId]:
        (source,) = sources.find({"topic": topic})
        prefix = int(source["_id"]).to_bytes(4, "big") + partition.to_bytes(2, "big")
        low, high = ObjectId(prefix + bytes(6)), ObjectId(prefix + b"\xff" * 6)
        return [one["_id"] for one in events.find({"_id": {"$gte": low, "$lte": high}}, {}).sort("_id", 1)]

    # More than are named, all before the one that counts in offset and partition.
    events.delete_many({"_id": {"$in": ids(second, 0)[:150]}})
    victim = ids(first, 2)[-1]
    events.delete_one({"_id": victim})
    found = millpond.audit(servers.mongo_uri, None, target=servers.kafka, database="tests", collection=name)
    assert (found.found, len(found.findings)) == (151, 100)
    hole = found.first_hole
    assert hole["topic"].endswith(f"/{first}"), hole
    assert (hole["partition"], hole["offset"]) == (2, int.from_bytes(victim.binary[6:], "big"))


def test_a_report_is_compared_at_its_own_positions(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive(visits(random.Random(7), DATES[:3], 400))
    words: dict[str, Any] = {"database": "tests", "collection": name, "reports": ["product_views", MINE]}
    changed(servers, name, postgres, reports=words["reports"])
    stored.arrive([visit(DATES[1], i) for i in range(30)])
    for date in DATES[:3]:
        found = millpond.audit_report(servers.mongo_uri, postgres, date=date, **words)
        assert found.balanced, found.findings
        assert len(found.reports) == 4
    assert millpond.audit(servers.mongo_uri, postgres, **words).balanced
    assert millpond.audit(servers.mongo_uri, postgres, **words, deep=True).balanced
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE mine SET visitors = visitors + 1 WHERE report_date = %s", (DATES[1],))
    found = millpond.audit_report(servers.mongo_uri, postgres, date=DATES[1], **words)
    assert {one["table"] for one in found.findings} == {"mine"}
    with pytest.raises(millpond.ConfigError, match="no report of 2020-01-01"):
        millpond.audit_report(servers.mongo_uri, postgres, date="2020-01-01", **words)


def test_the_command_line(servers, client, name, postgres, tmp_path):
    stored = Collection(client, name)
    stored.arrive([visit(DATES[i % 3], i) for i in range(200)])
    changed(servers, name, postgres)
    file = tmp_path / "millpond.toml"
    file.write_text(
        f'[mongo]\nuri = "{servers.mongo_uri}"\n[postgres]\ndsn = "{postgres}"\n'
        f'[sink]\ndatabase = "tests"\ncollection = "{name}"\n[aggregate]\ndatabase = "tests"\ncollection = "{name}"\n'
    )

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from millpond.cli import main; main()", *words, "--config", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    done = call("audit")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "balanced"), done
    assert "3 dates" in done.stdout
    done = call("audit", "--deep", "--json")
    assert json.loads(done.stdout)["balanced"], done
    assert call("audit", "report", "--date", DATES[0]).returncode == 0
    done = call("partials", "show")
    assert DATES[0] in done.stdout, done
    assert len(json.loads(call("partials", "show", "--json").stdout)["partials"]) == 3
    assert call("partials", "prune").returncode == 2
    assert call("partials", "prune", "--before", DATES[1]).stdout.startswith("1 removed")
    assert call("partials", "prune", "--all").stdout.startswith("2 removed")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DELETE FROM product_views_daily WHERE report_date = %s", (DATES[0],))
    done = call("audit", "report", "--date", DATES[0])
    assert done.returncode == 6
    assert "are missing" in done.stdout
    done = call("aggregate", "--dates", "changed")
    assert "nothing was published" in done.stdout, done
