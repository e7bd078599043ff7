"""Writes generated events to the remote broker, and the truth beside them."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from millpond.local.errors import LocalError
from millpond.local.events import DEAD, KINDS, Parameters, chunks
from millpond.local.render import messages
from millpond.local.truth import Truth


def produce(properties: Mapping[str, str], topic: str, parameters: Parameters, truth_file: Path) -> dict[str, Any]:
    """Write a batch of events and the truth of all batches that the file knows.

    Args:
        properties: librdkafka properties of the remote broker.
        topic: Topic to write; made when absent, with unlimited retention.
        parameters: What determines the batch.
        truth_file: Made, or extended: the earlier batches are counted again from their recorded parameters.

    Returns:
        Events written and events per second.

    Raises:
        LocalError: The broker does not take the events, the file is of another topic, or others write to the topic.
    """
    earlier = _earlier(truth_file, topic, parameters)
    batches = [*(Parameters(**batch) for batch in earlier.get("batches", [])), parameters]
    first_day = min(batch.first_day for batch in batches)
    days = max(batch.first_day + batch.days for batch in batches) - first_day
    truth = Truth(first_day, days)
    try:
        for batch in batches[:-1]:
            for chunk in chunks(batch):
                truth.add(chunk)
        partitions = _ensure(properties, topic, parameters.partitions)
        if partitions != parameters.partitions:
            raise LocalError(f"topic {topic} has {partitions} partitions: say --partitions {partitions}")
        began = time.monotonic()
        letters = _send(properties, topic, parameters, truth)
        seconds = time.monotonic() - began
        records = earlier.get("dead_letters", {}).get("records", []) + letters
        whole = {
            "topic": topic,
            "produced": truth.produced,
            "batches": [batch.to_dict() for batch in batches],
            "dead_letters": {"total": len(records), "by_reason": truth.reasons, "records": records},
            "tombstones": truth.tombstones,
            "events": truth.events,
            "missing_time": truth.missing_time,
            "dates": truth.reports(),
        }
    finally:
        truth.close()
    truth_file.parent.mkdir(parents=True, exist_ok=True)
    scratch = truth_file.with_name(truth_file.name + ".new")
    scratch.write_text(json.dumps(whole))
    scratch.replace(truth_file)
    return {"written": parameters.count, "seconds": seconds, "events_per_second": parameters.count / max(seconds, 1e-9)}


def _earlier(file: Path, topic: str, parameters: Parameters) -> dict[str, Any]:
    if not file.exists():
        return {}
    kept: dict[str, Any] = json.loads(file.read_text())
    if kept.get("topic") != topic:
        raise LocalError(f"{file} is the truth of topic {kept.get('topic')}: give another --truth")
    if any(batch["seed"] == parameters.seed for batch in kept["batches"]):
        raise LocalError(f"{file} knows a batch of seed {parameters.seed} already: give another --seed")
    return kept


def _ensure(properties: Mapping[str, str], topic: str, partitions: int) -> int:
    """Make the topic when absent, wait for its leaders, return its number of partitions."""
    admin = AdminClient(dict(properties))
    found = admin.list_topics(timeout=15).topics.get(topic)
    if found is None or found.error is not None:
        config = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
        made = admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic]
        try:
            made.result(timeout=15)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise LocalError(f"topic {topic} could not be made: {error}") from error
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = admin.list_topics(topic, timeout=15).topics[topic]
        if found.error is None and found.partitions and all(p.leader >= 0 for p in found.partitions.values()):
            return len(found.partitions)
        time.sleep(0.1)
    raise LocalError(f"topic {topic} has no leaders")


def _ends(properties: Mapping[str, str], topic: str, partitions: int) -> list[int]:
    from confluent_kafka import Consumer

    consumer = Consumer({**properties, "group.id": "millpond-produce"})
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                places = (TopicPartition(topic, partition) for partition in range(partitions))
                return [consumer.get_watermark_offsets(place, timeout=15)[1] for place in places]
            except KafkaException as error:
                # A topic just made: its leader may not know of its task yet.
                if time.monotonic() > deadline:
                    raise LocalError(f"topic {topic} does not tell its ends: {error}") from error
                time.sleep(0.1)
    finally:
        consumer.close()


def _send(properties: Mapping[str, str], topic: str, parameters: Parameters, truth: Truth) -> list[list[Any]]:
    """Write the batch and return partition, offset and reason of each dead letter to come."""
    partitions = parameters.partitions
    before = _ends(properties, topic, partitions)
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    # Idempotent, so that the feeder itself doubles nothing: its events are the truth.
    producer = Producer(
        {
            "compression.type": "lz4",
            **properties,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 40_000,
            "queue.buffering.max.kbytes": 16_384,
            "delivery.report.only.error": True,
        }
    )
    letters: list[list[Any]] = []
    for chunk in chunks(parameters):
        truth.add(chunk)
        for i in np.flatnonzero(DEAD[chunk.kind]).tolist():
            number = chunk.first + i
            partition = number % partitions
            letters.append([partition, before[partition] + number // partitions, KINDS[chunk.kind[i]][1]])
        partition = chunk.first % partitions
        for key, value, sent in messages(chunk):
            while True:
                try:
                    producer.produce(topic, value, key, partition, delivered, None, sent)
                    break
                except BufferError:
                    producer.poll(0.05)
            partition = partition + 1 if partition + 1 < partitions else 0
        producer.poll(0)
        if failures:
            raise LocalError(f"topic {topic} did not take an event: {failures[0]}")
    if producer.flush(120) or failures:
        raise LocalError(f"topic {topic} did not take every event: {failures[:1]}")
    for partition, (old, new) in enumerate(zip(before, _ends(properties, topic, partitions), strict=True)):
        wanted = (parameters.count - partition + partitions - 1) // partitions
        if new - old != max(wanted, 0):
            raise LocalError(
                f"topic {topic} partition {partition} grew by {new - old}, not {wanted}: do others write to it?"
            )
    return letters
