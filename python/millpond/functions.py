"""Functions of your own for reports: registered by name, asked for distinct values, never for each event.

Owns the registry and the checks of what a function returns. Refuses to run one itself: a run does, once for each batch
of values that it has not seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from millpond.errors import ConfigError, DataError

_TYPES = ("text", "bigint", "double", "timestamp", "date", "boolean")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Function:
    """A registered function."""

    name: str
    callable: Callable[..., Any]
    returns: str
    version: str


_REGISTRY: dict[str, Function] = {}


@overload
def function(name: str, callable: _F, *, returns: str = "text", version: str = "") -> _F: ...
@overload
def function(name: str, *, returns: str = "text", version: str = "") -> Callable[[_F], _F]: ...
def function(
    name: str,
    callable: Callable[..., Any] | None = None,  # noqa: A002 - what it is
    *,
    returns: str = "text",
    version: str = "",
) -> Any:
    """Register a function for reports, also as a decorator; one of the same name is replaced.

    Args:
        name: How `call(name, …)` names it.
        callable: Gets one Polars Series of distinct values for each argument, and returns a Series of the same length.
            Texts come as String, `number(…)` as Float64, hours and buckets as Int64, times as Datetime("us"); NULLs
            too.
        returns: "text", "bigint", "double", "timestamp", "date" or "boolean".
        version: Goes into the definition's name in the ledger: say another one when the function changes.

    Raises:
        ConfigError: The name is empty, it cannot be called, or the type is unknown.
    """
    if callable is None:
        return lambda decorated: function(name, decorated, returns=returns, version=version)
    if not isinstance(name, str) or not name:
        raise ConfigError("function: a name is a text", 'millpond.function("region", region)')
    if not hasattr(callable, "__call__"):  # noqa: B004 - `callable` is the argument
        raise ConfigError(f"function {name}: a value of type {type(callable).__name__} cannot be called")
    if returns not in _TYPES:
        raise ConfigError(f"function {name}: returns: unknown type {returns!r}", f"one of {', '.join(_TYPES)}")
    _REGISTRY[name] = Function(name, callable, returns, str(version))
    return callable


def signatures() -> dict[str, dict[str, str]]:
    """Return what definitions are checked against."""
    return {one.name: {"returns": one.returns, "version": one.version} for one in _REGISTRY.values()}


def callables() -> dict[str, Callable[[Any], list[Any]]]:
    """Return what a run asks: a table of distinct values in, a list of answers out."""
    return {one.name: _Asked(one) for one in _REGISTRY.values()}


class _Asked:
    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, table: Any) -> list[Any]:
        try:
            import polars as pl
        except ImportError:
            raise ConfigError(
                f"aggregate: function {self._function.name} needs Polars", "pip install 'millpond[notebook]'"
            ) from None
        frame = pl.DataFrame(table)
        arguments = frame.get_columns()
        try:
            answer = self._function.callable(*arguments)
        except Exception as error:
            sample, cause = self._culprit(frame, error)
            raise DataError(
                f"aggregate: function {self._function.name} raised {type(cause).__name__}: {cause}; given {sample}",
                "mend the function, or the data",
            ) from error
        return self._checked(pl, answer, frame.height)

    def _culprit(self, frame: Any, error: Exception) -> tuple[str, Exception]:
        """Find a row that is enough to raise it: halves, until one is left or none of both raises."""
        while frame.height > 1:
            middle = frame.height // 2
            for half in (frame[:middle], frame[middle:]):
                try:
                    self._function.callable(*half.get_columns())
                except Exception as raised:  # noqa: BLE001 - whatever it is
                    frame, error = half, raised
                    break
            else:
                break
        row = frame.row(0)
        shown = ", ".join(repr(value) if len(repr(value)) < 100 else f"{repr(value)[:100]}…" for value in row)
        more = "" if frame.height == 1 else f" and {frame.height - 1} more together"
        return shown + more, error

    def _checked(self, pl: Any, answer: Any, rows: int) -> list[Any]:
        name, returns = self._function.name, self._function.returns
        if not isinstance(answer, pl.Series):
            raise ConfigError(
                f"aggregate: function {name} returned a value of type {type(answer).__name__}",
                "return a polars.Series with a value for each row",
            )
        if len(answer) != rows:
            raise ConfigError(
                f"aggregate: function {name} returned {len(answer):,} values for {rows:,}",
                "return one for each row, NULL where there is none",
            )
        if answer.dtype == pl.Null:
            return [None] * rows
        dtype = answer.dtype
        fits = {
            "text": dtype.base_type() in (pl.String, pl.Categorical, pl.Enum),
            "bigint": dtype.is_integer(),
            "double": dtype.is_float() or dtype.is_integer(),
            "timestamp": dtype.base_type() == pl.Datetime,
            "date": dtype == pl.Date,
            "boolean": dtype == pl.Boolean,
        }
        if not fits[returns]:
            raise ConfigError(
                f"aggregate: function {name} returned {dtype}, not {returns}",
                f"cast it, or register the function with another returns= than {returns!r}",
            )
        if returns == "timestamp":
            answer = answer.dt.epoch("us")
        elif returns == "date":
            answer = answer.to_physical()
        elif returns == "text":
            answer = answer.cast(pl.String)
        elif returns == "double":
            answer = answer.cast(pl.Float64)
        elif returns == "bigint":
            answer = answer.cast(pl.Int64)
        values: list[Any] = answer.to_list()
        return values
