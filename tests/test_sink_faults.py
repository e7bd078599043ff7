"""Faults of a real replica set of three, of the network, and of the disk: 0 lost, 0 doubled, positions never ahead of
what a majority holds and never back (I2).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pytest
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from tests.local_servers import until
from tests.mongo_proxy import Cut, Proxy
from tests.sunk import Numbers, beside
from tests.test_mutants import SABOTAGE

import millpond
from millpond.local import Stack, mongo, ports


@pytest.fixture(scope="module")
def three() -> Iterator[Stack]:
    """A replica set of this module's own, since its members are killed."""
    with tempfile.TemporaryDirectory(prefix="millpond-three-", ignore_cleanup_errors=True) as directory:
        stack = Stack(Path(directory) / "stack")
        try:
            stack.up(["mongo"], mongo_nodes=3)
            yield stack
        finally:
            stack.down(delete=True)


@pytest.fixture
def numbers(servers, three, name) -> Numbers:
    return Numbers(servers, name, three.status()["mongo"]["uri"])


def primary(three: Stack) -> str:
    """The name of the member that is primary now, once there is one."""

    def found() -> str | None:
        for node in three.status()["mongo"]["nodes"]:
            address = f"mongodb://127.0.0.1:{node['port']}/?directConnection=true"
            try:
                with pymongo.MongoClient[dict[str, Any]](address, serverSelectionTimeoutMS=300) as client:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return str(node["name"])
            except PyMongoError:
                continue
        return None

    return str(until(found))


SLOWLY = {"max_events_per_second": 2_000.0}


def steps_down(numbers: Numbers) -> bool:
    """Whether the primary has; it stays where no other one is near enough."""
    try:
        with numbers.client() as client:
            client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=5)
    except PyMongoError:
        return False
    return True


def under_way(numbers: Numbers) -> None:
    with numbers.client() as client:
        until(lambda: client["tests"][numbers.name].estimated_document_count() > 300)


@pytest.mark.parametrize("fault", ["killed", "stepped down"])
def test_a_primary_that_is_gone_in_the_middle(three, numbers, fault):
    numbers.feed(6_000)
    victim = primary(three)
    with numbers.watched() as looks, beside(lambda: numbers.until_done(**SLOWLY)) as outcome:
        under_way(numbers)
        if fault == "killed":
            three.kill(victim)
            time.sleep(1)
            three.restart(victim)
        else:
            until(lambda: steps_down(numbers))
    assert isinstance(outcome[0], millpond.SinkResult), outcome
    assert looks["looks"] > 3
    numbers.check()
    assert numbers.run().read == 0


