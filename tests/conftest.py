"""Real servers for every test: one stack for a whole run, random names within it.

`MILLPOND_TEST_STACK` names a directory whose stack is used as it is; otherwise one is started and removed.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pymongo
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

import millpond
from millpond.local import Stack

if TYPE_CHECKING:
    from tests.spark_sessions import Spark


@dataclass
class Servers:
    """The addresses of a stack, and independent readers and writers for it."""

    stack: Stack
    status: dict[str, Any]

    @property
    def remote(self) -> dict[str, str]:
        remote = self.status["remote"]
        return millpond.kafka_from_jaas(remote["jaas"], remote["bootstrap"])

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.status["kafka"]["bootstrap"]}

    @property
    def mongo_uri(self) -> str:
        return str(self.status["mongo"]["uri"])

    @property
    def dsn(self) -> str:
        return str(self.status["postgres"]["dsn"])

    def mongo(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self.mongo_uri)

    def create(self, cluster: dict[str, str], topic: str, partitions: int, **config: str) -> None:
        admin = AdminClient(dict(cluster))
        replicas = 1 if "sasl.username" in cluster else 3
        made = NewTopic(topic, partitions, replicas, config={"retention.ms": "-1"} | config)
        admin.create_topics([made])[topic].result(timeout=20)

    def send(
        self,
        cluster: dict[str, str],
        topic: str,
        events: list[tuple[Any, Any, int]],
        *,
        sure: bool = False,
        **words: Any,
    ) -> None:
        """Write (key, value, partition); `sure` where brokers are killed: idempotent, which costs half a second."""
        once = {"enable.idempotence": True} if sure else {"acks": "all", "max.in.flight.requests.per.connection": 1}
        producer = Producer(dict(cluster) | once | {"linger.ms": 5})
        for key, value, partition in events:
            producer.produce(topic, value, key, partition, **words)
            producer.poll(0)
        assert producer.flush(30) == 0

    def read(self, cluster: dict[str, str], topic: str, start: int = 0) -> "list[Message[bytes, bytes]]":
        """Read every committed event of a topic from an offset, per partition in order."""
        consumer = Consumer(
            dict(cluster)
            | {"group.id": "test", "isolation.level": "read_committed"}
            | {"enable.partition.eof": True, "auto.offset.reset": "error", "fetch.wait.max.ms": 10}
        )
        try:
            left = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, start) for partition in sorted(left)])
            found = []
            while left:
                message = consumer.poll(20)
                assert message is not None, f"topic {topic} does not answer"
                error = message.error()
                if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    # Compaction left batches without records, which librdkafka takes for that (librdkafka#1472).
                    continue
                if error is None:
                    found.append(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    left.discard(message.partition())
            return found
        finally:
            consumer.close()


def started(directory: Path) -> Iterator[Servers]:
    stack = Stack(directory)
    try:
        yield Servers(stack, stack.up())
    finally:
        stack.down(delete=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Servers that tests share; they never disturb them."""
    if shared := os.environ.get("MILLPOND_TEST_STACK"):
        yield Servers(Stack(shared), Stack(shared).status())
        return
    with tempfile.TemporaryDirectory(prefix="millpond-test-", ignore_cleanup_errors=True) as directory:
        yield from started(Path(directory) / "stack")


@pytest.fixture(scope="session")
def stack(servers: Servers) -> Stack:
    """The shared stack itself."""
    return servers.stack


@pytest.fixture(scope="session")
def spark() -> "Iterator[Spark]":
    """A Spark cluster that tests share; what they kill there comes again."""
    from tests.spark_sessions import spark_servers

    with spark_servers() as running:
        yield running


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def postgres(servers: Servers, name: str) -> Iterator[str]:
    """A DSN whose tables are this test's own."""
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield f"{servers.dsn}?options=-csearch_path%3D{name}"
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")
