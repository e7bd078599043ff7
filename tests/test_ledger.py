"""The ledger read back: `millpond runs`, `millpond explain report`, and the ledger of an older version."""

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from tests.report_tables import COLUMNS, published, store, views

import millpond

DAY, NEXT = "2025-10-31", "2025-11-01"
EVENT = b'{"product_id":"p","store_id":null,"referrer_url":"r","timestamp":"%sT00:00:00Z"}'
FIRST_LEDGER = """CREATE TABLE millpond_runs (
    run_id TEXT PRIMARY KEY, job TEXT NOT NULL, dates DATE[] NOT NULL, positions JSONB NOT NULL,
    read_at TIMESTAMPTZ NOT NULL, scanned BIGINT NOT NULL, counted BIGINT NOT NULL, excluded JSONB NOT NULL,
    rows JSONB NOT NULL, engine TEXT NOT NULL, version TEXT NOT NULL, definition TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now())"""


def run(servers: Any, name: str, dsn: str, **words: Any) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, **{"dates": DAY} | words)


def send(servers: Any, name: str, *dates: str) -> None:
    servers.send(servers.kafka, name, [(None, EVENT % date.encode(), 0) for date in dates])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)


def call(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from millpond.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_runs_are_listed_newest_first(servers, name, postgres):
    store(servers, name, views(DAY, 3) + views(NEXT, 2))
    results = [
        run(servers, name, postgres, dates=dates, job=job)
        for dates, job in ((DAY, "a"), (NEXT, "b"), ([DAY, NEXT], "a"))
    ]
    found = millpond.runs(postgres)
    assert [row["run_id"] for row in found] == [result.run_id for result in reversed(results)]
    for row, result in zip(found, reversed(results), strict=True):
        for word in ("job", "dates", "rows", "counted", "scanned", "excluded", "excluded_keys", "positions", "source"):
            assert row[word] == getattr(result, word), word
        assert row["definition"] == result.definition
        assert (row["repeatable"], row["superseded"], row["version"]) == (False, [], millpond.__version__)
        read_at, created_at = (dt.datetime.fromisoformat(row[word]) for word in ("read_at", "created_at"))
        assert read_at == dt.datetime.fromisoformat(result.read_at) <= created_at
    assert [row["job"] for row in millpond.runs(postgres, job="a")] == ["a", "a"]
    assert [row["job"] for row in millpond.runs(postgres, date=dt.date(2025, 11, 1), limit=1)] == ["a"]
    assert [row["dates"] for row in millpond.runs(postgres, date=DAY, limit=None)] == [[DAY, NEXT], [DAY]]
    done = call("runs", "--postgres-dsn", postgres, "--json", "-n", 2)
    assert json.loads(done.stdout) == found[:2], done.stderr
    done = call("runs", "--postgres-dsn", servers.dsn, "--schema", name, "--job", "b")
    assert results[1].run_id in done.stdout, done.stderr
    assert results[0].run_id not in done.stdout
    assert "product_views_daily 1" in done.stdout
    for words in ({"date": "yesterday"}, {"limit": 0}, {"schema": "nowhere"}):
        with pytest.raises(millpond.ConfigError):
            millpond.runs(postgres, **words)


def test_a_report_says_from_what_it_was_made_and_what_has_arrived_since(servers, name, postgres):
    servers.create(servers.kafka, name, 1)
    send(servers, name, DAY, DAY, NEXT)
    result = run(servers, name, postgres)
    told = millpond.explain_report(postgres, date=DAY, mongo_uri=servers.mongo_uri)
    assert [one["table"] for one in told] == sorted(COLUMNS)
    assert [one["rows"] for one in told] == [0, 1, 1]
    for one in told:
        assert one["run"]["run_id"] == result.run_id
        assert list(one["newer"].values()) == [0]
        assert one["untouched"] is True
    shown = call("explain", "report", "--date", DAY, "--postgres-dsn", postgres, "--mongo-uri", servers.mongo_uri)
    assert "no newer events have arrived" in shown.stdout, shown.stderr
    assert f"from tests.{name}," in shown.stdout
    send(servers, name, NEXT, NEXT)
    words = {"date": DAY, "table": "product_views_daily"}
    (one,) = millpond.explain_report(postgres, **words, mongo_uri=servers.mongo_uri)
    assert one["newer"] == {next(iter(result.positions)): 2}
    (one,) = millpond.explain_report(postgres, **words)
    assert one["newer"] is None
    flags = ["--date", DAY, "--table", "product_views_daily", "--postgres-dsn", postgres]
    shown = call("explain", "report", *flags, "--mongo-uri", servers.mongo_uri)
    assert "2 newer events have arrived since" in shown.stdout, shown.stderr
    assert "up to offset 3" in shown.stdout
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE product_views_daily SET created_at = created_at + interval '1 microsecond'")
    (one,) = millpond.explain_report(postgres, **words)
    assert one["untouched"] is False
    again = run(servers, name, postgres)
    (one,) = json.loads(call("explain", "report", *flags, "--mongo-uri", servers.mongo_uri, "--json").stdout)
    assert (one["run"]["run_id"], one["untouched"], list(one["newer"].values())) == (again.run_id, True, [0])


def test_what_was_never_published_is_said(servers, name, postgres):
    with pytest.raises(millpond.ConfigError, match="nothing was published"):
        millpond.explain_report(postgres, date=DAY)
    store(servers, name, views(DAY, 1))
    run(servers, name, postgres)
    assert millpond.explain_report(postgres, date="1999-01-01") == []
    shown = call("explain", "report", "--date", "1999-01-01", "--postgres-dsn", postgres)
    assert "no report of 1999-01-01 was published" in shown.stdout
    (one,) = millpond.explain_report(postgres, date="1999-01-01", table="product_views_daily")
    assert (one["run"], one["rows"]) == (None, 0)
    with pytest.raises(millpond.ConfigError, match="colours"):
        millpond.explain_report(postgres, date=DAY, table="colours")
    (one, *_) = millpond.explain_report(postgres, date=DAY, mongo_uri=servers.mongo_uri)
    assert one["newer"] is None, "other programs wrote these events"


def test_the_ledger_of_an_older_version_gains_its_columns(servers, name, postgres):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(FIRST_LEDGER)
        connection.execute(
            "INSERT INTO millpond_runs VALUES ('old', 'j', '{2025-10-31}', '{}', now() - interval '1 day', 2, 2, '{}',"
            " '{\"product_views_daily\": 1}', 'native', '0', 'd', 1)"
        )
        assert [row["run_id"] for row in millpond.runs(postgres)] == ["old"], "readers do without them"
        result = run(servers, name, postgres)
        assert result.published
        rows = connection.execute("SELECT run_id, source FROM millpond_runs ORDER BY read_at").fetchall()
        assert rows == [("old", None), (result.run_id, f"tests.{name}")]
        connection.execute("UPDATE millpond_runs SET read_at = now() + interval '1 hour' WHERE run_id = 'old'")
        store(servers, name, views(DAY, 1))
        later = run(servers, name, postgres)
        assert later.superseded == [DAY]
        assert later.rows == {"product_views_daily": 0, "country_views_daily": 1, "referrer_views_daily": 1}
        assert [row[1] for row in published(postgres)["product_views_daily"]] == [2]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("CREATE VIEW millpond_runs AS SELECT 1 AS run_id", ["view"]),
        ("CREATE TABLE millpond_runs (run_id int)", ["run_id", "integer"]),
        (FIRST_LEDGER.replace("scanned BIGINT", "scanned TEXT"), ["scanned", "text", "bigint"]),
        (f"{FIRST_LEDGER}; ALTER TABLE millpond_runs ADD source int", ["source", "integer"]),
        (f"{FIRST_LEDGER}; ALTER TABLE millpond_runs ADD shift text NOT NULL", ["shift"]),
    ],
)  # fmt: skip
def test_a_ledger_of_another_shape_is_refused(servers, name, postgres, command, words):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(command)
        with pytest.raises(millpond.ConfigError) as caught:
            run(servers, name, postgres)
        assert all(word in str(caught.value) for word in ["millpond_runs", *words]), caught.value
        assert connection.execute("SELECT to_regclass('product_views_daily')").fetchone() == (None,)
