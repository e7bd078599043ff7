"""Real servers for every test: one stack for a whole run, random names within it.

`MILLPOND_TEST_STACK` names a directory whose stack is used as it is; otherwise one is started and removed.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pymongo
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from tests.local_servers import until

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
        admin.create_topics([made])[topic].result(timeout=60)
        # Not every broker hears of it at once, and a client may ask any.
        for broker in cluster["bootstrap.servers"].split(","):
            asked = AdminClient({**cluster, "bootstrap.servers": broker})
            until(partial(led, asked, topic, partitions))

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
        assert producer.flush(120) == 0

    def read(self, cluster: dict[str, str], topic: str, start: int = 0) -> "list[Message[bytes, bytes]]":
        """Read every committed event of a topic from an offset, per partition in order.

        Where a transaction is open its end is waited for a while: brokers write it after they have promised to.
        """
        consumer = Consumer(
            dict(cluster)
            | {"group.id": "test", "isolation.level": "read_committed"}
            | {"enable.partition.eof": True, "auto.offset.reset": "error", "fetch.wait.max.ms": 10}
        )
        try:
            # Not every broker hears of a new topic at once.
            left = set(until(lambda: consumer.list_topics(topic, timeout=60).topics[topic].partitions, 30))
            consumer.assign([TopicPartition(topic, partition, start) for partition in sorted(left)])
            found, held, patience = [], set[int](), time.monotonic() + 3
            while left - held or (held and time.monotonic() < patience):
                message = consumer.poll(60 if left - held else 0.1)
                if message is None:
                    assert left <= held, f"topic {topic} does not answer"
                    continue
                error, partition = message.error(), int(message.partition() or 0)
                if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    # Compaction left batches without records, which librdkafka takes for that (librdkafka#1472).
                    continue
                held.discard(partition)
                if error is None:
                    found.append(message)
                    continue
                assert error.code() == KafkaError._PARTITION_EOF, error
                _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                (held.add if int(message.offset() or 0) < end else left.discard)(partition)
            return found
        finally:
            consumer.close()


def led(admin: AdminClient, topic: str, partitions: int) -> bool:
    """Whether a topic has all its leaders, as the broker knows it to which a client came first."""
    try:
        found = admin.list_topics(topic, timeout=60).topics[topic].partitions.values()
    except KafkaException:
        return False
    return len(found) == partitions and all(one.leader >= 0 for one in found)


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
