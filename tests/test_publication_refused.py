"""Publications that must not happen: tables of another shape, missing rights, unusable DSNs; the old rows stay."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.report_tables import COLUMNS, counts, published, store, views

import millpond

DAY = "2025-10-31"
PASSWORD = "p@ss/w?rd#1'\\ %41 \u00e9"


def run(servers: Any, name: str, dsn: str) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, dates=DAY)


def refused(
    servers: Any, name: str, dsn: str, *words: str, family: type[millpond.Error] = millpond.ConfigError
) -> None:
    with pytest.raises(family) as caught:
        run(servers, name, dsn)
    told = f"{caught.value} {caught.value.hint}"
    assert caught.value.hint, told
    assert caught.value.retryable == (family is millpond.ExternalError)
    for word in words:
        assert word in told, told
    for secret in (PASSWORD, quote(PASSWORD), "millpond-local-only"):
        assert secret not in told


CHANGES = {
    "a column of another type": (
        "ALTER TABLE {0}.product_views_daily ALTER view_count TYPE integer", ["view_count", "integer", "bigint"],
    ),
    "a time with a zone": (
        "ALTER TABLE {0}.product_views_daily ALTER last_view_time TYPE timestamptz",
        ["last_view_time", "timestamp with time zone"],
    ),
    "a missing column": ("ALTER TABLE {0}.country_views_daily DROP unique_visitors", ["unique_visitors", "missing"]),
    "no created_at": ("ALTER TABLE {0}.country_views_daily DROP created_at", ["created_at", "missing"]),
    "a narrower key": ("ALTER TABLE {0}.product_views_daily ALTER product_id TYPE varchar(254)", ["product_id", "254"]),
    "a key as narrow as it goes": ("ALTER TABLE {0}.country_views_daily ALTER store_id TYPE varchar(2)", ["store_id"]),
    "a referrer of limited length": (
        "ALTER TABLE {0}.referrer_views_daily ALTER referrer_url TYPE varchar(255)", ["referrer_url"],
    ),
    "a column that must be filled": (
        "DELETE FROM {0}.referrer_views_daily; ALTER TABLE {0}.referrer_views_daily ADD source text NOT NULL",
        ["source"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_of_another_shape_is_refused_with_the_difference(servers, name, postgres, change):
    store(servers, name, views(DAY, 2, "k"))
    run(servers, name, postgres)
    command, words = CHANGES[change]
    rows = "SELECT 't', count(*) FROM {0}.product_views_daily UNION ALL SELECT 'l', count(*) FROM {0}.millpond_runs"
    with psycopg.connect(postgres, autocommit=True) as connection:
        for view in ("top_products_daily", "top_countries_daily", "top_referrers_daily"):
            connection.execute(f"DROP VIEW {view}")
        connection.execute(command.format(name))
        before = connection.execute(rows.format(name)).fetchall()
        store(servers, name, views(DAY, 2, "k" * 255))
        refused(servers, name, postgres, *words)
        assert connection.execute(rows.format(name)).fetchall() == before == [("t", 1), ("l", 1)]


def test_a_table_with_more_columns_is_used(servers, name, postgres):
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE product_views_daily ADD note text DEFAULT 'ours', ALTER view_count SET NOT NULL"
        )
        run(servers, name, postgres)
        assert connection.execute("SELECT note FROM product_views_daily").fetchall() == [("ours",)]


def test_tables_whose_columns_stand_in_another_order_are_used(servers, name, postgres):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE product_views_daily (created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
            " report_date DATE NOT NULL, last_view_time TIMESTAMP, unique_visitors BIGINT, view_count BIGINT,"
            " product_id VARCHAR(255) NOT NULL)"
        )
    store(servers, name, views(DAY, 3))
    result = run(servers, name, postgres)
    assert published(postgres)["product_views_daily"] == list(result.tables["product_views_daily"])


@pytest.fixture
def role(servers, name, postgres) -> Iterator[str]:
    """A DSN of a role that owns nothing and may not make anything."""
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        quoted = PASSWORD.replace("'", "''")
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}'")
        connection.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")
    yield make_conninfo(servers.dsn, user=name, password=PASSWORD, options=f"-c search_path={name}")
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def test_a_role_that_may_only_replace_rows_is_enough(servers, name, postgres, role):
    store(servers, name, views(DAY, 2))
    refused(servers, name, role, "GRANT")
    run(servers, name, postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
        connection.execute(f"REVOKE DELETE ON millpond_runs FROM {name}")
    store(servers, name, views(DAY, 3))
    assert run(servers, name, role).published
    assert counts(postgres) == {("p", DAY): 5}


RIGHTS = [(table, right) for table in COLUMNS for right in ("INSERT", "DELETE", "SELECT")]


@pytest.mark.parametrize(("table", "right"), [*RIGHTS, ("millpond_runs", "INSERT"), ("millpond_runs", "SELECT")])
def test_a_missing_right_is_told_and_the_old_rows_stay(servers, name, postgres, role, table, right):
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    before = published(postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
        connection.execute(f"REVOKE {right} ON {table} FROM {name}")
    store(servers, name, views(DAY, 3))
    refused(servers, name, role, "GRANT", table)
    assert published(postgres) == before


def forms(dsn: str) -> dict[str, str]:
    """The forms in which libpq takes one connection."""
    at = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    user, password, host = quote(at["user"], safe=""), quote(at["password"], safe=""), f"{at['host']}:{at['port']}"
    options = quote(at["options"], safe="")
    plain = at["password"].replace("\\", "\\\\").replace("'", "\\'")
    where = f"port={at['port']} dbname={at['dbname']} user={at['user']} password='{plain}' options='{at['options']}'"
    url = f"postgresql://{user}:{password}@{host}/{at['dbname']}?options={options}"
    return {
        "made by libpq": make_conninfo(dsn),
        "pairs": f"host={at['host']} {where}",
        "pairs with blanks": f"  host = '{at['host']}'\n{where}  sslmode = 'disable' connect_timeout=5 ",
        "hostaddr": f"host=localhost hostaddr=127.0.0.1 {where}",
        "two hosts, one dead": f"host=127.0.0.1,{at['host']} {where.replace('port=', 'port=1,')} connect_timeout=5",
        "URL": url,
        "short URL": url.replace("postgresql://", "postgres://") + "&sslmode=prefer&application_name=a%20b",
        "URL of parameters": f"postgresql:///{at['dbname']}?host={at['host']}&port={at['port']}&user={user}"
        f"&password={password}&options={options}&sslmode=allow&target_session_attrs=read-write",
    }


@pytest.mark.parametrize("form", forms("host=h port=1 dbname=d user=u password=p options=o"))
def test_every_form_of_a_dsn_is_read(servers, name, postgres, role, form):
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
    dsn = forms(role)[form]
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == (name,), "libpq itself reads it so"
    store(servers, name, views(DAY, 1))
    assert run(servers, name, dsn).published
    assert counts(postgres) == {("p", DAY): 3}


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls_is_never_used_when_tls_is_asked_for(servers, name, postgres, mode):
    store(servers, name, views(DAY, 2))
    for dsn in (f"{postgres}&sslmode={mode}", make_conninfo(postgres, sslmode=mode)):
        with pytest.raises(millpond.Error, match=r"(?i)tls|ssl") as caught:
            run(servers, name, dsn)
        assert isinstance(caught.value, millpond.ConfigError | millpond.ExternalError)
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regclass('product_views_daily')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("sslmode=maybe", "sslmode"), ("sslmode=Require", "sslmode"), ("ssl=maybe", "ssl"),
        ("sslmod=require", "sslmod"), ("service=nightly", "nightly"), ("sslcrl=crl.pem", "sslcrl"),
        ("sslrootcert=missing.pem&sslmode=verify-full", "sslrootcert"), ("sslkey=k&sslcert=c", "sslcert"),
        ("channel_binding=always", "channel_binding"), ("port=none", "port"), ("require_auth=none", "require_auth"),
        ("gssencmode=require", "gssencmode"), ("krbsrvname=postgres", "krbsrvname"), ("requirepeer=me", "requirepeer"),
        ("sslnegotiation=direct", "sslnegotiation"), ("sslcompression=1", "sslcompression"),
        ("client_encoding=latin1", "client_encoding"), ("replication=database", "replication"),
        ("target_session_attrs=standby", "target_session_attrs"), ("sslcertmode=require", "sslcertmode"),
        ("connect_timeout=soon", "connect_timeout"), ("load_balance_hosts=yes", "load_balance_hosts"),
        ("ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version"), ("oauth_issuer=https://x", "oauth_issuer"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(servers, name, postgres, extra, word):
    """libpq would refuse it, or do more for it than we can: it is never left out silently."""
    store(servers, name, views(DAY, 2))
    refused(servers, name, f"{postgres}&{extra}", word)


@pytest.mark.parametrize("dsn", ["", " ", "nonsense", "http://127.0.0.1/x", "dbname=x", "postgresql://"])
def test_a_dsn_that_names_no_server_is_refused(servers, name, dsn):
    store(servers, name, views(DAY, 2))
    refused(servers, name, dsn, "postgres")
