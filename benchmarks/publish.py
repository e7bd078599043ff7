"""Rows into the default report tables: a publication beside psql's own copy of the same rows into the same tables.

Every event has keys of its own, so that a million events are three million rows. Each run begins with empty tables and
ends with a commit; of ours the phase `publish` counts, with its locks and the ledger.
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
DATE = "2025-10-31"


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

    def ours(self) -> tuple[float, float]:
        """Rows per second of the phase `publish`, and the peak of the process in MB."""
        self.fresh()
        place = {"database": DATABASE, "collection": self.name, "schema": self.name, "dates": DATE}
        answer = run([sys.executable, "ours.py", "aggregate", json.dumps({"servers": [self.uri, self.dsn], **place})])
        return self.rows() / answer["phases"]["publish"], answer["peak_mb"]

    def copied(self, form: str) -> float:
        """Rows per second of psql, with its start and the commit."""
        with psycopg.connect(self.dsn) as connection:
            ddl = [self.ddl(connection, table) for table in TABLES]
        self.fresh()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for command in (one for table in ddl for one in table):
                connection.execute(command)
        files = [(table, columns, f"{self.folder}/{table}.{form}") for table, columns in TABLES.items()]
        copies = [
            rf"\copy {self.name}.{table} ({columns}) FROM '{file}' (FORMAT {form})" for table, columns, file in files
        ]
        began = time.perf_counter()
        self.psql("BEGIN", *copies, "COMMIT")
        return self.rows() / (time.perf_counter() - began)

    def ddl(self, connection: psycopg.Connection[Any], table: str) -> list[str]:
        """The commands that make a table as we made it."""
        columns = connection.execute(
            "SELECT string_agg(format('%%I %%s %%s', attname, format_type(atttypid, atttypmod),"
            " CASE WHEN attnotnull THEN 'NOT NULL' END), ', ' ORDER BY attnum)"
            " FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            (f"{self.name}.{table}",),
        ).fetchone()
        assert columns is not None
        return [
            f"CREATE TABLE {self.name}.{table} ({columns[0]})",
            f"CREATE INDEX ON {self.name}.{table} (report_date)",
        ]

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


def main() -> None:
    """Print every run, and the medians of rates and ratios."""
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
        bench = Bench(status["mongo"]["uri"], status["postgres"]["dsn"], options.events, folder)
        try:
            rounds = []
            for number in range(options.rounds):
                (mine, peak), text, binary = bench.ours(), bench.copied("text"), bench.copied("binary")
                rounds.append((mine, text, binary))
                print(
                    f"{number + 1}/{options.rounds} rows/s: publish {mine:,.0f} (peak {peak:,.0f} MB), "
                    f"\\copy text {text:,.0f}, binary {binary:,.0f}",
                    flush=True,
                )
        finally:
            bench.remove()
            if options.stack is None:
                stack.down(delete=True)
    mine, of_text, of_binary = (
        statistics.median(values)
        for values in zip(*((mine, mine / text, mine / binary) for mine, text, binary in rounds), strict=True)
    )
    print(f"publish: median {mine:,.0f} rows/s; of \\copy's text {of_text:.2f}, of its binary {of_binary:.2f}")


if __name__ == "__main__":
    main()
