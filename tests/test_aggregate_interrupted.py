"""Aggregates that are told to stop by a signal, a token or a callback: they end soon and publish nothing (I5).

A run is met where it cannot go on by itself: at a MongoDB that no longer answers, or at the lock of its date.
"""

import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from tests.promptness import within
from tests.report_tables import counts, held, published, store, until, views, waiting

import millpond

DAY = "2025-10-31"
# The projection of a scan; nothing else that an aggregate asks holds it.
SCAN = b"referrer_url"


@pytest.fixture
def words(servers, name, postgres) -> dict[str, Any]:
    """Arguments of an aggregate over a date whose older report stands already."""
    store(servers, name, views(DAY, 2))
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": DAY}
    millpond.aggregate(servers.mongo_uri, postgres, **words)
    store(servers, name, views(DAY, 3))
    return words


@contextmanager
def in_the_scan(servers: Any, dsn: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """A way to MongoDB that swallows the scan's question, and whether it has done so."""
    with servers.mongo() as client:
        client.admin.command("ping")
        primary = client.primary
    swallowed, ended = threading.Event(), threading.Event()

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two went away, which is what the tests are about
            while data := source.recv(65_536):
                if SCAN in data:
                    swallowed.set()
                    ended.wait(60)
                    return
                target.sendall(data)

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(primary) as server:
                threading.Thread(target=carry, args=(server, self.request), daemon=True).start()
                carry(self.request, server)

        def finish(self) -> None:
            self.request.close()

    class Ways(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Ways(("127.0.0.1", 0), Way) as ways:
        threading.Thread(target=ways.serve_forever, daemon=True).start()
        try:
            yield f"mongodb://127.0.0.1:{ways.server_address[1]}/?directConnection=true", swallowed.is_set
        finally:
            ended.set()
            ways.shutdown()


@contextmanager
def at_the_lock(servers: Any, dsn: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The lock of the date held by another, and whether a run waits for it."""
    with held(dsn, DAY):
        yield servers.mongo_uri, lambda: len(waiting(dsn)) == 1


PLACES = [in_the_scan, at_the_lock]


def nothing_happened(dsn: str) -> None:
    until(lambda: not waiting(dsn))
    assert counts(dsn) == {("p", DAY): 2}
    with psycopg.connect(dsn) as connection:
        assert len(connection.execute("SELECT FROM millpond_runs").fetchall()) == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_within_two_seconds(servers, postgres, words, place, number):
    def once() -> float:
        with place(servers, postgres) as (mongo, met):
            code = f"import millpond; millpond.aggregate({mongo!r}, {postgres!r}, **{words!r})"
            process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
            until(met)
            sent = time.monotonic()
            process.send_signal(number)
            _, told = process.communicate(timeout=120)
            took = time.monotonic() - sent
            assert process.returncode == -number
            assert ("KeyboardInterrupt" in told) == (number == signal.SIGINT)
        nothing_happened(postgres)
        return took

    within(2.0, once)
    millpond.aggregate(servers.mongo_uri, postgres, **words)
    assert counts(postgres) == {("p", DAY): 5}


@pytest.mark.parametrize("place", PLACES)
def test_a_token_cancels_within_two_seconds(servers, postgres, words, place):
    def once() -> float:
        token = millpond.CancelToken()
        sent: list[float] = []

        def cancel(met: Callable[[], bool]) -> None:
            until(met)
            sent.append(time.monotonic())
            token.cancel()
            token.cancel()

        with place(servers, postgres) as (mongo, met):
            canceller = threading.Thread(target=cancel, args=(met,))
            canceller.start()
            with pytest.raises(millpond.Cancelled) as told:
                millpond.aggregate(mongo, postgres, **words, cancel=token)
            took = time.monotonic() - sent[0]
            canceller.join()
        assert told.value.outcome is not None
        assert told.value.outcome["written"] == 0
        assert not told.value.retryable
        nothing_happened(postgres)
        return took

    within(2.0, once)


def test_a_token_that_was_cancelled_before_publishes_nothing(servers, postgres, words):
    token = millpond.CancelToken()
    token.cancel()
    with pytest.raises(millpond.Cancelled):
        millpond.aggregate(servers.mongo_uri, postgres, **words, cancel=token)
    nothing_happened(postgres)


class Enough(BaseException):
    """What a time-out of a scheduler looks like: no Exception."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", [Enough, KeyboardInterrupt, ValueError])
def test_what_a_callback_raises_passes_unchanged(servers, postgres, words, place, family):
    def once() -> float:
        raised = family("enough")
        when: list[float] = []

        with place(servers, postgres) as (mongo, met):

            def told(now: millpond.Progress) -> None:
                if met():
                    when.append(time.monotonic())
                    raise raised

            with pytest.raises(family) as caught:
                millpond.aggregate(mongo, postgres, **words, progress=told)
            took = time.monotonic() - when[0]
        assert caught.value is raised
        assert len(when) == 1
        nothing_happened(postgres)
        return took

    within(2.0, once)


def test_progress_is_told_at_most_ten_times_a_second_and_once_at_the_end(servers, postgres, words):
    seen: list[millpond.Progress] = []
    call = lambda: millpond.aggregate(servers.mongo_uri, postgres, **words, progress=seen.append)
    runner = threading.Thread(target=call)
    with held(postgres, DAY):
        runner.start()
        until(lambda: len(seen) >= 5 and seen[-1].seconds > 1)
        assert runner.is_alive()
    runner.join()
    # By the run's own clock: when Python hears of it is the machine's matter. The last one is the end's.
    assert min(after.seconds - before.seconds for before, after in pairwise(seen[:-1])) > 0.08
    numbers = [now.read for now in seen]
    assert numbers == sorted(numbers)
    assert (seen[0].written, seen[-1].read, seen[-1].written) == (0, 5, 5)
    assert seen[-1].seconds > 1
    assert published(postgres)["product_views_daily"][0][1] == 5
