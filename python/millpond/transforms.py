"""What becomes of events on their way, as values: the built-in transform, rules of your own, and the default reports.

Owns the shapes. Refuses to judge them: the native part does, whole, before the first event is read. Keys of hashes show
in no `repr`.
"""

import datetime as dt
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from millpond.errors import ConfigError

_NAME = "product_views"
# In a definition, never a value: a key in a file would be no secret.
_KEY_WORDS = ("env", "file")


class Secret:
    """A key that shows in no `repr`, log or position.

    `Secret("…")` holds the key itself; `Secret.from_env("NAME")` and `Secret.from_file("path")` say where the run finds
    it. One line end at the end of a file is no part of the key.
    """

    __slots__ = ("_how", "_what")

    def __init__(self, key: str | bytes) -> None:
        """Keep the key."""
        self._how = "hex"
        self._what = (key.encode() if isinstance(key, str) else bytes(key)).hex()

    @classmethod
    def from_env(cls, name: str) -> "Secret":
        """Say the name of an environment variable."""
        return cls._of("env", name)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Secret":
        """Say the path of a file."""
        return cls._of("file", os.fspath(path))

    @classmethod
    def _of(cls, how: str, what: str) -> "Secret":
        secret = cls(b"")
        secret._how, secret._what = how, what
        return secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._how, self._what) == (other._how, other._what)

    def __hash__(self) -> int:
        return hash((self._how, self._what))

    def __repr__(self) -> str:
        return "Secret('***')" if self._how == "hex" else f"Secret.from_{self._how}({self._what!r})"

    def to_dict(self) -> dict[str, str]:
        """Return what the native part reads."""
        return {self._how: self._what}


@dataclass(frozen=True)
class DropIf:
    """Leaves events out by a raw field; all tests that are given must hold.

    Attributes:
        field: Name or dotted path of what is looked at.
        equals: It is this text, number (by value, not by spelling) or truth.
        not_equals: It is missing or something else.
        one_of: It is one of these.
        not_one_of: It is missing or none of these.
        starts_with: It is a text with this beginning.
        ends_with: It is a text with this end.
        contains: It is a text with this in it.
        missing: True: it is missing or null. False: it is there.
    """

    field: str
    equals: str | float | bool | None = None
    not_equals: str | float | bool | None = None
    one_of: Sequence[str | float | bool] | None = None
    not_one_of: Sequence[str | float | bool] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    missing: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return _given(self)


@dataclass(frozen=True)
class Field:
    r"""How one field of the new event is made.

    Attributes:
        from_: Names or dotted paths; the first that is there and not null is taken. `a\.b` is a name with a dot.
            Default: the field's own name.
        type: "string", "int", "float", "bool", "timestamp", "date", or "json" (default: the value as it is).
        required: Missing and null are dead letters; `""` is not.
        default: Written for missing and null.
        hash: "hmac-sha256" or "blake3": the keyed hash of the value's spelling is written, as 64 hex digits.
        mask: "ip": the address's network is written (IPv4 /24, IPv6 /48).
    """

    from_: str | Sequence[str] | None = None
    type: Literal["string", "int", "float", "bool", "timestamp", "date", "json"] | None = None
    required: bool = False
    default: Any = None
    hash: Literal["hmac-sha256", "blake3"] | None = None
    mask: Literal["ip"] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return {("from" if name == "from_" else name): value for name, value in _given(self).items()}


class _Explained:
    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        raise NotImplementedError

    def explain(self, event: str | bytes) -> dict[str, Any]:
        """Return what becomes of one event: `outcome`, `output`, `reason`, and each of `fields`.

        Raises:
            ConfigError: No run would take this transform.
        """
        return explain(self.to_dict(), event)


@dataclass(frozen=True)
class Transform(_Explained):
    """Rules for the fields of the new event, in their order, and filters.

    Attributes:
        fields: Name of the new field → its rule.
        keep_unknown: Members of the event that no field takes follow the fields.
        drop_if: Filters on raw fields; an event is left out (`filtered`) when any of them holds.
        hash_key: Key of the fields that are hashed: a `Secret`, or text or bytes, which are made one.
    """

    fields: Mapping[str, Field | Mapping[str, Any]] = field(default_factory=dict)
    keep_unknown: bool = False
    drop_if: Sequence[DropIf | Mapping[str, Any]] = ()
    hash_key: Secret | str | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.hash_key, str | bytes):
            object.__setattr__(self, "hash_key", Secret(self.hash_key))

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return _given(self)


