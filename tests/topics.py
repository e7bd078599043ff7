"""Topics looked at and disturbed from outside: records deleted, topics recreated, positions forged, readers slowed.

Shares nothing with the engine: confluent-kafka's clients, and the documented shape of a kept position.
"""

import json
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, ResourceType  # type: ignore[attr-defined]
from tests.local_servers import until

Cluster = dict[str, str]

# A reader that takes a few small records and then pauses: a run over a hundred events takes seconds.
SLOW = {
    "fetch.message.max.bytes": "1000", "queued.min.messages": "1", "queued.max.messages.kbytes": "1",
    "fetch.queue.backoff.ms": "50",
}  # fmt: skip

# A writer whose events are in the log soon, and not only when the transaction is about to be committed.
EAGER = {"linger.ms": "50"}


def delete_before(cluster: Cluster, topic: str, offsets: dict[int, int]) -> None:
    """Do what retention does: move the logs' starts. -1 deletes all."""
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
    # Kept in a name: a client that is collected answers nobody.
    admin = AdminClient(dict(cluster))
    for future in admin.delete_records(wanted).values():
        future.result(timeout=60)


def empty(cluster: Cluster, topic: str) -> None:
    partitions = AdminClient(dict(cluster)).list_topics(topic, timeout=60).topics[topic].partitions
    delete_before(cluster, topic, dict.fromkeys(partitions, -1))


def recreate(servers: Any, cluster: Cluster, topic: str, partitions: int, **config: str) -> None:
    """Delete a topic and make it again: same name, another id."""
    admin = AdminClient(dict(cluster))
    admin.delete_topics([topic])[topic].result(timeout=60)

    def made() -> bool:
        try:
            servers.create(cluster, topic, partitions, **config)
        except KafkaException:
            return False
        return True

    until(made)


def grow(cluster: Cluster, topic: str, partitions: int) -> None:
    admin = AdminClient(dict(cluster))
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(timeout=60)
    until(lambda: len(admin.list_topics(topic, timeout=60).topics[topic].partitions) == partitions)


def settings(cluster: Cluster, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(dict(cluster))
    (future,) = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(timeout=60).items()}


def described(cluster: Cluster, topic: str) -> tuple[int, int]:
    """Partitions and replicas of a topic."""
    partitions = AdminClient(dict(cluster)).list_topics(topic, timeout=60).topics[topic].partitions
    return len(partitions), len(partitions[0].replicas)


def log(cluster: Cluster, topic: str, partition: int = 0) -> tuple[int, int]:
    """Start and high watermark of a log."""
    consumer = Consumer(dict(cluster) | {"group.id": "test", "isolation.level": "read_uncommitted"})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=60)
        return int(low), int(high)
    finally:
        consumer.close()


def written(cluster: Cluster, topic: str, partition: int = 0) -> bool:
    """Whether anything is in a log, committed or not; a topic that is not there yet holds nothing."""
    try:
        return log(cluster, topic, partition)[1] > 0
    except KafkaException:
        return False


def positions(servers: Any, job: str) -> dict[int, dict[str, Any]]:
    """The kept positions of a job, by source partition."""
    found = {}
    for message in servers.read(servers.kafka, f"millpond.positions.{job}"):
        found[json.loads(message.key())["partition"]] = json.loads(message.value())
    return found


def forge(servers: Any, job: str, partition: int, **changes: Any) -> None:
    """Write a kept position anew, with changes."""
    topic = f"millpond.positions.{job}"
    last = [m for m in servers.read(servers.kafka, topic) if m.partition() == partition][-1]
    value = json.dumps(json.loads(last.value()) | changes).encode()
    servers.send(servers.kafka, topic, [(last.key(), value, partition)])


def send_singly(cluster: Cluster, topic: str, events: list[tuple[Any, Any, int]]) -> None:
    """Write each event in a batch of its own, so that small fetches read few of them."""
    once = {"acks": "all", "max.in.flight.requests.per.connection": 1}
    producer = Producer(dict(cluster) | once | {"batch.num.messages": 1, "linger.ms": 0})
    for key, value, partition in events:
        producer.produce(topic, value, key, partition)
        producer.poll(0)
    assert producer.flush(120) == 0
