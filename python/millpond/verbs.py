"""The three functions. Their arguments are checked natively; here they are only put into one JSON object."""

import datetime as dt
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

from millpond import _native, functions, oauth
from millpond._native import CancelToken
from millpond.checks import ChecksArgument, plain
from millpond.errors import Cancelled, ConfigError
from millpond.progress import Progress, bar
from millpond.reports import ReportsArgument, definitions
from millpond.results import AggregateResult, BridgeResult, SinkResult
from millpond.transforms import PRODUCT_VIEW_REPORTS, TransformArgument, definition

Shard = tuple[int, int] | Sequence[tuple[int, int]]
ProgressArgument = bool | Callable[[Progress], object] | None
_DEFAULT: Any = object()


def bridge(
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    source_topic: str,
    target_topic: str,
    job: str | None = None,
    transform: TransformArgument = None,
    shard: Shard = (0, 1),
    start: str | int | dt.datetime | None = None,
    max_events: int | None = None,
    max_seconds: float | None = None,
    dead_letter_topic: str | None = _DEFAULT,
    max_dead_letters: int | None = None,
    on_gap: str = "fail",
    wait_for_open_transactions: float | dt.timedelta | None = None,
    target_retention: float | dt.timedelta | None = None,
    allow: Sequence[str] = (),
    max_events_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    statistics: bool = False,
    progress: ProgressArgument = None,
    cancel: CancelToken | None = None,
) -> BridgeResult:
    """Copy every event from the kept positions to the source's ends, exactly once across the two clusters.

    Args:
        source: librdkafka properties of the cluster to read, `oauth_cb` (as in confluent-kafka) among them.
        target: librdkafka properties of the cluster to write.
        source_topic: Topic to read.
        target_topic: Topic to write; made when absent.
        job: Name of the job, whose positions are kept on the target. Default: `<source_topic>-to-<target_topic>`.
        transform: `millpond.PRODUCT_VIEWS`, its name, a `millpond.Transform`, the same as a mapping or the path of a
            TOML file (docs/transforms.md), or None to keep every byte.
        shard: `(i, n)`: this run takes the lanes with lane % n == i; or a list of such pairs.
        start: Where a partition without position begins: "earliest" (default), "latest", or a time (datetime, or
            milliseconds since 1970).
        max_events: Read at most so many events.
        max_seconds: End after so many seconds.
        dead_letter_topic: Default `<target_topic>.dead_letters`; None: the first dead letter is a `DataError`. Dead
            letters hold the raw, untransformed bytes.
        max_dead_letters: More of them in one run are a `DataError`.
        on_gap: Where the source no longer has what comes next (deleted unread, topic recreated, log truncated): "fail"
            is a `PositionError`; "earliest" goes on from the log's start and reports `gaps` in the result. What became
            of the target topic is a `PositionError` in any case.
        wait_for_open_transactions: Seconds (or timedelta) to wait at the start for transactions that are open on the
            source, so that their events are read too. Default: the run ends before them and reports `held_back`.
        target_retention: Retention (seconds or timedelta) of a target topic that we make. Default: unlimited.
        allow: Checks of an existing target topic that are waived: log_append_time, compaction, retention.
        max_events_per_second: Read no faster, over all lanes of this run; smooth to a tenth of a second.
        max_bytes_per_second: The same by bytes of key and value, as they are read.
        statistics: Put what librdkafka counted into the result: `statistics["source"]` and `["target"]`.
        progress: True draws a bar; a callable gets a `Progress` at most ten times a second.
        cancel: Its `cancel()` ends the run at a clean boundary with `Cancelled`.

    Raises:
        ConfigError, ExternalError, FencedError, PositionError, DataError, Cancelled, BugError: see `millpond.errors`.
    """
    settings = {
        "source": _mapping("source", source),
        "target": _mapping("target", target),
        "source_topic": source_topic,
        "target_topic": target_topic,
        "job": job,
        "transform": definition(transform),
        "shard": shard,
        "start": _time(start),
        "max_events": max_events,
        "max_seconds": max_seconds,
        "max_dead_letters": max_dead_letters,
        "on_gap": on_gap,
        "wait_for_open_transactions": _seconds(wait_for_open_transactions),
        "target_retention": _milliseconds(target_retention),
        "allow": list(allow),
        "max_events_per_second": max_events_per_second,
        "max_bytes_per_second": max_bytes_per_second,
        "statistics": statistics,
    }
    if dead_letter_topic is not _DEFAULT:
        settings["dead_letter_topic"] = dead_letter_topic
    tokens = oauth.callbacks(source=source, target=target)
    with watched("bridge", progress, cancel) as (token, observer):
        return BridgeResult(json.loads(_native.bridge(_json(settings), token, observer, tokens)))


