"""`millpond local`: what it starts, that it is reachable from this machine only, and the four ways to disturb a server.

What becomes of servers when something goes wrong stands in `test_local_failures.py`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pymongo
import pytest
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from tests.local_servers import FAST, alive, call, listens, mongo, pids, until
from tests.promptness import within

import millpond
from millpond.local import LocalError, Stack, processes


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Stack]]:
    """Two stacks beside each other."""
    folder = Path(tempfile.mkdtemp(prefix="millpond-local-"))
    stacks = [Stack(folder / name) for name in ("one", "two")]
    try:
        for stack in stacks:
            stack.up(FAST)
        yield stacks
    finally:
        for stack in stacks:
            stack.down(delete=True)
        shutil.rmtree(folder)


@pytest.fixture
def stack(pair):
    """One of them, all its servers running."""
    pair[0].up(FAST)
    return pair[0]


def test_status_says_all_that_a_client_needs(stack):
    status = json.loads(call("status", "--json", "--dir", stack.directory).stdout)
    assert status == stack.status()
    assert status.keys() == set(FAST)
    assert status["mongo"].keys() == {"uri", "nodes"}
    [node] = status["mongo"]["nodes"]
    assert node.keys() == {"name", "port", "pid", "log"}
    assert status["postgres"].keys() == {"dsn", "port", "pid", "log"}
    for log in (node["log"], status["postgres"]["log"]):
        assert Path(log).stat().st_size > 0
        assert Path(log).is_relative_to(stack.directory)
    with mongo(status) as client:
        assert client.admin.command("hello")["isWritablePrimary"]
    with psycopg.connect(status["postgres"]["dsn"]) as connection:
        [found] = connection.execute("SELECT current_database()").fetchall()
    assert found == ("millpond",)
    told = call("status", "--dir", stack.directory).stdout
    for text in (f"127.0.0.1:{node['port']}  pid {node['pid']}", f"postgres  127.0.0.1:{status['postgres']['port']}"):
        assert text in told


def test_the_whole_stack_says_all_that_a_client_needs(servers):
    # The same command under its other name.
    words = ["-c", "from millpond.cli import main; main()", "local", "status", "--json", "--dir"]
    told = subprocess.run(
        [sys.executable, *words, str(servers.stack.directory)], capture_output=True, timeout=300, check=True
    )
    status = json.loads(told.stdout)
    assert status == servers.status
    assert status.keys() == {"remote", "kafka", "mongo", "postgres"}
    assert status["remote"].keys() == {"bootstrap", "username", "password", "jaas", "pid", "log"}
    assert status["kafka"].keys() == {"bootstrap", "brokers"}
    for broker in status["kafka"]["brokers"]:
        assert broker.keys() == {"name", "port", "pid", "log"}
        assert f"127.0.0.1:{broker['port']}" in status["kafka"]["bootstrap"].split(",")
    jaas = millpond.kafka_from_jaas(status["remote"]["jaas"], status["remote"]["bootstrap"])
    assert [jaas["sasl.username"], jaas["sasl.password"]] == [status["remote"][k] for k in ("username", "password")]


def test_two_stacks_share_nothing(pair, stack, name):
    one, two = (other.status() for other in pair)
    assert not pids(one).keys() ^ pids(two).keys()
    assert not set(pids(one).values()) & set(pids(two).values())
    for status in (one, two):
        with mongo(status) as client, psycopg.connect(status["postgres"]["dsn"]) as connection:
            assert client["tests"][name].count_documents({}) == 0
            client["tests"][name].insert_one({})
            connection.execute(f"CREATE TABLE {name} ()")
    # Ended and started again: the same ports and data, and the other one saw nothing of it.
    pair[1].down()
    assert pair[1].status()["mongo"]["nodes"][0]["pid"] is None
    assert pair[0].status() == one
    again = pair[1].up(FAST)
    assert (again["mongo"]["uri"], again["postgres"]["dsn"]) == (two["mongo"]["uri"], two["postgres"]["dsn"])
    with mongo(again) as client, psycopg.connect(again["postgres"]["dsn"]) as connection:
        assert client["tests"][name].count_documents({}) == 1
        assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)


def test_a_second_up_starts_nothing_and_is_quick(stack):
    before = stack.status()

    def once() -> float:
        began = time.monotonic()
        assert stack.up(FAST) == before
        return time.monotonic() - began

    within(5, once)
    told = call("up", "--dir", stack.directory, "--only", "postgres,mongo").stdout
    assert f"pid {before['postgres']['pid']}" in told
    assert stack.status() == before


def recovers(stack: Stack, server: str) -> bool:
    """Whether a server said at its latest start that it had not been ended cleanly."""
    log = stack.directory / "logs" / f"{server}.log"
    said = log.read_bytes()[processes.last_start(log) :]
    return b"unclean shutdown" in said or b"not properly shut down" in said


@pytest.mark.parametrize("server", ["mongo-1", "postgres"])
def test_a_frozen_server_answers_nothing_until_it_goes_on(stack, server):
    def answers() -> bool:
        try:
            if server == "postgres":
                psycopg.connect(stack.status()["postgres"]["dsn"], connect_timeout=2).close()
            else:
                with mongo(stack.status(), serverSelectionTimeoutMS=1_000, socketTimeoutMS=1_000) as client:
                    client.admin.command("ping")
        except (psycopg.OperationalError, PyMongoError):
            return False
        return True

    until(answers)
    pid = pids(stack.status())[server]
    call("stop", "--dir", stack.directory, server)
    try:
        assert not answers()
        with pytest.raises(LocalError, match=f"{server} is frozen: millpond local cont {server} --dir "):
            stack.up(FAST)
    finally:
        call("cont", "--dir", stack.directory, server)
    until(answers)
    assert pids(stack.status())[server] == pid
    # A frozen one can be ended and started too, its children with it.
    stack.stop(server)
    stack.restart(server)
    until(answers)
    assert pids(stack.status())[server] != pid
    assert not recovers(stack, server), "it had to be killed"


@pytest.mark.parametrize("server", ["mongo-1", "postgres"])
def test_a_killed_server_comes_back_with_its_data(stack, server, name):
    with mongo(stack.status(), w="majority", journal=True) as client:
        client["tests"][name].insert_one({"_id": 1})
    with psycopg.connect(stack.status()["postgres"]["dsn"]) as connection:
        connection.execute(f"CREATE TABLE {name} ()")
    before = pids(stack.status())
    family = psutil.Process(before[server]).children(recursive=True)
    call("kill", "--dir", stack.directory, server)
    assert pids(stack.status()) == before | {server: None}
    assert not any(alive(member) for member in family)
    call("kill", "--dir", stack.directory, server, code=1)
    call("restart", "--dir", stack.directory, server)
    assert recovers(stack, server)
    after = pids(stack.status())
    assert after[server] not in (None, before[server])
    assert {other: pid for other, pid in after.items() if other != server}.items() <= before.items()
    with mongo(stack.status()) as client, psycopg.connect(stack.status()["postgres"]["dsn"]) as connection:
        assert client["tests"][name].count_documents({}) == 1
        assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)


def test_three_mongo_nodes_elect_another_primary(tmp_path):
    stack = Stack(tmp_path / "three")
    try:
        call("up", "--dir", stack.directory, "--only", "mongo", "--mongo-nodes", 3)
        status = stack.status()
        names = {node["port"]: node["name"] for node in status["mongo"]["nodes"]}
        assert sorted(names.values()) == ["mongo-1", "mongo-2", "mongo-3"]
        assert {address for pid in pids(status).values() for address in listens(pid)} == {"127.0.0.1"}

        def primary() -> str | None:
            address = client.primary
            return names[address[1]] if address else None

        with mongo(status, heartbeatFrequencyMS=500) as client:
            first = until(primary)
            client["tests"].get_collection("c", write_concern=pymongo.WriteConcern("majority")).insert_one({})
            stack.kill(first)
            second = until(lambda: (now := primary()) != first and now)
            assert client["tests"]["c"].count_documents({}) == 1
        assert second in set(names.values()) - {first}
        with pytest.raises(LocalError, match="3 MongoDB nodes: use another --dir"):
            stack.up(["mongo"], mongo_nodes=1)
        # Without a majority nobody takes writes; `up` starts what is missing.
        stack.kill(second)
        with mongo(status, serverSelectionTimeoutMS=1_000) as client, pytest.raises(ServerSelectionTimeoutError):
            client["tests"]["c"].insert_one({})
        assert None not in pids(stack.up(["mongo"])).values()
    finally:
        stack.down(delete=True)
    assert not stack.directory.exists()


def test_everything_listens_on_this_machine_only(servers, stack):
    for status in (servers.status, stack.status()):
        for server, pid in pids(status).items():
            assert listens(pid) == {"127.0.0.1"}, server


def test_unknown_names_are_told_what_there_is(stack, tmp_path):
    for words, hint in (
        (("kill", "mongo-2"), r"no server 'mongo-2' in .*: there are remote, kafka-1, .*mongo-1, postgres"),
        (("restart", "mysql"), r"no server 'mysql' in .*: there are remote"),
        (("up", "--only", "mongo,mysql"), "unknown group 'mysql': choose from remote, kafka, mongo, postgres"),
        (("up", "--only", ","), "no group to start: choose from remote, kafka, mongo, postgres"),
        (("stop", "remote"), r"remote of .* is not running: millpond local restart remote --dir "),
    ):
        done = call(*words, "--dir", stack.directory, code=1)
        assert re.search(hint, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
    before = pids(stack.status())
    nowhere = call("cont", "--dir", tmp_path / "nothing", "mongo-1", code=1)
    assert "nothing was started under" in nowhere.stderr
    assert "millpond local up --dir" in nowhere.stderr
    assert "nothing was started" in call("status", "--dir", tmp_path / "nothing").stdout
    call("down", "--dir", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert pids(stack.status()) == before
