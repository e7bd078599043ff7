"""What the page reads, each part for itself: a server that is down takes nothing from the others.

Owns the questions, their bounds and their deadline. Refuses to write, to join a group and to pass a secret on: what a
client says of its failure names operations and places.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from millpond.airflow.compat import AirflowNotFoundException, Stored
from millpond.airflow.connections import UnusableConnectionError, kafka_properties, mongo_uri, postgres_dsn
from millpond.airflow.page import words
from millpond.airflow.page.places import Places

if TYPE_CHECKING:
    from millpond import CancelToken

RUNS = 200
JOBS = 12
TOP = 10
LETTERS = 1_000
# Threads of one look; a process makes one look at a time.
_THREADS = 6


@dataclass(frozen=True)
class Answer:
    """What was found of a part, or why nothing was.

    Attributes:
        value: What was found; None when it was not.
        problem: What went wrong; empty when nothing did.
        absent: There is nothing to ask: no connection, nothing kept yet. Then `problem` says which.
    """

    value: Any = None
    problem: str = ""
    absent: bool = False


@dataclass(frozen=True)
class Overview:
    """All parts of the page, as they stood at `at` (seconds since 1970)."""

    at: float
    runs: Answer
    top: Answer
    bridges: Answer
    sinks: Answer
    letters: list[tuple[dict[str, str], Answer]] = field(default_factory=list)


class Look:
    """One look: the token that ends it, and the clients' settings by connection."""

    def __init__(self, places: Places, token: "CancelToken") -> None:
        """Keep both."""
        self.places, self.token = places, token
        self.until = time.monotonic() + places.seconds

    def kafka(self, conn_id: str) -> dict[str, str]:
        """Return the properties of a Kafka connection."""
        return kafka_properties(Stored.get_connection_from_secrets(conn_id))

    def mongo(self) -> str:
        """Return the URI of the MongoDB connection."""
        return mongo_uri(Stored.get_connection_from_secrets(self.places.mongo))

    def ask(self, name: str, settings: dict[str, Any], token: "CancelToken | None" = None, **sides: Any) -> Any:
        """Call a function of the native part, Kafka's sides with their tokens."""
        from millpond import _native, oauth

        plain = {side: oauth.plain(properties) for side, properties in sides.items()}
        tokens = (oauth.callbacks(**sides),) if sides else ()
        return json.loads(getattr(_native, name)(json.dumps(settings | plain), token or self.token, *tokens))

    def _beside(self, name: str, settings: dict[str, Any], logs: Callable[[], Any], **sides: Any) -> dict[str, Any]:
        """Ask for positions beside the logs they are of, or alone where these do not answer in half of the time."""
        with _ending(min(self.places.seconds / 2, self.until - time.monotonic())) as token:
            try:
                return dict(self.ask(name, settings, token, source=logs(), **sides))
            except Exception as error:  # noqa: BLE001 - told below
                why = _told(error).problem
        alone = dict(self.ask(name, settings, **sides))
        return alone | {"warnings": [*alone["warnings"], f"its log is not compared: {why}"]}

    def reports(self) -> dict[str, Any]:
        """Return where the ledger is."""
        dsn = postgres_dsn(Stored.get_connection_from_secrets(self.places.postgres))
        return {"postgres_dsn": dsn, "schema": self.places.schema}

    def runs(self) -> list[dict[str, Any]]:
        """Return the newest publications."""
        return list(self.ask("runs", self.reports() | {"limit": RUNS}))

    def top(self, table: str, date: str | None) -> dict[str, Any]:
        """Return the first rows of a report."""
        return dict(self.ask("report_top", self.reports() | {"table": table, "date": date, "limit": TOP}))

    def jobs(self) -> list[str]:
        """Return the bridges that keep positions on the target."""
        found = self.ask("jobs", {}, target=self.kafka(self.places.target))
        return [job for job in found if any(fnmatchcase(job, pattern) for pattern in self.places.jobs)]

    def bridge(self, job: str) -> dict[str, Any]:
        """Return the positions of a bridge beside its source's logs."""
        target = self.kafka(self.places.target)
        return self._beside("positions_show", {"job": job}, lambda: self.kafka(self.places.source), target=target)

    def databases(self) -> list[str]:
        """Return the databases that are named by the configuration and by the connection."""
        named = Stored.get_connection_from_secrets(self.places.mongo).schema
        return [*self.places.databases, *([named] if named else [])]

    def collections(self, database: str) -> list[str]:
        """Return the collections whose sinks keep positions."""
        return list(self.ask("stored_collections", {"mongo_uri": self.mongo(), "database": database}))

    def sink(self, database: str, collection: str) -> dict[str, Any]:
        """Return the positions of a sink beside its topics' logs."""
        place = {"mongo_uri": self.mongo(), "database": database, "collection": collection}
        return self._beside("stored_positions_show", place, lambda: self.kafka(self.places.target))

    def letters(self, place: dict[str, str], one: str | None = None) -> dict[str, Any]:
        """Return the newest dead letters of a topic or a collection, or one of them."""
        wanted = {"most": LETTERS, "one": one}
        if "topic" in place:
            cluster = self.kafka(self.places.target)
            return dict(self.ask("letters", wanted | {"topic": place["topic"]}, target=cluster))
        stored = {name: place[name] for name in ("database", "collection")}
        return dict(self.ask("stored_letters", wanted | stored | {"mongo_uri": self.mongo()}))


