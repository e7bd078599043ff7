"""Events, documents and reports compared with each other. Nothing is written."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from millpond import _native, functions, oauth
from millpond.reports import ReportsArgument, definitions
from millpond.results import AuditResult
from millpond.transforms import PRODUCT_VIEW_REPORTS
from millpond.verbs import ProgressArgument, watched


def audit(
    mongo_uri: str,
    postgres_dsn: str | None,
    *,
    database: str,
    collection: str,
    target: Mapping[str, Any] | None = None,
    bridge_job: str | None = None,
    metadata: str | None = None,
    reports: ReportsArgument = PRODUCT_VIEW_REPORTS,
    time_field: str = "timestamp",
    schema: str | None = None,
    deep: bool = False,
    progress: ProgressArgument = None,
    cancel: _native.CancelToken | None = None,
) -> AuditResult:
    """Compare a bridge's totals, the documents and dead letters of its topic, and the reports made of them.

    By books and counts of indexes; what does not agree is read, and the first event without document or dead letter is
    named by partition and offset. An edit that keeps all counts is found by reading only (docs/incremental.md).

    Args:
        mongo_uri: MongoDB connection string.
        postgres_dsn: Any libpq form. None: reports are not compared.
        database: Database of the events.
        collection: Their collection, filled by a sink of `id="kafka"`.
        target: librdkafka properties of the cluster whose topic the sink reads. None: documents are not compared with
            events.
        bridge_job: The job that wrote that topic. None: there are no books, and the topic is read.
        metadata: As in `sink`.
        reports: As in `aggregate`.
        time_field: As in `aggregate`.
        schema: As in `aggregate`.
        deep: Read every event, compare every document with what the sink makes of it, and recompute every report.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Returns:
        `balanced`; `found` and `findings` (`stage`, `kind`, `topic`, `partition`, `offset`, `table`, `date`, `text`);
        `first_hole`; `bridge`, `partitions` and `reports` with the numbers compared; `notes`.

    Raises:
        ConfigError, ExternalError, Cancelled: see `millpond.errors`. What does not agree is no error.
    """
    places = {"mongo_uri": mongo_uri, "postgres_dsn": postgres_dsn, "database": database, "collection": collection}
    settings = _settings(reports, **places, time_field=time_field, schema=schema)
    settings |= {"target": None if target is None else oauth.plain(target), "job": bridge_job, "metadata": metadata}
    tokens = oauth.callbacks(target=target) if target is not None else None
    return _run(settings | {"deep": deep}, progress, cancel, tokens)


def audit_report(
    mongo_uri: str,
    postgres_dsn: str,
    *,
    date: str | dt.date,
    database: str,
    collection: str,
    reports: ReportsArgument = PRODUCT_VIEW_REPORTS,
    time_field: str = "timestamp",
    schema: str | None = None,
    progress: ProgressArgument = None,
    cancel: _native.CancelToken | None = None,
) -> AuditResult:
    """Recompute the reports of one date from its documents, at the positions of the ledger, and compare row by row.

    Args:
        mongo_uri: MongoDB connection string.
        postgres_dsn: Any libpq form.
        date: The date.
        database: Database of the events.
        collection: Their collection.
        reports: As in `aggregate`.
        time_field: As in `aggregate`.
        schema: As in `aggregate`.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Returns:
        As `audit`, of this date alone.

    Raises:
        ConfigError, ExternalError, Cancelled: see `millpond.errors`. What does not agree is no error.
    """
    places = {"mongo_uri": mongo_uri, "postgres_dsn": postgres_dsn, "database": database, "collection": collection}
    settings = _settings(reports, **places, time_field=time_field, schema=schema)
    settings["date"] = date.isoformat() if isinstance(date, dt.date) else date
    return _run(settings, progress, cancel, None)


def _settings(reports: ReportsArgument, **plain: Any) -> dict[str, Any]:
    return {"aggregate": plain | {"reports": definitions(reports), "functions": functions.signatures()}}


def _run(
    settings: dict[str, Any], progress: ProgressArgument, cancel: _native.CancelToken | None, tokens: Any
) -> AuditResult:
    with watched("audit", progress, cancel) as (token, observer):
        told = _native.audit(json.dumps(settings), token, observer, functions.callables(), tokens)
        return AuditResult(json.loads(told))
