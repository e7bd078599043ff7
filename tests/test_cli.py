"""The command line: settings by precedence, exit codes by who must act, `doctor` within five seconds."""

import json
import subprocess
import sys
import time
from typing import Any

import psycopg
import pymongo
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.promptness import within

import millpond
from millpond.local import ports, processes
from millpond.local.mongo import binary

SECRET = "n0t-the-passw0rd"


def call(*words, **env):
    import os

    code = "from millpond.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | env)


def toml(tables):
    return "\n".join(
        f"[{name}]\n" + "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in table.items())
        for name, table in tables.items()
    )


def configured(servers, name, **changes):
    return {
        "source": servers.remote,
        "target": servers.kafka,
        "mongo": {"uri": servers.mongo_uri},
        "postgres": {"dsn": changes.get("dsn", servers.dsn)},
        "bridge": {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views"},
        "sink": {"topic": f"{name}-out", "database": "tests", "collection": name},
        "aggregate": {"database": "tests", "collection": name},
    }


def test_run_carries_all_three_and_top_shows_them(servers, name, postgres, tmp_path):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, [(None, b'{"product_id":7,"time_stamp":1761881000}', 0)] * 5)
    file = tmp_path / "millpond.toml"
    file.write_text(toml(configured(servers, name, dsn=postgres)))
    done = call("run", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    books = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(book)) for book in books] == ["bridge", "sink", "aggregate"]
    assert books[2]["aggregate"]["counted"] == 5
    best = json.loads(call("top", "--config", file, "--json").stdout)
    assert best["product_views_daily"][0]["product_id"] == "7"
    # Flags win over the environment, which wins over the file.
    assert call("sink", "--config", file, MILLPOND_COLLECTION=f"{name}-env", MILLPOND_TOPIC="missing").returncode == 2
    assert call("sink", "--config", file, "--topic", f"{name}-out", MILLPOND_TOPIC="missing").returncode == 0


