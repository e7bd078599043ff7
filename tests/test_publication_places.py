"""Where reports are kept: a schema by name, what stands in the way there, and the least rights that do."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.report_tables import COLUMNS, counts, published, store, views

import millpond

DAY = "2025-10-31"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "postgres.md"


def run(servers: Any, name: str, dsn: str, **words: Any) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, **{"dates": DAY} | words)


def refused(servers: Any, name: str, dsn: str, *words: str, **arguments: Any) -> None:
    with pytest.raises(millpond.ConfigError) as caught:
        run(servers, name, dsn, **arguments)
    told = f"{caught.value} {caught.value.hint}"
    assert caught.value.hint, told
    assert all(word in told for word in words), told


IN_THE_WAY = {
    "a view": "CREATE VIEW {0} AS SELECT 1 AS product_id",
    "a materialized view": "CREATE MATERIALIZED VIEW {0} AS SELECT 1 AS product_id",
    "a partitioned table": "CREATE TABLE {0} (LIKE model) PARTITION BY RANGE (report_date)",
    "a sequence": "CREATE SEQUENCE {0}",
    "a composite type": "CREATE TYPE {0} AS (product_id text)",
    "rules": "CREATE TABLE {0} (LIKE model); CREATE RULE r AS ON DELETE TO {0} DO INSTEAD NOTHING",
    "generated": (
        "CREATE TABLE {0} (product_id VARCHAR(255) NOT NULL, view_count BIGINT GENERATED ALWAYS AS (1) STORED,"
        " unique_visitors BIGINT, last_view_time TIMESTAMP, report_date DATE NOT NULL, created_at TIMESTAMP)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_stands_in_the_way_is_named(servers, name, postgres, kind):
    """And nothing is made beside it."""
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        run(servers, name, postgres, dates="1999-01-01")
        connection.execute("DROP VIEW top_products_daily; ALTER TABLE product_views_daily RENAME TO model")
        connection.execute("DROP TABLE referrer_views_daily CASCADE")
        connection.execute(IN_THE_WAY[kind].format("product_views_daily"))
        refused(servers, name, postgres, "product_views_daily", kind)
        assert connection.execute("SELECT to_regclass('referrer_views_daily')").fetchone() == (None,)
        assert counts_of_ledger(connection) == 1


def test_a_table_in_the_place_of_a_view_is_named(servers, name, postgres):
    """A view of somebody's own is left as it is."""
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE top_products_daily (x int)")
        refused(servers, name, postgres, "top_products_daily", "a table")
        assert connection.execute("SELECT to_regclass('product_views_daily')").fetchone() == (None,)
        connection.execute("DROP TABLE top_products_daily; CREATE VIEW top_products_daily AS SELECT 7 AS mine")
        assert run(servers, name, postgres).published
        assert connection.execute("SELECT * FROM top_products_daily").fetchall() == [(7,)]


def counts_of_ledger(connection: "psycopg.Connection[Any]") -> int:
    (found,) = connection.execute("SELECT count(*) FROM millpond_runs").fetchall()
    return int(found[0])


def test_a_foreign_table_is_no_place_for_a_report(servers, name, postgres):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE FOREIGN DATA WRAPPER {name}; CREATE SERVER {name} FOREIGN DATA WRAPPER {name}")
        try:
            connection.execute(f"CREATE FOREIGN TABLE country_views_daily (store_id text) SERVER {name}")
            refused(servers, name, postgres, "country_views_daily", "a foreign table")
        finally:
            connection.execute(f"DROP FOREIGN DATA WRAPPER {name} CASCADE")


def test_rows_that_a_policy_hides_would_stay(servers, name, postgres, role):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(postgres, autocommit=True) as connection:
        run(servers, name, postgres)
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
        connection.execute("ALTER TABLE product_views_daily ENABLE ROW LEVEL SECURITY")
        refused(servers, name, role, "product_views_daily", "row-level security")
        assert run(servers, name, postgres).published, "its owner sees all rows"


