"""What the three operators share: a verb run inside a task.

Owns how a run is started, shown, stopped and ended in Airflow's terms. Refuses to touch a record, and to swallow an
exception: what Airflow's own handlers raise (`AirflowTaskTerminated`, `AirflowTaskTimeout`) passes unchanged (I5).
"""

import re
import time
from collections.abc import Callable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, ClassVar

from millpond.airflow.arguments import Reader, UnusableArgumentError, read
from millpond.airflow.compat import AirflowFailException, BaseOperator
from millpond.airflow.connections import UnusableConnectionError, connection
from millpond.airflow.lineage import Lineage
from millpond.airflow.supervisor import Supervisor
from millpond.progress import pace

if TYPE_CHECKING:
    from millpond import CancelToken

_LINE_EVERY_S = 5.0
# What a grid's tooltip, a mail's subject and a list of failures show of a message.
_TOOLTIP = 250


class VerbOperator(BaseOperator):
    """One arrow as a task. Not for DAG files: use the operator of a verb."""

    verb: ClassVar[str]
    # Argument of the verb → how its rendered value is read. Each is an attribute and a template field.
    readers: ClassVar[dict[str, Reader]]
    # Argument of the verb → (attribute that holds the connection's id, how the connection is read).
    connections: ClassVar[dict[str, tuple[str, Callable[[Any], Any]]]]

    ui_color = "#d5e8d4"

    # Class attributes: an operator is deep-copied before a task runs, and a token belongs to one run in one process.
    _token: "CancelToken | None" = None
    _killed = False
    # What a run says of itself to links and lineage, while the process lives: names and counts, never a secret.
    _told_of: "dict[str, Any] | None" = None

    def __init__(self, **kwargs: Any) -> None:
        """Document the task by its operator, unless the DAG does."""
        super().__init__(**documented(type(self), kwargs))

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the verb and return its result as a mapping, for XCom.

        Raises:
            AirflowFailException: A retry cannot help; the message says what to do.
            millpond.ExternalError: A retry can help.
            millpond.Cancelled: The task was killed; never a success.
        """
        import millpond

        self._token = token = millpond.CancelToken()
        if self._killed:
            # The kill came before there was a token to set.
            token.cancel()
        lineage = Lineage(self.verb)
        told_of: dict[str, Any] = {"lineage": lineage}
        self._told_of = told_of
        try:
            settings = self._settings(lineage)
            told_of["dead_letters_in"] = place = self.dead_letters_in(settings)
            self._group("settings", _shown(settings))
            result = getattr(millpond, self.verb)(**settings, progress=self._line(token), cancel=token)
        except (UnusableArgumentError, UnusableConnectionError) as error:
            raise AirflowFailException(f"{self.verb}: {error}") from error
        except millpond.Cancelled:
            # Not a failure for good: a worker that is shut down kills its tasks and expects them to be tried again.
            raise
        except millpond.Error as error:
            if error.retryable:
                raise
            short = _tooltip(told := _told(error))
            if short != told:
                self._group("what is wrong", told.splitlines())
            raise AirflowFailException(short) from error
        books: dict[str, Any] = result.to_dict()
        if place:
            books["dead_letters_in"] = place
        told_of["books"] = books
        self._group("books", _book_lines(books))
        self.log.info("%s: done: %s", self.verb, _summary(books))
        for outlet in self.outlets:
            # Assets alone: 2.10 takes entities of lineage as well.
            if hasattr(outlet, "uri"):
                context["outlet_events"][outlet].extra = _covered(self.verb, books)
        return books

    def on_kill(self) -> None:
        """Ask the run to end at its next clean boundary. Only sets a flag: safe in a signal handler, twice, or idle."""
        self._killed = True
        if self._token is not None:
            self._token.cancel()

    def dead_letters_in(self, settings: dict[str, Any]) -> dict[str, str] | None:  # noqa: ARG002 - of a verb
        """Return where a run's dead letters are kept: a `topic`, or a `database` and `collection`."""
        return None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002 - OpenLineage passes it
        """Return inputs, outputs and counts of the run, when OpenLineage's provider is installed and asks."""
        told = self._told_of or {}
        return told["lineage"].facets(told.get("books")) if told else None

    def _group(self, name: str, lines: list[str]) -> None:
        """Log lines that the web UI folds."""
        self.log.info("::group::%s: %s", self.verb, name)
        for line in lines:
            self.log.info("%s", line)
        self.log.info("::endgroup::")

    def _settings(self, lineage: Lineage) -> dict[str, Any]:
        settings = read(self.readers, {name: getattr(self, name) for name in self.readers})
        for argument, (attribute, reader) in self.connections.items():
            conn_id = getattr(self, attribute)
            if conn_id is None:
                settings[argument] = None
                continue
            found = connection(conn_id)
            settings[argument] = reader(found)
            lineage.know(argument, found, settings[argument])
        lineage.names(settings)
        return settings

    def _line(self, token: "CancelToken") -> Callable[[Any], None]:
        """Return a progress callback that logs one line every few seconds, and ends a run that nobody watches over."""
        last = time.monotonic()
        supervisor = Supervisor()

        def show(progress: Any) -> None:
            nonlocal last
            if supervisor.is_gone() and not token.cancelled:
                self.log.warning("%s: the task's supervisor is gone: ending", self.verb)
                token.cancel()
            now = time.monotonic()
            if now - last < _LINE_EVERY_S:
                return
            last = now
            of = f" of {progress.total:,}" if progress.total else ""
            self.log.info(
                "%s: %s%s read, %s written, %s dead letters, %s",
                self.verb,
                f"{progress.read:,}",
                of,
                f"{progress.written:,}",
                f"{progress.dead_lettered:,}",
                pace(progress),
            )

        return show


