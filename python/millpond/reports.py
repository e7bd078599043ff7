"""Reports as values: a table, its keys and metrics, which events count; and the functions that these are made of.

Owns the shapes. Refuses to judge them: the native part does, whole, before any server is asked. An expression is a
field's name (dots lead into nested documents), or what one of the functions here returns: a mapping of its name to its
argument, as TOML writes it too.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from millpond.errors import ConfigError
from millpond.transforms import PRODUCT_VIEW_REPORTS

Expression = str | Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """A key's column with a type of its own.

    Attributes:
        of: What it is made of.
        type: "varchar(n)" (default of texts: 255 characters), "text", "bigint", "numeric", "timestamp", "date" or
            "boolean".
    """

    of: Expression
    type: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return _given(self)


@dataclass(frozen=True)
class Where:
    """A condition on the events that a report counts; all tests that are given must hold.

    Attributes:
        of: What is looked at. A NULL passes only `missing` and the negations.
        equals: It is this text, number (by value) or truth.
        not_equals: It is missing or something else.
        one_of: It is one of these.
        not_one_of: It is missing or none of these.
        starts_with: It is a text with this beginning.
        ends_with: It is a text with this end.
        contains: It is a text with this in it.
        at_least: It is this or above; times are compared with texts that say one.
        below: It is below this.
        missing: True: it is missing or null. False: it is there.
    """

    of: Expression
    equals: str | float | bool | None = None
    not_equals: str | float | bool | None = None
    one_of: Sequence[str | float | bool] | None = None
    not_one_of: Sequence[str | float | bool] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    at_least: str | float | None = None
    below: str | float | None = None
    missing: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return _given(self)


@dataclass(frozen=True)
class Report:
    """A daily report.

    Attributes:
        table: Its table: the keys, the metrics, `report_date` and `created_at`; made when absent.
        key: A field's name, a list of them, or a mapping of columns to expressions or `Key`s. An event without one of
            them is left out and counted.
        metrics: Columns and what they hold: `count()`, `count_distinct(…)`, `sum(…)`, `mean(…)`, `min(…)`, `max(…)`.
        where: `Where`s that all must hold; other events are counted as `filtered`.
        view: A view that ranks the rows of a date by the first metric.
    """

    table: str
    key: Expression | Sequence[str] | Mapping[str, Expression | Key]
    metrics: Mapping[str, str | Mapping[str, Any]]
    where: Sequence[Where | Mapping[str, Any]] = ()
    view: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return _given(self)


# The default set by its name, reports as values or mappings, the path of a TOML file, or a list of these.
ReportsArgument = (
    str | os.PathLike[str] | Report | Mapping[str, Any] | Sequence[str | os.PathLike[str] | Report | Mapping[str, Any]]
)


def count() -> dict[str, Any]:
    """Events."""
    return {"count": True}


def count_distinct(of: Expression) -> dict[str, Any]:
    """Distinct values that are not NULL, exactly."""
    return {"count_distinct": of}


def sum(of: Expression, *, type: str | None = None) -> dict[str, Any]:  # noqa: A001, A002 - the metric's own name
    """Exact sum of numbers; `type`: "numeric" (default), "bigint" or "double"."""
    return _typed("sum", of, type)


def mean(of: Expression) -> dict[str, Any]:
    """Mean of numbers: their exact sum by their count, rounded once to a double."""
    return {"mean": of}


def min(of: Expression, *, type: str | None = None) -> dict[str, Any]:  # noqa: A001, A002 - the metric's own name
    """Least value; of a field numbers, or what `type` says: "text", "timestamp", "date", "bigint", "double"."""
    return _typed("min", of, type)


def max(of: Expression, *, type: str | None = None) -> dict[str, Any]:  # noqa: A001, A002 - the metric's own name
    """Greatest value; `type` as in `min`."""
    return _typed("max", of, type)


def event_time() -> dict[str, Any]:
    """Return the moment of the event, whatever `time_field` is."""
    return {"event_time": True}


def value(literal: str | float | bool) -> dict[str, Any]:
    """Return the same for every event; the last of a `coalesce`, say."""
    return {"value": literal}


def lower(of: Expression) -> dict[str, Any]:
    """Make a text lower case."""
    return {"lower": of}


def domain(of: Expression) -> dict[str, Any]:
    """Take the host of a web address in lower case; NULL where there is none."""
    return {"domain": of}


def path(of: Expression) -> dict[str, Any]:
    """Take the path of a web address."""
    return {"path": of}


def query(of: Expression, name: str) -> dict[str, Any]:
    """Take the first value of a web address's parameter, decoded; NULL where there is none."""
    return {"query": of, "name": name}


