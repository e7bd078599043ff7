"""A stack of servers: up, down, status, and the four ways to disturb one of them."""

import fcntl
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from millpond.local import kafka, mongo, postgres, processes
from millpond.local.errors import LocalError
from millpond.local.layout import BROKERS, DEFAULT_DIRECTORY, Layout

__all__ = ["GROUPS", "LocalError", "Stack"]

GROUPS = ("remote", "kafka", "mongo", "postgres")
_PATIENCE = {"remote": 60.0, "kafka": 60.0, "mongo": 30.0, "postgres": 30.0}
_LOG_LINES = 15


class Stack:
    """Servers under one directory; several stacks stand beside each other.

    Args:
        directory: Where ports, data and logs are kept. Default: a folder of the user's cache.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        """Point at a directory; nothing is started or made."""
        self.directory = Path(directory or DEFAULT_DIRECTORY).resolve()

    def up(self, only: Iterable[str] = GROUPS, mongo_nodes: int | None = None) -> dict[str, Any]:
        """Start what is not running yet, in parallel, and return `status()`.

        Args:
            only: Groups to start, of remote, kafka, mongo, postgres.
            mongo_nodes: 1 (default) or 3; fixed by the first `up` of a directory.

        Raises:
            LocalError: A server did not come up; the message ends with its log, and what this call started is ended.
        """
        wanted = tuple(only)
        for group in wanted:
            if group not in GROUPS:
                raise LocalError(f"unknown group {group!r}: choose from {', '.join(GROUPS)}")
        with self._locked():
            layout = Layout.make(self.directory, mongo_nodes)
            if mongo_nodes not in (None, layout.mongo_nodes):
                raise LocalError(
                    f"{self.directory} was made with {layout.mongo_nodes} MongoDB nodes: use another --dir"
                )
            alive = processes.running(self.directory)
            names = [name for group in wanted for name in self._names(layout, group) if name not in alive]
            try:
                self._start(layout, names)
                if "mongo" in wanted:
                    mongo.form_replica_set(layout)
            except BaseException:
                self._end([process for name, process in processes.running(self.directory).items() if name in names])
                raise
        return self.status()

    def down(self, *, delete: bool = False) -> None:
        """End every server of this stack, and nothing else. With `delete`, remove its directory too."""
        if self.directory.exists():
            with self._locked():
                self._end(list(processes.running(self.directory).values()))
                layout = Layout.load(self.directory)
                if delete:
                    shutil.rmtree(postgres.data_directory(layout), ignore_errors=True)
        if delete:
            shutil.rmtree(self.directory, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """Return addresses and process ids (None: not running) of the servers that were ever started here."""
        layout = Layout.load(self.directory)
        alive = processes.running(self.directory)

        def server(name: str) -> dict[str, Any]:
            process = alive.get(name)
            log = layout.log(name)
            return {"name": name, "port": layout.ports[name], "pid": process and process.pid, "log": str(log)}

        def started(name: str) -> bool:
            return bool(layout.ports) and layout.log(name).exists()

        status: dict[str, Any] = {}
        if started("remote"):
            user, password = kafka.credentials(layout.jaas)
            remote = server("remote")
            status["remote"] = {"bootstrap": f"127.0.0.1:{remote['port']}", "username": user, "password": password}
            status["remote"] |= {"jaas": str(layout.jaas), "pid": remote["pid"], "log": remote["log"]}
        if started(BROKERS[0]):
            bootstrap = ",".join(f"127.0.0.1:{layout.ports[name]}" for name in BROKERS)
            status["kafka"] = {"bootstrap": bootstrap, "brokers": [server(name) for name in BROKERS]}
        if started("mongo-1"):
            status["mongo"] = {"uri": mongo.uri(layout), "nodes": [server(name) for name in mongo.nodes(layout)]}
        if started("postgres"):
            database = server("postgres")
            status["postgres"] = {"dsn": postgres.dsn(layout), **{k: database[k] for k in ("port", "pid", "log")}}
        return status

    def kill(self, name: str) -> None:
        """End a server with SIGKILL, as a power cut would."""
        process = self._process(name)
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        processes.send(process, signal.SIGKILL)
        processes.gone(family, 10.0)

    def stop(self, name: str) -> None:
        """Freeze a server with SIGSTOP: its connections stay open and answer nothing."""
        processes.send(self._process(name), signal.SIGSTOP)

    def cont(self, name: str) -> None:
        """Let a frozen server go on."""
        processes.send(self._process(name), signal.SIGCONT)

    def restart(self, name: str) -> None:
        """End a server cleanly when it runs, start it on the same ports, and wait until it is ready."""
        with self._locked():
            layout = Layout.load(self.directory)
            self._known(layout, name)
            process = processes.running(self.directory).get(name)
            if process is not None:
                self._end([process])
            self._start(layout, [name])

    def _start(self, layout: Layout, names: list[str]) -> None:
        if not names:
            return
        with ThreadPoolExecutor(len(names)) as pool:
            for outcome in [pool.submit(self._start_one, layout, name) for name in names]:
                outcome.result()

    def _start_one(self, layout: Layout, name: str) -> None:
        group = name.split("-", maxsplit=1)[0]
        log = layout.log(name)
        if group in ("remote", "kafka"):
            command = kafka.command(layout, name)
        elif group == "mongo":
            command = mongo.command(layout, name)
        else:
            command = postgres.command(layout)
        log.touch()
        begin = log.stat().st_size
        process = processes.spawn(command, stack=self.directory, server=name, log=log, cwd=Path("/"))
        deadline = time.monotonic() + _PATIENCE[group]
        while True:
            if group in ("remote", "kafka"):
                ready = kafka.ready(log, begin)
            else:
                ready = mongo.ready(layout, name) if group == "mongo" else postgres.ready(layout)
            ended = process.poll()
            if ready and ended is None:
                return
            if ended is not None or time.monotonic() > deadline:
                said = (
                    f"ended with code {ended}" if ended is not None else f"is not ready after {_PATIENCE[group]:.0f} s"
                )
                lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()[-_LOG_LINES:]
                raise LocalError(f"{name} {said}; the end of {log}:\n" + "\n".join(lines))
            time.sleep(0.1)

    def _process(self, name: str) -> psutil.Process:
        self._known(Layout.load(self.directory), name)
        process = processes.running(self.directory).get(name)
        if process is None:
            raise LocalError(f"{name} of {self.directory} is not running")
        return process

    @staticmethod
    def _known(layout: Layout, name: str) -> None:
        names = [name for group in GROUPS for name in Stack._names(layout, group)]
        if name not in names or not layout.ports:
            raise LocalError(f"no server {name!r} in {layout.directory}: there are {', '.join(names)}")

    @staticmethod
    def _names(layout: Layout, group: str) -> tuple[str, ...]:
        return {"kafka": BROKERS, "mongo": mongo.nodes(layout)}.get(group, (group,))

    @staticmethod
    def _end(ending: list[psutil.Process]) -> None:
        processes.end(ending)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