@contextmanager
def _ending(seconds: float) -> Iterator["CancelToken"]:
    """Give a token that is cancelled after so long, and when its block is left."""
    import millpond

    token = millpond.CancelToken()
    timer = threading.Timer(max(seconds, 0.0), token.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield token
    finally:
        timer.cancel()
        token.cancel()


@contextmanager
def looking(places: Places) -> Iterator[Look]:
    """Give a look that ends by its deadline, whatever its servers do."""
    with _ending(places.seconds) as token:
        yield Look(places, token)


def answer(conn_id: str, read: Callable[[], Any]) -> Answer:
    """Read a part, or say why it cannot be read."""
    if not conn_id:
        return Answer(problem="left out by the configuration", absent=True)
    try:
        return Answer(read())
    except Exception as error:  # noqa: BLE001 - the page shows what it can
        return _told(error)


def _told(error: Exception) -> Answer:
    import millpond

    if isinstance(error, AirflowNotFoundException):
        return Answer(problem=f"{error}".rstrip("."), absent=True)
    if isinstance(error, UnusableConnectionError):
        return Answer(problem=str(error))
    if isinstance(error, millpond.Cancelled):
        return Answer(problem="no answer in time")
    if isinstance(error, millpond.Error):
        # Where nothing was published or kept yet there is nothing to show, which is no failure.
        return Answer(problem=str(error), absent="nothing was published" in error.message)
    # A secrets backend's own failure may quote what it was asked for.
    return Answer(problem=f"{type(error).__name__}; the web server's log has more")


def overview(places: Places, table: str | None = None, date: str | None = None) -> Overview:
    """Read all parts side by side, by the deadline."""
    with (
        looking(places) as look,
        ThreadPoolExecutor(3, "millpond-page") as systems,
        ThreadPoolExecutor(_THREADS, "millpond-page") as pool,
    ):
        asked = systems.submit(answer, places.postgres, look.runs)
        kafka, mongo = systems.submit(_bridges, look, pool), systems.submit(_sinks, look, pool, asked)
        runs = asked.result()
        chosen = table or _first_table(runs.value or [])
        top = Answer(problem=runs.problem, absent=True)
        if chosen and not runs.problem:
            top = answer(places.postgres, lambda: look.top(chosen, date))
        (bridges, topics), (sinks, collections) = kafka.result(), mongo.result()
        return Overview(time.time(), runs, top, bridges, sinks, [*topics, *collections])


def _bridges(look: Look, pool: ThreadPoolExecutor) -> tuple[Answer, list[tuple[dict[str, str], Answer]]]:
    conn_id = look.places.target
    jobs = answer(conn_id, look.jobs)
    bridges = jobs if jobs.value is None else Answer(_each(pool, conn_id, jobs.value[:JOBS], look.bridge))
    topics = [{"topic": topic} for topic in _letter_topics(bridges)[:JOBS]]
    return bridges, _each(pool, conn_id, topics, look.letters)


def _sinks(
    look: Look, pool: ThreadPoolExecutor, runs: "Future[Answer]"
) -> tuple[Answer, list[tuple[dict[str, str], Answer]]]:
    conn_id = look.places.mongo
    try:
        published = runs.result(timeout=look.places.seconds / 3).value or []
    except TimeoutError:
        # A ledger that does not answer takes nothing from the sinks that are named otherwise.
        published = []

    def found() -> list[tuple[str, str]]:
        names = dict.fromkeys([*look.databases(), *_databases(published)])
        return [(name, one) for name in list(names)[:JOBS] for one in look.collections(name)][:JOBS]

    places = answer(conn_id, found)
    if places.value is None:
        return places, []
    sinks = _each(pool, conn_id, places.value, lambda place: look.sink(*place))
    kept = [{"database": database, "collection": collection} for database, collection in places.value]
    return Answer(sinks), _each(pool, conn_id, kept, look.letters)


def _each(pool: ThreadPoolExecutor, conn_id: str, things: list[Any], read: Callable[[Any], Any]) -> list[Any]:
    """Read each of some things for itself: (thing, answer)."""
    asked = [(thing, pool.submit(answer, conn_id, partial(read, thing))) for thing in things]
    return [(thing, one.result()) for thing, one in asked]


def _first_table(runs: list[dict[str, Any]]) -> str | None:
    return words.first([table for run in runs[:1] for table in run.get("rows") or {}])


def _databases(runs: list[dict[str, Any]]) -> list[str]:
    return [run["source"].partition(".")[0] for run in runs if run.get("source")]


def _letter_topics(bridges: Answer) -> list[str]:
    positions = [place for _, one in bridges.value or [] if one.value for place in one.value["positions"]]
    topics = ((place["kept"] or {}).get("dead_letter_topic") for place in positions)
    return list(dict.fromkeys(filter(None, topics)))
