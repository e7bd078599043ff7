"""MirrorMaker 2 in exactly-once mode, as one dedicated process: no transform, offsets in Connect's own topics.

The clock runs from the start of the JVM, as for a nightly task, until a read_committed reader sees every event;
`copying_s` is the part from the first event seen to the last.
"""

import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

DEADLINE_S = 600


def properties(job: dict[str, Any], port: int) -> dict[str, str]:
    """Return the worker's settings: everything but the copy is turned off."""
    alias = job["alias"]
    settings = {
        "clusters": f"{alias}, target",
        f"{alias}->target.enabled": "true",
        f"target->{alias}.enabled": "false",
        f"{alias}->target.topics": job["source_topic"],
        # Both exactly-once and the port that it needs: KIP-618, KIP-710.
        "target.exactly.once.source.support": "enabled",
        "dedicated.mode.enable.internal.rest": "true",
        "listeners": f"http://127.0.0.1:{port}",
        "tasks.max": "2",
        "replication.factor": "3",
        "sync.topic.configs.enabled": "false",
        "sync.topic.acls.enabled": "false",
        "emit.heartbeats.enabled": "false",
        "emit.checkpoints.enabled": "false",
        "offset-syncs.topic.location": "target",
        f"{alias}.consumer.max.poll.records": "10000",
        f"{alias}.consumer.max.partition.fetch.bytes": "4000000",
        "target.producer.linger.ms": "50",
        "target.producer.batch.size": "1000000",
        "target.producer.compression.type": job.get("compression", "lz4"),
    }
    for topic in ("config", "offset", "status"):
        settings[f"{topic}.storage.replication.factor"] = "3"
    for side, mapping in ((alias, job["source"]), ("target", job["target"])):
        settings[f"{side}.bootstrap.servers"] = mapping["bootstrap.servers"]
    user, password = job["source"]["sasl.username"], job["source"]["sasl.password"]
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings |= {
        f"{alias}.security.protocol": "SASL_PLAINTEXT",
        f"{alias}.sasl.mechanism": "PLAIN",
        f"{alias}.sasl.jaas.config": f'{login} required username="{user}" password="{password}";',
    }
    return settings


def visible(consumer: Consumer, topic: str) -> int:
    """Return how many offsets of the topic a read_committed reader may see; markers count."""
    try:
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), 5, False)[1] for p in partitions)
    except KafkaException:
        return 0


def read(job: dict[str, Any], topic: str, wanted: int) -> float:
    """Read what is committed until every event was seen; return the moment of the first one."""
    consumer = Consumer(job["target"] | {"group.id": "mm2", "enable.auto.commit": False} | {"fetch.wait.max.ms": 50})
    deadline = time.perf_counter() + DEADLINE_S
    while visible(consumer, topic) == 0:
        if time.perf_counter() > deadline:
            raise SystemExit("MirrorMaker 2 copied nothing")
        time.sleep(0.2)
    first = time.perf_counter()
    partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    seen = 0
    while seen < wanted:
        if time.perf_counter() > deadline:
            raise SystemExit(f"MirrorMaker 2 copied {seen} of {wanted}")
        seen += sum(message.error() is None for message in consumer.consume(10_000, 0.2))
    consumer.close()
    return first


def main(job: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        file = Path(folder) / "mm2.properties"
        file.write_text("".join(f"{name} = {value}\n" for name, value in properties(job, port).items()))
        free.close()
        log = Path(folder) / "mm2.log"
        java = ["java", "-Xmx1g", "-XX:+UseSerialGC", "-cp", f"{job['jars']}/*"]
        began = time.perf_counter()
        with log.open("wb") as out:
            command = [*java, "org.apache.kafka.connect.mirror.MirrorMaker", str(file)]
            mirror = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            first = read(job, f"{job['alias']}.{job['source_topic']}", job["events"])
            done = time.perf_counter()
            peak = psutil.Process(mirror.pid).memory_info().rss / 2**20
        except SystemExit:
            print(log.read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            mirror.terminate()
            mirror.wait(30)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak, "copying_s": done - first}
    print(json.dumps({"events": job["events"], "seconds": done - began} | told))


main(json.loads(sys.argv[1]))
