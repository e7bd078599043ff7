"""A stack of servers: up, down, status, and the four ways to disturb one of them."""

import fcntl
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from millpond.local import kafka, mongo, postgres, processes, startup
from millpond.local.errors import LocalError
from millpond.local.layout import BROKERS, DEFAULT_DIRECTORY, Layout

__all__ = ["GROUPS", "LocalError", "Stack"]

GROUPS = ("remote", "kafka", "mongo", "postgres")


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
        wanted = tuple(dict.fromkeys(only))
        for group in wanted:
            if group not in GROUPS:
                raise LocalError(f"unknown group {group!r}: choose from {', '.join(GROUPS)}")
        if not wanted:
            raise LocalError(f"no group to start: choose from {', '.join(GROUPS)}")
        with self._locked():
            layout = Layout.make(self.directory, mongo_nodes)
            if mongo_nodes not in (None, layout.mongo_nodes):
                raise LocalError(
                    f"{self.directory} was made with {layout.mongo_nodes} MongoDB nodes: use another --dir"
                )
            self._end_leftovers()
            names = [name for group in wanted for name in self._names(layout, group)]
            alive = processes.running(self.directory)
            for name in names:
                if name in alive and alive[name].status() == psutil.STATUS_STOPPED:
                    raise LocalError(f"{name} is frozen: millpond local cont {name} --dir {self.directory}")
            try:
                startup.start(layout, names)
                if "mongo" in wanted:
                    mongo.form_replica_set(layout)
            except BaseException:
                # The mark may have a step behind the name: what prepares a server goes as well.
                started = [name for name in names if name not in alive]
                processes.end([p for mark, p in processes.marked(self.directory) if mark.partition(":")[0] in started])
                raise
        return self.status()

    def down(self, *, delete: bool = False) -> None:
        """End every server of this stack, and nothing else. With `delete`, remove its directory too."""
        if self.directory.exists():
            with self._locked():
                processes.end([process for _, process in processes.marked(self.directory)])
                if delete:
                    postgres.remove_data(Layout.load(self.directory))
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
                processes.end([process])
            self._end_leftovers()
            startup.start(layout, [name])

    def _end_leftovers(self) -> None:
        """End what still prepares a server for an `up` that was killed: its work is begun anew."""
        processes.end([process for mark, process in processes.marked(self.directory) if ":" in mark])

    def _process(self, name: str) -> psutil.Process:
        self._known(Layout.load(self.directory), name)
        process = processes.running(self.directory).get(name)
        if process is None:
            raise LocalError(
                f"{name} of {self.directory} is not running: millpond local restart {name} --dir {self.directory}"
            )
        return process

    @staticmethod
    def _known(layout: Layout, name: str) -> None:
        if not layout.ports:
            raise LocalError(
                f"nothing was started under {layout.directory}: millpond local up --dir {layout.directory}"
            )
        names = [name for group in GROUPS for name in Stack._names(layout, group)]
        if name not in names:
            raise LocalError(f"no server {name!r} in {layout.directory}: there are {', '.join(names)}")

    @staticmethod
    def _names(layout: Layout, group: str) -> tuple[str, ...]:
        return {"kafka": BROKERS, "mongo": mongo.nodes(layout)}.get(group, (group,))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
