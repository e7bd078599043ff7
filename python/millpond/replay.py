"""Dead letters sent again, a bridge's and a sink's: the functions; what they do is native."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from millpond import _native, oauth
from millpond._native import CancelToken
from millpond.errors import ConfigError
from millpond.results import ReplayResult, StoredReplayResult
from millpond.transforms import TransformArgument, definition
from millpond.verbs import ProgressArgument, _json, _mapping, watched


def replay_dead_letters(
    target: Mapping[str, Any],
    *,
    target_topic: str,
    transform: TransformArgument = None,
    dead_letter_topic: str | None = None,
    job: str | None = None,
    reasons: str | Sequence[str] = (),
    since: str | int | dt.datetime | None = None,
    until: str | int | dt.datetime | None = None,
    source_topic: str | None = None,
    partition: int | None = None,
    offsets: int | str | tuple[int, int] | None = None,
    allow: Sequence[str] = (),
    progress: ProgressArgument = None,
    cancel: CancelToken | None = None,
) -> ReplayResult:
    """Send a bridge's dead letters through a corrected transform into its target topic, exactly once each.

    An event comes back with its own key, headers and timestamp, in the partition that the bridge would have chosen.
    Which letters were replayed is kept in the topic `millpond.replayed.<dead_letter_topic>`, in the transaction that
    holds the events: kill it anywhere and run it again. Letters are never deleted; those that fail again are counted.

    Args:
        target: librdkafka properties of the cluster that holds the letters and the target topic.
        target_topic: Topic to write.
        transform: As in `bridge`: the corrected one. None sends the raw bytes.
        dead_letter_topic: Default: `<target_topic>.dead_letters`.
        job: Job of the bridge that wrote the letters. Default: `<source_topic>-to-<target_topic>`, by each letter.
        reasons: Only letters of these reasons, such as `"bad_time"`.
        since: Only letters written at or after this time: datetime, RFC 3339 text, or milliseconds since 1970.
        until: Only letters written at or before this time.
        source_topic: Only letters whose events came from this topic.
        partition: Only letters whose events came from this partition of the source.
        offsets: Only letters whose events had these offsets in the source: one, `(first, last)`, or `"first..last"`.
        allow: Checks of the target topic that are waived, as in `bridge`.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Returns:
        The books: chosen = written + filtered + already_replayed + failed; `failed_by_reason`, the first `failures`.

    Raises:
        ConfigError, ExternalError, FencedError, PositionError, Cancelled, BugError: see `millpond.errors`.
    """
    first, last = _offsets(offsets)
    settings = {
        "target": _mapping("target", target),
        "target_topic": target_topic,
        "transform": definition(transform),
        "dead_letter_topic": dead_letter_topic,
        "job": job,
        "reasons": [reasons] if isinstance(reasons, str) else list(reasons),
        "since": _instant("since", since),
        "until": _instant("until", until),
        "source_topic": source_topic,
        "partition": partition,
        "first_offset": first,
        "last_offset": last,
        "allow": list(allow),
    }
    tokens = oauth.callbacks(target=target)
    with watched("replay", progress, cancel) as (token, observer):
        return ReplayResult(json.loads(_native.replay(_json(settings), token, observer, tokens)))


def replay_stored_letters(
    mongo_uri: str,
    *,
    database: str,
    collection: str,
    transform: TransformArgument = None,
    metadata: str | None = None,
    reasons: str | Sequence[str] = (),
    since: str | int | dt.datetime | None = None,
    until: str | int | dt.datetime | None = None,
    source_topic: str | None = None,
    partition: int | None = None,
    offsets: int | str | tuple[int, int] | None = None,
    progress: ProgressArgument = None,
    cancel: CancelToken | None = None,
) -> StoredReplayResult:
    """Store the events of a sink's dead letters after all, once each, after what refused them was put right.

    An event gets the `_id` that it would have had. What became of it is noted on its letter (`replays`), and a letter
    that was stored is not looked at again: kill it anywhere and run it again. Letters are never deleted; those that
    fail again are counted. `millpond_replays` keeps a document for each replay.

    Args:
        mongo_uri: MongoDB connection string.
        database: Database of the collection.
        collection: Collection of the events; the letters are in `<collection>_dead_letters`.
        transform: As in `bridge`: what puts the raw bytes right. None takes them as they are.
        metadata: As in `sink`.
        reasons: Only letters of these reasons, such as `"number_inexact"`.
        since: Only letters whose events have this timestamp or a later one: datetime, RFC 3339 text, or milliseconds
            since 1970.
        until: Only letters whose events have this timestamp or an earlier one.
        source_topic: Only letters whose events came from this topic.
        partition: Only letters whose events came from this partition of the source.
        offsets: Only letters whose events had these offsets in the source: one, `(first, last)`, or `"first..last"`.
        progress: As in `bridge`.
        cancel: As in `bridge`.

    Returns:
        The books: chosen = inserted + already_present + replaced + superseded + deleted + filtered +
        already_replayed + failed; `failed_by_reason`, the first `failures`, and `run`, its name in `millpond_replays`.

    Raises:
        ConfigError, ExternalError, DataError, Cancelled, BugError: see `millpond.errors`.
    """
    first, last = _offsets(offsets)
    settings = {
        "mongo_uri": mongo_uri,
        "database": database,
        "collection": collection,
        "transform": definition(transform),
        "metadata": metadata,
        "reasons": [reasons] if isinstance(reasons, str) else list(reasons),
        "since": _instant("since", since),
        "until": _instant("until", until),
        "source_topic": source_topic,
        "partition": partition,
        "first_offset": first,
        "last_offset": last,
    }
    with watched("replay", progress, cancel) as (token, observer):
        return StoredReplayResult(json.loads(_native.replay_stored(_json(settings), token, observer)))


def _offsets(value: object) -> tuple[Any, Any]:
    wrong = ConfigError("offsets: no offset and no range", 'give one, (first, last), or "first..last"')
    if value is None:
        return None, None
    if isinstance(value, int):
        return value, value
    if isinstance(value, str):
        first, dots, last = value.partition("..")
        try:
            return int(first), int(last if dots else first)
        except ValueError:
            raise wrong from None
    if isinstance(value, tuple | list) and len(value) == 2:
        return value[0], value[1]
    raise wrong


def _instant(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        told = f"{name}: no time with an offset from UTC"
        raise ConfigError(told, "give a datetime with a zone, 2025-10-31T03:22:11Z, or milliseconds since 1970")
    return int(value.timestamp() * 1000)
