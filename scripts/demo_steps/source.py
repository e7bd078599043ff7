"""New events with known truth on the remote broker.

Owns the choice of the seed and the check that the truth file knows every event of the topic. Refuses to compute truth:
`millpond local produce` does.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from millpond.local import Stack

TOPIC = "product_views"


def read_truth(file: Path) -> dict[str, Any]:
    """Return what was produced so far; empty before the first time."""
    truth: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return truth


def unknown_events(status: dict[str, Any], file: Path) -> str | None:
    """Say how topic and truth differ, as after a `produce` that was killed; None when they agree."""
    consumer = Consumer({**remote_properties(status), "group.id": "millpond-demo"})
    try:
        topic = consumer.list_topics(timeout=15).topics.get(TOPIC)
        held = 0
        for partition in topic.partitions if topic is not None and topic.error is None else ():
            low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=15)
            held += high - low
    finally:
        consumer.close()
    known = read_truth(file).get("produced", 0)
    return None if held == known else f"{TOPIC} holds {held:,} events, {file} knows {known:,}"


def produce(stack: Stack, file: Path, *, count: int, days: int) -> None:
    """Write `count` new events; each time with another seed, so that no batch repeats an earlier one."""
    seed = 1 + len(read_truth(file).get("batches", []))
    words = {"--dir": stack.directory, "--truth": file, "--topic": TOPIC}
    words |= {"--count": count, "--seed": seed, "--days": days, "--partitions": 6, "--malformed-share": 0.002}
    command = [sys.executable, "-m", "millpond.local", "produce"]
    command += [str(part) for pair in words.items() for part in pair]
    subprocess.run(command, check=True)


def remote_properties(status: dict[str, Any]) -> dict[str, Any]:
    """Return librdkafka's properties of the remote broker."""
    remote = status["remote"]
    return {
        "bootstrap.servers": remote["bootstrap"],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": remote["username"],
        "sasl.password": remote["password"],
    }
