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
from typing import TYPE_CHECKING, Any

from millpond.airflow.compat import AirflowNotFoundException, Stored
from millpond.airflow.connections import UnusableConnectionError, kafka_properties, mongo_uri, postgres_dsn
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

    def kafka(self, conn_id: str) -> dict[str, str]:
        """Return the properties of a Kafka connection."""
        return kafka_properties(Stored.get_connection_from_secrets(conn_id))

    def mongo(self) -> str:
        """Return the URI of the MongoDB connection."""
        return mongo_uri(Stored.get_connection_from_secrets(self.places.mongo))

    def ask(self, name: str, settings: dict[str, Any], **sides: dict[str, str]) -> Any:
        """Call a function of the native part, Kafka's sides with their tokens."""
        from millpond import _native, oauth

        plain = {side: oauth.plain(properties) for side, properties in sides.items()}
        tokens = (oauth.callbacks(**sides),) if sides else ()
        return json.loads(getattr(_native, name)(json.dumps(settings | plain), self.token, *tokens))

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
        """Return the positions of a bridge beside its source's logs, or alone where the source cannot be asked."""
        target = self.kafka(self.places.target)
        try:
            return dict(self.ask("positions_show", {"job": job}, source=self.kafka(self.places.source), target=target))
        except Exception as error:
            if (told := _told(error)).absent or not self.token.cancelled:
                alone = dict(self.ask("positions_show", {"job": job}, target=target))
                return alone | {"warnings": [*alone["warnings"], f"the source is not compared: {told.problem}"]}
            raise

    def collections(self, database: str) -> list[str]:
        """Return the collections whose sinks keep positions."""
        return list(self.ask("stored_collections", {"mongo_uri": self.mongo(), "database": database}))

    def sink(self, database: str, collection: str) -> dict[str, Any]:
        """Return the positions of a sink beside its topics' logs, or alone where the cluster cannot be asked."""
        place = {"mongo_uri": self.mongo(), "database": database, "collection": collection}
        try:
            return dict(self.ask("stored_positions_show", place, source=self.kafka(self.places.target)))
        except Exception as error:
            if (told := _told(error)).absent or not self.token.cancelled:
                alone = dict(self.ask("stored_positions_show", place))
                return alone | {"warnings": [*alone["warnings"], f"the topic is not compared: {told.problem}"]}
            raise

    def letters(self, place: dict[str, str], one: str | None = None) -> dict[str, Any]:
        """Return the newest dead letters of a topic or a collection, or one of them."""
        wanted = {"most": LETTERS, "one": one}
        if "topic" in place:
            cluster = self.kafka(self.places.target)
            return dict(self.ask("letters", wanted | {"topic": place["topic"]}, target=cluster))
        stored = {name: place[name] for name in ("database", "collection")}
        return dict(self.ask("stored_letters", wanted | stored | {"mongo_uri": self.mongo()}))


@contextmanager
def looking(places: Places) -> Iterator[Look]:
    """Give a look that ends by its deadline, whatever its servers do."""
    import millpond

    token = millpond.CancelToken()
    timer = threading.Timer(places.seconds, token.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield Look(places, token)
    finally:
        timer.cancel()
        token.cancel()


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
    with looking(places) as look, ThreadPoolExecutor(_THREADS, "millpond-page") as pool:
        runs = pool.submit(answer, places.postgres, look.runs)
        jobs = pool.submit(answer, places.target, look.jobs)
        bridges = _each(pool, jobs.result(), places.target, look.bridge)
        published = runs.result()
        chosen = table or _first_table(published.value or [])
        top: Future[Answer] | None = None
        if chosen:
            top = pool.submit(answer, places.postgres, lambda: look.top(chosen, date))
        names = list(dict.fromkeys([*places.databases, *_databases(published.value or [])]))[:JOBS]
        found = answer(places.mongo, lambda: [(name, one) for name in names for one in look.collections(name)])
        sinks = _each(pool, found, places.mongo, lambda place: look.sink(*place))
        kept = [{"topic": topic} for topic in _letter_topics(bridges)]
        kept += [{"database": place[0], "collection": place[1]} for place in (found.value or [])[:JOBS]]
        letters = [
            (place, pool.submit(answer, "letters", lambda place=place: look.letters(place)))  # type: ignore[misc]
            for place in kept
        ]
        return Overview(
            at=time.time(),
            runs=published,
            top=top.result() if top else Answer(problem=published.problem, absent=True),
            bridges=bridges,
            sinks=sinks,
            letters=[(place, asked.result()) for place, asked in letters],
        )


def _each(pool: ThreadPoolExecutor, names: Answer, conn_id: str, read: Callable[[Any], Any]) -> Answer:
    """Read each of some things for itself: a list of (name, answer)."""
    if names.value is None:
        return names
    asked = [(name, pool.submit(answer, conn_id, lambda name=name: read(name))) for name in names.value[:JOBS]]  # type: ignore[misc]
    return Answer([(name, one.result()) for name, one in asked])


def _first_table(runs: list[dict[str, Any]]) -> str | None:
    tables = [table for run in runs[:1] for table in run.get("rows") or {}]
    return "product_views_daily" if "product_views_daily" in tables else (tables or [None])[0]


def _databases(runs: list[dict[str, Any]]) -> list[str]:
    return [run["source"].partition(".")[0] for run in runs if run.get("source")]


def _letter_topics(bridges: Answer) -> list[str]:
    positions = [place for _, one in bridges.value or [] if one.value for place in one.value["positions"]]
    topics = ((place["kept"] or {}).get("dead_letter_topic") for place in positions)
    return list(dict.fromkeys(filter(None, topics)))
