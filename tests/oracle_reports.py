"""What the daily reports must be, told from whole documents with Python's own types: nothing of the engine is used.

It owns the meaning of times, keys and positions as the design states them (section 6). It reads no index and cuts no
range: every document is judged by itself.
"""

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS

REPORTS = {
    "product_views_daily": "product_id",
    "country_views_daily": "store_id",
    "referrer_views_daily": "referrer_url",
}
EPOCH = dt.datetime(1970, 1, 1)
CLOCK = r"(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?)?"
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)" + CLOCK, re.ASCII)
FURTHEST_WEST, FURTHEST_EAST = dt.timedelta(hours=-12), dt.timedelta(hours=14)

Document = Mapping[str, Any]
Row = tuple[Any, ...]


def instant(value: object) -> dt.datetime | str:
    """The moment that a value names, in UTC where it has an offset; or the reason why there is none."""
    if value is None:
        return "missing_time"
    try:
        if isinstance(value, dt.datetime):
            return value
        if isinstance(value, DatetimeMS):
            return EPOCH + dt.timedelta(milliseconds=int(value))
        if type(value) is not str or not (found := TIME.fullmatch(value)):  # JavaScript code is a str, too
            return "malformed_time"
        year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups(default="")
        whole = dt.datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
        moment = whole + dt.timedelta(microseconds=int(f"{fraction:0<6}"[:6]))
        if not sign:
            return moment
        offset = dt.timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        if int(minutes) > 59 or not FURTHEST_WEST <= offset <= FURTHEST_EAST:
            return "malformed_time"
        return moment - offset
    except (ValueError, OverflowError):
        return "malformed_time"


def key(value: object, longest: int | None) -> tuple[str | None, str]:
    """A key's text, or None and the reason."""
    if value is None:
        return None, "null_key"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value)), ""
    if type(value) is not str:
        return None, "key_type"
    unfit = "\0" in value or (longest is not None and len(value) > longest)
    return (None, "key_unfit") if unfit else (value, "")


def covered_by(positions: Mapping[tuple[int, int], int]) -> Callable[[object], bool]:
    """Whether an `_id` counts, by {(source tag, partition): next offset}; a tag not among them is another program's."""
    tags = {tag for tag, _ in positions}

    def covered(identity: object) -> bool:
        if not isinstance(identity, ObjectId):
            return True
        raw = identity.binary
        tag, partition, offset = (int.from_bytes(part, "big") for part in (raw[:4], raw[4:6], raw[6:]))
        return tag not in tags or offset < positions.get((tag, partition), 0)

    return covered


@dataclass
class Truth:
    """The books, and per report its rows by date and key (binary)."""

    scanned: int = 0
    counted: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    excluded_keys: dict[str, Counter[str]] = field(default_factory=lambda: {table: Counter() for table in REPORTS})
    rows: dict[str, list[Row]] = field(default_factory=dict)
    dates: list[str] = field(default_factory=list)


@dataclass
class _Group:
    views: int = 0
    visitors: set[str] = field(default_factory=set)
    last: dt.datetime = dt.datetime.min


def tell(
    documents: Iterable[Document],
    dates: set[dt.date] | None = None,
    time_field: str = "timestamp",
    covered: Callable[[object], bool] = lambda _: True,
) -> Truth:
    """The truth about the dates asked for; None: every date present."""
    truth = Truth()
    groups: dict[tuple[str, dt.date, str], _Group] = defaultdict(_Group)
    present = set(dates or ())
    for document in documents:
        truth.scanned += 1
        moment = instant(document.get(time_field)) if covered(document["_id"]) else "beyond_position"
        if not isinstance(moment, str) and dates is not None and moment.date() not in dates:
            moment = "other_date"
        if isinstance(moment, str):
            truth.excluded[moment] += 1
            continue
        truth.counted += 1
        present.add(moment.date())
        device, _ = key(document.get("device_id"), 255)
        for table, name in REPORTS.items():
            text, reason = key(document.get(name), None if name == "referrer_url" else 255)
            if text is None:
                truth.excluded_keys[table][reason] += 1
                continue
            group = groups[table, moment.date(), text]
            group.views += 1
            group.last = max(group.last, moment)
            if device is not None:
                group.visitors.add(device)
    truth.dates = sorted(date.isoformat() for date in present)
    truth.rows = {table: [] for table in REPORTS}
    for (table, date, text), group in sorted(groups.items(), key=lambda item: (item[0][1], item[0][2].encode())):
        visitors = () if table == "referrer_views_daily" else (len(group.visitors),)
        last = (group.last,) if table == "product_views_daily" else ()
        truth.rows[table].append((text, group.views, *visitors, *last, date))
    return truth


def latest(documents: Iterable[Document], time_field: str = "timestamp") -> dt.date:
    """The newest date not beyond a day from now."""
    limit = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=24)
    moments = (instant(document.get(time_field)) for document in documents)
    return max(moment for moment in moments if not isinstance(moment, str) and moment <= limit).date()
