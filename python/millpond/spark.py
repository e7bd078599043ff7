"""`aggregate(..., engine="spark")`: the same kernel on the executors of an Apache Spark cluster.

Owns the session, the probe of the executors, the way of the package to them and the two stages of a reading: each task
folds its own ranges natively, parts of the same number meet in a shuffle and are merged. Refuses to plan, to publish
and to see a record: that is native code, here and there. What a task needs, the MongoDB URI among it, travels in its
closure alone, which Spark neither shows nor logs (I6).
"""

import json
import logging
import sys
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from millpond import errors, functions
from millpond.errors import Cancelled, ConfigError, DataError, ExternalError

_LOG = logging.getLogger("millpond.aggregate")
_SCHEMA = "part int, partial binary"
_LOST = "see its log on Spark's page; lost executors want more memory, or more tasks (spark.millpond.tasks)"
# By application: the archive that its executors were given, or None where the package is there already.
_SHIPPED: dict[str, str | None] = {}


@contextmanager
def engine(spark: object, settings: Mapping[str, Any]) -> Iterator["Engine"]:
    """Make an engine for one run; a session that it starts ends with the block.

    Raises:
        ConfigError: pyspark is missing, or `spark` is neither a session nor a master's URL.
    """
    made = Engine(spark, settings)
    try:
        yield made
    finally:
        made.close()


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

    @property
    def told(self) -> dict[str, str]:
        """The application and its page, where there is one."""
        if self._session is None:
            return {}
        context = self._session.sparkContext
        return {"application": context.applicationId, "page": context.uiWebUrl or ""}

    def open(self) -> tuple[int, int | None, int | None]:
        """Find or start the session and examine an executor; return how many tasks run at once, and numbers asked for.

        Raises:
            ConfigError: The executors cannot run it.
            ExternalError: The cluster does not answer.
        """
        if self._session is None:
            session, self._mine = _session(self._given, self._what)
            with self._lock:
                self._session, closed = session, self._closed
            if closed:
                self._end()
                raise Cancelled("aggregate: stopped on request")
        session, context = self._session, self._session.sparkContext
        _LOG.info("Spark %s, %s", context.applicationId, context.uiWebUrl)
        key = context.applicationId
        if key not in _SHIPPED:
            _SHIPPED[key] = _examine(context, self._job)
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
        fold, merge = _tasks(self._settings, order, tasks, archive=self._archive, callables=_callables(), tries=tries)

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
        context = self._session.sparkContext
        with suppress(Exception):  # it may be gone already
            context.cancelJobGroup(self._group)
            if self._mine:
                _SHIPPED.pop(context.applicationId, None)
                self._session.stop()

    def _job(self, work: Callable[[], Any], what: str = "Spark gave up", hint: str = _LOST) -> Any:
        """Run a Spark job under the name that `close` ends it by."""
        self._session.sparkContext.setJobGroup(self._group, self._what)
        try:
            return work()
        except Exception as error:  # py4j's, Spark's and those of either's network
            if self._closed:
                raise Cancelled("aggregate: stopped on request") from None
            raise ExternalError(f"aggregate: {what}: {_reason(error)}", hint) from error


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
    builder = SparkSession.builder.master(given).appName(what).config("spark.ui.showConsoleProgress", "false")
    try:
        return builder.getOrCreate(), True
    except Exception as error:
        raise ExternalError(
            f"aggregate: no session with {given}: {_reason(error)}",
            "is it there, of the same Spark version as pyspark here, and is Java installed?",
        ) from error


def _asked(session: Any, name: str) -> int | None:
    asked = session.conf.get(name, None)
    if asked is None:
        return None
    if not (asked.isdecimal() and int(asked) > 0):
        raise ConfigError(f"{name}: {asked!r}", "give a whole number above 0")
    return int(asked)


def _reason(error: BaseException) -> str:
    """Return what Spark says, short: where a task was lost, and the last line of its own trace."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    text = str(java.getMessage() if java is not None else error) or type(error).__name__
    text = text.partition("\nDriver stacktrace:")[0]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("\tat ", "  File"))]
    shown = [lines[0][:400]] if lines else [type(error).__name__]
    if len(lines) > 1:
        shown.append(lines[-1].strip()[:300])
    return " … ".join(shown)


def _examine(context: Any, job: Callable[[Callable[[], Any], str, str], Any]) -> str | None:
    """Ask one executor what it has; ship the package unless it is there. Return the archive's name."""
    from millpond import __version__

    wanted = functions.signatures().keys()

    def look(_: int) -> dict[str, Any]:
        import socket
        import sys
        from importlib import metadata, util

        found: dict[str, Any] = {"host": socket.gethostname(), "python": list(sys.version_info[:2])}
        for name in ("millpond", "pyarrow", "polars"):
            try:
                found[name] = metadata.version(name) if util.find_spec(name) else None
            except metadata.PackageNotFoundError:
                found[name] = ""
        return found

    here = ".".join(map(str, sys.version_info[:2]))
    hint = f"executors have to run Python {here}, as here: set PYSPARK_PYTHON, or spark.pyspark.python"
    found = job(lambda: context.parallelize([0], 1).map(look).collect()[0], "an executor does not run Python", hint)
    host = found["host"]
    if found["pyarrow"] is None:
        raise ConfigError(f"aggregate: pyarrow is missing on Spark's executor on {host}", "pip install pyarrow there")
    if wanted and found["polars"] is None:
        raise ConfigError(
            f"aggregate: Polars is missing on Spark's executor on {host}, and functions need it",
            "pip install polars there",
        )
    if found["millpond"] == __version__:
        return None
    from pyspark import SparkFiles

    # A folder that ends with the session.
    archive = _archive(__version__, Path(SparkFiles.getRootDirectory()) / "millpond")
    _LOG.info("millpond %s is sent to Spark's executors as an archive", __version__)
    context.addArchive(f"{archive}#{archive.stem}")
    return archive.stem