def sink(
    source: Mapping[str, Any],
    mongo_uri: str,
    *,
    topic: str,
    database: str,
    collection: str,
    group_id: str | None = None,
    batch_size: int = 1000,
    id: str = "kafka",  # noqa: A002 - the document's field
    shard: Shard = (0, 1),
    start: str | int | dt.datetime = "earliest",
    max_events: int | None = None,
    max_seconds: float | None = None,
    max_dead_letters: int | None = None,
    on_gap: str = "fail",
    ensure_indexes: bool = True,
    ordered: bool = False,
    write_concern: str | int | Mapping[str, Any] | None = None,
    compressors: str | Sequence[str] = (),
    dead_letter_ttl: float | dt.timedelta | None = None,
    metadata: str | None = None,
    in_flight: int | None = None,
    max_events_per_second: float | None = None,
    max_bytes_per_second: float | None = None,
    progress: ProgressArgument = None,
    cancel: CancelToken | None = None,
) -> SinkResult:
    """Store every event from the kept positions to the topic's ends in MongoDB, effectively once.

    Args:
        source: librdkafka properties of the cluster to read.
        mongo_uri: MongoDB connection string.
        topic: Topic to read.
        database: Database to write.
        collection: Collection to write; made when absent. Dead letters go to `<collection>_dead_letters`.
        group_id: Consumer group whose offsets are committed for lag tools. Default: `millpond-<database>.<collection>`.
        batch_size: Documents per insert.
        id: "kafka": the `_id` is made of source, partition and offset, so that a rewrite changes nothing. "key": it is
            the event's key; "field:<dotted name>": a value of the message. There a later event replaces an earlier one
            of the same `_id`, whatever the order of writing, and the version stands in `_millpond` (docs/sink.md).
        shard: As in `bridge`.
        start: Where a partition without position begins: "earliest", "latest", "group" (the group's offsets) or a time.
        max_events: Read at most so many events.
        max_seconds: End after so many seconds.
        max_dead_letters: More of them in one run are a `DataError`.
        on_gap: Where the topic no longer has what comes next (deleted unread, or recreated): "fail" is a
            `PositionError`; "earliest" goes on from the log's start and reports `gaps` in the result.
        ensure_indexes: Make an index on `timestamp` unless one begins with it: reports read their days by it.
        ordered: False: a document that is refused stops no other one. There is no other way.
        write_concern: How far an insert must have got: "majority", a number of members, the name of a set's own mode,
            or `{"w": 1, "j": True, "wtimeout": 5000}`. Default: as the URI says, or "majority". Positions follow what a
            majority holds in any case (docs/store.md).
        compressors: Of zstd, snappy and zlib those that may be used, the best one first. Default: as the URI says.
        dead_letter_ttl: Seconds (or timedelta) after which a dead letter expires. Default: never.
        metadata: Store topic, partition, offset, timestamp, key and headers under this field.
        in_flight: Inserts on their way at once. Default: 8, of large batches as many as hold 12,000 events, but 2 at least.
        max_events_per_second: Read no faster, over this whole run; smooth to a tenth of a second.
        max_bytes_per_second: The same by bytes of key and value.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Raises:
        ConfigError, ExternalError, PositionError, DataError, Cancelled, BugError: see `millpond.errors`.
    """
    settings = {
        "source": _mapping("source", source),
        "mongo_uri": mongo_uri,
        "topic": topic,
        "database": database,
        "collection": collection,
        "group_id": group_id,
        "batch_size": batch_size,
        "id": id,
        "shard": shard,
        "start": _time(start),
        "max_events": max_events,
        "max_seconds": max_seconds,
        "max_dead_letters": max_dead_letters,
        "on_gap": on_gap,
        "ensure_indexes": ensure_indexes,
        "ordered": ordered,
        "write_concern": dict(write_concern) if isinstance(write_concern, Mapping) else write_concern,
        "compressors": compressors.split(",") if isinstance(compressors, str) else list(compressors),
        "dead_letter_ttl": _whole_seconds(dead_letter_ttl),
        "metadata": metadata,
        "in_flight": in_flight,
        "max_events_per_second": max_events_per_second,
        "max_bytes_per_second": max_bytes_per_second,
    }
    tokens = oauth.callbacks(source=source)
    with watched("sink", progress, cancel) as (token, observer):
        return SinkResult(json.loads(_native.sink(_json(settings), token, observer, tokens)))


