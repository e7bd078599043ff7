"""Reports of definitions over random collections equal what `tests/oracle_definitions.py` tells of them.

Every built-in function, condition and metric takes part, in one run and one transaction beside the default set.
MILLPOND_SEED makes the same collections again.
"""

import datetime as dt
import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from tests import oracle_reports
from tests.oracle_definitions import same, tell
from tests.report_tables import published
from tests.test_reports import dice

import millpond
from millpond import reports as r

URLS: list[Any] = [
    "https://Google.com/search?q=a+b&utm_source=News%20Letter#top", "http://me:x@shop.example:8080/p/12?utm_source=",
    "https://shop.example/p/7", "//cdn.example/a?utm_source=ads", "google.com/x", "mailto:a@b.c", "", None, "/p/9?x=1",
    "https://[2001:DB8::1]:443/a", "https://\u00c4rzte.example?utm%5Fsource=x", "https://", 17, True, {"a": 1},
    "https://x.example/" + "p" * 300, "https://x.example/p/12?utm_source=%ff", "a\0b", 1.5,
]  # fmt: skip
PRICES: list[Any] = [
    0, 1, -3, Int64(2**63 - 1), Int64(-(2**63)), 0.1, 0.2, -0.3, 1e16, 1e-320, 1e300, -1e300, 3.0, float("nan"),
    float("inf"), Decimal128("0.10"), Decimal128("-19.99"), Decimal128("1E+30"), Decimal128("NaN"), Decimal128("7"),
    "12.50", " 7 ", "-007.10", ".5", "1e3", "", "abc", "12,5", None, True, [1], DatetimeMS(0),
]  # fmt: skip
TIMES: list[Any] = [
    "2025-10-31 23:30:00", "2025-10-31T23:30:00-02:00", "2024-02-29T00:00:00.5Z", "1969-12-31T23:59:59Z", "N/A", "",
    None, DatetimeMS(-1), DatetimeMS(1_761_880_931_123), 5, DatetimeMS(2**62),
]  # fmt: skip
REPORTS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("definitions.toml").read_text())["reports"]
DATES = ["1969-12-31", "2025-10-30", "2025-10-31"]


def document_of(chance: random.Random) -> dict[str, Any]:
    date, hour = chance.choice(DATES), chance.randrange(24)
    fields: dict[str, Any] = {
        "timestamp": chance.choice([f"{date}T{hour:02}:15:00.25Z", f"{date} {hour:02}:59:59", "N/A"] * 4 + [None]),
        "referrer_url": chance.choice(URLS),
        "price": chance.choice([*PRICES, chance.uniform(-100, 100), chance.randrange(100)]),
        "seen": chance.choice(TIMES),
        "device_id": chance.choice([None, 5, "5", "a\0b", "D" * 300, 1.5, *map(str, range(40))]),
        "store": chance.choice([None, "US", {}, [{"id": 1}], *({"id": one} for one in ("US", "DE", 7, "long", None))]),
        "flag": chance.choice([True, False, None, 1, "yes"]),
        "product_id": chance.choice(["1", 1, 2, None]),
    }  # fmt: skip
    return {"_id": ObjectId()} | {name: value for name, value in fields.items() if chance.random() > 0.04}


def store(servers: Any, name: str, count: int) -> list[dict[str, Any]]:
    chance = dice()
    documents = [document_of(chance) for _ in range(count)]
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many(documents)
    return documents


def check(result: Any, documents: list[dict[str, Any]], report: Mapping[str, Any], rows: list[Any]) -> None:
    wanted, excluded = tell(documents, report)
    table = report["table"]
    assert result.excluded_keys.get(table, {}) == dict(excluded), table
    assert len(rows) == len(wanted), table
    for found, told in zip(rows, wanted, strict=True):
        assert same(found, told), (table, found, told)


def in_postgres(dsn: str, result: Any, table: str, *, order: bool = False) -> list[Any]:
    names = ", ".join(result.tables[table].columns)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(f"SELECT {names} FROM {table}").fetchall()
    return sorted(rows, key=repr) if order else rows


