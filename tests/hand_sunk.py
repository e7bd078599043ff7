"""A collection as sinks leave it, written by hand: `_id`s of source, partition and offset, and positions beside them.

A test decides what has landed beyond a position, what was lost on the way, and which topics share the collection.
"""

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bson import Int64, ObjectId

if TYPE_CHECKING:
    import pymongo

DATABASE = "tests"


def event_id(tag: int, partition: int, offset: int) -> ObjectId:
    """The `_id` of an event."""
    return ObjectId(tag.to_bytes(4, "big") + partition.to_bytes(2, "big") + offset.to_bytes(6, "big"))


class Collection:
    """Topics in one collection; each partition has a log, of which a part has landed and a part is covered."""

    def __init__(self, client: "pymongo.MongoClient[dict[str, Any]]", name: str, topics: int = 1) -> None:
        """Make the collection with its index, and register the topics."""
        self.database, self.name = client[DATABASE], name
        self.events = self.database[name]
        self.events.create_index("timestamp")
        (found,) = self.database.list_collections(filter={"name": name})
        self.uuid = found["info"]["uuid"]
        self.tags = [random.getrandbits(32) for _ in range(topics)]
        for number, tag in enumerate(self.tags):
            source = {"_id": Int64(tag), "cluster": "c", "topic": f"{name}-{number}", "topic_id": f"id-{tag}"}
            self.database["millpond_sources"].insert_one(source)
        # By (tag, partition): where the log ends, and where the position stands.
        self.ends: dict[tuple[int, int], int] = {}
        self.positions: dict[tuple[int, int], int] = {}

    def land(self, events: Iterable[dict[str, Any]], partition: int = 0, topic: int = 0, holes: int = 0) -> None:
        """Store events, ahead of the position; `holes` offsets before them hold none, as dead letters leave them."""
        place = (self.tags[topic], partition)
        first = self.ends.get(place, 0) + holes
        documents = [{"_id": event_id(*place, first + i), **event} for i, event in enumerate(events)]
        if documents:
            self.events.insert_many(documents, ordered=False)
        self.ends[place] = first + len(documents)

    def cover(self, partition: int = 0, topic: int = 0, upto: int | None = None) -> None:
        """Raise a position, to the end of the log unless told otherwise."""
        place = (self.tags[topic], partition)
        self.move(place, self.ends[place] if upto is None else upto)

    def move(self, place: tuple[int, int], upto: int) -> None:
        """Put a position anywhere."""
        self.positions[place] = upto
        identity = {"collection": self.name, "source": Int64(place[0]), "partition": place[1]}
        kept = {"next": Int64(upto), "collection_uuid": self.uuid, "id": "kafka", "topic": f"{self.name}-t"}
        self.database["millpond_positions"].update_one({"_id": identity}, {"$set": kept}, upsert=True)

    def arrive(self, events: Iterable[dict[str, Any]], partition: int = 0, topic: int = 0) -> None:
        """Store events and cover them."""
        self.land(events, partition, topic)
        self.cover(partition, topic)

    def documents(self) -> list[dict[str, Any]]:
        """All of them."""
        return list(self.events.find())

    @property
    def covers(self) -> dict[tuple[int, int], int]:
        """Positions, as an oracle takes them: a tag without one is known, and covers nothing."""
        return {(tag, 0): 0 for tag in self.tags} | self.positions


def visit(date: str, second: int = 0, **fields: Any) -> dict[str, Any]:
    """An event of a date."""
    clock = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
    return {"product_id": "p", "store_id": "US", "device_id": "d", "referrer_url": "r",
            "timestamp": f"{date}T{clock}Z"} | fields  # fmt: skip


def visits(chance: random.Random, dates: list[str], count: int) -> list[dict[str, Any]]:
    """Events over dates, with keys and visitors that come again, and some that nobody can use."""
    made = []
    for _ in range(count):
        event = visit(chance.choice(dates), chance.randrange(86_400))
        event["product_id"] = chance.choice(["", None, True, "é", *[f"p{i}" for i in range(9)], 3])
        event["store_id"] = chance.choice(["US", "DE", None, "x" * 256])
        event["device_id"] = chance.choice([None, 7, [1], *[f"d{i}" for i in range(40)]])
        event["referrer_url"] = chance.choice([f"https://a.b/{i}" for i in range(5)])
        if chance.random() < 0.1:
            event["timestamp"] = event["timestamp"].replace("Z", chance.choice(["+07:00", "-11:30", ".5Z", ".5"]))
        if chance.random() < 0.03:
            event["timestamp"] = chance.choice([None, "N/A", f"{dates[0]}T99:00:00Z"])
        made.append(event)
    return made
