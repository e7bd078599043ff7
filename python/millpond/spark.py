"""`aggregate(..., engine="spark")`: the same kernel on the executors of an Apache Spark cluster.

Owns the session and the two stages of a reading: each task folds its own ranges natively, parts of the same number meet
in a shuffle and are merged. Refuses to know what executors have and run: [`executors.py`] does.
"""

import json
import logging
import os
import re
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from millpond import errors, executors
from millpond.errors import Cancelled, ConfigError, DataError, ExternalError

_LOG = logging.getLogger("millpond.aggregate")
_SCHEMA = "part int, partial binary"
_LOST = (
    "see that executor's log on Spark's page. Where memory ran out: tasks fold outside of the JVM's heap, so leave "
    "their machine more beside spark.executor.memory, or ask for more and smaller tasks (spark.millpond.tasks)"
)
_ENDED = "is a master of the same Spark version there, and did it live on? Its log, or that of the application, tells"
# How long a master may take to accept a connection.
_PATIENCE_S = 5.0
# By application: the archive that its executors were given, or None where the package is there already.
_SHIPPED: dict[str, str | None] = {}
_RUNNING: "list[Engine]" = []


@contextmanager
def engine(spark: object, settings: Mapping[str, Any]) -> Iterator["Engine"]:
    """Make an engine for one run; a session that it starts ends with the block.

    Raises:
        ConfigError: pyspark is missing, or `spark` is neither a session nor a master's URL.
    """
    made = Engine(spark, settings)
    _RUNNING.append(made)
    try:
        yield made
    finally:
        _RUNNING.remove(made)
        made.close()


def running() -> dict[str, str]:
    """Return what [`Engine.told`] says of a run that goes on in this process; empty before it has a session."""
    return _RUNNING[-1].told if _RUNNING else {}


class Engine:
    """What the native run calls: `open` once it is sure to read, then itself for each reading."""

    name = "spark"

    def __init__(self, spark: object, settings: Mapping[str, Any]) -> None:
        """Check what can be checked without a session."""
        _require(spark)
        self._given = spark
        # The executors publish nothing.
        kept = dict(settings) | {"postgres_dsn": None, "checks": []}
        self._settings = json.dumps(kept)
        self._what = f"millpond: {settings['database']}.{settings['collection']}"
        self._group = f"millpond-{uuid.uuid4()}"
        self._lock = threading.Lock()
        self._session: Any = None
        self._mine = self._closed = False
        self._archive: str | None = None
        # What Spark has tried as often as it is told to; a reading that begins again does not begin that again.
        self._over: ExternalError | None = None
        # Of the application: its id, its page while it lives, and where a history server shows it afterwards.
        self.told: dict[str, str] = {}

    def open(self) -> tuple[int, int | None, int | None]:
        """Find or start the session and examine an executor; return how many tasks run at once, and numbers asked for.

        Raises:
            ConfigError: The executors cannot run it.
            ExternalError: The cluster does not answer.
        """
        if self._over is not None:
            raise self._over
        if self._session is None:
            try:
                session, self._mine = _session(self._given, self._what)
            except ExternalError as error:
                self._over = error
                raise
            with self._lock:
                self._session, closed = session, self._closed
            if closed:
                self._end()
                raise Cancelled("aggregate: stopped on request")
        # Spark may stop a session at any time after it has made it.
        ready: tuple[int, int | None, int | None] = self._job(self._ready)
        return ready

    def _ready(self) -> tuple[int, int | None, int | None]:
        session, context = self._session, self._session.sparkContext
        key = context.applicationId
        self.told = {"application": key, "page": context.uiWebUrl or ""}
        if history := session.conf.get("spark.millpond.history", None):
            self.told["history"] = f"{history.rstrip('/')}/history/{key}/"
        _LOG.info("Spark %s, %s", key, context.uiWebUrl)
        if key not in _SHIPPED:
            _SHIPPED[key] = executors.examine(context, self._job)
        self._archive = _SHIPPED[key]
        tasks, merges = (_asked(session, f"spark.millpond.{what}") for what in ("tasks", "merges"))
        return max(context.defaultParallelism, 1), tasks, merges

    def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
        """Fold every task's ranges and merge their parts.

        Raises:
            Error: What a task said, with its host.
            ExternalError: Spark gave up.
        """
        session = self._session
        conf = session.sparkContext.getConf()
        local = session.sparkContext.master.startswith("local")
        tries = 1 if local else int(conf.get("spark.task.maxFailures", "4"))
        asked = executors.callables()
        fold, merge = executors.tasks(self._settings, order, tasks, archive=self._archive, asked=asked, tries=tries)

        def job() -> list[Any]:
            parts = session.range(0, len(tasks), 1, len(tasks)).mapInArrow(fold, _SCHEMA)
            # A single merge is this process's own, without a stage for it.
            merged = parts if merges == 1 else parts.repartition(merges, "part").mapInArrow(merge, _SCHEMA)
            rows: list[Any] = merged.collect()
            return rows

        rows = self._job(job)
        for row in rows:
            if row["part"] < 0:
                raise _raised(json.loads(bytes(row["partial"])))
        return [bytes(row["partial"]) for row in rows]

    def close(self) -> None:
        """End what runs, and the session when it is ours; safe to call at any time."""
        with self._lock:
            self._closed = True
        if self._session is not None:
            self._end()

    def _end(self) -> None:
        with suppress(Exception):  # it may be gone already
            self._session.sparkContext.cancelJobGroup(self._group)
        if self._mine:
            _SHIPPED.pop(self.told.get("application", ""), None)
            # One that Spark has stopped by itself still stands in the way of the next.
            with suppress(Exception):
                self._session.stop()

    def _job(self, work: Callable[[], Any], what: str = "Spark gave up", hint: str = _LOST) -> Any:
        """Ask Spark something, a job under the name that `close` ends it by."""
        try:
            self._session.sparkContext.setJobGroup(self._group, self._what)
            return work()
        except errors.Error:
            raise
        except Exception as error:  # py4j's, Spark's and those of either's network
            if self._closed:
                raise Cancelled("aggregate: stopped on request") from None
            if _has_ended(self._session):
                what, hint = f"the session with {self._session.sparkContext.master} has ended", _ENDED
            self._over = ExternalError(f"aggregate: {what}: {_reason(error)}", hint)
            raise self._over from error