def test_every_function_condition_and_metric_over_random_collections(servers, name, postgres):
    documents = store(servers, name, 4_000)
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "all"}
    result = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=["product_views", *REPORTS])
    for report in REPORTS:
        check(result, documents, report, list(result.tables[report["table"]]))
        kept = in_postgres(postgres, result, report["table"], order=True)
        assert kept == sorted(result.tables[report["table"]], key=repr), report["table"]
    assert published(postgres) == oracle_reports.tell(documents).rows
    assert result.rows["domains"] == len(result.tables["domains"])
    assert any("price" in warning for warning in result.warnings)
    # What spills is the same, whatever part it was in.
    spilled = millpond.aggregate(servers.mongo_uri, None, **words, reports=REPORTS, memory_limit=400_000)
    assert spilled.spilled > 0
    for report in REPORTS:
        assert list(spilled.tables[report["table"]]) == list(result.tables[report["table"]]), report["table"]
    assert spilled.excluded_keys == {
        name: told for name, told in result.excluded_keys.items() if name in spilled.tables
    }


def test_values_and_toml_and_mappings_say_the_same(servers, name, postgres, tmp_path):
    documents = store(servers, name, 300)
    as_values = r.Report(
        "campaigns",
        {"campaign": r.Key(r.coalesce(r.lower(r.query("referrer_url", "utm_source")), r.value("none")), "text"),
         "half": r.bucket(r.hour(), 12), "day": r.date_trunc("day"),
         "id": r.extract(r.path("referrer_url"), r"\d+", 0)},
        {"views": r.count(), "visitors": r.count_distinct("device_id"), "paid": r.sum(r.number("price"), type="double"),
         "mean": r.mean("price"), "least": r.min("price"), "last": r.max(r.event_time())},
        where=[r.Where(r.domain("referrer_url"), not_equals="cdn.example")],
        view="top_campaigns",
    )  # fmt: skip
    file = tmp_path / "reports.toml"
    file.write_text("""
        [[reports]]
        table = "campaigns"
        view = "top_campaigns"
        [reports.key]
        campaign.type = "text"
        campaign.of = {coalesce = [{lower = {query = "referrer_url", name = "utm_source"}}, {value = "none"}]}
        half = {bucket = {hour = {event_time = true}}, width = 12}
        day = {date_trunc = {event_time = true}, unit = "day"}
        id = {extract = {path = "referrer_url"}, pattern = '\\d+', group = 0}
        [reports.metrics]
        views = "count"
        visitors = {count_distinct = "device_id"}
        paid = {sum = {number = "price"}, type = "double"}
        mean = {mean = "price"}
        least = {min = "price"}
        last = {max = {event_time = true}}
        [[reports.where]]
        of = {domain = "referrer_url"}
        not_equals = "cdn.example"
    """)
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "all"}
    one = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=as_values)
    other = millpond.aggregate(servers.mongo_uri, None, **words, reports=[file])
    assert list(one.tables["campaigns"]) == list(other.tables["campaigns"])
    assert one.definition == other.definition
    assert one.definition != millpond.aggregate(servers.mongo_uri, None, **words).definition
    assert one.tables["campaigns"].columns[:5] == ["campaign", "half", "day", "id", "views"]
    best = one.tables["campaigns"].top(3)
    assert [row["views"] for row in best] == sorted((row["views"] for row in best), reverse=True)
    with psycopg.connect(postgres) as connection:
        ranked = connection.execute(
            "SELECT campaign, views FROM top_campaigns WHERE rank = 1 ORDER BY report_date"
        ).fetchall()
        told = connection.execute("SELECT definition FROM millpond_runs").fetchall()
    assert len(ranked) == len(one.dates)
    assert told == [(one.definition,)]
    assert documents


def test_frames_of_any_report_are_read_by_others(servers, name):
    import polars as pl
    import pyarrow as pa

    store(servers, name, 200)
    result = millpond.aggregate(
        servers.mongo_uri, None, database="tests", collection=name, dates="all", reports=REPORTS
    )
    for report in REPORTS:
        frame = result.tables[report["table"]]
        assert pl.DataFrame(frame).height == pa.table(frame).num_rows == len(frame)
        assert "<table>" in frame._repr_html_()
        assert len(frame.top(2)) <= 2
    assert pl.DataFrame(result.tables["domains"]).schema["last"] == pl.Datetime("us")
    assert pl.DataFrame(result.tables["exact"]).schema["flag"] == pl.Boolean


