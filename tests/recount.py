"""What the reports of a topic must be, counted in plain Python from its events as they were read back.

Owns a second reading of the rules of `PRODUCT_VIEWS` and of the reports: dicts, sets and the standard library's JSON.
Shares nothing with the engine, nor with the generator and its truth.
"""

import datetime as dt
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SOURCES = {
    "product_id": ["product_id"], "device_id": ["device_id"], "store_id": ["store_id"],
    "referrer_url": ["referrer_url"], "local_time": ["local_time"], "remote_ip": ["remote_ip", "ip"],
    "timestamp": ["timestamp", "time_stamp"],
}  # fmt: skip
KEYS = {
    "product_views_daily": "product_id", "country_views_daily": "store_id", "referrer_views_daily": "referrer_url",
}  # fmt: skip
RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Number(str):
    """A number's spelling."""

    __slots__ = ()


class DeadLetterError(Exception):
    """The event becomes a dead letter; the message is the reason."""


@dataclass
class Recount:
    """The counts, in the form of a truth file."""

    letters: list[list[Any]] = field(default_factory=list)
    events: int = 0
    tombstones: int = 0
    missing_time: int = 0
    views: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    devices: dict[tuple[str, str], dict[str, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    last: dict[tuple[str, str], dt.datetime] = field(default_factory=dict)
    nulls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, partition: int, offset: int, value: bytes | None) -> dict[str, Any]:
        """Count one event and return its fields, none for what is no event."""
        if value is None:
            self.tombstones += 1
            return {}
        try:
            event = mapped(parsed(value))
            moment = instant(event["timestamp"])
        except DeadLetterError as reason:
            self.letters.append([partition, offset, str(reason)])
            return {}
        self.events += 1
        if moment is None:
            self.missing_time += 1
            return event
        date = moment.date().isoformat()
        for table, name in KEYS.items():
            key = event[name]
            if key is None:
                self.nulls[date, table] += 1
                continue
            self.views[date, table][key] += 1
            seen = self.devices[date, table].setdefault(key, set())
            if event["device_id"] is not None:
                seen.add(event["device_id"])
            if table == "product_views_daily":
                self.last[date, key] = max(moment, self.last.get((date, key), moment))
        return event

    def reports(self, dates: Iterable[str]) -> dict[str, Any]:
        """Return the rows of each date, ordered by key."""
        return {date: self._date(date) for date in dates}

    def _date(self, date: str) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for table in KEYS:
            rows[table] = []
            for key, count in sorted(self.views[date, table].items()):
                row = [key, count, len(self.devices[date, table][key])]
                if table == "product_views_daily":
                    row.append(self.last[date, key].isoformat(timespec="microseconds"))
                rows[table].append(row[:2] if table == "referrer_views_daily" else row)
        rows["excluded"] = {table: self.nulls[date, table] for table in KEYS}
        return rows


def parsed(value: bytes) -> dict[str, Any]:
    """Read one JSON object, or say in the rules' order what is wrong with it."""
    if not value:
        raise DeadLetterError("empty")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise DeadLetterError("invalid_utf8") from None
    doubled = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubled.extend([1] if len(dict(pairs)) < len(pairs) else [])
        return dict(pairs)

    try:
        event = json.loads(text, object_pairs_hook=members, parse_int=Number, parse_float=Number)
    except json.JSONDecodeError:
        raise DeadLetterError("invalid_json") from None
    if not isinstance(event, dict):
        raise DeadLetterError("not_object")
    if depth(text) > 100:
        raise DeadLetterError("too_deep")
    if doubled:
        raise DeadLetterError("duplicate_key")
    return event


def depth(text: str) -> int:
    """Return how deep a text nests: a member whose name comes twice counts as well."""
    deepest = level = 0
    for sign in re.sub(r'"(?:\\.|[^"\\])*"|[^\[\]{}]', "", text):
        level += 1 if sign in "[{" else -1
        deepest = max(deepest, level)
    return deepest


def mapped(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the seven fields, each the first of its sources that is not null."""
    if not any(name in raw for names in SOURCES.values() for name in names):
        raise DeadLetterError("no_field")
    event = {
        field: next((raw[name] for name in names if raw.get(name) is not None), None)
        for field, names in SOURCES.items()
    }
    for value in event.values():
        if not isinstance(value, str | None):
            raise DeadLetterError("type")
        if value is not None and re.search("[\ud800-\udfff]", value):
            raise DeadLetterError("lone_surrogate")
    return event


def instant(time: str | None) -> dt.datetime | None:
    """Return the UTC instant of a text or an epoch."""
    if time is None:
        return None
    if isinstance(time, Number) or re.fullmatch(r"\d+", time):
        # What the generator writes has no sign, fraction or leading zero: ten digits are seconds, thirteen are millis.
        if len(time) not in (10, 13):
            raise DeadLetterError("time_unit")
        return dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=int(time.ljust(13, "0")))
    found = RFC_3339.fullmatch(time)
    if found is None or found[3] == "60":
        raise DeadLetterError("bad_time")
    date, clock, seconds, fraction, offset = found.groups()
    moment = dt.datetime.fromisoformat(f"{date}T{clock}:{seconds}") + dt.timedelta(seconds=float(fraction or 0))
    if offset in "Zz":
        return moment
    hours, minutes = offset[1:].split(":")
    away = dt.timedelta(hours=int(hours), minutes=int(minutes))
    return moment + away if offset[0] == "-" else moment - away
