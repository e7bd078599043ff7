"""From a task's arguments, rendered templates among them, to the values that a verb takes.

Owns the types: Jinja renders to text. Refuses to judge meaning: the verbs do, before any I/O.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterable
from typing import Any


class UnusableArgumentError(ValueError):
    """A rendered argument that cannot be read as its type."""


def absent(value: object) -> bool:
    """Whether nothing was said: None, or what a template makes of it."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None", "none", "null"))


def text(name: str, value: object) -> str:
    """Read a text."""
    if isinstance(value, str):
        return value.strip()
    raise UnusableArgumentError(f"{name}: expected a text, got {type(value).__name__}")


def integer(name: str, value: object) -> int:
    """Read a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(text(name, value).replace("_", ""))
    except ValueError:
        raise UnusableArgumentError(f"{name}: expected a whole number, got {value!r}") from None


def number(name: str, value: object) -> float:
    """Read a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return float(text(name, value))
    except ValueError:
        raise UnusableArgumentError(f"{name}: expected a number, got {value!r}") from None


def truth(name: str, value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    word = text(name, value).lower()
    if word in ("true", "false"):
        return word == "true"
    raise UnusableArgumentError(f"{name}: expected true or false, got {value!r}")


def texts(name: str, value: object) -> list[str]:
    """Read a list of texts; a text is split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Iterable):
        return [text(name, part) for part in value]
    raise UnusableArgumentError(f"{name}: expected a list of texts, got {type(value).__name__}")


def dates(name: str, value: object) -> str | list[str]:
    """Read `latest`, `all`, a date, a range, or a list of dates (also with commas)."""
    if isinstance(value, str) and "," not in value:
        return value.strip()
    return texts(name, value)


def shard(name: str, value: object) -> Any:
    """Read `(i, n)`, `"i/n"`, or a list of such pairs; mapped tasks get their pair as a list of two numbers."""
    if isinstance(value, str):
        value = value.strip().strip("()[]").replace("/", ",").split(",")
    if not isinstance(value, Iterable):
        raise UnusableArgumentError(f"{name}: expected (i, n) or 'i/n', got {type(value).__name__}")
    parts = list(value)
    if parts and all(isinstance(part, list | tuple) for part in parts):
        return [shard(name, part) for part in parts]
    if len(parts) != 2:
        raise UnusableArgumentError(f"{name}: expected (i, n) or 'i/n', got {value!r}")
    return integer(name, parts[0]), integer(name, parts[1])


def start(name: str, value: object) -> Any:  # noqa: ARG001 - the shape of a reader
    """Read `earliest`, `latest`, `group`, an RFC 3339 time; a datetime or a number of milliseconds stays."""
    return value.strip() if isinstance(value, str) else value


def listed(name: str, value: object) -> Any:
    """Read a list, also as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise UnusableArgumentError(f"{name}: expected a list, or one as JSON") from None


def concern(name: str, value: object) -> Any:
    """Read a write concern: a word, a number, or a mapping (also as JSON)."""
    if not isinstance(value, str):
        return value
    word = value.strip()
    if word.isdecimal():
        return int(word)
    if not word.startswith("{"):
        return word
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        raise UnusableArgumentError(f"{name}: expected a word, a number, or a mapping as JSON") from None


def seconds(name: str, value: object) -> Any:
    """Read seconds; a timedelta stays."""
    return value if isinstance(value, dt.timedelta) else number(name, value)


def as_it_is(name: str, value: object) -> Any:  # noqa: ARG001 - the shape of a reader
    """Leave a value to the verb."""
    return value


def reports(name: str, value: object) -> Any:
    """Read a set's name, the path of a file, or definitions, also as JSON."""
    if isinstance(value, str) and value.strip()[:1] in {"[", "{"}:
        return listed(name, value)
    return value.strip() if isinstance(value, str) else value


Reader = Callable[[str, object], Any]


def read(readers: dict[str, Reader], values: dict[str, object]) -> dict[str, Any]:
    """Return the keyword arguments that were given, each read as its type.

    Raises:
        UnusableArgumentError: One of them is of another type; the message names it.
    """
    return {name: reader(name, values[name]) for name, reader in readers.items() if not absent(values[name])}