def extract(of: Expression, pattern: str, group: int | None = None) -> dict[str, Any]:
    """Take what a regular expression finds: its first group, the whole match where it has none; NULL for no match."""
    return {"extract": of, "pattern": pattern} | ({} if group is None else {"group": group})


def date_trunc(unit: str, of: Expression | None = None) -> dict[str, Any]:
    """Cut a time (default: the event's) to its minute, hour, day, week (Monday), month, quarter or year."""
    return {"date_trunc": event_time() if of is None else of, "unit": unit}


def hour(of: Expression | None = None) -> dict[str, Any]:
    """Take the hour of a time (default: the event's), 0 to 23."""
    return {"hour": event_time() if of is None else of}


def coalesce(*of: Expression) -> dict[str, Any]:
    """Take the first that is not NULL."""
    return {"coalesce": list(of)}


def bucket(of: Expression, width: int | None = None, *, bounds: Sequence[float] | None = None) -> dict[str, Any]:
    """Cut a number down to a multiple of `width`, or to the greatest of `bounds` that is not above it."""
    given = {"width": width, "bounds": None if bounds is None else list(bounds)}
    return {"bucket": of} | {name: told for name, told in given.items() if told is not None}


def number(of: Expression) -> dict[str, Any]:
    """Read a text as a number; NULL for what is none."""
    return {"number": of}


def call(name: str, *of: Expression) -> dict[str, Any]:
    """Ask a function of your own (`millpond.function`) with the distinct values of expressions."""
    return {"call": name, "of": list(of)}


def definitions(reports: ReportsArgument) -> list[Any]:
    """Return what the native part reads, whatever the form.

    Raises:
        ConfigError: One of them is none of the forms, or a file that cannot be read.
    """
    one = isinstance(reports, str | os.PathLike | Report | Mapping)
    if not one and not isinstance(reports, Sequence):
        raise ConfigError(f"reports: a value of type {type(reports).__name__} is none", _FORMS)
    told: list[Any] = []
    several: Any = [reports] if one else reports
    for report in several:
        if report == PRODUCT_VIEW_REPORTS:
            told.append(report)
        elif isinstance(report, str | os.PathLike) and (not isinstance(report, str) or report.endswith(".toml")):
            told += _file(Path(report))
        elif isinstance(report, str | Report | Mapping):
            told.append(_plain(f"reports[{len(told)}]", report))
        else:
            raise ConfigError(f"reports[{len(told)}]: a value of type {type(report).__name__} is none", _FORMS)
    return told


_FORMS = "give millpond.Report(table, key, metrics), a mapping, the path of a TOML file, or a list of these"


def _typed(name: str, of: Expression, kind: str | None) -> dict[str, Any]:
    return {name: of} | ({} if kind is None else {"type": kind})


def _given(value: Any) -> dict[str, Any]:
    """Return the members of a dataclass that say something."""
    members = ((member.name, getattr(value, member.name)) for member in fields(value))
    return {name: told for name, told in members if told is not None and told != ()}


def _file(file: Path) -> list[Any]:
    """Read `[[reports]]` of a TOML file; `modules` names what registers its functions."""
    from millpond import toml_file

    tables = toml_file.read("reports", file)
    for name in tables:
        if name not in {"reports", "modules"}:
            raise ConfigError(f"reports: {file}: {name}: unknown setting", "there are [[reports]] and modules")
    for module in tables.get("modules", ()):
        try:
            import_module(str(module))
        except ImportError as error:
            raise ConfigError(
                f"reports: {file}: module {module} cannot be imported: {error}", "check modules"
            ) from None
    told = tables.get("reports", [])
    found: list[Any] = _plain("reports", told if isinstance(told, list) else [told])
    return found


def _plain(place: str, value: Any) -> Any:
    """Return a value as JSON can say it."""
    if isinstance(value, Report | Key | Where):
        return _plain(place, value.to_dict())
    if isinstance(value, Mapping):
        return {str(name): _plain(f"{place}.{name}", item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(f"{place}[{i}]", item) for i, item in enumerate(value)]
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(f"{place}: a value of type {type(value).__name__} cannot be used") from None
    return value
