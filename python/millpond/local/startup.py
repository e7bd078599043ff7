"""Starting servers and waiting until they are ready, several at once; what a server said when it did not come up.

Refuses to end anything: who asked for the start knows what was there before.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import psutil

from millpond.local import kafka, mongo, postgres, processes
from millpond.local.errors import LocalError
from millpond.local.layout import Layout

# A whole stack beside other work: of a minute, two thirds were seen to go.
_PATIENCE = {"remote": 240.0, "kafka": 240.0, "mongo": 120.0, "postgres": 120.0}
_LOG_LINES = 15


def start(layout: Layout, names: list[str]) -> None:
    """Start those of `names` that do not run, and wait until all are ready: a running one may have lost its `up`.

    Raises:
        LocalError: A server did not come up; the message ends with its log. The others are not waited for.
    """
    alive = processes.running(layout.directory)
    failed = threading.Event()
    with ThreadPoolExecutor(len(names)) as pool:
        tasks = [pool.submit(_start_one, layout, name, alive.get(name), failed) for name in names]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            failed.set()
            raise


def end_of_log(log: Path, begin: int) -> str:
    """Return what a message shows of a log: its last lines after offset `begin`."""
    lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()[-_LOG_LINES:]
    return f"the end of {log}:\n" + "\n".join(lines)


def _start_one(layout: Layout, name: str, process: psutil.Process | None, failed: threading.Event) -> None:
    group = name.split("-", maxsplit=1)[0]
    log = layout.log(name)
    child = None
    if process is None:
        command = _command(layout, name)
        if failed.is_set():
            return
        child = processes.spawn(command, stack=layout.directory, server=name, log=log, cwd=Path("/"))

    def ended() -> str | None:
        if child is not None:
            return None if child.poll() is None else f"ended with code {child.returncode}"
        return None if process is None or processes.gone([process], 0) else "ended"

    begin = processes.last_start(log)
    deadline = time.monotonic() + _PATIENCE[group]
    while not failed.is_set():
        ready = _ready(layout, name, begin)
        if (end := ended()) is not None:
            raise LocalError(f"{name} {end}; {end_of_log(log, begin)}")
        if ready:
            return
        if time.monotonic() > deadline:
            raise LocalError(f"{name} is not ready after {_PATIENCE[group]:.0f} s; {end_of_log(log, begin)}")
        time.sleep(0.1)


def _command(layout: Layout, name: str) -> list[str]:
    if name == "postgres":
        return postgres.command(layout)
    return mongo.command(layout, name) if name.startswith("mongo") else kafka.command(layout, name)


def _ready(layout: Layout, name: str, begin: int) -> bool:
    if name == "postgres":
        return postgres.ready(layout)
    return mongo.ready(layout, name) if name.startswith("mongo") else kafka.ready(layout.log(name), begin)
