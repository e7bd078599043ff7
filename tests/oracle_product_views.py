"""PRODUCT_VIEWS stated a second time: a strict reader of JSON, and the mapping to a stored event.

Written from the rules, not from the native code, with the standard library's own decoder, decimals and calendar. It
knows no Kafka: bytes in, the stored bytes or `Refused` out.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

MAX_DEPTH = 100
# The stored fields in their order, and the names that each is taken from: the first that is not null.
SOURCES = {
    "product_id": ("product_id",),
    "device_id": ("device_id",),
    "store_id": ("store_id",),
    "referrer_url": ("referrer_url",),
    "local_time": ("local_time",),
    "remote_ip": ("remote_ip", "ip"),
    "timestamp": ("timestamp", "time_stamp"),
}
BLANK = " \t\n\r"
# Possessive repeats: a long broken string is refused in one pass.
TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:
    "(?P<string>(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+)"
    |(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
    |(?P<word>true|false|null)
    |(?P<mark>[{}\[\]:,])
    )""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
WORDS = {"true": True, "false": False, "null": None}
CLOCK = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(.*)", re.ASCII | re.DOTALL)
OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
CYCLE_YEARS, CYCLE_DAYS = 400, 146_097
GIGA = 10**9


class Refused(Exception):  # noqa: N818 - the reason is its name
    """An event that is a dead letter, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


class Object(list[tuple[str, Any]]):
    """An object's members in their order; names may repeat."""


def parse(raw: bytes) -> Object:
    """Read one message; a string keeps half a surrogate pair, which only who keeps the string judges."""
    if not raw:
        raise Refused("empty")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("invalid_utf8") from None
    value, depth, doubled = _read(text.strip(BLANK))
    if not isinstance(value, Object):
        raise Refused("not_object")
    if depth > MAX_DEPTH:
        raise Refused("too_deep")
    if doubled:
        raise Refused("duplicate_key")
    return value


def unescape(spelled: str) -> str:
    """Decode what stands between a string's quotes; the halves of a pair become one character."""
    if "\\" not in spelled:
        return spelled
    units = ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else SHORT.get(found[2], found[2]), spelled)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def halved(text: str) -> bool:
    """Whether half a surrogate pair stands alone."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise Refused("invalid_json")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()


def _read(text: str) -> tuple[Any, int, bool]:
    """Return the value, the depth of its nesting, and whether any object has a name twice. No recursion."""
    top: list[Any] = []
    around: list[Any] = [top]
    due, depth, doubled = "value", 0, False
    for kind, spelled in _tokens(text):
        inner = around[-1]
        value: Any = None
        if kind == "string" and due in {"name", "name or end"}:
            inner.append((unescape(spelled), None))
            due = "colon"
            continue
        if kind == "mark" and spelled not in "{[":
            if spelled == ":" and due == "colon":
                due = "value"
            elif spelled == "," and due == "comma or end" and inner is not top:
                due = "name" if isinstance(inner, Object) else "value"
            elif spelled == "}" and isinstance(inner, Object) and due in {"name or end", "comma or end"}:
                doubled |= len({name for name, _ in inner}) < len(inner)
                around.pop()
                due = "comma or end"
            elif (
                spelled == "]"
                and not isinstance(inner, Object)
                and inner is not top
                and due in {"value or end", "comma or end"}
            ):
                around.pop()
                due = "comma or end"
            else:
                raise Refused("invalid_json")
            continue
        if due not in {"value", "value or end"}:
            raise Refused("invalid_json")
        due = "comma or end"
        if kind == "string":
            value = unescape(spelled)
        elif kind == "number":
            value = Number(spelled)
        elif kind == "word":
            value = WORDS[spelled]
        else:
            value, due = (Object(), "name or end") if spelled == "{" else ([], "value or end")
            around.append(value)
            depth = max(depth, len(around) - 1)
        if isinstance(inner, Object):
            inner[-1] = (inner[-1][0], value)
        else:
            inner.append(value)
    if due != "comma or end" or len(around) > 1:
        raise Refused("invalid_json")
    return top[0], depth, doubled


def stored(raw: bytes | None, zone: str | None = None) -> bytes | None:
    """Return the stored event's bytes; a tombstone stays one."""
    if raw is None:
        return None
    event = dict(parse(raw))
    if not any(name in event for names in SOURCES.values() for name in names):
        raise Refused("no_field")
    fields: dict[str, str | None] = {}
    for field, names in SOURCES.items():
        winner = next((event[name] for name in names if event.get(name) is not None), None)
        if field != "timestamp":
            fields[field] = _text(winner)
        elif winner is not None:
            fields[field] = _instant(winner)
        else:
            fields[field] = _derived(fields["local_time"], zone)
    # json's own escapes are minimal: the short ones, then \u00xx for the rest below the blank.
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused("type")
    if halved(value):
        raise Refused("lone_surrogate")
    return str(value)


