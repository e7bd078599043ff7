from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, final

__all__ = [
    "CancelToken", "Merger", "Table", "__version__", "aggregate", "audit", "bridge", "doctor", "explain", "explain_id",
    "explain_report", "fold", "jobs", "letters", "partials_prune", "partials_show", "positions_reset", "positions_show",
    "replay", "replay_stored", "report_top", "runs", "sink", "stored_collections", "stored_letters",
    "stored_positions_reset", "stored_positions_show",
]  # fmt: skip

__version__: str

_Observer: TypeAlias = Callable[[dict[str, Any], list[tuple[int, str]], bool], object]
_Functions: TypeAlias = dict[str, Callable[[Table], list[Any]]]
# By side: what returns (token, expiry in ms, principal, extensions).
_OAuth: TypeAlias = dict[str, Callable[[], tuple[str, int, str, list[tuple[str, str]]]]]

class _Engine(Protocol):
    name: str

    def open(self) -> tuple[int, int | None, int | None]: ...
    def __call__(self, order: str, tasks: list[bytes], merges: int, /) -> list[bytes]: ...

@final
class CancelToken:
    """Asks a run to end at its next clean boundary.

    `cancel()` only sets a flag: it may come at any time, more than once, from any thread or signal handler, and with no
    run at all.
    """

    def __new__(cls) -> CancelToken: ...
    def cancel(self) -> None:
        """Ask the run that was given this token to end."""
    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` was called."""

@final
class Table:
    """The rows of one report."""

    @property
    def columns(self) -> list[str]:
        """The columns' names, in the table's order."""
    @property
    def keys(self) -> int:
        """How many of the columns, the first ones, are keys."""
    def __len__(self) -> int: ...
    def rows(self, limit: int | None = None) -> list[tuple[Any, ...]]:
        """Return the first `limit` rows as tuples; all without a limit. A NUMERIC is a Decimal."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the rows as an Arrow C stream, one batch."""

def bridge(settings: str, token: CancelToken, observer: _Observer | None = None, oauth: _OAuth | None = None) -> str:
    """Run a bridge with the settings of a JSON object; return its books as one."""

def sink(settings: str, token: CancelToken, observer: _Observer | None = None, oauth: _OAuth | None = None) -> str:
    """Run a sink with the settings of a JSON object; return its books as one."""

def replay(settings: str, token: CancelToken, observer: _Observer | None = None, oauth: _OAuth | None = None) -> str:
    """Replay dead letters with the settings of a JSON object; return the books as one."""

def aggregate(
    settings: str,
    token: CancelToken,
    observer: _Observer | None = None,
    functions: _Functions | None = None,
    engine: _Engine | None = None,
) -> tuple[str, dict[str, Table]]:
    """Run an aggregate with the settings of a JSON object; return its books as one, and its tables by name."""

def fold(
    settings: str, order: str, ranges: bytes, token: CancelToken, functions: _Functions | None = None
) -> list[tuple[int, bytes]]:
    """Fold the ranges of one task with the settings and the order of a run; return its parts by number."""

@final
class Merger:
    """Merges the parts that `fold` made."""

    def __new__(cls, settings: str) -> Merger: ...
    def add(self, part: bytes) -> None:
        """Add a part."""
    def done(self) -> bytes:
        """Return what the parts are together; nothing can be added then."""

def runs(settings: str, token: CancelToken) -> str:
    """List the publications of a ledger, newest first; return a JSON list of its rows."""

def explain_report(settings: str, token: CancelToken) -> str:
    """Say what stands of a report's date, and from what it was made; return a JSON list by table."""

def report_top(settings: str, token: CancelToken) -> str:
    """Return the first rows of a report, of a date or of its latest one, as a JSON object."""

def jobs(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """List the jobs that keep positions on a cluster; return a JSON list of their names."""

def letters(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """Look at the dead letters of a topic, or with `one` at one of them; return them as a JSON object."""

def stored_collections(settings: str, token: CancelToken) -> str:
    """List the collections that keep positions in a database; return a JSON list of their names."""

def stored_letters(settings: str, token: CancelToken) -> str:
    """Look at the dead letters of a collection, or with `one` at one of them; return them as a JSON object."""

def partials_show(settings: str, token: CancelToken) -> str:
    """List kept Partials and watermarks; return a JSON object."""

def partials_prune(settings: str, token: CancelToken) -> str:
    """Remove kept Partials; return a JSON object of what went."""

def audit(
    settings: str,
    token: CancelToken,
    observer: _Observer | None = None,
    functions: dict[str, Callable[[Table], list[Any]]] | None = None,
    oauth: _OAuth | None = None,
) -> str:
    """Compare events, documents and reports, or the reports of one date; return a JSON object."""

def positions_show(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """Show the kept positions of a bridge's job beside its source's logs; return them as a JSON object."""

def positions_reset(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """Move the kept positions of a bridge's job, or with `write` false say what it would do; as a JSON object."""

def replay_stored(settings: str, token: CancelToken, observer: _Observer | None = None) -> str:
    """Replay stored dead letters with the settings of a JSON object; return the books as one."""

def stored_positions_show(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """Show the kept positions of a sink's collection beside its topics' logs; return them as a JSON object."""

def stored_positions_reset(settings: str, token: CancelToken, oauth: _OAuth | None = None) -> str:
    """Move the kept positions of a sink's collection, or with `write` false say what it would do; as a JSON object."""

def doctor(settings: str, oauth: _OAuth | None = None) -> str:
    """Ask the servers of a JSON object; return a JSON list of findings: what, ok, detail, hint."""

def explain(transform: str, event: bytes) -> str:
    """Show what becomes of an event under the transform of a JSON object or null; return it as a JSON object."""

def explain_id(id: str, mongo_uri: str | None = None, database: str | None = None) -> str:  # noqa: A002
    """Read an `_id` back; with `mongo_uri` and `database` its source is looked up. Return a JSON object."""
