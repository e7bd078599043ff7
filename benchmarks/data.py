"""Topics and collections for the races: made, filled and removed, each under a name of its own."""

import argparse
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

import millpond
from millpond.local import Stack
from millpond.local.events import Parameters
from millpond.local.produce import produce

DATABASE = "benchmarks"
PARTITIONS = 6


def arguments(doc: str, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of a benchmark with what they all take."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, help="the compiled benchmarks/raw.rs")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--stack", type=Path, help="use the running servers of this directory")
    return parser


@dataclass
class Servers:
    """A running stack and what the contenders need to know of it."""

    remote: dict[str, str]
    kafka: dict[str, str]
    uri: str
    dsn: str

    @classmethod
    def of(cls, stack: Stack) -> "Servers":
        """Read the addresses of a stack."""
        status = stack.status()
        remote = millpond.kafka_from_jaas(status["remote"]["jaas"], status["remote"]["bootstrap"])
        kafka = {"bootstrap.servers": status["kafka"]["bootstrap"]}
        return cls(remote, kafka, status["mongo"]["uri"], status["postgres"]["dsn"])

    def events(self, count: int, folder: Path, compression: str = "lz4") -> str:
        """Write generated events to a new topic of the remote broker."""
        topic = f"bench-{secrets.token_hex(5)}"
        remote = self.remote | {"compression.type": compression}
        produce(remote, topic, Parameters(1, count, 3, 0.002, PARTITIONS, "2025-10-31"), folder / f"{topic}.json")
        return topic

    def target(self) -> str:
        """Make a target topic and its dead-letter topic; brokers settle before the clock starts."""
        name = f"bench-{secrets.token_hex(5)}"
        admin = AdminClient(dict(self.kafka))
        config = {"retention.ms": "-1", "max.message.bytes": "2228224"}
        topics = [NewTopic(one, PARTITIONS, 3, config=config) for one in (name, f"{name}.dead_letters")]
        for made in admin.create_topics(topics).values():
            made.result(timeout=30)
        time.sleep(2)
        return name

    def forget(self, *topics: str) -> None:
        """Delete topics, and wait until they are gone: disks are finite."""
        if not topics:
            return
        # Held: a client that is collected takes what it was asked with it.
        admin = AdminClient(dict(self.kafka))
        for gone in admin.delete_topics(list(topics)).values():
            gone.exception(timeout=30)
        deadline = time.monotonic() + 30
        while set(topics) & set(self.topics()) and time.monotonic() < deadline:
            time.sleep(0.1)

    def topics(self) -> list[str]:
        """Name the topics of the target cluster."""
        return list(AdminClient(dict(self.kafka)).list_topics(timeout=10).topics)

    def mongo(self) -> "pymongo.MongoClient[Any]":
        """Connect."""
        return pymongo.MongoClient(self.uri)

    def collection(self) -> str:
        """Choose the name of a new collection, and remove the ones that earlier runs filled."""
        with self.mongo() as client:
            for name in client[DATABASE].list_collection_names():
                if name.startswith("run-"):
                    client[DATABASE].drop_collection(name)
        return f"run-{secrets.token_hex(5)}"

    def dump(self, collection: str, file: Path) -> None:
        """Write every document as BSON, one after another."""
        with self.mongo() as client, file.open("wb") as out:
            options = CodecOptions(document_class=RawBSONDocument)
            for document in client[DATABASE].get_collection(collection, codec_options=options).find():
                out.write(document.raw)


@contextmanager
def servers(running: Path | None) -> Iterator[tuple[Servers, Path]]:
    """Servers, those of a running stack or a new one's that ends with the block, and a folder for the time between."""
    with tempfile.TemporaryDirectory(prefix="millpond-bench-", ignore_cleanup_errors=True) as directory:
        folder = Path(directory)
        stack = Stack(running or folder / "stack")
        try:
            if running is None:
                stack.up()
            yield Servers.of(stack), folder
        finally:
            if running is None:
                stack.down(delete=True)