def _instant(value: Any) -> str:
    text = _text(value)
    assert text is not None
    if isinstance(value, Number):
        return _epoch(value)
    if re.fullmatch(r"[0-9]+", text):
        if len(text) not in {10, 13}:
            raise Refused("time_unit")
        return _epoch(text)
    clock = CLOCK.fullmatch(text)
    if clock is None:
        raise Refused("bad_time")
    seconds, fraction, rest = _wall(clock)
    if rest not in {"Z", "z"}:
        offset = OFFSET.fullmatch(rest)
        if offset is None or int(offset[2]) > 23 or int(offset[3]) > 59:
            raise Refused("bad_time")
        ahead = int(offset[2]) * 3600 + int(offset[3]) * 60
        seconds -= -ahead if offset[1] == "-" else ahead
    return _rfc3339(seconds, fraction)


def _epoch(spelled: str) -> str:
    try:
        number = Decimal(spelled)
    except InvalidOperation:  # an exponent beyond what a decimal holds
        raise Refused("time_unit") from None
    if GIGA <= number < 10 * GIGA:
        scale = GIGA
    elif 1000 * GIGA <= number < 10_000 * GIGA:
        scale = 10**6
    else:
        raise Refused("time_unit")
    nanoseconds = Fraction(number) * scale
    if nanoseconds.denominator != 1:  # more than nine fraction digits of a second
        raise Refused("bad_time")
    seconds, rest = divmod(int(nanoseconds), GIGA)
    return _rfc3339(seconds, f"{rest:09d}")


def _wall(clock: re.Match[str]) -> tuple[int, str, str]:
    """Return the seconds since 1970 as if UTC, the fraction digits, and what follows the clock."""
    year, month, day, hour, minute, second = (int(part) for part in clock.groups()[:6])
    if hour > 23 or minute > 59 or second > 59:
        raise Refused("bad_time")
    # The calendar repeats after 400 years: so year 0000, which an offset may still bring into range, has dates too.
    cycle, year = divmod(year, CYCLE_YEARS)
    try:
        days = dt.date(year + CYCLE_YEARS, month, day).toordinal() + (cycle - 1) * CYCLE_DAYS
    except ValueError:
        raise Refused("bad_time") from None
    days -= dt.date(1970, 1, 1).toordinal()
    return days * 86_400 + hour * 3600 + minute * 60 + second, clock[7] or "", clock[8]


def _rfc3339(seconds: int, fraction: str) -> str:
    days, clock = divmod(seconds, 86_400)
    try:
        date = dt.date.fromordinal(days + dt.date(1970, 1, 1).toordinal())
    except (ValueError, OverflowError):
        raise Refused("bad_time") from None
    fraction = fraction.rstrip("0")
    return (
        f"{date.isoformat()}T{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"
        + (f".{fraction}" if fraction else "")
        + "Z"
    )


def _derived(local_time: str | None, zone: str | None) -> str | None:
    """Read the shop's wall clock in its zone; what is no wall clock, or lies in no year of ours, says no time."""
    clock = CLOCK.fullmatch(local_time or "")
    if zone is None or clock is None or clock[8]:
        return None
    try:
        seconds, fraction, _ = _wall(clock)
        wall = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
        offset = wall.replace(tzinfo=ZoneInfo(zone)).utcoffset()
        assert offset is not None
        return _rfc3339(seconds - int(offset.total_seconds()), fraction)
    except (Refused, OverflowError):
        return None