def aggregate(
    mongo_uri: str,
    postgres_dsn: str | None,
    *,
    database: str,
    collection: str,
    dates: str | dt.date | Sequence[str | dt.date] = "latest",
    reports: ReportsArgument = PRODUCT_VIEW_REPORTS,
    time_field: str = "timestamp",
    engine: str = "native",
    mode: str = "incremental",
    spark: object | None = None,
    job: str | None = None,
    keep_partials_days: int = 35,
    lookback_days: int = 0,
    max_future_skew: float | dt.timedelta | None = None,
    allow_scan: bool = False,
    schema: str | None = None,
    checks: ChecksArgument = None,
    memory_limit: int | None = None,
    progress: ProgressArgument = None,
    cancel: CancelToken | None = None,
) -> AggregateResult:
    """Make daily reports, the three of product views or your own, and publish them in one PostgreSQL transaction.

    Args:
        mongo_uri: MongoDB connection string.
        postgres_dsn: Any libpq form (docs/postgres.md). None computes and writes nothing.
        database: Database to read.
        collection: Collection to read.
        dates: "latest", "all", "changed" (those that received events since the last run that asked for it), a date, a
            list of dates, or a range "2025-10-01..2025-10-31".
        reports: The default set, `millpond.Report`s, the same as mappings, the path of a TOML file (docs/reports.md),
            or a list of these.
        time_field: The field whose date counts.
        engine: "native" reads here; "spark" on the executors of `spark` (docs/spark.md), with the same rows.
        mode: "incremental": where a date's Partial is kept and the positions say what came since, only that is read;
            the rows are those of "full", which reads whole dates (docs/incremental.md). Spark reads whole dates.
        spark: With engine="spark": a SparkSession, or the URL of a master, whose session ends with the run.
        job: Name in the ledger, and whose watermark and Partials these are. Default: `<database>.<collection>`.
        keep_partials_days: Partials of dates older than the newest one by more than this are not kept; 0: none is.
        lookback_days: With "latest": so many dates before it as well.
        max_future_skew: With "latest": how far beyond now an event may be (seconds or timedelta). Default: 24 hours.
        allow_scan: Read the whole collection when no index begins with `time_field`.
        schema: Where the reports are kept. Default: the first schema of the search path.
        checks: `millpond.Check`s, or their fields as mappings: what must hold before the commit.
        memory_limit: Bytes that keys, metrics and distinct values may take while events are read (default: 1 GiB); what
            is more goes to a temporary file without name, and the result is exact all the same.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Raises:
        ConfigError, ExternalError, DataError, Cancelled, BugError: see `millpond.errors`.
    """
    settings = {
        "mongo_uri": mongo_uri,
        "postgres_dsn": postgres_dsn,
        "database": database,
        "collection": collection,
        "dates": _dates(dates),
        "reports": definitions(reports),
        "functions": functions.signatures(),
        "time_field": time_field,
        "engine": engine,
        "mode": mode,
        "keep_partials_days": keep_partials_days,
        "job": job,
        "lookback_days": lookback_days,
        "max_future_skew": None if max_future_skew is None else (_milliseconds(max_future_skew) or 0) // 1000,
        "allow_scan": allow_scan,
        "schema": schema,
        "checks": plain(checks),
        "memory_limit": memory_limit,
    }
    with watched("aggregate", progress, cancel) as (token, observer), _elsewhere(engine, spark, settings) as there:
        books, tables = _native.aggregate(_json(settings), token, observer, functions.callables(), there)
        return AggregateResult(json.loads(books) | ({"spark": there.told} if there else {}), tables)


