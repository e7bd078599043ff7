"""What reports of a definition must be, told from whole documents: nothing of the engine is used.

It owns the meaning of expressions, conditions and metrics as docs/reports.md states them. Sums are fractions; a double
is made of one once.
"""

import datetime as dt
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bson import Decimal128
from bson.datetime_ms import DatetimeMS
from tests.oracle_reports import EPOCH, Document, Row, instant

NEGATIONS = {"not_equals", "not_one_of"}


class UnfitError(Exception):
    """A value of a type that nothing can be made of."""


def expression(of: Any, document: Document, moment: dt.datetime) -> Any:
    """The value of an expression; `UnfitError` for one of another type."""
    if isinstance(of, str):
        value: Any = document
        for step in of.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, DatetimeMS):
            value = instant(value)
            if isinstance(value, str):
                raise UnfitError
        return value

    def inner(name: str) -> Any:
        return expression(of[name], document, moment)

    match of:
        case {"event_time": True}:
            return moment
        case {"field": _}:
            return inner("field")
        case {"value": literal}:
            return literal
        case {"lower": _}:
            return None if (read := text(inner("lower"))) is None else read.lower()
        case {"domain": _}:
            return None if (read := text(inner("domain"))) is None else urlsplit(read).hostname or None
        case {"path": _}:
            return None if (read := text(inner("path"))) is None else urlsplit(read).path
        case {"query": _, "name": name}:
            read = text(inner("query"))
            pairs = parse_qsl(urlsplit(read or "").query, keep_blank_values=True, errors="replace")
            return next((value for found, value in pairs if found == name), None)
        case {"extract": _, "pattern": pattern}:
            read = text(inner("extract"))
            found = None if read is None else re.search(pattern, read)
            groups = re.compile(pattern).groups
            return found[of.get("group", min(groups, 1))] if found else None
        case {"date_trunc": _, "unit": unit}:
            return None if (time := as_time(inner("date_trunc"))) is None else cut(time, unit)
        case {"hour": _}:
            return None if (time := as_time(inner("hour"))) is None else time.hour
        case {"coalesce": several}:
            return next((v for one in several if (v := expression(one, document, moment)) is not None), None)
        case {"number": _}:
            return parsed(inner("number"))
        case {"bucket": _}:
            value = number(inner("bucket"))
            if value is None:
                return None
            if "width" in of:
                low = math.floor(value / of["width"]) * of["width"]
                return low if -(2**63) <= low < 2**63 else None
            return next((bound for bound in reversed(of["bounds"]) if bound <= value), None)
    raise AssertionError(of)


def text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    raise UnfitError


def as_time(value: Any) -> dt.datetime | None:
    if value is None or isinstance(value, dt.datetime):
        return value
    if type(value) is not str:
        raise UnfitError
    read = instant(value)
    return None if isinstance(read, str) else read


def cut(time: dt.datetime, unit: str) -> dt.datetime:
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    match unit:
        case "minute":
            return time.replace(second=0, microsecond=0)
        case "hour":
            return time.replace(minute=0, second=0, microsecond=0)
        case "week":
            return day - dt.timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1)
        case "year":
            return day.replace(day=1, month=1)
    return day


