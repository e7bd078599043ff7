"""Checks before the commit: what fails is named, and nothing of the run is published."""

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.airflow_environment import Airflow
from tests.report_tables import published, store, views

import millpond
from millpond import Check

DAY, NEXT, LAST = "2025-10-30", "2025-10-31", "2025-11-01"
PRODUCTS, COUNTRIES = "product_views_daily", "country_views_daily"


def run(servers: Any, name: str, dsn: str | None, *checks: Any, **words: Any) -> millpond.AggregateResult:
    arguments = {"database": "tests", "collection": name, "dates": DAY} | words
    return millpond.aggregate(servers.mongo_uri, dsn, checks=checks, **arguments)


def keys(date: str, count: int) -> list[dict[str, Any]]:
    return [event for i in range(count) for event in views(date, 2, f"k{i}")]


def fails(servers: Any, name: str, dsn: str, check: Any, *words: str, **arguments: Any) -> None:
    """The check fails by name, and tables and ledger stay as they are."""
    with psycopg.connect(dsn) as connection:
        (before,) = connection.execute("SELECT count(*) FROM millpond_runs").fetchall()
        rows = published(dsn)
        with pytest.raises(millpond.DataError, match="checks failed, nothing was published") as caught:
            run(servers, name, dsn, check, **arguments)
        assert not caught.value.retryable
        assert all(word in str(caught.value) for word in words), caught.value
        assert published(dsn) == rows
        assert connection.execute("SELECT count(*) FROM millpond_runs").fetchall() == [before]


def test_rows_in_a_range(servers, name, postgres):
    store(servers, name, keys(DAY, 5))
    result = run(
        servers, name, postgres, Check(table=PRODUCTS, min_rows=5, max_rows=5), Check(table=COUNTRIES, min_rows=1)
    )
    assert (result.checks, result.published) == (2, True)
    store(servers, name, views(DAY, 1, "new"))
    fails(servers, name, postgres, Check(table=PRODUCTS, min_rows=7), PRODUCTS, DAY, "6 rows", "7")
    fails(servers, name, postgres, Check(table=COUNTRIES, max_rows=5), COUNTRIES, DAY, "6 rows", "5")
    fails(servers, name, postgres, {"table": PRODUCTS, "min_rows": 7}, "6 rows")
    fails(servers, name, postgres, Check(table=PRODUCTS, min_rows=1), f"{NEXT}: 0 rows", dates=[DAY, NEXT])
    assert run(servers, name, postgres, Check(table=PRODUCTS, min_rows=6)).published


def test_a_share_of_nulls(servers, name, postgres):
    """Of a key: events; a key that is no text is excluded too, and is not NULL."""
    none = [{"product_id": None, "store_id": "s", "timestamp": f"{DAY}T00:00:00Z"}] * 2
    odd = [{"product_id": [1], "store_id": "s", "timestamp": f"{DAY}T00:00:00Z"}]
    store(servers, name, views(DAY, 5) + [dict(event) for event in none + odd])
    assert run(servers, name, postgres, Check(table=PRODUCTS, max_null_share=0.25)).published
    fails(servers, name, postgres, Check(table=PRODUCTS, max_null_share=0.24), "product_id", "2 of 8")
    fails(servers, name, postgres, Check(table=PRODUCTS, column="product_id", max_null_share=0), "2 of 8")
    assert run(servers, name, postgres, Check(table=COUNTRIES, max_null_share=0)).checks == 1
    assert run(servers, name, postgres, Check(table=PRODUCTS, column="last_view_time", max_null_share=0)).checks == 1


def test_a_change_against_the_date_before(servers, name, postgres):
    store(servers, name, keys(DAY, 10) + keys(LAST, 4))
    half = Check(table=PRODUCTS, max_change=0.5)
    first = run(servers, name, postgres, half)
    assert (first.published, first.checks) == (True, 0), "nothing stands before it"
    fails(servers, name, postgres, half, PRODUCTS, LAST, "4", "10", dates=LAST)
    assert run(servers, name, postgres, Check(table=PRODUCTS, max_change=0.6), dates=LAST).checks == 1
    store(servers, name, keys(NEXT, 7) + views(NEXT, 400, "many"))
    views_too = Check(table=PRODUCTS, column="view_count", max_change=0.5)
    fails(servers, name, postgres, views_too, "view_count is 414, 20 on the date before", dates=NEXT)
    both = run(servers, name, postgres, half, dates=f"{DAY}..{LAST}")
    assert both.checks == 2, "each against the one before it, in the same run"


def test_a_change_against_what_is_replaced(servers, name, postgres):
    store(servers, name, keys(DAY, 10))
    replaced = Check(table=PRODUCTS, max_change=0.1, against="replaced")
    assert run(servers, name, postgres, replaced).checks == 0
    store(servers, name, views(DAY, 1, "one more"))
    assert run(servers, name, postgres, replaced).checks == 1
    with servers.mongo() as client:
        client["tests"][name].delete_many({})
    fails(servers, name, postgres, replaced, "rows is 0, 11 in the report replaced")