@dataclass(frozen=True)
class ProductViews(_Explained):
    """Both raw shapes of a tracker's event become the seven fields of a stored one.

    Attributes:
        local_time_zone: An IANA name: a missing time is derived from `local_time` in that zone. None: it stays null.
        keep_unknown: As in `Transform`.
        drop_if: As in `Transform`.
    """

    local_time_zone: str | None = None
    keep_unknown: bool = False
    drop_if: Sequence[DropIf | Mapping[str, Any]] = ()

    def __call__(
        self,
        *,
        local_time_zone: str | None = None,
        keep_unknown: bool = False,
        drop_if: Sequence[DropIf | Mapping[str, Any]] = (),
    ) -> "ProductViews":
        """Return the transform with options."""
        return ProductViews(local_time_zone, keep_unknown, drop_if)

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return {"name": _NAME, **_given(self)}


PRODUCT_VIEWS = ProductViews()
PRODUCT_VIEW_REPORTS = "product_views"

# The value, its name, the path of a TOML file, or the same tables as a mapping.
TransformArgument = Transform | ProductViews | Mapping[str, Any] | str | os.PathLike[str] | None


def definition(transform: TransformArgument) -> dict[str, Any] | None:
    """Return what the native part reads, whatever the form.

    Raises:
        ConfigError: It is none of the forms, or a file that cannot be read.
    """
    if transform is None:
        return None
    if transform == _NAME:
        return PRODUCT_VIEWS.to_dict()
    if isinstance(transform, str) and not transform.endswith(".toml"):
        near = difflib.get_close_matches(transform, [_NAME], 1, 0.6)
        hint = f"did you mean {_NAME}?" if near else f"give {_NAME} or the path of a .toml file"
        raise ConfigError(f"transform: {transform!r} is unknown", hint)
    told = _file(Path(transform)) if isinstance(transform, str | os.PathLike) else transform
    if not isinstance(told, Mapping | Transform | ProductViews):
        raise ConfigError(
            f"transform: a value of type {type(told).__name__} is none",
            "give millpond.PRODUCT_VIEWS, a millpond.Transform, a mapping, or the path of a TOML file",
        )
    plain: dict[str, Any] = _plain("transform", told)
    return plain


def explain(transform: TransformArgument, event: str | bytes) -> dict[str, Any]:
    """Return what becomes of one event under a transform; no server is asked.

    Raises:
        ConfigError: No run would take this transform.
    """
    from millpond import _native

    raw = event.encode() if isinstance(event, str) else bytes(event)
    told: dict[str, Any] = json.loads(_native.explain(json.dumps(definition(transform)), raw))
    return told


def _given(value: Any) -> dict[str, Any]:
    """Return the members of a dataclass that say something."""
    members = ((member.name, getattr(value, member.name), member.default) for member in fields(value))
    return {name: told for name, told, default in members if told is not None and told is not default}


def _file(path: Path) -> dict[str, Any]:
    from millpond import toml_file

    return toml_file.read("transform", path)


def _plain(place: str, value: Any) -> Any:
    """Return a value as JSON can say it; nothing is rounded on the way."""
    if isinstance(value, Transform | ProductViews | Field | DropIf | Secret):
        made = value.to_dict()
        return made if isinstance(value, Secret) else _plain(place, made)
    if isinstance(value, Mapping):
        return {str(name): _member(place, str(name), item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(f"{place}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ConfigError(f"{place}: a number of over 64 bits", "give it as a text")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(f"{place}: a value of type {type(value).__name__} cannot be used") from None
    return value


def _member(place: str, name: str, value: Any) -> Any:
    top = place == "transform"
    place = f"{place}: {name}" if top else f"{place}.{name}"
    if top and name == "hash_key" and not isinstance(value, Secret) and value is not None:
        # Only a Secret may hold a key itself: mappings come from files.
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{place}: a key is no plain text", 'give {env = "NAME"}, {file = "path"}, or millpond.Secret in Python'
            )
        for word in value:
            if word not in _KEY_WORDS:
                raise ConfigError(f"{place}.{word}: unknown setting", f"there are {' and '.join(_KEY_WORDS)}")
    return _plain(place, value)