def _archive(version: str, folder: Path) -> Path:
    """Return a zip of this package as it is installed; native code cannot be imported out of it, so it is unpacked."""
    package = Path(__file__).resolve().parent
    native = next(package.glob("_native*.so"))
    stem = f"millpond-{version}-{native.stat().st_mtime_ns:x}"
    folder.mkdir(exist_ok=True)
    archive = folder / f"{stem}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for file in sorted([*package.glob("*.py"), native]):
            out.write(file, f"millpond/{file.name}")
    return archive


def _callables() -> bytes:
    """Return the user's functions in a form that is read once the package is there."""
    from pyspark import cloudpickle

    callables = functions.callables()
    try:
        return bytes(cloudpickle.dumps(callables))
    except Exception as error:
        raise ConfigError(
            f"aggregate: functions ({', '.join(callables)}) cannot be sent to Spark's executors: {error}",
            "a function must not hold what cannot be pickled (connections, locks, sessions)",
        ) from error


def _raised(said: dict[str, Any]) -> errors.Error:
    """Return a task's error as one of this run."""
    kinds = {kind.__name__: kind for kind in (ConfigError, DataError, ExternalError)}
    kind = kinds.get(said["kind"], errors.BugError)
    error = kind(f"{said['message']} (Spark's executor on {said['host']})", said["hint"])
    vars(error)["forgotten"] = said["forgotten"]  # which native code looks for
    return error


def _tasks(
    settings: str, order: str, ranges: list[bytes], *, archive: str | None, callables: bytes, tries: int
) -> tuple[Callable[[Iterable[Any]], Iterator[Any]], Callable[[Iterable[Any]], Iterator[Any]]]:
    """Return what runs on the executors: `fold` from numbers of tasks to parts, `merge` from parts to rows.

    Both are pickled with all that they name, since the executors may not have this module: they refer to nothing of it.
    A failure is an answer too, of part -1, since a trace of Spark's tells it worse; but for one that another executor
    may not have, which Spark is left to try again.
    """

    def native() -> Any:
        import sys

        if archive is not None:
            from pyspark import SparkFiles

            place = SparkFiles.get(archive)
            if place not in sys.path:
                sys.path.insert(0, place)
        from millpond import _native

        return _native

    def batch(part: int, partial: bytes) -> Any:
        import pyarrow as pa

        return pa.RecordBatch.from_arrays([pa.array([part], pa.int32()), pa.array([partial])], ["part", "partial"])

    def failed(error: Exception, *, last: bool) -> Any:
        import json
        import socket

        if getattr(error, "retryable", False) and not getattr(error, "forgotten", False) and not last:
            raise error
        kind, hint = type(error).__name__, getattr(error, "hint", "")
        message = getattr(error, "message", None)
        if message is None:
            kind, message = "ConfigError", f"aggregate: a task cannot run: {kind}: {error}"
            hint = "have what it names on the executors, or send it with addPyFile"
        forgotten = bool(getattr(error, "forgotten", False))
        said = {"kind": kind, "message": message, "hint": hint, "forgotten": forgotten, "host": socket.gethostname()}
        return batch(-1, json.dumps(said).encode())

    def fold(batches: Iterable[Any]) -> Iterator[Any]:
        from pyspark import TaskContext

        context = TaskContext.get()
        last = context is None or context.attemptNumber() + 1 >= min(tries, 2)
        try:
            kernel = native()
            import pickle

            asked = pickle.loads(callables)  # noqa: S301 - the driver's own
            for numbers in batches:
                for number in numbers.column(0).to_pylist():
                    parts = kernel.fold(settings, order, ranges[number], kernel.CancelToken(), asked)
                    for part, partial in parts:
                        yield batch(part, partial)
        except Exception as error:  # noqa: BLE001 - told as an answer
            yield failed(error, last=last)

    def merge(batches: Iterable[Any]) -> Iterator[Any]:
        merger = None
        try:
            kernel = native()
            for one in batches:
                for part, partial in zip(*(column.to_pylist() for column in one.columns), strict=True):
                    if part < 0:
                        yield batch(part, partial)
                        continue
                    merger = merger or kernel.Merger(settings)
                    merger.add(partial)
            if merger is not None:
                yield batch(0, merger.done())
        except Exception as error:  # noqa: BLE001 - told as an answer
            yield failed(error, last=True)

    return fold, merge
