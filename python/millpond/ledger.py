"""What is kept in PostgreSQL, read back: the ledger of publications, `millpond_runs`, and kept Partials."""

import datetime as dt
import json
from typing import Any

from millpond import _native


def runs(
    postgres_dsn: str,
    *,
    schema: str | None = None,
    job: str | None = None,
    date: str | dt.date | None = None,
    limit: int | None = 20,
) -> list[dict[str, Any]]:
    """List the publications, newest first, each as its row of the ledger.

    Args:
        postgres_dsn: As in `aggregate`.
        schema: As in `aggregate`.
        job: Those of one job.
        date: Those that published this date.
        limit: So many of them; None: all.

    Raises:
        ConfigError, ExternalError: see `millpond.errors`.
    """
    settings = {
        "postgres_dsn": postgres_dsn, "schema": schema, "job": job, "date": _text(date), "limit": limit,
    }  # fmt: skip
    found: list[dict[str, Any]] = json.loads(_native.runs(json.dumps(settings), _native.CancelToken()))
    return found


def explain_report(
    postgres_dsn: str,
    *,
    date: str | dt.date,
    table: str | None = None,
    schema: str | None = None,
    mongo_uri: str | None = None,
) -> list[dict[str, Any]]:
    """Say of each report of a date when it was made, from what, and whether newer events have arrived since.

    Args:
        postgres_dsn: As in `aggregate`.
        date: The date.
        table: One report; default: each that the ledger names for the date.
        schema: As in `aggregate`.
        mongo_uri: Where the events are; without it nothing is said of newer ones.

    Returns:
        By table: `table`, `rows` (of the date, now), `run` (the ledger's row of the publication that stands, or None),
        `untouched` (whether all rows are of that publication; None: not known) and `newer` (events stored since, of
        whatever date, by `cluster/topic/partition`; None: not known).

    Raises:
        ConfigError, ExternalError: see `millpond.errors`.
    """
    settings = {
        "postgres_dsn": postgres_dsn, "date": _text(date), "table": table, "schema": schema, "mongo_uri": mongo_uri,
    }  # fmt: skip
    told: list[dict[str, Any]] = json.loads(_native.explain_report(json.dumps(settings), _native.CancelToken()))
    return told


def partials(postgres_dsn: str, *, schema: str | None = None, job: str | None = None) -> dict[str, Any]:
    """List what incremental runs keep: `watermarks` by job and definition, and `partials` by date with their bytes.

    Args:
        postgres_dsn: As in `aggregate`.
        schema: As in `aggregate`.
        job: Those of one job.

    Raises:
        ConfigError, ExternalError: see `millpond.errors`.
    """
    settings = {"postgres_dsn": postgres_dsn, "schema": schema, "job": job}
    found: dict[str, Any] = json.loads(_native.partials_show(json.dumps(settings), _native.CancelToken()))
    return found


def prune_partials(
    postgres_dsn: str,
    *,
    schema: str | None = None,
    job: str | None = None,
    before: str | dt.date | None = None,
    all: bool = False,  # noqa: A002 - all of them
) -> dict[str, Any]:
    """Remove kept Partials: their dates are read as a whole when they are reported next.

    Args:
        postgres_dsn: As in `aggregate`.
        schema: As in `aggregate`.
        job: Those of one job.
        before: Those of earlier dates.
        all: Those of every date.

    Returns:
        `partials` and `bytes` that went.

    Raises:
        ConfigError, ExternalError: see `millpond.errors`.
    """
    settings = {"postgres_dsn": postgres_dsn, "schema": schema, "job": job, "before": _text(before), "all": all}
    gone: dict[str, Any] = json.loads(_native.partials_prune(json.dumps(settings), _native.CancelToken()))
    return gone


def _text(date: str | dt.date | None) -> str | None:
    return date.isoformat() if isinstance(date, dt.date) else date
