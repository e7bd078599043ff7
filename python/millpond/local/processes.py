"""Which processes belong to a stack: told by a mark in their environment, so that nothing need be remembered.

A record of process ids can be lost in a crash and its ids reused; the mark is there from the first instruction of a
server to its last, and no other process has it.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

_STACK, _SERVER = "MILLPOND_LOCAL_STACK", "MILLPOND_LOCAL_SERVER"


def spawn(
    command: list[str], *, stack: Path, server: str, log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a marked server in a session of its own; its output is appended to `log`."""
    environment = {key: value for key, value in os.environ.items() if key not in {"JAVA_TOOL_OPTIONS", "PGDATA"}}
    environment |= {_STACK: str(stack), _SERVER: server, "LC_ALL": "C.UTF-8"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=cwd,
        )


def running(stack: Path) -> dict[str, psutil.Process]:
    """Return the live main process of each server of `stack`, by the server's name."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter(["create_time"]):
        try:
            environment = process.environ()
            if environment.get(_STACK) != str(stack) or process.status() == psutil.STATUS_ZOMBIE:
                continue
        except (psutil.Error, OSError):
            continue
        name = environment.get(_SERVER, "")
        older = found.get(name)
        # A server's own children carry its mark too: the main process is the oldest.
        if name and (older is None or process.create_time() < older.create_time()):
            found[name] = process
    return found


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a server and to its children (PostgreSQL's backends are processes of their own)."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def end(processes: list[psutil.Process], patience: float = 20.0) -> None:
    """End processes: SIGTERM (SIGINT where that is the clean way), then SIGKILL after `patience` seconds."""
    families: list[psutil.Process] = []
    for process in processes:
        try:
            families += [process, *process.children(recursive=True)]
            process.send_signal(signal.SIGCONT)
            # PostgreSQL: SIGTERM waits for clients to leave, SIGINT ends their sessions.
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    for survivor in gone(families, patience):
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    gone(families, 5.0)


def gone(processes: list[psutil.Process], patience: float) -> list[psutil.Process]:
    """Wait up to `patience` seconds and return those still alive; a zombie is as good as gone."""
    deadline = time.monotonic() + patience
    while True:
        alive = [process for process in processes if _alive(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    try:
        # Reaps a child of ours; others are reaped by their own parent.
        if process.ppid() == os.getpid():
            os.waitpid(process.pid, os.WNOHANG)
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ChildProcessError):
        return False
