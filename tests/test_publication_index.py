"""The index on the date: a table gets it with its first rows, once, and nobody else's does."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.report_tables import COLUMNS, counts, held, store, until, views, waiting
from tests.test_mutants import die

import millpond

DAY, OTHER = "2025-10-31", "2025-11-01"
STEPS = ["after_delete:1", "after_copy:1", "after_copy:3", "before_commit"]


def words(servers: Any, name: str, dsn: str, **more: Any) -> dict[str, Any]:
    place = {"database": "tests", "collection": name, "dates": DAY}
    return {"mongo_uri": servers.mongo_uri, "postgres_dsn": dsn, **place, **more}


def indexes(dsn: str, table: str = "product_views_daily") -> list[str]:
    """What each index of a table is on; those that a query may use."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass AND indisvalid ORDER BY 1",
            (table,),
        )
        return [row[0].split(" USING ")[1] for row in rows]


OURS = ["btree (report_date)"]


def test_a_first_run_that_fails_leaves_it_to_the_next_one(servers, name, postgres):
    store(servers, name, views(DAY, 2))
    check = millpond.Check(table="product_views_daily", min_rows=7)
    with pytest.raises(millpond.DataError):
        millpond.aggregate(**words(servers, name, postgres), checks=[check])
    assert [indexes(postgres, table) for table in COLUMNS] == [[], [], []]
    for _ in range(2):
        millpond.aggregate(**words(servers, name, postgres))
        assert [indexes(postgres, table) for table in COLUMNS] == [OURS, OURS, OURS]
    assert counts(postgres) == {("p", DAY): 2}


def test_a_first_run_that_is_killed_leaves_it_to_the_next_one(servers, name, postgres):
    store(servers, name, views(DAY, 2))
    call = f"millpond.aggregate(**{words(servers, name, postgres)!r})"
    for step in STEPS:
        die(call, None, f"aggregate.{step}")
        assert counts(postgres) == {}, step
        assert [indexes(postgres, table) for table in COLUMNS] == [[], [], []], step
    millpond.aggregate(**words(servers, name, postgres))
    assert [indexes(postgres, table) for table in COLUMNS] == [OURS, OURS, OURS]
    assert counts(postgres) == {("p", DAY): 2}


def test_first_runs_beside_each_other_make_it_once(servers, name, postgres):
    """Of two dates, before tables that nobody has published to."""
    store(servers, name, views(DAY, 2) + views(OTHER, 3))
    check = millpond.Check(table="product_views_daily", min_rows=7)
    with pytest.raises(millpond.DataError):
        millpond.aggregate(**words(servers, name, postgres), checks=[check])
    with ThreadPoolExecutor(2) as pool:
        with held(postgres, whole=True):
            runs = [words(servers, name, postgres, dates=day) for day in (DAY, OTHER)]
            pair = [pool.submit(lambda one: millpond.aggregate(**one), one) for one in runs]
            until(lambda: len(waiting(postgres)) == 2)
        assert [run.result().published for run in pair] == [True, True]
    assert [indexes(postgres, table) for table in COLUMNS] == [OURS, OURS, OURS]
    assert counts(postgres) == {("p", DAY): 2, ("p", OTHER): 3}


@pytest.mark.parametrize(
    ("made", "after"),
    [
        ("SELECT", OURS),
        ("INSERT INTO product_views_daily VALUES ('theirs', 1, 1, NULL, '2020-01-01')", []),
        ("CREATE INDEX ON product_views_daily (report_date, product_id)", ["btree (report_date, product_id)"]),
        ("CREATE INDEX ON product_views_daily USING brin (report_date)", ["brin (report_date)"]),
        ("CREATE INDEX ON product_views_daily (product_id)", [*OURS, "btree (product_id)"]),
    ],
)
def test_a_table_of_somebodys_own_gets_it_when_it_is_empty_and_has_none(servers, name, postgres, made, after):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE product_views_daily (product_id VARCHAR(255) NOT NULL, view_count BIGINT,"
            " unique_visitors BIGINT, last_view_time TIMESTAMP, report_date DATE NOT NULL, created_at TIMESTAMP)"
        )
        connection.execute(made)
    for _ in range(2):
        assert millpond.aggregate(**words(servers, name, postgres)).published
        assert sorted(indexes(postgres)) == sorted(after)
    assert counts(postgres)[("p", DAY)] == 2


def test_a_role_that_does_not_own_the_tables_publishes_without(servers, name, postgres):
    """Nobody has published before, so that no index is there, and none can be made."""
    store(servers, name, views(DAY, 2))
    check = millpond.Check(table="product_views_daily", min_rows=7)
    with pytest.raises(millpond.DataError):
        millpond.aggregate(**words(servers, name, postgres), checks=[check])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'; GRANT USAGE ON SCHEMA {name} TO {name}")
        try:
            connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
            theirs = make_conninfo(postgres, user=name, password=name)
            assert millpond.aggregate(**words(servers, name, theirs)).published
            assert (indexes(postgres), counts(postgres)) == ([], {("p", DAY): 2})
        finally:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