def _require(spark: object) -> None:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(f"engine: pyspark cannot be imported: {error}", "pip install 'millpond[spark]'") from None
    # distutils: pyspark 3.5 imports it, and Python 3.12 has it from setuptools alone.
    for name in ("pandas", "pyarrow", "distutils"):
        if find_spec(name) is None:
            raise ConfigError(f"engine: Spark needs {name} here", "pip install 'millpond[spark]'")
    if isinstance(spark, str) and spark:
        return
    if not isinstance(spark, SparkSession):
        raise ConfigError(
            "spark: neither a SparkSession nor a master's URL",
            'give a session (not one of Spark Connect), or for example spark="spark://host:7077"',
        )


def _session(given: Any, what: str) -> tuple[Any, bool]:
    """Return the session, and whether it was started here."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if not isinstance(given, str):
        if given.sparkContext._jsc is None:  # noqa: SLF001 - nothing else tells
            raise ConfigError("spark: this session has been stopped", "give one that runs")
        return given, False
    active = SparkSession.getActiveSession()
    if active is not None:
        if active.sparkContext.master != given:
            raise ConfigError(
                f"spark: this process has a session with {active.sparkContext.master}", "give that session, or end it"
            )
        return active, False
    _answers(given)
    before = SparkContext._active_spark_context  # noqa: SLF001 - nothing else tells
    builder = SparkSession.builder.master(given).appName(what).config("spark.ui.showConsoleProgress", "false")
    try:
        made = builder.getOrCreate()
    except Exception as error:
        # Spark may have made its half of it.
        half = SparkContext._active_spark_context  # noqa: SLF001
        if half is not None and half is not before:
            with suppress(Exception):
                half.stop()
        raise ExternalError(
            f"aggregate: no session with {given}: {_reason(error)}",
            "is it there, of the same Spark version as pyspark here, and is Java installed?",
        ) from error
    if given.startswith("local") and "PYSPARK_PYTHON" not in os.environ:
        # Here is where it runs: not in whatever `python3` is on the PATH.
        made.sparkContext.pythonExec = sys.executable
    return made, True


def _has_ended(session: Any) -> bool:
    """Whether Spark has stopped it: it makes one whose master never said a word, too, and stops it soon after."""
    try:
        return bool(session.sparkContext._jsc.sc().isStopped())  # noqa: SLF001 - nothing else tells
    except Exception:  # noqa: BLE001 - its JVM is gone, or the session has been stopped here
        return True


def _answers(master: str) -> None:
    """Refuse what is no master's URL, and a standalone master that does not listen.

    Spark itself would take a minute for the latter, and not say so.
    """
    places = [place.rpartition(":") for place in master.removeprefix("spark://").split(",")]
    spelled = all(host and port.isdecimal() for host, _, port in places)
    if not (master.startswith(("local", "yarn", "k8s://")) or (master.startswith("spark://") and spelled)):
        raise ConfigError(
            f"spark: {master!r} is no master's URL", 'give it as its page shows it: "spark://host:7077", say'
        )
    if not spelled or not master.startswith("spark://"):
        return
    for host, _, port in places:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
        except (OSError, OverflowError) as error:
            why = error
        else:
            return
    raise ExternalError(
        f"aggregate: no master answers at {master}: {why}",
        "is it running, and is this its URL as its page shows it? A firewall may stand between",
    )


def _asked(session: Any, name: str) -> int | None:
    asked = session.conf.get(name, None)
    if asked is None:
        return None
    if not (asked.isdecimal() and int(asked) > 0):
        raise ConfigError(f"{name}: {asked!r}", "give a whole number above 0")
    return int(asked)


def _reason(error: BaseException) -> str:
    """Return what Spark says, short: where a task was lost, and the error at the end of its own trace."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    text = str(java.getMessage() if java is not None else error) or type(error).__name__
    text = text.partition("\nDriver stacktrace:")[0]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("\tat ", "  File"))]
    shown = [lines[0][:400]] if lines else [type(error).__name__]
    if len(lines) > 1:
        # It may have more lines than the one with its name.
        named = [number for number, line in enumerate(lines) if number and re.match(r"[\w.$]+: ", line)]
        shown.append(" ".join(line.strip() for line in lines[named[-1] if named else -1 :])[:400])
    return " … ".join(shown)


def _raised(said: dict[str, Any]) -> errors.Error:
    """Return a task's error as one of this run."""
    kinds = {kind.__name__: kind for kind in (ConfigError, DataError, ExternalError)}
    kind = kinds.get(said["kind"], errors.BugError)
    error = kind(f"{said['message']} (Spark's executor on {said['host']})", said["hint"])
    vars(error)["forgotten"] = said["forgotten"]  # which native code looks for
    return error
