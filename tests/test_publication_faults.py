"""PostgreSQL and the run killed at every step of a publication, before readers at full speed: 0 half reports (I2)."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.fault_servers import met
from tests.report_tables import COLUMNS, until
from tests.test_mutants import die

import millpond
from millpond.local import Stack

DAY = "2025-10-31"
KEYS = 5_000
STEPS = [
    "after_delete:1", "while_copying:1", "after_copy:1", "after_delete:3", "while_copying:3", "after_copy:3",
    "before_commit", "after_commit",
]  # fmt: skip
SELECT = {table: f"SELECT count(*), min(view_count), max(view_count) FROM {table}" for table in COLUMNS}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Iterator[Stack]:
    """A PostgreSQL of this file's own."""
    stack = Stack(tmp_path_factory.mktemp("own") / "stack")
    try:
        stack.up(["postgres"])
        yield stack
    finally:
        stack.down(delete=True)


@pytest.fixture
def place(own, name) -> Iterator[str]:
    """A DSN into it."""
    dsn = str(own.status()["postgres"]["dsn"])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield make_conninfo(dsn, options=f"-c search_path={name}", connect_timeout=60)


class Source:
    """Events whose every key has `generation` views."""

    def __init__(self, servers: Any, name: str) -> None:
        """Make the collection."""
        self.servers, self.name, self.generation = servers, name, 0
        with servers.mongo() as client:
            client["tests"][name].create_index("timestamp")

    def add(self) -> None:
        """One view more of every key."""
        self.generation += 1
        with self.servers.mongo() as client:
            client["tests"][self.name].insert_many(
                [
                    {"product_id": f"{i:0>200}", "store_id": f"{i:0>200}", "referrer_url": f"{i:0>200}",
                     "device_id": "d", "timestamp": f"{DAY}T{i % 24:02}:00:00Z"}
                    for i in range(KEYS)
                ]
            )  # fmt: skip

    def words(self, dsn: str) -> dict[str, Any]:
        """Arguments of an aggregate."""
        place = {"database": "tests", "collection": self.name, "dates": DAY}
        return {"mongo_uri": self.servers.mongo_uri, "postgres_dsn": dsn, **place}


@pytest.fixture
def source(servers, name) -> Source:
    return Source(servers, name)


def generation(dsn: str) -> int:
    """The generation that all three tables hold whole, in one snapshot; the ledger says the same."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found = {connection.execute(query).fetchone() for query in SELECT.values()}
        ledger = connection.execute("SELECT max(counted) FROM millpond_runs").fetchone()
    ((rows, least, most),) = [row or () for row in found]
    assert rows == KEYS, found
    assert least == most, found
    assert ledger == (KEYS * least,)
    return int(least)


@contextmanager
def readers(dsn: str, count: int = 2) -> Iterator[list[int]]:
    """Readers that ask without a pause; what is not one whole generation is raised at the end."""
    seen: list[int] = []
    wrong: list[BaseException] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                seen.append(generation(dsn))
            except psycopg.OperationalError:
                ended.wait(0.01)  # the server was killed, and is on its way
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_run_killed_at_every_step(servers, source, postgres):
    source.add()
    millpond.aggregate(**source.words(postgres))
    call = f"millpond.aggregate(**{source.words(postgres)!r})"
    source.add()
    with readers(postgres) as seen:
        for step in STEPS:
            die(call, None, f"aggregate.{step}")
            assert generation(postgres) == 1 + (step == "after_commit"), step
        source.add()
        millpond.aggregate(**source.words(postgres))
        until(lambda: seen[-1] == 3)
    assert set(seen) == {1, 2, 3}
    assert len(seen) > 50


@pytest.mark.parametrize("step", ["while_copying:2", "before_commit", "after_commit"])
def test_a_server_killed_at(own, source, place, step):
    source.add()
    millpond.aggregate(**source.words(place))
    source.add()
    with readers(place, 1):
        with met(step, source.words(place)) as run:
            own.kill("postgres")
        own.restart("postgres")
        if step == "after_commit":
            assert run.answer["published"], run.answer
            assert generation(place) == 2
            return
        assert (run.answer["error"], run.answer["retryable"]) == ("ExternalError", True), run.answer
        assert generation(place) == 1
        assert millpond.aggregate(**source.words(place)).published
        assert generation(place) == 2


@contextmanager
def cut_at_commit(dsn: str, *, arrives: bool) -> Iterator[str]:
    """A way to PostgreSQL that breaks when a commit passes: before it arrives, or before its answer does."""
    place = conninfo_to_dict(dsn)
    target = (str(place["host"]), int(place["port"] or 0))

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(target) as server:
                threading.Thread(target=self.back, args=(server,), daemon=True).start()
                while data := self.request.recv(65_536):
                    commit = b"COMMIT\0" in data
                    if not commit or arrives:
                        server.sendall(data)
                    if commit:
                        server.settimeout(60)
                        if arrives:
                            self.answered.wait(60)
                        break
                # Both ends, at once: a session that PostgreSQL still believes in would keep its locks.
                for end in (server, self.request):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

        def setup(self) -> None:
            self.answered = threading.Event()
            self.committing = False

        def back(self, server: socket.socket) -> None:
            with suppress(OSError):
                while data := server.recv(65_536):
                    if b"COMMIT\0" in data:
                        self.answered.set()
                        return
                    self.request.sendall(data)

    class Ways(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Ways(("127.0.0.1", 0), Way) as ways:
        threading.Thread(target=ways.serve_forever, daemon=True).start()
        try:
            yield make_conninfo(dsn, host="127.0.0.1", port=ways.server_address[1])
        finally:
            ways.shutdown()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_outcome_is_not_known_says_so_and_a_rerun_is_safe(servers, source, postgres, arrives):
    source.add()
    millpond.aggregate(**source.words(postgres))
    source.add()
    with cut_at_commit(postgres, arrives=arrives) as way, pytest.raises(millpond.ExternalError) as told:
        millpond.aggregate(**source.words(way))
    assert told.value.retryable
    assert "commit" in str(told.value)
    assert "outcome" in str(told.value)
    assert "run it again" in (told.value.hint or "")
    until(lambda: generation(postgres) == (2 if arrives else 1))
    again = millpond.aggregate(**source.words(postgres))
    assert (again.published, again.superseded) == (True, [])
    assert generation(postgres) == 2