def parsed(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if type(value) is str:
        spelled = re.fullmatch(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?", value.strip(), re.ASCII)
        return Decimal128(Decimal(spelled[0])) if spelled else None
    if isinstance(value, dt.datetime):
        raise UnfitError
    return value


def number(value: Any) -> Fraction | None:
    if value is None:
        return None
    if isinstance(value, Decimal128) and value.to_decimal().is_finite():
        return Fraction(value.to_decimal())
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return Fraction(value)
    raise UnfitError


def passes(where: Mapping[str, Any], document: Document, moment: dt.datetime) -> bool:
    try:
        value = expression(where["of"], document, moment)
    except UnfitError:
        value = UnfitError

    def order(literal: Any) -> Any:
        if isinstance(value, dt.datetime) and isinstance(literal, str):
            told = instant(literal)
            return None if isinstance(told, str) else (value > told) - (value < told)
        if type(value) is str and isinstance(literal, str):
            return (value.encode() > literal.encode()) - (value.encode() < literal.encode())
        if isinstance(value, bool) or isinstance(literal, bool):
            return (value > literal) - (value < literal) if type(value) is type(literal) is bool else None
        try:
            read = number(value)
        except UnfitError:
            return None
        if read is None or isinstance(literal, str):
            return None
        wanted = Fraction(str(literal))
        return (read > wanted) - (read < wanted)

    string = value if type(value) is str else None
    tests = {
        "equals": lambda x: order(x) == 0,
        "not_equals": lambda x: order(x) != 0,
        "one_of": lambda x: any(order(one) == 0 for one in x),
        "not_one_of": lambda x: all(order(one) != 0 for one in x),
        "starts_with": lambda x: string is not None and string.startswith(x),
        "ends_with": lambda x: string is not None and string.endswith(x),
        "contains": lambda x: string is not None and x in string,
        "at_least": lambda x: (order(x) or 0) >= 0 if order(x) is not None else False,
        "below": lambda x: order(x) == -1,
        "missing": lambda x: (value is None) == x,
    }
    return all(tests[name](wanted) for name, wanted in where.items() if name != "of")


def key(value: Any, kind: str) -> Any:
    """A key's cell; `UnfitError` with the reason."""
    if kind == "text" or kind.startswith("varchar"):
        read = text(value)
        longest = int(kind[8:-1]) if kind.startswith("varchar(") else 255 if kind == "varchar" else None
        if read is not None and ("\0" in read or (longest is not None and len(read) > longest)):
            raise UnfitError("key_unfit")
        return read
    if kind in {"timestamp", "date"}:
        if type(value) is str:
            value = instant(value)
            if isinstance(value, str):
                raise UnfitError("key_unfit")
        if value is not None and not isinstance(value, dt.datetime):
            raise UnfitError
        return value if value is None or kind == "timestamp" else value.date()
    if kind == "boolean":
        if value is not None and not isinstance(value, bool):
            raise UnfitError
        return value
    exact = number(value)
    if isinstance(value, float) and kind == "numeric":
        return Fraction(repr(value))
    if exact is not None and kind == "bigint":
        if exact.denominator != 1 or not -(2**63) <= exact < 2**63:
            raise UnfitError("key_unfit")
        return int(exact)
    return exact


def kind_of(of: Any) -> str:
    """The type of a key's column when none is named."""
    match of:
        case {"event_time": _} | {"date_trunc": _}:
            return "timestamp"
        case {"hour": _}:
            return "bigint"
        case {"number": _}:
            return "numeric"
        case {"bucket": _}:
            return "bigint" if all(bound == int(bound) for bound in of.get("bounds", [])) else "numeric"
    return "varchar"


def keys_of(report: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Column, expression and type of each key."""
    told = report["key"]
    if isinstance(told, str):
        told = [told]
    if isinstance(told, list):
        told = {field.split(".")[-1]: field for field in told}
    found = []
    for name, of in told.items():
        if isinstance(of, Mapping) and "of" in of and "call" not in of:
            found.append((name, of["of"], of.get("type") or kind_of(of["of"])))
        else:
            found.append((name, of, kind_of(of)))
    return found


def metric(measure: Any, documents: list[tuple[Document, dt.datetime]]) -> Any:
    """The cell of a metric over the events of a key."""
    if measure in ("count", {"count": True}):
        return len(documents)
    name = next(iter({"count_distinct", "sum", "mean", "min", "max"} & measure.keys()))
    of = measure[name]
    kind = measure.get("type") or ("text" if kind_of(of) == "varchar" and not isinstance(of, str) else kind_of(of))
    kind = "numeric" if kind == "varchar" else kind
    if name == "count_distinct":
        kind = "text" if kind_of(of) == "varchar" else kind_of(of)
    values: list[Any] = []
    doubles = False
    for document, moment in documents:
        try:
            value = expression(of, document, moment)
            exact = kind in {"numeric", "double"} and name != "count_distinct"
            cell = number(value) if exact else key(value, kind)
        except UnfitError:
            continue
        if cell is not None:
            doubles |= isinstance(value, float)
            values.append((cell, value) if exact and name in {"min", "max"} else cell)
    if name == "count_distinct":
        return len(set(values))
    if not values:
        return None
    if name in {"min", "max"}:
        order = {"text": lambda cell: cell.encode(), "numeric": lambda pair: pair[0], "double": lambda pair: pair[0]}
        found = (min if name == "min" else max)(values, key=order.get(kind))
        if kind not in {"numeric", "double"}:
            return found
        return float(found[0]) if kind == "double" or isinstance(found[1], float) else found[0]
    total = sum(values, Fraction(0))
    if name == "mean":
        return rounded(total / len(values))
    if kind == "bigint":
        return int(total)
    return rounded(total) if kind == "double" or doubles else total


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def tell(
    documents: Iterable[Document], report: Mapping[str, Any], time_field: str = "timestamp"
) -> tuple[list[Row], Counter[str]]:
    """The rows of all dates, by date and key, and the events without a key by reason."""
    excluded: Counter[str] = Counter()
    groups: dict[tuple[Any, ...], list[tuple[Document, dt.datetime]]] = defaultdict(list)
    columns = keys_of(report)
    for document in documents:
        moment = instant(document.get(time_field))
        if isinstance(moment, str):
            continue
        if not all(passes(where, document, moment) for where in report.get("where", [])):
            excluded["filtered"] += 1
            continue
        cells, reason = [], ""
        for _, of, kind in columns:
            try:
                cells.append(key(expression(of, document, moment), kind))
            except UnfitError as unfit:
                reason = reason or str(unfit) or "key_type"
        if not reason and None in cells:
            reason = "null_key"
        if reason:
            excluded[reason] += 1
        else:
            groups[moment.date(), *cells].append((document, moment))

    def order(item: tuple[tuple[Any, ...], Any]) -> list[Any]:
        return [cell.encode() if isinstance(cell, str) else cell for cell in item[0]]

    rows = []
    for (date, *cells), events in sorted(groups.items(), key=order):
        made = [metric(measure, events) for measure in report["metrics"].values()]
        rows.append((*cells, *made, date))
    return rows, excluded


def same(found: Row, wanted: Row) -> bool:
    """Whether cells are equal; a NUMERIC of doubles is the shortest spelling of one."""
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted, strict=True):
        if isinstance(other, float):
            if math.isinf(other) or (one is None) or float(one) != other:
                return False
        elif isinstance(other, Fraction):
            if one is None or Fraction(one) != other:
                return False
        elif one != other or (isinstance(other, bool) != isinstance(one, bool)):
            return False
    return True


__all__ = ["EPOCH", "same", "tell"]
