"""What a run answers: plain values, JSON-safe, small enough for Airflow's XCom."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond._native import Table

_LONGEST = 200
_MAX_BYTES = 48_000


class Result:
    """The books of a run: each word of them is an attribute and a key of `to_dict()`."""

    def __init__(self, books: dict[str, Any]) -> None:
        """Keep the books as the native part told them."""
        self._books = books

    def __getattr__(self, name: str) -> Any:
        """Return a value of the books."""
        if name.startswith("_") or name not in self._books:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self._books[name]

    def __dir__(self) -> list[str]:
        """Name the books' words too."""
        return [*super().__dir__(), *self._books]

    def to_dict(self) -> dict[str, Any]:
        """Return the books, JSON-safe and under 48 KB: long lists and mappings are cut, and `capped` names them."""
        longest = _LONGEST
        while True:
            capped: dict[str, int] = {}
            books = {name: _cut(name, value, longest, capped) for name, value in self._books.items()}
            if capped:
                books["capped"] = capped
            if len(json.dumps(books)) < _MAX_BYTES or longest <= 1:
                return books
            longest //= 2

    def __repr__(self) -> str:
        """Show what is short."""
        words = (f"{k}={v!r}" for k, v in self._books.items() if isinstance(v, int | float | str | bool))
        return f"{type(self).__name__}({', '.join(words)})"

    def _repr_html_(self) -> str:
        """Show the short values as a table in a notebook."""
        import html

        short = ((k, v) for k, v in self._books.items() if isinstance(v, int | float | str | bool))
        rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in short)
        return f"<table>{rows}</table>"


def _cut(name: str, value: Any, longest: int, capped: dict[str, int]) -> Any:
    if isinstance(value, list) and len(value) > longest:
        capped[name] = len(value)
        return value[:longest]
    if isinstance(value, dict) and len(value) > longest:
        capped[name] = len(value)
        return dict(list(value.items())[:longest])
    return value


class BridgeResult(Result):
    """read = written + filtered + dead_lettered; `gaps` lists what was skipped under `on_gap="earliest"`."""


class ReplayResult(Result):
    """chosen = written + filtered + already_replayed + failed."""


class StoredReplayResult(Result):
    """chosen = inserted + already_present + replaced + superseded + deleted + filtered + already_replayed + failed."""


class SinkResult(Result):
    """read = inserted + already_present + replaced + superseded + deleted + dead_lettered; `gaps` as in a bridge."""


class AuditResult(Result):
    """`balanced` when nothing was found; `findings` names what was."""


def _binary(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


class Frame:
    """The rows of one report; polars, pandas, pyarrow and DuckDB read it through the Arrow PyCapsule interface."""

    def __init__(self, table: "Table") -> None:
        """Keep the native table."""
        self._table = table

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return self._table.columns

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._table)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over the rows as tuples."""
        return iter(self._table.rows())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows as an Arrow C stream."""
        return self._table.__arrow_c_stream__(requested_schema)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as mappings."""
        return [dict(zip(self.columns, row, strict=True)) for row in self]

    def top(self, n: int = 10, *, date: object = None) -> list[dict[str, Any]]:
        """Return the `n` rows of a date (default: the latest one) with the most of the first metric, ties by key."""
        rows = self.to_dicts()
        if not rows:
            return []
        wanted = str(date or max(row["report_date"] for row in rows))
        keys, metric = self.columns[: self._table.keys], self.columns[self._table.keys]
        rows = [row for row in rows if str(row["report_date"]) == wanted]
        rows.sort(key=lambda row: [_binary(row[key]) for key in keys])
        there = [row for row in rows if row[metric] is not None]
        there.sort(key=lambda row: _binary(row[metric]), reverse=True)
        return (there + [row for row in rows if row[metric] is None])[:n]

    def _repr_html_(self) -> str:
        import html

        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in self._table.rows(20)
        )
        rest = f"<p>{len(self):,} rows</p>" if len(self) > 20 else ""
        return f"<table><tr>{head}</tr>{body}</table>{rest}"


class AggregateResult(Result):
    """scanned = counted + excluded; `tables` holds the frames by table name."""

    def __init__(self, books: dict[str, Any], tables: dict[str, "Table"]) -> None:
        """Keep the books and the frames."""
        super().__init__(books)
        self.tables = {name: Frame(table) for name, table in tables.items()}