def test_rows_that_a_trigger_drops_are_missed(servers, name, postgres):
    store(servers, name, views(DAY, 2) + views(DAY, 1, "secret"))
    run(servers, name, postgres)
    before = published(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN CASE WHEN new.product_id = 'secret' THEN NULL ELSE new END; END $$;"
            " CREATE TRIGGER t BEFORE INSERT ON product_views_daily FOR EACH ROW EXECUTE FUNCTION hide()"
        )
    store(servers, name, views(DAY, 5))
    with pytest.raises(millpond.DataError, match="of 2 rows the server kept 1"):
        run(servers, name, postgres)
    assert published(postgres) == before


def test_keys_that_an_index_of_theirs_cannot_hold(servers, name, postgres):
    """Kilobytes that do not compress, as the index on referrer_url that somebody made."""
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    before = published(postgres)
    long = "".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(4_000))
    store(servers, name, [{"referrer_url": long, "timestamp": f"{DAY}T00:00:00Z"}])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE INDEX theirs ON referrer_views_daily (referrer_url)")
        with pytest.raises(millpond.DataError, match="referrer_views_daily") as caught:
            run(servers, name, postgres)
        assert "index" in str(caught.value.hint)
        assert published(postgres) == before
        connection.execute("DROP INDEX theirs")
    assert run(servers, name, postgres).rows["referrer_views_daily"] == 2


def test_a_schema_by_name(servers, name, postgres):
    """Of any name, beside one of the search path that has it all."""
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    other = f'{name} "Other" %s'
    quoted = '"' + other.replace('"', '""') + '"'
    refused(servers, name, postgres, "no schema", other, "CREATE SCHEMA", schema=other)
    store(servers, name, views(DAY, 3))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {quoted}")
        try:
            assert run(servers, name, postgres, schema=other).published
            found = connection.execute(f"SELECT view_count FROM {quoted}.top_products_daily").fetchall()
            assert found == [(5,)]
            assert counts(postgres) == {("p", DAY): 2}
            assert len(millpond.runs(postgres, schema=other)) == 1
        finally:
            connection.execute(f"DROP SCHEMA {quoted} CASCADE")


def test_a_database_that_cannot_hold_every_text_is_refused(servers, name):
    store(servers, name, views(DAY, 1))
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
        try:
            refused(servers, name, make_conninfo(servers.dsn, dbname=name), "LATIN1", "UTF8")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def role(servers: Any, name: str, postgres: str) -> Iterator[str]:
    """A DSN of a role without any right."""
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        connection.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")
    yield make_conninfo(postgres, user=name, password=name)
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def granted(servers: Any, name: str, which: int) -> None:
    """Run a block of docs/postgres.md, with this test's role and schema for those that it names."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(blocks[which].replace("reports", name).replace("millpond_role", name))


def test_the_rights_of_the_documentation_are_enough_to_begin(servers, name, postgres, role):
    store(servers, name, views(DAY, 2))
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"REVOKE ALL ON SCHEMA {name} FROM {name}")
    refused(servers, name, role, "GRANT USAGE", schema=name)
    granted(servers, name, 0)
    assert run(servers, name, role, schema=name).published
    store(servers, name, views(DAY, 1))
    assert run(servers, name, role, schema=name).published
    assert counts(postgres) == {("p", DAY): 3}


def test_the_rights_of_the_documentation_are_enough_to_go_on(servers, name, postgres, role):
    """A role that owns nothing and makes nothing; and none of its rights can be spared."""
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    granted(servers, name, 1)
    store(servers, name, views(DAY, 1))
    assert run(servers, name, role).published
    assert len(millpond.runs(role)) == 2
    with psycopg.connect(postgres, autocommit=True) as connection:
        rights = connection.execute(
            "SELECT table_name, privilege_type FROM information_schema.table_privileges"
            " WHERE grantee = %s AND table_schema = %s",
            (name, name),
        ).fetchall()
        assert len(rights) == 3 * len(COLUMNS) + 2
        for table, right in rights:
            connection.execute(f"REVOKE {right} ON {table} FROM {name}")
            refused(servers, name, role, "GRANT", right, table)
            connection.execute(f"GRANT {right} ON {table} TO {name}")
    assert run(servers, name, role).published