def test_many_failures_are_counted(servers, name, postgres):
    store(servers, name, keys(DAY, 1))
    run(servers, name, postgres)
    range_of_dates = "2025-10-01..2025-10-30"
    fails(servers, name, postgres, Check(table=PRODUCTS, min_rows=2), "and 20 more", dates=range_of_dates)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Check(table="product_views", min_rows=1), ["product_views", PRODUCTS]),
        (Check(table=PRODUCTS), ["nothing is checked"]), (Check(table=PRODUCTS, min_rows=2, max_rows=1), ["min_rows"]),
        (Check(table=PRODUCTS, max_null_share=1.5), ["max_null_share"]),
        (Check(table=PRODUCTS, max_change=-1), ["max_change"]),
        (Check(table=PRODUCTS, column="product_id", max_change=1), ["product_id", "no number"]),
        (Check(table=PRODUCTS, column="colour", max_null_share=1), ["colour"]),
        (Check(table=PRODUCTS, column="view_count", min_rows=1), ["column"]),
        (Check(table=PRODUCTS, max_change=1, against="yesterday"), ["yesterday"]),
        ({"table": PRODUCTS, "min_row": 1}, ["min_row", "min_rows"]), ({"min_rows": 1}, ["table"]),
        ("rows > 1", ["checks"]),
    ],
)  # fmt: skip
def test_a_check_that_makes_no_sense_is_refused(servers, name, postgres, check, words):
    """Before anything is asked of a server: this one has no collection of the name."""
    with pytest.raises(millpond.ConfigError) as caught:
        run(servers, name, postgres, check)
    assert all(word in f"{caught.value} {caught.value.hint}" for word in words), caught.value
    with pytest.raises(millpond.ConfigError, match="checks"):
        run(servers, name, None, check)


def test_checks_of_a_file_and_of_a_flag(servers, name, postgres, tmp_path):
    store(servers, name, keys(DAY, 3))
    file = tmp_path / "millpond.toml"
    dsn, schema = servers.dsn, name
    file.write_text(
        f'[mongo]\nuri = "{servers.mongo_uri}"\n[postgres]\ndsn = "{dsn}"\nschema = "{schema}"\n'
        f'[aggregate]\ndatabase = "tests"\ncollection = "{name}"\n'
        f'[[aggregate.checks]]\ntable = "{PRODUCTS}"\nmin_rows = 4\n'
    )
    code = "from millpond.cli import main; main()"

    def call(*words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *map(str, words), "--config", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    done = call("aggregate")
    assert (done.returncode, "3 rows, at least 4 wanted" in done.stderr) == (6, True), done.stderr
    done = call("aggregate", "--json", "--checks", json.dumps([{"table": PRODUCTS, "min_rows": 3}]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["aggregate"]["checks"] == 1
    assert len(published(postgres)[PRODUCTS]) == 3
    assert call("top").returncode == 0, "what writes nothing checks nothing"
    done = call("aggregate", "--checks", "min_rows")
    assert (done.returncode, "checks" in done.stderr) == (2, True), done.stderr


TASK = """
import json, sys
import millpond
from millpond.airflow import AggregateOperator
from airflow.exceptions import AirflowFailException

words, table = json.loads(sys.argv[1]), sys.argv[2]
assert "checks" in AggregateOperator.template_fields
for checks in ([millpond.Check(table=table, min_rows=4)], json.dumps([{"table": table, "min_rows": 4}])):
    try:
        AggregateOperator(task_id="t", checks=checks, **words).execute({})
    except AirflowFailException as error:
        print("FAILED", error)
books = AggregateOperator(task_id="t", checks=[{"table": table, "min_rows": 3}], **words).execute({})
print("CHECKS", books["checks"])
"""


def test_checks_of_a_task(servers, name, postgres, tmp_path):
    store(servers, name, keys(DAY, 3))
    at = {key: str(value) for key, value in conninfo_to_dict(servers.dsn).items()}
    hosts = servers.mongo_uri.partition("://")[2].partition("/")[0]
    airflow = Airflow(tmp_path)
    airflow.connect("mongo_default", {"conn_type": "mongo", "host": hosts, "extra": {"replicaSet": "rs0"}})
    words = {"login": at["user"], "password": at["password"], "schema": at["dbname"], "port": int(at["port"])}
    airflow.connect("postgres_default", {"conn_type": "postgres", "host": at["host"], **words})
    arguments = {"database": "tests", "collection": name, "dates": DAY, "schema": name}
    said = airflow.python("-c", TASK, json.dumps(arguments), PRODUCTS)
    assert said.count("FAILED") == said.count("3 rows, at least 4 wanted") == 2, said
    assert "CHECKS 1" in said
    assert len(published(postgres)[PRODUCTS]) == 3
