"""A replica set of three whose primary goes away while a run reads: it reads again, or says so; never less (I2)."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from bson import Int64, ObjectId
from pymongo.errors import PyMongoError
from tests.conftest import Servers
from tests.fault_servers import met
from tests.report_tables import until, views

import millpond
from millpond.local import Stack

DAYS = ["2025-10-30", "2025-10-31", "2025-11-01"]
EACH, MANY = 2_000, 41_000


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Iterator[Servers]:
    """Three nodes of a replica set, this file's own."""
    stack = Stack(tmp_path_factory.mktemp("three") / "stack")
    try:
        servers = Servers(stack, stack.up(["mongo"], mongo_nodes=3))
        with servers.mongo() as client:
            # A lost primary is missed after five seconds instead of ten; less, and a busy machine elects without need.
            config = client.admin.command("replSetGetConfig")["config"]
            config["settings"]["electionTimeoutMillis"] = 5_000
            client.admin.command("replSetReconfig", config | {"version": config["version"] + 1})
        yield servers
    finally:
        stack.down(delete=True)


@pytest.fixture
def words(three, name) -> dict[str, Any]:
    with three.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many([event for day in DAYS for event in views(day, EACH)])
    return {"mongo_uri": three.mongo_uri, "postgres_dsn": None, "database": "tests", "collection": name}


def primary(three: Servers) -> str:
    """The name of the node that is the primary."""
    with three.mongo() as client:
        client.admin.command("ping")
        assert client.primary is not None
        nodes = three.stack.status()["mongo"]["nodes"]
        return next(str(node["name"]) for node in nodes if node["port"] == client.primary[1])


def settled(three: Servers) -> None:
    """Wait for a primary that takes writes, and for all three nodes."""

    def healthy() -> bool:
        try:
            with pymongo.MongoClient[dict[str, Any]](three.mongo_uri, serverSelectionTimeoutMS=2_000) as client:
                members = client.admin.command("replSetGetStatus")["members"]
                return sorted(member["stateStr"] for member in members) == ["PRIMARY", "SECONDARY", "SECONDARY"]
        except PyMongoError:
            return False

    until(healthy)


def exact(answer: dict[str, Any], dates: list[str]) -> None:
    assert answer.get("error") is None, answer
    assert (answer["dates"], answer["counted"]) == (dates, EACH * len(dates))
    assert answer["snapshot"]
    assert [row.split(", ")[:3] for row in answer["products"]] == [["('p'", str(EACH), str(EACH)]] * len(dates)


@pytest.mark.parametrize("dates", ["2025-10-31", "all"])
def test_a_primary_that_steps_down_while_it_is_read(three, words, dates):
    settled(three)
    step = "while_reading:1" if dates == "all" else "while_reading:3"
    with met(step, words | {"dates": dates}) as run, three.mongo() as client:
        client.admin.command("replSetStepDown", 1, force=True)
    exact(run.answer, DAYS if dates == "all" else [dates])


def test_a_primary_that_is_killed_while_it_is_read(three, words):
    settled(three)
    with met("while_reading:3", words | {"dates": "2025-10-31"}) as run:
        gone = primary(three)
        three.stack.kill(gone)
    try:
        exact(run.answer, ["2025-10-31"])
    finally:
        three.stack.restart(gone)


def test_no_primary_at_all_is_a_clear_error(three, words):
    settled(three)
    impatient = f"{words['mongo_uri']}&serverSelectionTimeoutMS=4000"
    gone = [primary(three)]
    try:
        with met("while_reading:3", words | {"dates": "2025-10-31", "mongo_uri": impatient}) as run:
            gone.append("mongo-1" if gone != ["mongo-1"] else "mongo-2")
            for node in gone:
                three.stack.kill(node)
        assert run.answer["error"] == "ExternalError", run.answer
        assert run.answer["retryable"]
        assert "primary" in run.answer["hint"]
    finally:
        for node in gone:
            three.stack.restart(node)
    settled(three)
    assert millpond.aggregate(**words, dates="2025-10-31").counted == EACH


def idle(client: pymongo.MongoClient[dict[str, Any]], name: str) -> list[Int64]:
    """The cursors of a collection that wait to be asked for more."""
    found = client.admin.aggregate([{"$currentOp": {"idleCursors": True, "allUsers": True}}])
    cursors = [operation for operation in found if operation["type"] == "idleCursor"]
    return [cursor["cursor"]["cursorId"] for cursor in cursors if cursor["ns"] == f"tests.{name}"]


def test_a_cursor_that_is_killed_is_opened_again(three, words, name):
    """More documents than go into one batch: their cursor is open when the run is met."""
    settled(three)
    with three.mongo() as client:
        event = views("2025-10-31", 1)[0]
        client["tests"][name].insert_many([event | {"_id": i, "device_id": i} for i in range(MANY)])
        with met("while_reading:1", words | {"dates": "all"}) as run:
            until(lambda: bool(idle(client, name)))
            client["tests"].command("killCursors", name, cursors=idle(client, name))
    assert (run.answer["counted"], run.answer["scanned"]) == (3 * EACH + MANY, 3 * EACH + MANY)


def forget(client: pymongo.MongoClient[dict[str, Any]], name: str, moment: Any) -> None:
    """Write until the server no longer knows what was before."""

    def forgotten() -> bool:
        client["tests"][f"{name}_other"].insert_many([{} for _ in range(100)])
        find = {"find": name, "limit": 1, "readConcern": {"level": "snapshot", "atClusterTime": moment}}
        try:
            client["tests"].command(find)
        except PyMongoError as error:
            return getattr(error, "code", None) == 239
        return False

    until(forgotten)


def of_a_sink(client: pymongo.MongoClient[dict[str, Any]], name: str) -> None:
    """A collection as a sink leaves it that has gone five documents beyond its position."""
    place = {"collection": name, "source": Int64(9), "partition": 0}
    client["tests"]["millpond_sources"].insert_one({"_id": Int64(9), "cluster": "c", "topic": "t"})
    client["tests"]["millpond_positions"].insert_one({"_id": place, "next": Int64(EACH)})
    client["tests"][name].create_index("timestamp")
    stored = enumerate(views(DAYS[1], EACH + 5))
    client["tests"][name].insert_many([{**event, "_id": ObjectId(f"{9:08x}{i:016x}")} for i, event in stored])


@pytest.mark.parametrize("positions", [True, False])
def test_a_moment_that_the_server_forgot(three, words, name, positions):
    """Where positions say what is covered, the reading may take as long as it takes; else it is of a later moment."""
    settled(three)
    with three.mongo() as client:
        if positions:
            of_a_sink(client, f"{name}k")
            words["collection"] = f"{name}k"
        client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=1)
        try:
            with met("while_reading:3", words | {"dates": DAYS[1]}) as run:
                forget(client, words["collection"], client.admin.command("ping")["operationTime"])
                if not positions:
                    client["tests"][words["collection"]].insert_many(views(DAYS[1], 7))
        finally:
            client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=300)
    told = {word: run.answer.get(word) for word in ("error", "counted", "snapshot", "repeatable")}
    if positions:
        assert told == {"error": None, "counted": EACH, "snapshot": False, "repeatable": True}
        assert run.answer["excluded"] == {"beyond_position": 5}
    else:
        assert told == {"error": None, "counted": EACH + 7, "snapshot": True, "repeatable": False}