@pytest.mark.parametrize(
    ("reports", "place", "hint"),
    [
        ({"table": "t", "key": "k", "metrics": {"n": {"cuont": "x"}}}, "reports[0].metrics.n", "count"),
        ({"table": "t", "kye": "k", "metrics": {"n": "count"}}, "reports[0].kye", "key"),
        (["product_views", {"table": "top_products_daily", "key": "k", "metrics": {"n": "count"}}], "of the name", ""),
        ({"table": "t" * 64, "key": "k", "metrics": {"n": "count"}}, "no name for a table", "63"),
        ({"table": "t", "key": "report_date", "metrics": {"n": "count"}}, "report_date", "rename"),
        ([], "reports", "at least one"),
        (7, "reports", "millpond.Report"),
        ([3], "reports[0]", "millpond.Report"),
        ("no_such.toml", "no_such.toml", "path"),
        ({"table": "t", "key": {"k": {"call": "never"}}, "metrics": {"n": "count"}}, "never", ""),
        ({"table": "t", "key": dt.date, "metrics": {"n": "count"}}, "reports[0].key", ""),
    ],
)  # fmt: skip
def test_definitions_are_refused_whole_before_any_server_is_asked(reports, place, hint):
    with pytest.raises(millpond.ConfigError) as refused:
        millpond.aggregate("mongodb://nowhere.invalid", None, database="d", collection="c", reports=reports)
    assert place in refused.value.message
    assert hint in refused.value.hint


def test_a_table_of_another_definition_is_refused_with_the_difference(servers, name, postgres):
    store(servers, name, 50)
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "all"}
    report = r.Report("mine", "device_id", {"n": r.count()})
    millpond.aggregate(servers.mongo_uri, postgres, **words, reports=report)
    before = in_postgres(postgres, millpond.aggregate(servers.mongo_uri, None, **words, reports=report), "mine")
    other = r.Report("mine", "device_id", {"n": r.mean("price")})
    with pytest.raises(millpond.ConfigError, match="column n is bigint, not double precision"):
        millpond.aggregate(servers.mongo_uri, postgres, **words, reports=other)
    assert in_postgres(postgres, millpond.aggregate(servers.mongo_uri, None, **words, reports=report), "mine") == before
    # A field that no event has: every event is left out and counted, the report is empty.
    absent = millpond.aggregate(
        servers.mongo_uri, postgres, **words, reports=r.Report("absent", "no.such.field", {"n": r.count()})
    )
    assert absent.excluded_keys == {"absent": {"null_key": absent.counted}}
    assert absent.rows == {"absent": 0}


def test_another_definition_of_a_table_is_told(servers, name, postgres):
    store(servers, name, 50)
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "all"}
    one, other = (
        r.Report("mine", "device_id", {"n": r.count()}, where=[r.Where("price", missing=missing)])
        for missing in (True, False)
    )
    results = [
        millpond.aggregate(servers.mongo_uri, postgres, **words, reports=["product_views", report])
        for report in (one, one, other, other)
    ]
    told = [[warning for warning in result.warnings if "definition" in warning] for result in results]
    assert [len(warnings) for warnings in told] == [0, 0, 1, 0]
    assert told[2][0].startswith("mine: ")
    assert results[0].definitions["product_views_daily"] == results[2].definitions["product_views_daily"]
    assert results[0].definitions["mine"] != results[2].definitions["mine"]


def test_a_report_on_a_field_that_no_event_has_says_so(servers, name, postgres):
    """Its rows are none, its books balance, and what other tables hold is not touched."""
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many([{"timestamp": "2025-10-31", "product_id": i} for i in range(3)])
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "2025-10-31"}
    known = r.Report("known", "product_id", {"n": r.count(), "price": r.sum("prize"), "who": r.count_distinct("whom")})
    result = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=known)
    assert [row[1:4] for row in result.tables["known"]] == [(1, None, 0)] * 3
    unknown = r.Report("unknown", {"key": "produkt"}, {"n": r.count()})
    result = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=unknown)
    assert (result.counted, result.excluded_keys) == (3, {"unknown": {"null_key": 3}})
    assert "unknown has no row: every event is excluded (null_key 3)" in result.warnings
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM known").fetchone() == (3,)
