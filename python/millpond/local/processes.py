"""Which processes belong to a stack: told by a mark in their environment, so that nothing need be remembered.

A record of process ids can be lost in a crash and its ids reused; the mark is there from the first instruction of a
server to its last, and no other process has it. What prepares a server (formatting, initdb) is marked as well, as
``<server>:<step>``: it can outlive the `up` that began it.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

_STACK, _SERVER = "MILLPOND_LOCAL_STACK", "MILLPOND_LOCAL_SERVER"
_START = b"--- millpond local starts "


def spawn(
    command: list[str], *, stack: Path, server: str, log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a marked server in a session of its own; its output is appended to `log`, after a line that says so."""
    with log.open("ab") as output:
        output.write(_START + f"{server} {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
        output.flush()
        return subprocess.Popen(
            command,
            env=_environment(stack, server),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=cwd,
        )


def prepare(command: list[str], *, stack: Path, server: str, step: str) -> subprocess.CompletedProcess[str]:
    """Run a marked step before a server's start to its end."""
    environment = _environment(stack, f"{server}:{step}")
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def _environment(stack: Path, mark: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"JAVA_TOOL_OPTIONS", "PGDATA"}}
    return kept | {_STACK: str(stack), _SERVER: mark, "LC_ALL": "C.UTF-8"}


def last_start(log: Path) -> int:
    """Return the offset in `log` of the server's latest start."""
    return max(log.read_bytes().rfind(_START), 0) if log.exists() else 0


def marked(stack: Path) -> list[tuple[str, psutil.Process]]:
    """Return every live process that carries the mark of `stack`, with the mark, oldest first."""
    found: list[tuple[str, psutil.Process]] = []
    for process in psutil.process_iter(["create_time"]):
        try:
            environment = process.environ()
            if environment.get(_STACK) == str(stack) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((environment.get(_SERVER, ""), process))
        except (psutil.Error, OSError):
            continue
    return sorted(found, key=lambda one: one[1].create_time())


def running(stack: Path) -> dict[str, psutil.Process]:
    """Return the live main process of each server of `stack`, by the server's name."""
    found: dict[str, psutil.Process] = {}
    # A server's own children carry its mark too: the main process is the oldest.
    for name, process in marked(stack):
        found.setdefault(name, process)
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
            # A frozen backend would keep its server waiting.
            send(process, signal.SIGCONT)
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
