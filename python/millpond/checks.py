"""What must hold before a report is committed."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from millpond.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Check:
    """A condition on each date of one report; one that fails is a `DataError`, and nothing of the run is published.

    Args:
        table: The report's table.
        min_rows: At least so many rows.
        max_rows: At most so many rows.
        column: Of `max_null_share` (default: the first key) and of `max_change` (default: the number of rows).
        max_null_share: From 0 to 1. Of a key: the events without one, of all events; of a metric: the rows.
        max_change: 0.5 allows half as much and half more. A report with nothing before it passes.
        against: What `max_change` compares with: "date_before", the newest earlier date of the table, or "replaced",
            the report of the same date that this run replaces.
    """

    table: str
    min_rows: int | None = None
    max_rows: int | None = None
    column: str | None = None
    max_null_share: float | None = None
    max_change: float | None = None
    against: str = "date_before"


ChecksArgument = Iterable[Check | Mapping[str, Any]] | None


def plain(checks: ChecksArgument) -> list[dict[str, Any]]:
    """Return checks as mappings; what their fields mean is judged natively.

    Raises:
        ConfigError: One of them is neither a Check nor a mapping.
    """
    found = []
    given = [checks] if isinstance(checks, Check | Mapping) else checks or ()
    for check in given:
        if not isinstance(check, Check | Mapping):
            raise ConfigError("checks: neither a Check nor a mapping", "give millpond.Check(table=…, min_rows=1)")
        found.append(asdict(check) if isinstance(check, Check) else dict(check))
    return found