def test_reports_of_a_file_are_made_and_shown(servers, name, postgres, tmp_path):
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many(
            {"timestamp": "2025-10-31", "url": f"https://{i % 3}.example"} for i in range(7)
        )
    reports, file = tmp_path / "reports.toml", tmp_path / "millpond.toml"
    reports.write_text(
        '[[reports]]\ntable = "hosts"\nkey = {host = {domain = "url"}}\nmetrics = {n = "count", least = {min = "n"}}\n'
    )
    file.write_text(toml(configured(servers, name, dsn=postgres)))
    done = call("aggregate", "--config", file, "--reports", reports, "--memory-limit", 1 << 24, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["aggregate"]["rows"] == {"hosts": 3}
    # Inline in the one file, too.
    file.write_text(file.read_text() + "\n" + reports.read_text().replace("[[reports]]", "[[aggregate.reports]]"))
    best = json.loads(call("top", "--config", file, "-n", 2, "--json").stdout)
    assert [(row["host"], row["n"]) for row in best["hosts"]] == [("0.example", 3), ("1.example", 2)]
    reports.write_text('[[reports]]\ntable = "hosts"\nkey = "url"\nmetrics = {n = "cuont"}\n')
    refused = call("aggregate", "--config", file, "--reports", reports)
    assert refused.returncode == 2
    assert "reports[0].metrics.n" in refused.stderr


def test_doctor_names_what_is_wrong_and_no_secret(servers, name, tmp_path):
    servers.create(servers.remote, name, 1)
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(toml(configured(servers, name)))
    done = call("doctor", "--config", good, "--json")
    assert done.returncode == 0, done.stdout
    tables = configured(servers, name, dsn=servers.dsn.replace("millpond-local-only", SECRET))
    tables["source"] = servers.remote | {"sasl.password": SECRET}
    tables["target"] = {"bootstrap.servers": "127.0.0.1:1"}
    tables["mongo"] = {"uri": f"mongodb://u:{SECRET}@127.0.0.1:1/"}
    bad.write_text(toml(tables))
    told: Any = None

    def once() -> float:
        nonlocal told
        began = time.monotonic()
        told = call("doctor", "--config", bad, "--json")
        return time.monotonic() - began

    within(12, once)
    assert told.returncode == 2
    assert SECRET not in told.stdout + told.stderr
    findings = json.loads(told.stdout)
    assert [(found["what"], found["ok"]) for found in findings] == [
        ("source", False),
        ("target", False),
        ("mongo", False),
        ("postgres", False),
    ]
    assert all(found["hint"] for found in findings)


def wrong(servers, tables, tmp_path):
    """The one finding that is not ok."""
    file = tmp_path / "millpond.toml"
    file.write_text(toml(tables))
    done = call("doctor", "--config", file, "--json")
    assert done.returncode == 2, done.stdout
    (found,) = [found for found in json.loads(done.stdout) if not found["ok"]]
    return found


def test_doctor_names_a_right_that_kafka_does_not_give(servers, name, tmp_path):
    servers.create(servers.remote, name, 1)
    reader = servers.remote | {"sasl.username": "reader", "sasl.password": "reader-local-only"}
    tables = configured(servers, name) | {"source": reader}
    file = tmp_path / "before.toml"
    file.write_text(toml(tables))
    assert call("doctor", "--config", file).returncode == 0
    only = AclBinding(
        ResourceType.TOPIC, name, ResourcePatternType.LITERAL, "User:reader", "*", AclOperation.DESCRIBE,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    admin = AdminClient(dict(servers.remote))
    for made in admin.create_acls([only]).values():
        made.result(timeout=60)
    # The broker learns of it from its controller a moment later.
    deadline = time.monotonic() + 120
    while call("doctor", "--config", file).returncode == 0:
        assert time.monotonic() < deadline
    found = wrong(servers, tables, tmp_path)
    assert (found["what"], found["hint"]) == ("source", "grant READ, DESCRIBE_CONFIGS")
    words = {"source_topic": name, "target_topic": f"{name}-out"}
    with pytest.raises(millpond.ConfigError, match=name):
        millpond.bridge(reader, servers.kafka, **words)


def test_doctor_names_a_right_that_postgres_does_not_give(servers, name, postgres, tmp_path):
    servers.create(servers.remote, name, 1)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
        connection.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")
    poor = postgres.replace("millpond:millpond-local-only", f"{name}:{SECRET}")
    found = wrong(servers, configured(servers, name, dsn=poor), tmp_path)
    assert found["what"] == "postgres"
    assert "GRANT CREATE" in found["hint"]
    assert SECRET not in json.dumps(found)


def test_doctor_names_a_right_that_mongodb_does_not_give(servers, name, tmp_path):
    servers.create(servers.remote, name, 1)
    (port,) = ports.reserve(tmp_path, 1)
    data, log = tmp_path / "data", tmp_path / "mongod.log"
    data.mkdir()
    command = [binary(), "--auth", "--dbpath", data, "--port", port, "--bind_ip", "127.0.0.1"]
    server = processes.spawn([str(word) for word in command], stack=tmp_path, server="mongod", log=log)
    try:
        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(f"mongodb://127.0.0.1:{port}/")
        client.admin.command("createUser", "root", pwd=SECRET, roles=["root"])
        client = pymongo.MongoClient(f"mongodb://root:{SECRET}@127.0.0.1:{port}/")
        for user, role in (("reads", "read"), ("writes", "readWrite")):
            client.tests.command("createUser", user, pwd=SECRET, roles=[{"role": role, "db": "tests"}])
        tables = configured(servers, name)
        tables["mongo"] = {"uri": f"mongodb://writes:{SECRET}@127.0.0.1:{port}/?authSource=tests"}
        file = tmp_path / "writes.toml"
        file.write_text(toml(tables))
        assert call("doctor", "--config", file).returncode == 0
        tables["mongo"] = {"uri": f"mongodb://reads:{SECRET}@127.0.0.1:{port}/?authSource=tests"}
        found = wrong(servers, tables, tmp_path)
        assert found["what"] == "mongo"
        assert "insert" in found["detail"]
        assert "readWrite" in found["hint"]
        assert SECRET not in json.dumps(found)
    finally:
        server.terminate()
        server.wait(timeout=120)


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path):
    file = tmp_path / "millpond.toml"
    file.write_text("[sink]\ntopik = 'x'\n")
    done = call("sink", "--config", file)
    assert done.returncode == 2
    assert "topik" in done.stderr
    assert "topic" in done.stderr
