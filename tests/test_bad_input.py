"""Bad input ends within 15 seconds with the right class, the name of the thing and a hint; no secret appears (I6)."""

import time
from typing import Any

import psycopg
import pytest
from tests.promptness import within

import millpond

SECRET = "n0t-the-passw0rd"


def refused(family, call, *words):
    caught: Any = None

    def once() -> float:
        nonlocal caught
        began = time.monotonic()
        with pytest.raises(family) as caught:
            call()
        return time.monotonic() - began

    within(15, once)
    told = f"{caught.value} {caught.value!r} {caught.value.hint}"
    assert caught.value.hint
    assert SECRET not in told
    for word in words:
        assert word in told, told


def test_wrong_kafka_password(servers, name):
    source = servers.remote | {"sasl.password": SECRET}
    words = {"source_topic": name, "target_topic": name}
    refused(millpond.ConfigError, lambda: millpond.bridge(source, servers.kafka, **words), "source", "sasl.password")


def test_unreachable_broker(servers, name):
    source = {"bootstrap.servers": "127.0.0.1:1"}
    words = {"source_topic": name, "target_topic": name}
    refused(millpond.ExternalError, lambda: millpond.bridge(source, servers.kafka, **words), "127.0.0.1:1")


def test_missing_topic(servers, name):
    words = {"source_topic": name, "target_topic": name}
    refused(millpond.ConfigError, lambda: millpond.bridge(servers.remote, servers.kafka, **words), name)
    call = lambda: millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    refused(millpond.ConfigError, call, name)


@pytest.mark.parametrize("collection", ["capped", "view"])
def test_a_collection_of_another_shape(servers, name, collection):
    servers.create(servers.kafka, name, 1)
    with servers.mongo() as client:
        if collection == "capped":
            client["tests"].create_collection(name, capped=True, size=100_000)
        else:
            client["tests"].create_collection(name, viewOn="other", pipeline=[])
    call = lambda: millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    refused(millpond.ConfigError, call, name, collection)


def test_wrong_and_unwritable_postgres(servers, name):
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
    words = {"database": "tests", "collection": name}
    port = servers.status["postgres"]["port"]
    wrong = f"postgresql://millpond:{SECRET}@127.0.0.1:{port}/millpond"
    refused(millpond.ConfigError, lambda: millpond.aggregate(servers.mongo_uri, wrong, **words), "postgres")
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    poor = f"postgresql://{name}:{SECRET}@127.0.0.1:{port}/millpond"
    refused(millpond.ConfigError, lambda: millpond.aggregate(servers.mongo_uri, poor, **words), "GRANT")
    nowhere = f"postgresql://millpond:{SECRET}@127.0.0.1:1/millpond"
    refused(millpond.ExternalError, lambda: millpond.aggregate(servers.mongo_uri, nowhere, **words), "postgres")


def test_unreachable_mongo(servers, name):
    servers.create(servers.kafka, name, 1)
    uri = f"mongodb://u:{SECRET}@127.0.0.1:1/"
    call = lambda: millpond.sink(servers.kafka, uri, topic=name, database="tests", collection=name)
    refused(millpond.ExternalError, call, "mongodb")


@pytest.mark.parametrize("dates", ["2025-13-01", "yesterday", "2025-10-31..2025-10-01", ["2025-02-30"], []])
def test_bad_dates(servers, name, dates):
    words = {"database": "tests", "collection": name, "dates": dates}
    refused(millpond.ConfigError, lambda: millpond.aggregate(servers.mongo_uri, None, **words), "dates")


def test_unknown_and_contradicting_properties(servers, name):
    words = {"source_topic": name, "target_topic": name}
    for key, value, word in (
        ("sasl.pasword", SECRET, "sasl.password"),
        ("enable.auto.commit", True, "enable.auto.commit"),
        ("isolation.level", "read_uncommitted", "isolation.level"),
        ("linger.ms", "soon", "linger.ms"),
    ):
        source = servers.remote | {key: value}
        refused(millpond.ConfigError, lambda source=source: millpond.bridge(source, servers.kafka, **words), word)
