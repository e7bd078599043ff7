"""Today's bridge: confluent-kafka with orjson or json, batches in transactions. Positions are not even kept."""

import datetime as dt
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson
from answer import answer
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

BATCH = 10_000
LOADS: dict[str, Callable[[bytes | None], Any]] = {"orjson": orjson.loads, "json": json.loads}  # type: ignore[dict-item]
DUMPS: dict[str, Callable[[Any], bytes]] = {"orjson": orjson.dumps, "json": lambda value: json.dumps(value).encode()}
FIELDS = ("product_id", "device_id", "store_id", "referrer_url", "local_time")


def text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else str(value)


def stored(raw: bytes | None, parser: str) -> bytes | None:
    if raw is None:
        return None
    event = LOADS[parser](raw)
    time_ = event.get("timestamp")
    if time_ is None and (epoch := event.get("time_stamp")) is not None:
        seconds = float(epoch)
        moment = dt.datetime.fromtimestamp(seconds / 1000 if seconds >= 1e12 else seconds, dt.UTC)
        time_ = moment.isoformat().replace("+00:00", "Z")
    ip = event.get("remote_ip")
    mapped = {name: text(event.get(name)) for name in FIELDS}
    return DUMPS[parser](mapped | {"remote_ip": event.get("ip") if ip is None else ip, "timestamp": time_})


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    consumer = Consumer(
        job["source"] | {"group.id": "peer", "enable.auto.commit": False, "enable.partition.eof": True}
        | {"isolation.level": "read_committed", "fetch.queue.backoff.ms": 5}
    )  # fmt: skip
    producer = Producer(
        job["target"]
        | {"transactional.id": f"peer-{job['target_topic']}", "linger.ms": 50, "batch.size": 1_000_000}
        | {"compression.type": job.get("compression", "lz4")}
    )
    producer.init_transactions(30)
    topic = job["source_topic"]
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_, events = len(partitions), 0
    while open_:
        messages = consumer.consume(BATCH, 0.2)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_ -= 1
                continue
            events += 1
            place, value = job["target_topic"], message.value()
            try:
                value = stored(value, job.get("parser", "orjson"))
            except (ValueError, TypeError, AttributeError, OverflowError):
                place = job["dead_letter_topic"]
            while True:
                try:
                    producer.produce(place, value, message.key(), message.partition(), timestamp=message.timestamp()[1])
                    break
                except BufferError:
                    producer.poll(0.02)
        producer.commit_transaction(30)
    answer(events, time.perf_counter() - began)


main(json.loads(sys.argv[1]))
