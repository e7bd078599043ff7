"""Rows into the default report tables: a publication beside psql's own copy of the same rows into the same tables.

Every event has keys of its own, so that a million events are three million rows. Each run begins with empty tables and
ends with a commit; of ours the phase `publish` counts, with its locks and the ledger. Tables are new, and get their
index once the rows are there, or they are of an earlier run, and it is kept up row by row; psql does both too.
"""

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pymongo
from data import DATABASE
from machine import describe
from race import run

from millpond.local import Stack, postgres

TABLES = {
    "product_views_daily": "product_id, view_count, unique_visitors, last_view_time, report_date, created_at",
    "country_views_daily": "store_id, view_count, unique_visitors, report_date, created_at",
    "referrer_views_daily": "referrer_url, view_count, report_date, created_at",
}
DATE, ANOTHER = "2025-10-31", "2025-10-30"


def fill(client: pymongo.MongoClient[Any], name: str, count: int) -> None:
    """Make the events in the server."""
    key = {"$toString": {"$add": [{"$multiply": ["$a", 1_000]}, "$b"]}}
    referrer = {"$concat": ["https://shop", key, ".example/catalogue/", key]}
    fields = {"product_id": key, "store_id": {"$concat": ["S", key]}, "device_id": key, "referrer_url": referrer}
    client[DATABASE].aggregate(
        [
            {"$documents": [{"a": {"$range": [0, count // 1_000]}}]},
            {"$unwind": "$a"},
            {"$set": {"b": {"$range": [0, 1_000]}}},
            {"$unwind": "$b"},
            {"$project": {"_id": 0, **fields, "timestamp": f"{DATE}T08:00:00Z"}},
            {"$out": name},
        ]
    )
    client[DATABASE][name].create_index("timestamp")


class Bench:
    """Both contenders, in a schema that they fill in turn."""

    def __init__(self, uri: str, dsn: str, count: int, folder: Path) -> None:
        """Make the events, and the files that psql copies."""
        self.uri, self.dsn, self.folder, self.name = uri, dsn, folder, f"copy_{secrets.token_hex(4)}"
        with pymongo.MongoClient[Any](uri) as client:
            fill(client, self.name, count)
        self.ours()
        for table, columns in TABLES.items():
            for form in ("text", "binary"):
                self.psql(rf"\copy {self.name}.{table} ({columns}) TO '{folder}/{table}.{form}' (FORMAT {form})")

    def fresh(self) -> None:
        """Empty the schema."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {self.name} CASCADE")
            connection.execute(f"CREATE SCHEMA {self.name}")
            connection.execute("CHECKPOINT")

    def ours(self, new: bool = True) -> tuple[float, float]:
        """Rows per second of the phase `publish`, and the peak of the process in MB."""
        self.fresh()
        place = {"database": DATABASE, "collection": self.name, "schema": self.name}

        def once(date: str) -> dict[str, Any]:
            words = {"servers": [self.uri, self.dsn], **place, "dates": date}
            return run([sys.executable, "ours.py", "aggregate", json.dumps(words)])

        if not new:
            once(ANOTHER)
        answer = once(DATE)
        return self.rows() / answer["phases"]["publish"], answer["peak_mb"]

    def copied(self, form: str, new: bool = False) -> float:
        """Rows per second of psql, with its start and the commit."""
        with psycopg.connect(self.dsn) as connection:
            tables = [self.ddl(connection, table) for table in TABLES]
        indexes = [f"CREATE INDEX ON {self.name}.{table} (report_date)" for table in TABLES]
        self.fresh()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for command in tables if new else tables + indexes:
                connection.execute(command)
        files = [(table, columns, f"{self.folder}/{table}.{form}") for table, columns in TABLES.items()]
        copies = [
            rf"\copy {self.name}.{table} ({columns}) FROM '{file}' (FORMAT {form})" for table, columns, file in files
        ]
        began = time.perf_counter()
        self.psql("BEGIN", *copies, *(indexes if new else []), "COMMIT")
        return self.rows() / (time.perf_counter() - began)

    def ddl(self, connection: psycopg.Connection[Any], table: str) -> str:
        """The command that makes a table as we made it."""
        columns = connection.execute(
            "SELECT string_agg(format('%%I %%s %%s', attname, format_type(atttypid, atttypmod),"
            " CASE WHEN attnotnull THEN 'NOT NULL' END), ', ' ORDER BY attnum)"
            " FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            (f"{self.name}.{table}",),
        ).fetchone()
        assert columns is not None
        return f"CREATE TABLE {self.name}.{table} ({columns[0]})"

    def rows(self) -> int:
        """Count all three tables."""
        with psycopg.connect(self.dsn) as connection:
            counts = [connection.execute(f"SELECT count(*) FROM {self.name}.{table}").fetchone() for table in TABLES]
        return sum(count[0] for count in counts if count)

    def psql(self, *commands: str) -> None:
        """Run commands in one session."""
        words = [word for command in commands for word in ("-c", command)]
        program = postgres.binaries() / "psql"
        subprocess.run([program, "-q", "-X", "-v", "ON_ERROR_STOP=1", self.dsn, *words], check=True)

    def remove(self) -> None:
        """Leave nothing."""
        with pymongo.MongoClient[Any](self.uri) as client:
            client[DATABASE].drop_collection(self.name)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {self.name} CASCADE")


def copies(uri: str, dsn: str, folder: Path, events: int, rounds: int) -> None:
    """Print every run, and the medians of rates and ratios."""
    bench = Bench(uri, dsn, events, folder)
    runs: dict[str, list[float]] = {}

    def ran(name: str, rate: float, told: str = "") -> None:
        runs.setdefault(name, []).append(rate)
        print(f"{len(runs[name])}/{rounds} {name}: {rate:,.0f} rows/s{told}", flush=True)

    try:
        for _ in range(rounds):
            for kind, new in (("new", True), ("earlier", False)):
                mine, peak = bench.ours(new)
                ran(f"publish, {kind} tables", mine, f", peak {peak:,.0f} MB")
                ran(f"\\copy text, {kind} tables", bench.copied("text", new))
                ran(f"\\copy binary, {kind} tables", bench.copied("binary", new))
    finally:
        bench.remove()
    for kind, aim in (("new", 700_000), ("earlier", None)):
        mine = runs[f"publish, {kind} tables"]
        median = statistics.median(mine)
        told = f"; >= {aim:,}: {'holds' if median >= aim else 'DOES NOT HOLD'}" if aim else ""
        print(f"publish, {kind} tables: median {median:,.0f} rows/s{told}")
        for form in ("text", "binary"):
            pairs = zip(mine, runs[f"\\copy {form}, {kind} tables"], strict=True)
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"  of \\copy {form} {ratio:.2f}; >= 0.8: {'holds' if ratio >= 0.8 else 'DOES NOT HOLD'}")


def main() -> None:
    """Race on servers of our own, or on running ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--stack", type=Path, help="use the running servers of this directory")
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory(prefix="millpond-bench-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory)
        stack = Stack(options.stack or folder / "stack")
        status = stack.status() if options.stack else stack.up(["mongo", "postgres"])
        try:
            copies(status["mongo"]["uri"], status["postgres"]["dsn"], folder, options.events, options.rounds)
        finally:
            if options.stack is None:
                stack.down(delete=True)


if __name__ == "__main__":
    main()
