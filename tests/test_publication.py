"""What a publication leaves in PostgreSQL: tables, views, rows, their time, the ledger; and what a run answers."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests import oracle_reports as oracle
from tests.report_tables import COLUMNS, counts, published, store, views

import millpond

KEY = ("character varying", 255, "NO", None)
COUNT = ("bigint", None, "YES", None)
DATE = ("date", None, "NO", None)
CREATED = ("timestamp without time zone", None, "YES", "CURRENT_TIMESTAMP")
TABLES: dict[str, dict[str, tuple[str, int | None, str, str | None]]] = {
    "product_views_daily": {
        "product_id": KEY, "view_count": COUNT, "unique_visitors": COUNT,
        "last_view_time": ("timestamp without time zone", None, "YES", None),
        "report_date": DATE, "created_at": CREATED,
    },
    "country_views_daily": {
        "store_id": KEY, "view_count": COUNT, "unique_visitors": COUNT, "report_date": DATE, "created_at": CREATED,
    },
    "referrer_views_daily": {
        "referrer_url": ("text", None, "NO", None), "view_count": COUNT, "report_date": DATE, "created_at": CREATED,
    },
}  # fmt: skip
VIEWS = {
    "top_products_daily": "product_id", "top_countries_daily": "store_id", "top_referrers_daily": "referrer_url",
}  # fmt: skip


def run(servers: Any, name: str, dsn: str | None, **words: Any) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, **{"dates": "all"} | words)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def test_the_tables_are_made_exactly(servers, name, postgres):
    store(servers, name, views("2025-10-31", 1))
    run(servers, name, postgres)
    run(servers, name, postgres)
    with psycopg.connect(postgres) as connection:
        for table, columns in TABLES.items():
            rows = connection.execute(
                "SELECT column_name, data_type, character_maximum_length, is_nullable, column_default,"
                " datetime_precision FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
                (name, table),
            ).fetchall()
            assert [(row[0], row[1:5]) for row in rows] == list(columns.items()), table
            assert {row[5] for row in rows if row[1].startswith("timestamp")} == {6}
            indexes = connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND tablename = %s", (name, table)
            ).fetchall()
            assert len(indexes) == 1
            assert indexes[0][0].endswith("USING btree (report_date)")
        kinds = connection.execute(
            "SELECT relname, relkind::text FROM pg_class"
            " WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v')",
            (name,),
        ).fetchall()
    assert dict(kinds) == dict.fromkeys(TABLES, "r") | dict.fromkeys(VIEWS, "v") | {"millpond_runs": "r"}


def test_the_views_rank_within_a_date_and_break_ties_by_key(servers, name, postgres):
    keys = ["b", "B", "a", "\u00e4", "~", "", "Z", "aa", "10", "9"]
    documents = [event for date in ("2025-10-30", "2025-10-31") for key in keys for event in views(date, 2, key)]
    store(servers, name, documents + views("2025-10-31", 3, "first") + views("2025-10-30", 1, "last"))
    run(servers, name, postgres)
    order = sorted(keys, key=str.encode)
    expected = {"2025-10-30": [*order, "last"], "2025-10-31": ["first", *order]}
    with psycopg.connect(postgres) as connection:
        for view, key in VIEWS.items():
            rows = connection.execute(
                f"SELECT report_date::text, rank, {key}, view_count FROM {view} ORDER BY report_date, rank"
            ).fetchall()
            for date, wanted in expected.items():
                assert [row[1:3] for row in rows if row[0] == date] == list(enumerate(wanted, 1)), view
            top = connection.execute(f"SELECT * FROM {view} ORDER BY view_count DESC LIMIT 10").fetchall()
            assert len(top) == 10
        assert connection.execute("SELECT * FROM product_views_daily ORDER BY view_count DESC LIMIT 1").fetchone()


@pytest.fixture
def far_away(servers, name) -> Iterator[str]:
    """A DSN whose database and role each live in a time zone and a date style of their own."""
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
        connection.execute(f"ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati'")
        connection.execute(f"ALTER ROLE {name} SET timezone = 'Pacific/Marquesas'")
        connection.execute(f"ALTER ROLE {name} SET datestyle = 'German'")
    yield make_conninfo(servers.dsn, dbname=name, user=name, password=name)
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("options", ["", "-c timezone=Asia/Kolkata"])
@pytest.mark.parametrize("made", ["by us", "without a default", "with another default"])
def test_created_at_is_the_publications_time_wherever_the_session_lives(servers, name, far_away, options, made):
    dsn = make_conninfo(far_away, options=options)
    with psycopg.connect(far_away, autocommit=True) as connection:
        if made != "by us":
            default = "DEFAULT '2001-01-01'" if "another" in made else ""
            connection.execute(
                "CREATE TABLE country_views_daily (store_id VARCHAR(255) NOT NULL, view_count BIGINT,"
                f" unique_visitors BIGINT, report_date DATE NOT NULL, created_at TIMESTAMP {default})"
            )
    store(servers, name, views("2025-10-31", 3) + views("2025-11-01", 2, "q"))
    began = now()
    run(servers, name, dsn)
    ended = now()
    with psycopg.connect(far_away) as connection:
        times = {table: connection.execute(f"SELECT DISTINCT created_at FROM {table}").fetchall() for table in COLUMNS}
    assert len(set(map(str, times.values()))) == 1, times
    ((created,),) = times["country_views_daily"]
    assert began <= created <= ended
    assert counts(far_away) == {("p", "2025-10-31"): 3, ("q", "2025-11-01"): 2}


def test_dates_are_replaced_whole_and_others_are_left_alone(servers, name, postgres):
    for i, date in enumerate(("2025-10-29", "2025-10-30", "2025-10-31")):
        store(servers, name, views(date, 2 + i) + views(date, 1, f"only-{i}"))
    run(servers, name, postgres)
    before = published(postgres, "2025-10-29"), published(postgres, "2025-10-31")
    with servers.mongo() as client:
        events = client["tests"][name]
        events.delete_many({"product_id": "only-1"})
        events.delete_many({"timestamp": {"$gte": "2025-10-31"}})
        events.delete_many({"timestamp": {"$lt": "2025-10-30"}})
    run(servers, name, postgres, dates="2025-10-30")
    assert published(postgres, "2025-10-30")["product_views_daily"] == [
        ("p", 3, 3, dt.datetime(2025, 10, 30, 2), dt.date(2025, 10, 30))
    ]
    assert (published(postgres, "2025-10-29"), published(postgres, "2025-10-31")) == before
    gone = run(servers, name, postgres, dates=["2025-10-31", "2025-10-28"])
    assert gone.dates == ["2025-10-28", "2025-10-31"]
    assert gone.rows == dict.fromkeys(COLUMNS, 0)
    assert published(postgres, "2025-10-31") == {table: [] for table in COLUMNS}
    assert published(postgres, "2025-10-29") == before[0]


def test_the_ledger_says_what_was_published(servers, name, postgres):
    stored = dt.datetime.now(dt.UTC)
    servers.create(servers.kafka, name, 1)
    event = b'{"product_id":1,"store_id":null,"referrer_url":"r","timestamp":"2025-10-31T00:00:00Z"}'
    servers.send(servers.kafka, name, [(None, value, 0) for value in (event, event, b'{"product_id":1}')])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    began = dt.datetime.now(dt.UTC)
    results = [run(servers, name, postgres), run(servers, name, postgres, job="nightly", dates=["2025-10-31"] * 2)]
    ended = dt.datetime.now(dt.UTC)
    with psycopg.connect(postgres) as connection:
        cursor = connection.execute("SELECT * FROM millpond_runs ORDER BY created_at")
        names = [column.name for column in cursor.description or ()]
        ledger = [dict(zip(names, row, strict=True)) for row in cursor]
    wanted = {"run_id", "job", "dates", "positions", "read_at", "scanned", "counted", "excluded", "rows", "engine"}
    wanted |= {"source", "time_field", "excluded_keys", "superseded", "repeatable", "definitions"}
    wanted |= {"mode", "kept", "full_scans", "by_date"}
    assert wanted | {"version", "definition", "seconds", "created_at"} == set(names)
    for result, row, job, excluded in zip(
        results, ledger, (f"tests.{name}", "nightly"), ({"missing_time": 1}, {}), strict=True
    ):
        assert (row["run_id"], row["job"], row["engine"]) == (result.run_id, job, "native")
        assert row["dates"] == [dt.date(2025, 10, 31)]
        assert list(row["positions"].values()) == [3]
        assert row["positions"] == result.positions
        assert (row["scanned"], row["counted"]) == (result.scanned, 2)
        assert row["excluded"] == result.excluded == excluded
        assert row["rows"] == result.rows
        assert row["rows"] == {"product_views_daily": 1, "country_views_daily": 0, "referrer_views_daily": 1}
        assert (row["source"], row["time_field"]) == (f"tests.{name}", "timestamp")
        assert row["excluded_keys"] == result.excluded_keys
        assert (row["superseded"], row["repeatable"]) == ([], True)
        # Another job keeps its own Partials: both read the whole date.
        assert (row["mode"], row["kept"], row["full_scans"]) == ("full", 0, {})
        assert row["by_date"]["2025-10-31"]["counted"] == 2
        assert row["version"] == millpond.__version__
        assert row["definition"] == ledger[0]["definition"] != ""
        # The server's time of the last write that was read.
        assert stored - dt.timedelta(seconds=2) < row["read_at"] <= row["created_at"] <= ended
        assert began <= row["created_at"]
        assert 0 < row["seconds"] < 60
    assert ledger[0]["read_at"] <= ledger[1]["read_at"]


def test_everything_is_made_in_the_first_schema_of_the_search_path(servers, name, postgres):
    """A second schema that has it all, with a ledger of later readings, changes nothing."""
    store(servers, name, views("2025-10-31", 2))
    run(servers, name, postgres)
    first = f"{name}_first"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE millpond_runs SET read_at = read_at + interval '1 day'")
        connection.execute(f"CREATE SCHEMA {first}")
        try:
            store(servers, name, views("2025-10-31", 3))
            dsn = make_conninfo(servers.dsn, options=f"-c search_path=nowhere,{first},{name}")
            result = run(servers, name, dsn)
            assert result.superseded == []
            assert counts(dsn) == {("p", "2025-10-31"): 5}
            assert counts(postgres) == {("p", "2025-10-31"): 2}
            made = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'v')", (first,)
            )
            assert {row[0] for row in made} == {*TABLES, *VIEWS, "millpond_runs"}
        finally:
            connection.execute(f"DROP SCHEMA {first} CASCADE")


def test_ten_thousand_dates_in_one_run(servers, name, postgres):
    first = dt.date(1995, 1, 1)
    days = [(first + dt.timedelta(days=i)).isoformat() for i in range(10_000)]
    store(servers, name, (event for day in days for event in views(day, 1)))
    truth = oracle.tell(event for day in days for event in [{"_id": 0, **views(day, 1)[0]}])
    for dates in ("all", f"{days[0]}..{days[-1]}", "all"):
        result = run(servers, name, postgres, dates=dates)
        print(dates, result.phases)
        assert (result.counted, result.dates) == (10_000, days)
        assert result.seconds < 100
        assert published(postgres) == truth.rows
    books = result.to_dict()
    assert len(json.dumps(books)) < 48_000
    assert books["capped"]["dates"] == 10_000
    assert (books["scanned"], books["counted"]) == (10_000, 10_000)
    with psycopg.connect(postgres) as connection:
        ledger = connection.execute("SELECT dates FROM millpond_runs").fetchall()
    assert [[date.isoformat() for date in row[0]] for row in ledger] == [days] * 3


def test_frames_and_results_show_themselves(servers, name):
    documents = [event for i in range(30) for event in views("2025-10-30", 1, f"<{i}>")]
    store(servers, name, documents + views("2025-10-31", 2, "a&b") + views("2025-10-31", 1, "B"))
    result = run(servers, name, None)
    frame = result.tables["product_views_daily"]
    assert (len(frame), len(list(frame)), len(frame.to_dicts())) == (32, 32, 32)
    assert [row["product_id"] for row in frame.top()] == ["a&b", "B"]
    assert [row["product_id"] for row in frame.top(3, date="2025-10-30")] == ["<0>", "<10>", "<11>"]
    assert frame.top(1)[0] == {
        "product_id": "a&b", "view_count": 2, "unique_visitors": 2,
        "last_view_time": dt.datetime(2025, 10, 31, 1), "report_date": dt.date(2025, 10, 31),
    }  # fmt: skip
    assert frame.top(0) == []
    shown = frame._repr_html_()
    assert "<0>" not in shown
    assert "&lt;0&gt;" in shown
    assert "32 rows" in shown
    assert "<td>33</td>" in result._repr_html_()
    assert str(result.counted) in repr(result)
    assert set(result.to_dict()) >= {"dates", "scanned", "counted", "excluded", "seconds", "positions", "rows"}


def test_without_postgres_nothing_is_written(servers, name, postgres, monkeypatch):
    where = conninfo_to_dict(postgres)
    for variable, word in (("HOST", "host"), ("PORT", "port"), ("USER", "user"), ("OPTIONS", "options")):
        monkeypatch.setenv(f"PG{variable}", str(where[word]))
    store(servers, name, views("2025-10-31", 2))
    result = run(servers, name, None)
    assert (result.published, result.rows["product_views_daily"]) == (False, 1)
    with psycopg.connect(postgres) as connection:
        found = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace", (name,))
        assert found.fetchall() == []
