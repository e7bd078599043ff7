"""The report tables as any other client sees them: their rows, their locks, and who waits for those.

Nothing of the engine is used: names, columns and locks are those of the design (sections 1 and 6).
"""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from tests.oracle_reports import EPOCH, Row

COLUMNS = {
    "product_views_daily": ["product_id", "view_count", "unique_visitors", "last_view_time", "report_date"],
    "country_views_daily": ["store_id", "view_count", "unique_visitors", "report_date"],
    "referrer_views_daily": ["referrer_url", "view_count", "report_date"],
}


def views(date: str, count: int, key: str = "p") -> list[dict[str, Any]]:
    """Events of one product, country and referrer, each by a visitor of its own."""
    keys = {"product_id": key, "store_id": key, "referrer_url": key}
    return [{**keys, "device_id": i, "timestamp": f"{date}T{i % 24:02}:00:00Z"} for i in range(count)]


def store(servers: Any, name: str, documents: Iterable[dict[str, Any]]) -> None:
    """Add events to the collection of a test."""
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many(list(documents))


def published(dsn: str, date: str | None = None) -> dict[str, list[Row]]:
    """The rows of each table without `created_at`, by date and key."""
    with psycopg.connect(dsn) as connection:
        return {
            table: connection.execute(
                f"SELECT {', '.join(names)} FROM {table} WHERE %(date)s::date IS NULL OR report_date = %(date)s::date"
                f' ORDER BY report_date, {names[0]} COLLATE "C"',
                {"date": date},
            ).fetchall()
            for table, names in COLUMNS.items()
        }


def counts(dsn: str) -> dict[tuple[str, str], int]:
    """{(product, date): views}; a key that stands twice on a date is an error."""
    rows = published(dsn)["product_views_daily"]
    found = {(row[0], row[-1].isoformat()): row[1] for row in rows}
    assert len(found) == len(rows), "a key stands twice on one date"
    return found


def until(said: Callable[[], bool], seconds: float = 120) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextmanager
def held(dsn: str, *dates: str, whole: bool = False, tables: Iterable[str] = tuple(COLUMNS)) -> Iterator[None]:
    """Hold what a publication of `dates` holds; `whole`: what one of over 500 dates holds."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in tables:
            how = "" if whole else "_shared"
            connection.execute(f"SELECT pg_advisory_lock{how}(%s::regclass::oid::int, -1)", (table,))
            for date in dates:
                days = (dt.datetime.fromisoformat(date) - EPOCH).days
                connection.execute("SELECT pg_advisory_lock(%s::regclass::oid::int, %s)", (table, days))
        yield


def waiting(dsn: str) -> list[int]:
    """The backends that wait for a lock on a date of these tables."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND classid = ANY(ARRAY(SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name))",
            (list(COLUMNS),),
        )
        return [row[0] for row in rows]