def _told(error: Any) -> str:
    text = str(error)
    return text if not error.hint or error.hint in text else f"{text}\n{error.hint}"


def _tooltip(text: str) -> str:
    """Return a message in one line, cut where a tooltip would end."""
    line = " ".join(text.split())
    return line if len(line) <= _TOOLTIP else f"{line[: _TOOLTIP - 32].rsplit(' ', 1)[0]} … (the log has the rest)"


def _shown(settings: dict[str, Any]) -> list[str]:
    """Return the arguments of a verb, a line each, without what connections hold."""
    hidden = ("source", "target", "mongo_uri", "postgres_dsn", "transform", "reports", "checks")
    return [f"{name} = {value!r}" for name, value in settings.items() if name not in hidden]


def _book_lines(books: dict[str, Any]) -> list[str]:
    """Return what a run has counted and where it has got, a line each."""
    lines = [f"{name}: {value}" for name, value in books.items() if name not in ("positions", "statistics", "samples")]
    positions = books.get("positions")
    if isinstance(positions, dict):
        return [*lines, *(f"position {place}: {next_}" for place, next_ in list(positions.items())[:50])]
    return [*lines, *(f"position: {place}" for place in (positions or [])[:50])]


def _summary(books: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in books.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )


def _covered(verb: str, books: dict[str, Any]) -> dict[str, Any]:
    """Return what an asset's event holds: the places covered and the counts, a few hundred bytes."""
    counts = {name: value for name, value in books.items() if isinstance(value, int) and not isinstance(value, bool)}
    places = {name: books[name] for name in ("positions", "dates") if name in books}
    return {"millpond": verb} | counts | places


def documented(operator: type, words: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's words with its docstring as `doc_md`, its arguments as a list, unless a DAG says another."""
    if any(name.startswith("doc") for name in words):
        return words
    head, _, arguments = cleandoc(operator.__doc__ or "").partition("\n\nArgs:\n")
    listed = re.sub(r"^    (\w+): ", r"- **\1**: ", arguments, flags=re.MULTILINE)
    return words | {"doc_md": f"{head}\n\n{listed}".strip()}