def test_a_write_concern_that_times_out(three, numbers):
    """All three are asked for and one is frozen: nothing moves, all is sent again, nothing is doubled."""
    numbers.feed(600)
    numbers.run(max_events=60)
    frozen = next(node["name"] for node in three.status()["mongo"]["nodes"] if node["name"] != primary(three))
    with numbers.client() as client:
        before = numbers.positions(client)
        three.stop(frozen)
        try:
            # Longer than a busy machine needs for three, and shorter than one of them is frozen.
            concern = {"w": 3, "wtimeout": 1_000}
            with beside(lambda: numbers.run(write_concern=concern)) as outcome:
                until(lambda: client["tests"][numbers.name].count_documents({}) > 400)
                time.sleep(2.5)
                assert numbers.positions(client) == before
                three.cont(frozen)
        finally:
            three.cont(frozen)
    result = outcome[0]
    assert isinstance(result, millpond.SinkResult), outcome
    assert result.write_concern == "3"
    # Sent again and found, batch by batch.
    assert result.already_present > 0
    assert result.read == 540
    numbers.check()
    # More members than there are: said as what it is, and no retry helps.
    numbers.feed(2)
    with pytest.raises(millpond.ConfigError, match="write_concern") as caught:
        numbers.run(write_concern=7)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "mutant", [None, pytest.param("position_without_confirmation", marks=pytest.mark.chaos)], ids=["", "mutant"]
)
def test_what_one_primary_alone_acknowledged_moves_no_position(request, three, numbers, mutant):
    """Two of three are frozen under w=1; the primary goes on alone, dies, and its inserts are rolled back."""
    # None but the first is a dead letter: those wait for a majority, and positions for them.
    numbers.bad_every = 1 << 30
    numbers.feed(3)
    numbers.run()
    # More than sockets hold: what the primary has sent to a frozen member is read by it later.
    numbers.feed(600, size=50_000)
    words = numbers.words | {"write_concern": 1}
    code = f"import millpond; millpond.sink({numbers.servers.kafka!r}, {numbers.uri!r}, **{words!r})"
    # It stops before it writes anything, and goes on when its primary is alone.
    environment = os.environ | {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": "STOP:sink.before_write"}
    environment |= {"MILLPOND_SABOTAGE": mutant} if mutant else {}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    request.addfinalizer(child.kill)
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    alone = primary(three)
    nodes = three.status()["mongo"]["nodes"]
    others = [node["name"] for node in nodes if node["name"] != alone]
    port = next(node["port"] for node in nodes if node["name"] == alone)
    for node in others:
        three.stop(node)
    try:
        with pymongo.MongoClient[dict[str, Any]](f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
            local = client["tests"].get_collection(numbers.name, read_concern=ReadConcern("local"))
            child.send_signal(signal.SIGCONT)
            # Acknowledged by the one primary, and held by no majority.
            until(lambda: local.count_documents({}) > 300)
        # Before it asks for a majority.
        child.send_signal(signal.SIGSTOP)
        three.kill(alone)
    finally:
        for node in others:
            three.cont(node)
    primary(three)
    three.restart(alone)
    child.send_signal(signal.SIGCONT)
    told = child.communicate(timeout=300)[1].decode()
    if mutant is None:
        # Never success: what was acknowledged is gone.
        assert child.returncode == 1, told
        assert "ExternalError" in told, told
    result = numbers.until_done(write_concern=1)
    assert result.write_concern == "1"
    if mutant is not None:
        with pytest.raises(AssertionError, match=r"lost [1-9]"):
            numbers.check()
        return
    assert result.inserted > 100
    numbers.check()


@pytest.mark.parametrize("after", [False, True], ids=["before the answer", "after the answer"])
@pytest.mark.parametrize("what", ["insert", "insert letters", "update positions"])
def test_a_connection_that_is_cut(servers, name, what, after):
    """Before the server hears of a command, and after it answered: each batch, dead letter and position is right."""
    verb, _, of = what.partition(" ")
    collection = {"": name, "letters": f"{name}_dead_letters", "positions": "millpond_positions"}[of]
    port = servers.status["mongo"]["nodes"][0]["port"]
    with Proxy(port, Cut(f"{verb} {collection}".encode(), after, nth=2, times=3)) as proxy:
        numbers = Numbers(servers, name, servers.mongo_uri, bad_every=20)
        numbers.feed(900)
        with numbers.watched():
            result = numbers.run(uri=proxy.uri)
    assert proxy.cut.done == 3
    assert result.read == 900
    if what == "insert":
        assert (result.already_present > 0) is after
    numbers.check()
    assert numbers.run().read == 0


class Lonely:
    """A set of one with a limit on the size of its files: where it is met, the server dies as on a full disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True)
        (self.port,) = ports.reserve(directory, 1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs0"

    def start(self, limit: int | None = None) -> None:
        command = ["sh", "-c", f'ulimit -f {limit // 512}; exec "$@"' if limit else 'exec "$@"', "sh"]
        command += [str(mongo.binary()), "--dbpath", str(self.directory / "data"), "--port", str(self.port)]
        command += ["--replSet", "rs0", "--bind_ip", "127.0.0.1", "--syncdelay", "1", "--wiredTigerCacheSizeGB", "0.25"]
        # Journal files as small as the limit.
        command += ["--wiredTigerEngineConfigString", "log=(file_max=1MB)"]
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        address = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        with pymongo.MongoClient[dict[str, Any]](address, serverSelectionTimeoutMS=20_000) as client:
            config = {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]}
            try:
                client.admin.command("replSetInitiate", config)
            except PyMongoError as error:
                assert getattr(error, "code", None) == 23, error
            until(lambda: client.admin.command("hello").get("isWritablePrimary"))

    def dead(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def lonely() -> Iterator[Lonely]:
    with tempfile.TemporaryDirectory(prefix="millpond-full-", ignore_cleanup_errors=True) as directory:
        server = Lonely(Path(directory))
        try:
            yield server
        finally:
            server.end()


@pytest.mark.chaos
def test_a_disk_that_is_full(servers, name):
    with lonely() as server:
        server.start(limit=16 << 20)
        numbers = Numbers(servers, name, server.uri)
        numbers.feed(4_000)
        with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
            filler = client["tests"][f"{name}-filler"]

            def fill() -> bool:
                try:
                    filler.insert_many([{"x": os.urandom(100_000)} for _ in range(20)])
                except PyMongoError:
                    return True
                return server.dead()

            with numbers.watched(), beside(lambda: numbers.run(max_events_per_second=1_500.0)) as outcome:
                under_way(numbers)
                until(fill)
                until(server.dead)
                # Room again: the run that met it goes on.
                server.start()
        assert isinstance(outcome[0], millpond.SinkResult), outcome
        assert outcome[0].read == 4_000
        numbers.check()


def test_what_only_the_server_refuses_is_told_singly(servers, name):
    """A shape that an index cannot take, a validator, a second unique index; each in a batch of good ones."""
    with servers.mongo() as client:
        events = client["tests"].create_collection(name, validator={"n": {"$ne": 5}})
        events.create_index([("place", "2dsphere")])
        events.create_index("only", unique=True, sparse=True)
    numbers = Numbers(servers, name, servers.mongo_uri)
    odd = [
        b'{"n":5}',
        b'{"n":1,"place":{"type":"Point","coordinates":[999,999]}}',
        b'{"n":2,"only":1}',
        b'{"n":3,"only":1}',
    ]
    good = [b'{"n":%d}' % i for i in range(10, 30)]
    servers.send(servers.kafka, name, [(None, value, 0) for value in good[:10] + odd + good[10:]])
    result = numbers.run()
    assert (result.inserted, result.dead_letters_by_reason) == (21, {"refused_by_server": 3})
    with servers.mongo() as client:
        letters = list(client["tests"][f"{name}_dead_letters"].find().sort("_id", 1))
        stored = sorted(one["n"] for one in client["tests"][name].find())
    assert stored == [2, *range(10, 30)]
    assert [letter["value"] for letter in letters] == [odd[0], odd[1], odd[3]]
    assert [letter["offset"] for letter in letters] == [10, 11, 13]
    for letter, word in zip(letters, ("121", "16755", "unique index"), strict=True):
        assert word in letter["detail"]


def test_terminated_by_a_signal_of_the_scheduler(servers, name):
    """SIGTERM, then SIGKILL a moment later: the rerun completes."""
    numbers = Numbers(servers, name, servers.mongo_uri)
    numbers.feed(6_000)
    # Twelve seconds for all of them.
    words = numbers.words | {"max_events_per_second": 500.0}
    code = f"import millpond; millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})"
    with servers.mongo() as client:
        count = client["tests"][name].estimated_document_count
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            before = count()
            child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=os.environ)
            until(partial(lambda before: count() > before, before))
            child.send_signal(sent)
            child.wait(60)
            assert child.returncode != 0
    numbers.run()
    numbers.check()
