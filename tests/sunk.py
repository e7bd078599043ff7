"""A topic of numbers in a collection, looked at by PyMongo: what is stored, what is left aside, and the positions."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo import errors
from pymongo.read_concern import ReadConcern

import millpond

PARTITIONS = 3


class Numbers:
    """Events `{"n": i}` in three partitions; every so-many-th is no object and becomes a dead letter."""

    def __init__(self, servers: Any, name: str, uri: str, *, bad_every: int = 97) -> None:
        self.servers, self.name, self.uri, self.bad_every = servers, name, uri, bad_every
        self.sent = 0
        servers.create(servers.kafka, name, PARTITIONS)

    def feed(self, count: int, *, size: int = 0) -> None:
        """Send so many; `size` is that of what nothing makes smaller in each of them, in bytes."""
        events = []
        for i in range(self.sent, self.sent + count):
            noise = secrets.token_hex(size // 2).encode()
            value = b"[]" if i % self.bad_every == 0 else b'{"n":%d,"x":"%s"}' % (i, noise)
            events.append((None, value, i % PARTITIONS))
        self.servers.send(self.servers.kafka, self.name, events, sure=True)
        self.sent += count

    @property
    def words(self) -> dict[str, Any]:
        return {"topic": self.name, "database": "tests", "collection": self.name, "batch_size": 50}

    def run(self, **more: Any) -> Any:
        return millpond.sink(self.servers.kafka, more.pop("uri", self.uri), **self.words | more)

    def until_done(self, **more: Any) -> Any:
        """What a scheduler does."""
        deadline = time.monotonic() + 300
        while True:
            try:
                return self.run(**more)
            except (millpond.ExternalError, millpond.Cancelled):
                assert time.monotonic() < deadline, "the sink never ended well"

    def client(self) -> "pymongo.MongoClient[dict[str, Any]]":
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=30_000)

    def check(self) -> None:
        """Everything once, in arrival order by `_id`, and the dead letters aside."""
        with self.client() as client:
            database = client["tests"]
            stored = [one["n"] for one in database[self.name].find({}, {"n": 1}).sort("_id", 1)]
            letters = database[f"{self.name}_dead_letters"].count_documents({})
        good = [i for i in range(self.sent) if i % self.bad_every]
        found = Counter(stored)
        assert found == Counter(good), f"lost {len(set(good) - set(found))}, doubled {len(stored) - len(found)}"
        assert stored == sorted(stored, key=lambda n: (n % PARTITIONS, n))
        assert letters == self.sent - len(good)

    def positions(self, client: "pymongo.MongoClient[dict[str, Any]]") -> dict[int, int]:
        """As a majority holds them."""
        kept = client["tests"].get_collection("millpond_positions", read_concern=ReadConcern("majority"))
        return {one["_id"]["partition"]: one["next"] for one in kept.find({"_id.collection": self.name})}

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        """Look all the while: positions never go back, and what lies below them is held by a majority."""
        over, failures, looks = threading.Event(), list[str](), Counter[str]()

        def look(client: "pymongo.MongoClient[dict[str, Any]]", before: dict[int, int]) -> None:
            kept = self.positions(client)
            failures.extend(f"{p}: {before[p]} -> {kept.get(p)}" for p in before if kept.get(p, 0) < before[p])
            before.update(kept)
            if not kept:
                return
            reader = client["tests"].get_collection(self.name, read_concern=ReadConcern("majority"))
            held = Counter(one["n"] % PARTITIONS for one in reader.find({}, {"n": 1}))
            for partition, following in kept.items():
                expected = sum((o * PARTITIONS + partition) % self.bad_every != 0 for o in range(following))
                if held[partition] < expected:
                    failures.append(f"{partition}: position {following}, {held[partition]} of {expected} stored")
            looks["looks"] += 1
            looks["positions"] = sum(kept.values())

        def watch() -> None:
            before: dict[int, int] = {}
            with pymongo.MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=500) as client:
                while not over.is_set():
                    try:
                        look(client, before)
                    except errors.PyMongoError:
                        looks["failed"] += 1
                    time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield looks
        finally:
            over.set()
            thread.join()
        assert not failures, failures[:5]


@contextmanager
def beside(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a call in a thread; its result or its error is in the list once the block is left."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(300)
    assert not thread.is_alive()
