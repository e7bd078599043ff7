"""Runs in Spark's own environment: one session, and calls of `millpond.aggregate` on it, one JSON line each.

A call is `{"positional": [...], "keywords": {...}, "conf": {...}, "cancel_after": seconds}`; the answer holds the books
and the rows of the frames, or the error. `registered` is used by the tests' own process too, for the same functions.
"""

import json
import sys
import threading
import time
from typing import Any


def registered() -> None:
    """Functions of a user's own; nested, so that they are pickled with the call."""
    import millpond

    @millpond.function("region")
    def region(store: Any) -> Any:
        import polars as pl

        return store.replace_strict({"US": "America", "VN": "Asia"}, default="Europe", return_dtype=pl.String)

    @millpond.function("slowly")
    def slowly(store: Any) -> Any:
        time.sleep(0.3)
        return store

    @millpond.function("dies")
    def dies(store: Any) -> Any:
        """As the kernel ends what takes too much memory: this Python process, or the JVM that is its grandparent."""
        import os
        import signal
        from pathlib import Path

        victim = os.environ.get("MILLPOND_TEST_DIES")
        if victim:
            daemon = os.getppid()
            parent = int(Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(os.getpid() if victim == "python" else parent, signal.SIGKILL)
            time.sleep(30)
        return store

    @millpond.function("straggles")
    def straggles(store: Any) -> Any:
        """Slow in the first try of the first task, and nowhere else."""
        import sys

        context = sys.modules["pyspark"].TaskContext.get() if "pyspark" in sys.modules else None
        if context is not None and context.partitionId() == 0 and context.attemptNumber() == 0:
            time.sleep(20)
        return store

    @millpond.function("broken")
    def broken(store: Any) -> Any:
        raise ValueError("of the test")


def rows(tables: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Every row of every table as text."""
    return {name: [[repr(cell) for cell in row] for row in frame] for name, frame in tables.items()}


def answer(session: Any, call: dict[str, Any]) -> dict[str, Any]:
    import millpond

    for name, value in call.get("conf", {}).items():
        session.conf.set(name, value)
    token = millpond.CancelToken()
    keywords = {"spark": session, "cancel": token} | call["keywords"]
    if call.get("cancel_after"):
        threading.Timer(call["cancel_after"], token.cancel).start()
    began = time.monotonic()
    try:
        result = millpond.aggregate(*call["positional"], engine="spark", **keywords)
    except millpond.Error as error:
        kind = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        return {"error": kind, "seconds": time.monotonic() - began}
    finally:
        for name in call.get("conf", {}):
            session.conf.unset(name)
    told = {"books": result.to_dict(), "tables": rows(result.tables), "seconds": time.monotonic() - began}
    return told | {"archives": list(session.sparkContext.listArchives)}


def main(settings: dict[str, str]) -> None:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    registered()
    print(json.dumps({"application": session.sparkContext.applicationId}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(session, json.loads(line))), flush=True)
    session.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
