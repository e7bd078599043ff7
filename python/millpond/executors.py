"""What Spark's executors have, are sent and run: the probe, the package's way to them, the two kinds of tasks.

Refuses to know a session's life ([`spark.py`]), to plan and to see a record: that is native code, here and there. What
a task needs, the MongoDB URI among it, travels in its closure alone, which Spark neither shows nor logs (I6).
"""

import logging
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from millpond import functions
from millpond.errors import ConfigError, ExternalError

_LOG = logging.getLogger("millpond.aggregate")
# Spark's name of this error; it compares before anything else runs.
_OTHER_PYTHON = "[PYTHON_VERSION_MISMATCH]"


def examine(context: Any, job: Callable[[Callable[[], Any], str, str], Any]) -> str | None:
    """Ask one executor what it has; ship the package unless it is there. Return the archive's name.

    Raises:
        ConfigError: It cannot run what it will be given; the message names the host.
        ExternalError: It did not answer.
    """
    from millpond import __version__

    wanted = functions.signatures().keys()

    def look(_: int) -> dict[str, Any]:
        import socket
        from importlib import metadata, util

        import pyspark

        found: dict[str, Any] = {"host": socket.gethostname(), "spark": pyspark.__version__}
        for name in ("millpond", "pyarrow", "polars"):
            try:
                found[name] = metadata.version(name) if util.find_spec(name) else None
            except metadata.PackageNotFoundError:
                found[name] = ""
        return found

    here = ".".join(map(str, sys.version_info[:2]))
    hint = f"executors have to run Python {here}, as here: PYSPARK_PYTHON, in this process's environment, names theirs"
    try:
        found = job(lambda: context.parallelize([0], 1).map(look).collect()[0], "Python on an executor", hint)
    except ExternalError as error:
        if _OTHER_PYTHON in error.message:
            raise ConfigError(error.message, hint) from error
        raise
    host = found["host"]
    if _minor(found["spark"]) != _minor(context.version):
        raise ConfigError(
            f"aggregate: Spark {found['spark']} on the executor on {host}, {context.version} here",
            f"pip install pyspark=={found['spark']} here, or run Spark {context.version} there",
        )
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


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


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


def callables() -> bytes:
    """Return the user's functions in a form that is read once the package is there."""
    from pyspark import cloudpickle

    own = functions.callables()
    try:
        return bytes(cloudpickle.dumps(own))
    except Exception as error:
        raise ConfigError(
            f"aggregate: functions ({', '.join(own)}) cannot be sent to Spark's executors: {error}",
            "a function must not hold what cannot be pickled (connections, locks, sessions)",
        ) from error


def tasks(
    settings: str, order: str, ranges: list[bytes], *, archive: str | None, asked: bytes, tries: int
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

            own = pickle.loads(asked)  # noqa: S301 - the driver's own
            for numbers in batches:
                for number in numbers.column(0).to_pylist():
                    parts = kernel.fold(settings, order, ranges[number], kernel.CancelToken(), own)
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
