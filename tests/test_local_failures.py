"""`millpond local` when something goes wrong: servers that do not come up, an `up` that is killed, half-made data.

Whatever happens, `down` ends exactly what was started, and the next `up` brings servers that are ready.
"""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.local_servers import FAST, alive, call, listens, mongo, pids, until

import millpond
from millpond.local import LocalError, Stack, processes
from millpond.local.layout import Layout
from millpond.local.postgres import data_directory


@pytest.fixture
def stack(tmp_path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "stack")
    yield stack
    stack.down(delete=True)


@contextmanager
def beginning(stack: Stack, only: str, begun: Callable[[dict[str, psutil.Process]], bool]) -> Iterator[Any]:
    """An `up` that is killed as soon as it has begun, its servers left behind; begun anew where it was too quick."""
    command = [sys.executable, "-m", "millpond.local", "up", "--dir", str(stack.directory), "--only", only]
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as up:
            try:
                until(partial(lambda up: begun(processes.running(stack.directory)) or up.poll() is not None, up))
                met = up.poll() is None
            finally:
                up.kill()
                up.wait()
        if met:
            break
        stack.down(delete=True)
    assert met, "it was done each time before it could be killed"
    yield processes.marked(stack.directory)


def with_children(process: psutil.Process) -> list[psutil.Process]:
    """A process and what it has started; nothing of one that has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def test_the_log_of_a_server_that_does_not_come_up_is_shown_and_the_others_end(stack, name):
    stack.up(["postgres"])
    before = stack.status()["postgres"]["pid"]
    stack.up(["mongo"])
    stack.kill("mongo-1")
    home = stack.directory / "mongo-1"
    whole = (home / "WiredTiger.turtle").read_bytes()
    (home / "WiredTiger.turtle").write_bytes(b"not what it was")
    failed = call("up", "--dir", stack.directory, "--only", "mongo,postgres", code=1)
    assert "mongo-1 ended with code" in failed.stderr
    assert f"the end of {stack.directory / 'logs' / 'mongo-1.log'}:" in failed.stderr
    assert "WiredTiger" in failed.stderr
    assert "Traceback" not in failed.stderr
    # What ran before this call goes on; what the call started does not.
    assert pids(stack.status()) == {"mongo-1": None, "postgres": before}
    stack.down()
    call("up", "--dir", stack.directory, "--only", "mongo,postgres", code=1)
    assert processes.marked(stack.directory) == []
    (home / "WiredTiger.turtle").write_bytes(whole)
    assert None not in pids(stack.up(FAST)).values()


def test_an_occupied_port_is_named_by_the_servers_log(stack):
    status = stack.up(["postgres"])
    stack.down()
    with socket.create_server(("127.0.0.1", status["postgres"]["port"])):
        with pytest.raises(LocalError) as failed:
            stack.up(FAST)
        assert "postgres ended with code 1; the end of" in str(failed.value)
        assert "Address already in use" in str(failed.value)
        assert processes.marked(stack.directory) == []
    assert None not in pids(stack.up(FAST)).values()


def test_a_killed_up_leaves_nothing_that_down_does_not_end(stack, tmp_path):
    # Beside it: a stack of its own, and a process that only looks like a server of this one.
    other = Stack(tmp_path / "other")
    words = ["import time; time.sleep(600)", str(stack.directory), "mongod", "--dbpath"]
    with subprocess.Popen([sys.executable, "-c", *words]) as bystander:
        try:
            beside = other.up(["postgres"])
            groups = "remote,mongo,postgres"
            with beginning(stack, groups, lambda alive: {"remote", "mongo-1"} <= alive.keys()) as left:
                assert {"remote", "mongo-1"} <= {name for name, _ in left}
                family = [member for _, process in left for member in with_children(process)]
                call("down", "--dir", stack.directory)
            assert processes.marked(stack.directory) == []
            assert not any(alive(member) for member in family)
            assert other.status() == beside
            assert bystander.poll() is None

            # Killed again, and this time gone on with: what is left behind is waited for, not taken for ready.
            with beginning(stack, groups, lambda alive: "remote" in alive) as left:
                kept = {name: process.pid for name, process in left if ":" not in name}
                status = stack.up(groups.split(","))
            assert kept.items() <= pids(status).items()
            remote = millpond.kafka_from_jaas(status["remote"]["jaas"], status["remote"]["bootstrap"])
            assert remote["sasl.username"] == status["remote"]["username"]
            assert len(AdminClient(dict(remote)).list_topics(timeout=60).brokers) == 1
            with pytest.raises(KafkaException):
                AdminClient({**remote, "sasl.password": "wrong", "log_level": 0}).list_topics(timeout=2)
            with mongo(status) as client, psycopg.connect(status["postgres"]["dsn"]):
                assert client.admin.command("hello")["isWritablePrimary"]
            assert {address for pid in pids(status).values() for address in listens(pid)} == {"127.0.0.1"}
        finally:
            bystander.kill()
            other.down(delete=True)


@pytest.mark.parametrize("then", ["up", "down"])
def test_an_initdb_that_was_cut_short_is_begun_anew(stack, then):
    data = data_directory(Layout.load(stack.directory))

    def halfway(alive: dict[str, psutil.Process]) -> bool:
        # What looks like data is there, and its maker is frozen: it would go on beside the next `up`.
        if "postgres:initdb" not in alive or not list(data.parent.glob(f"{data.name}*/PG_VERSION")):
            return False
        processes.send(alive["postgres:initdb"], signal.SIGSTOP)
        return True

    with beginning(stack, "postgres", halfway) as left:
        assert "postgres:initdb" in {mark for mark, _ in left}
        assert pids(stack.status()).get("postgres") is None
        if then == "down":
            stack.down(delete=True)
        status = stack.up(["postgres"])
        assert not any(alive(process) for _, process in left)
    assert list(data.parent.glob(f"{data.name}*")) == [data]
    with psycopg.connect(status["postgres"]["dsn"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_removed_stack_leaves_no_data_to_the_next_one_in_its_place(stack, name):
    # Root's PostgreSQL keeps its data outside the stack.
    with psycopg.connect(stack.up(["postgres"])["postgres"]["dsn"]) as connection:
        connection.execute(f"CREATE TABLE {name} ()")
    stack.down()
    shutil.rmtree(stack.directory)
    with psycopg.connect(stack.up(["postgres"])["postgres"]["dsn"]) as connection:
        assert connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,)
    data = data_directory(Layout.load(stack.directory))
    assert data.is_dir()
    stack.down(delete=True)
    assert not data.exists()
    assert not stack.directory.exists()
