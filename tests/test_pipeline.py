"""The whole path against the known truth, twice: nothing lost, nothing doubled, the books balance (I1)."""

import json
from typing import Any

import psycopg

import millpond
from millpond.local.events import Parameters
from millpond.local.produce import produce


def carry(servers: Any, name: str, postgres: str) -> tuple[Any, Any, Any]:
    bridged = millpond.bridge(
        servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out", transform=millpond.PRODUCT_VIEWS
    )
    stored = millpond.sink(servers.kafka, servers.mongo_uri, topic=f"{name}-out", database="tests", collection=name)
    reported = millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection=name, dates="all")
    assert bridged.read == bridged.written + bridged.filtered + bridged.dead_lettered
    assert stored.read == stored.inserted + stored.already_present + stored.deleted + stored.dead_lettered
    assert reported.scanned == reported.counted + sum(reported.excluded.values())
    assert (bridged.lag, stored.lag) == (0, 0)
    return bridged, stored, reported


def rows(postgres: str) -> dict[str, dict[str, list[Any]]]:
    columns = {
        "product_views_daily": "product_id, view_count, unique_visitors, last_view_time",
        "country_views_daily": "store_id, view_count, unique_visitors",
        "referrer_views_daily": "referrer_url, view_count",
    }
    found: dict[str, dict[str, list[Any]]] = {}
    with psycopg.connect(postgres) as connection:
        for table, names in columns.items():
            for date, *row in connection.execute(f"SELECT report_date::text, {names} FROM {table}"):
                if len(row) == 4:
                    row[3] = row[3].isoformat(timespec="microseconds")
                found.setdefault(date, {}).setdefault(table, []).append(row)
    return {date: {table: sorted(lines) for table, lines in tables.items()} for date, tables in found.items()}


def test_reports_equal_the_truth_and_a_second_batch_adds_only_itself(servers, name, postgres, tmp_path):
    truth_file = tmp_path / "truth.json"
    for seed, count in ((1, 20_000), (2, 5_000)):
        produce(servers.remote, name, Parameters(seed, count, 3, 0.02, 5, "2025-10-31"), truth_file)
        truth = json.loads(truth_file.read_text())
        bridged, stored, reported = carry(servers, name, postgres)
        assert bridged.read == count
        assert reported.excluded.get("missing_time", 0) == truth["missing_time"]
        expected = {
            date: {table: lines for table, lines in tables.items() if table != "excluded"}
            for date, tables in truth["dates"].items()
        }
        assert rows(postgres) == expected
        with servers.mongo() as client:
            assert client["tests"][name].count_documents({}) == truth["events"]
        letters = sorted(
            [int(dict(m.headers())["__connect.errors.partition"]), int(dict(m.headers())["__connect.errors.offset"]),
             dict(m.headers())["millpond.reason"].decode()]
            for m in servers.read(servers.kafka, f"{name}-out.dead_letters")
        )  # fmt: skip
        assert letters == sorted(truth["dead_letters"]["records"])
        assert stored.deleted <= truth["tombstones"]
    again, stored, _ = carry(servers, name, postgres)
    assert (again.read, stored.read) == (0, 0)
    assert rows(postgres) == expected


def test_frames_without_postgres(servers, name):
    servers.create(servers.kafka, name, 1)
    events = [b'{"product_id":1,"device_id":"d","timestamp":"2025-10-31T00:00:00Z"}'] * 3
    servers.send(servers.kafka, name, [(None, event, 0) for event in events])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name)
    assert result.tables["product_views_daily"].top(1)[0]["view_count"] == 3
    assert not result.published
    import polars as pl

    frame = pl.DataFrame(result.tables["product_views_daily"])
    assert frame["product_id"].to_list() == ["1"]
    assert frame["unique_visitors"].to_list() == [1]