def _elsewhere(engine: str, spark: object | None, settings: dict[str, Any]) -> AbstractContextManager[Any]:
    """Return what runs the tasks of a reading, None for this process itself."""
    if (engine == "spark") != (spark is not None):
        raise ConfigError('spark: goes with engine="spark", and that with it', "give both, or neither")
    if engine != "spark":
        return nullcontext()
    from millpond import spark as on_spark

    return on_spark.engine(spark, settings)


def _json(settings: dict[str, Any]) -> str:
    for name, value in settings.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError(f"{name}: a value of type {type(value).__name__} cannot be used") from None
    return json.dumps(settings)


def _mapping(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: not a mapping of librdkafka properties", "give a dict")
    return oauth.plain(value)


def _time(value: str | float | dt.datetime | None) -> Any:
    if isinstance(value, dt.datetime):
        return int(value.timestamp() * 1000)
    return value


def _milliseconds(value: float | dt.timedelta | None) -> int | None:
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    return None if value is None else int(value * 1000)


def _seconds(value: float | dt.timedelta | None) -> float | None:
    return value.total_seconds() if isinstance(value, dt.timedelta) else value


def _whole_seconds(value: float | dt.timedelta | None) -> Any:
    milliseconds = _milliseconds(value) if isinstance(value, int | float | dt.timedelta) else None
    return value if milliseconds is None else milliseconds // 1000


def _dates(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.date().isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return [_dates(item) for item in value]
    return value


@contextmanager
def watched(
    verb: str, progress: ProgressArgument, cancel: CancelToken | None
) -> Iterator[tuple[CancelToken, Callable[[dict[str, Any], list[tuple[int, str]], bool], None]]]:
    """Yield a token and an observer; a signal whose handler returns cancels the run (I5)."""
    token = cancel if cancel is not None else CancelToken()
    logger = logging.getLogger(f"millpond.{verb}")
    last: dict[str, Any] = {}
    show: Callable[[Progress], object] | None = progress if callable(progress) else None

    def observer(now: dict[str, Any], lines: list[tuple[int, str]], _ended: bool) -> None:
        last.update(now)
        for level, text in lines:
            logger.log(level, text)
        if show is not None:
            show(Progress(**now))

    with _signals(token):
        try:
            if progress is True:
                with bar(verb) as show:
                    yield token, observer
            else:
                yield token, observer
        except Cancelled as error:
            error.outcome = last
            raise


@contextmanager
def _signals(token: CancelToken) -> Iterator[None]:
    """Make handlers of SIGINT and SIGTERM cancel after they returned; what they raise passes unchanged."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}

    def wrapped(old: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handler(number: int, frame: FrameType | None) -> None:
            old(number, frame)
            token.cancel()

        return handler

    for number in (signal.SIGINT, signal.SIGTERM):
        old = signal.getsignal(number)
        if callable(old):
            before[number] = old
            signal.signal(number, wrapped(old))
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
