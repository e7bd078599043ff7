"""What the demo prints: books, tops, and where to look further.

Owns words and tables. Refuses to judge: `compare` does.
"""

import sys
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millpond.local import Stack

_CONSOLE = Console(width=max(Console().width, 110), highlight=False)
_BOOKS = {
    "bridge": ("read", "written", "filtered", "dead_lettered"),
    "sink": ("read", "inserted", "already_present", "replaced", "superseded", "deleted", "dead_lettered"),
    "aggregate": ("scanned", "counted", "excluded"),
}
_TOPS = {
    "product_views_daily": ("product_id", "view_count", "unique_visitors", "last_view_time"),
    "country_views_daily": ("store_id", "view_count", "unique_visitors"),
    "referrer_views_daily": ("referrer_url", "view_count"),
}


def books(results: dict[str, dict[str, Any]]) -> None:
    """Print, for each arrow, the books (I1) that its task left in XCom, and events per second."""
    print()
    for task, names in _BOOKS.items():
        book = results.get(task)
        if book is None:
            print(f"{task:<10}left no result")
            continue
        first, *rest = names
        parts = [f"{_sum(book.get(name)):,} {name}" for name in rest]
        rate = _sum(book[first]) / max(book["seconds"], 1e-6)
        print(f"{task:<10}{book[first]:,} {first} = {' + '.join(parts)}; {book['seconds']:.2f} s, {rate:,.0f} events/s")
        reasons = book.get("excluded") if task == "aggregate" else book.get("dead_letters_by_reason")
        if isinstance(reasons, dict) and reasons:
            print(" " * 10 + ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items())))


def tops(dsn: str) -> None:
    """Print the ten first products, countries and referrers of the latest date."""
    with psycopg.connect(dsn) as connection:
        for name, columns in _TOPS.items():
            # Names come from the table above, never from outside.
            rows = connection.execute(
                f"SELECT report_date, {', '.join(columns)} FROM {name} "
                f"WHERE report_date = (SELECT max(report_date) FROM {name}) "
                f'ORDER BY view_count DESC, {columns[0]} COLLATE "C" LIMIT 10'
            ).fetchall()
            title = f"{name}, {rows[0][0]}" if rows else f"{name}: no rows"
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            table.add_column("#", justify="right")
            for column in columns:
                table.add_column(column, justify="right" if column in ("view_count", "unique_visitors") else "left")
            for rank, (_, *row) in enumerate(rows, 1):
                # Text, not markup: a referrer may hold brackets.
                cells = [f"{value:,}" if isinstance(value, int) else str(value) for value in row]
                table.add_row(str(rank), *map(Text, cells))
            print()
            _CONSOLE.print(table, soft_wrap=True)


def further(folder: Path, stack: Stack, status: dict[str, Any]) -> None:
    """Print how to look at the servers, where the logs are, and how to stop."""
    dsn, uri = status["postgres"]["dsn"], status["mongo"]["uri"]
    query = "SELECT * FROM product_views_daily ORDER BY view_count DESC LIMIT 10"
    print("\nlook further:")
    print(f'  psql "{dsn}" -c "{query}"')
    print(f'  {sys.executable} -c \'import psycopg; print(*psycopg.connect("{dsn}").execute("{query}"), sep="\\n")\'')
    print(f'  mongosh "{uri}" --eval \'db.getSiblingDB("kafka_data_db").product_views_records.findOne()\'')
    print(
        f"  {sys.executable} -c 'import pymongo; "
        f'print(pymongo.MongoClient("{uri}").kafka_data_db.product_views_records.find_one())\''
    )
    print(f"  logs: servers {stack.directory / 'logs'}, tasks {folder / 'airflow' / 'logs'}")
    print(f"stop the servers (their data stays, another `make demo` goes on): {stop_line(stack)}")


def stop_line(stack: Stack) -> str:
    """Return the command that ends the servers."""
    return f"{sys.executable} -m millpond.local down --dir {stack.directory}"


def _sum(value: Any) -> int:
    return sum(value.values()) if isinstance(value, dict) else int(value or 0)
