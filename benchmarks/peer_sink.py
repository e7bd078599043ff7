"""Today's sink: confluent-kafka, orjson and pymongo, `insert_many` of a thousand documents, offsets committed after."""

import json
import sys
import time
from typing import Any

import orjson
import pymongo
from answer import answer
from confluent_kafka import Consumer, KafkaError, TopicPartition
from pymongo import WriteConcern

BATCH = 1_000


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    consumer = Consumer(
        job["source"] | {"group.id": f"peer-{job['collection']}", "enable.auto.commit": False}
        | {"enable.partition.eof": True, "fetch.queue.backoff.ms": 5}
    )  # fmt: skip
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(job["uri"])
    events = client[job["database"]].get_collection(
        job["collection"], write_concern=WriteConcern(job.get("w", "majority"))
    )
    events.create_index("timestamp")
    topic = job["topic"]
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_, read = len(partitions), 0
    while open_:
        documents = []
        for message in consumer.consume(BATCH, 0.2):
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_ -= 1
                continue
            read += 1
            if (value := message.value()) is not None:
                documents.append(orjson.loads(value))
        if documents:
            events.insert_many(documents, ordered=False)
            consumer.commit(asynchronous=True)
    answer(read, time.perf_counter() - began)


main(json.loads(sys.argv[1]))
