"""Tasks and merges of a reading, however many: the rows are the native ones.

Here they run in this process, as an engine has them run elsewhere; `tests/test_spark.py` is the real one.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from bson import Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from tests.report_tables import store
from tests.spark_driver import rows
from tests.test_reports import DATES, document_of

import millpond
from millpond import _native
from millpond import reports as r
from millpond.results import AggregateResult

REPORTS: list[Any] = [
    "product_views",
    r.Report("spent", {"store": "store_id", "hour": r.hour()},
             {"n": r.count(), "sum": r.sum("price"), "mean": r.mean("price"), "least": r.min("price"),
              "first": r.min("product_id", type="text"), "visitors": r.count_distinct("device_id"),
              "products": r.count_distinct("product_id")}),
]  # fmt: skip


@dataclass
class Here:
    """An engine of this process; each task and each merge twice, as after a lost executor, and in any order."""

    settings: str
    tasks: int | None
    merges: int | None
    chance: random.Random
    name: str = "here"
    folded: list[int] = field(default_factory=list)

    def open(self) -> tuple[int, int | None, int | None]:
        return 2, self.tasks, self.merges

    def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
        self.folded.append(len(tasks))
        parts = []
        for task in tasks:
            once, again = (_native.fold(self.settings, order, task, _native.CancelToken()) for _ in range(2))
            assert [part for part, _ in once] == [part for part, _ in again]
            parts += self.chance.choice([once, again])
        self.chance.shuffle(parts)
        if merges == 1:
            return [partial for _, partial in parts]
        mergers: dict[int, Any] = {}
        for part, partial in parts:
            mergers.setdefault(part % merges, _native.Merger(self.settings)).add(partial)
        return [merger.done() for merger in mergers.values()]


def through(chance: random.Random, tasks: int | None, merges: int | None, **words: Any) -> tuple[AggregateResult, Here]:
    settings = json.dumps({"reports": r.definitions(REPORTS)} | words)
    engine = Here(settings, tasks, merges, chance)
    books, tables = _native.aggregate(settings, _native.CancelToken(), None, None, engine)
    return AggregateResult(json.loads(books), tables), engine


def alike(one: AggregateResult, other: AggregateResult) -> None:
    assert rows(one.tables) == rows(other.tables)
    for name in ("scanned", "counted", "excluded", "excluded_keys", "dates", "rows", "positions", "repeatable"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("tasks", [1, 5, None])
def test_however_many_tasks_and_merges(servers, name, tasks):
    chance = random.Random(name)
    print(f"random.Random({name!r})")
    documents = [document_of(chance, DATES) | {"price": chance.choice([1, 0.1, -3, None, "x"])} for _ in range(2_000)]
    store(servers, name, list({repr(document["_id"]): document for document in documents}.values()))
    words = {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name}
    for dates in ("all", "latest", DATES[1:8:2]):
        mine = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=dates,
                                  reports=REPORTS)  # fmt: skip
        for merges in (1, 3):
            theirs, engine = through(chance, tasks, merges, **words, dates=dates)
            alike(theirs, mine)
            assert theirs.engine == "here"
            assert all(count <= (tasks or 4) for count in engine.folded)


def test_a_time_that_looks_like_extended_json_fails_no_sample(servers, name):
    odd = [{"timestamp": {"$date": "soon"}, "product_id": "p", "device_id": "d"} for _ in range(2_000)]
    store(servers, name, [*odd, {"timestamp": f"{DATES[7]}T10:00:00Z", "product_id": "p", "device_id": "d"}])
    words = {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name, "dates": "all"}
    mine = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="all", reports=REPORTS)
    theirs, _ = through(random.Random(name), 5, 3, **words)
    alike(theirs, mine)
    assert (theirs.counted, theirs.excluded) == (1, {"malformed_time": 2_000})


@pytest.mark.parametrize("form", ["text", "blank", "bson", "mixed", "one second"])
def test_ranges_are_of_equal_work(servers, name, form):
    """Most events in one hour of a day: cut by what there is, not by the clock; and each event once."""
    chance = random.Random(name)

    def time(i: int) -> Any:
        second = chance.randrange(3_600) if i % 10 else chance.randrange(86_400)
        if form == "one second":
            second = 7
        text = f"{DATES[7]}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        days = 20_392  # 2025-10-31
        if form == "bson" or (form == "mixed" and i % 2):
            return DatetimeMS((days * 86_400 + second) * 1_000)
        return text.replace("T", " ") if form == "blank" else text + "Z"

    documents = [{"timestamp": time(i), "product_id": str(i % 50), "device_id": str(i)} for i in range(20_000)]
    store(servers, name, documents)
    words = {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name, "dates": DATES[7]}
    sizes: list[int] = []

    class Counting(Here):
        def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
            parts = [_native.fold(self.settings, order, task, _native.CancelToken()) for task in tasks]
            sizes.extend(sum(len(partial) for _, partial in some) for some in parts)
            return [partial for some in parts for _, partial in some]

    settings = json.dumps({"reports": r.definitions(r.Report("t", {"k": "device_id"}, {"n": r.count()}))} | words)
    books, _ = _native.aggregate(settings, _native.CancelToken(), None, None, Counting(settings, 8, 1, chance))
    assert json.loads(books)["counted"] == json.loads(books)["scanned"] == 20_000
    if form != "one second":
        assert len(sizes) == 8
        # A row for each event: bytes follow them.
        assert max(sizes) < 3 * sum(sizes) / len(sizes), sizes


def test_positions_are_those_of_the_driver(servers, name):
    """Events that arrive between the order and a task are of no report."""
    tag = 9
    place = {"collection": name, "source": Int64(tag), "partition": 0}
    stamps = {"timestamp": "2025-10-31", "product_id": "p"}
    events = [{"_id": ObjectId(f"{tag:08x}0000{i:012x}")} | stamps for i in range(300)]
    with servers.mongo() as client:
        try:
            client[name]["millpond_positions"].insert_one({"_id": place, "next": Int64(200)})
            client[name][name].create_index("timestamp")
            client[name][name].insert_many(events[:200])
            words = {"mongo_uri": servers.mongo_uri, "database": name, "collection": name}

            class Later(Here):
                def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
                    client[name][name].insert_many(events[200:])
                    return super().__call__(order, tasks, merges)

            for dates in ("all", "2025-10-31"):
                client[name][name].delete_many({"_id": {"$gte": events[200]["_id"]}})
                settings = json.dumps(words | {"dates": dates})
                books, _ = _native.aggregate(
                    settings, _native.CancelToken(), None, None, Later(settings, 3, 2, random.Random(1))
                )
                told = json.loads(books)
                assert (told["counted"], told["scanned"], told["repeatable"]) == (200, 200, True)
        finally:
            client.drop_database(name)


def test_tasks_read_the_moment_of_the_driver(servers, name):
    """Documents that arrive, leave and move before a task reads are as they were: one cluster time for all."""
    documents = [{"timestamp": f"{DATES[7]}T{i % 24:02}:00:00Z", "product_id": str(i % 7)} for i in range(240)]
    store(servers, name, documents)
    words = {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name}

    class Disturbed(Here):
        def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
            with servers.mongo() as client:
                client["tests"][name].insert_many([{"timestamp": f"{DATES[7]}T07:00:00Z"} for _ in range(50)])
                client["tests"][name].delete_many({"product_id": "3"})
                client["tests"][name].update_many({"product_id": "4"}, {"$set": {"timestamp": DATES[8]}})
            return super().__call__(order, tasks, merges)

    settings = json.dumps(words | {"dates": DATES[7]})
    mine = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=DATES[7])
    engine = Disturbed(settings, 4, 2, random.Random(1))
    books, tables = _native.aggregate(settings, _native.CancelToken(), None, None, engine)
    result = AggregateResult(json.loads(books), tables)
    alike(result, mine)
    assert (result.counted, result.snapshot) == (240, True)


def test_what_no_moment_and_no_position_fixes_is_refused(servers, name):
    """A task may run twice: of a collection without snapshots it would read two things."""
    with servers.mongo() as client:
        client["tests"].create_collection(name, capped=True, size=1_000_000)
    store(servers, name, [{"timestamp": DATES[7]}])
    settings = json.dumps({"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name})
    engine = Here(settings, 1, 1, random.Random(1))
    with pytest.raises(millpond.ConfigError, match="capped") as caught:
        _native.aggregate(settings, _native.CancelToken(), None, None, engine)
    assert 'engine="native"' in caught.value.hint
    assert engine.folded == []


def test_a_moment_that_is_forgotten_is_taken_again(servers, name):
    """What a task says reaches the reading: it begins again, at a moment of its own."""
    store(servers, name, [{"timestamp": DATES[7]}])

    class Forgetful(Here):
        def __call__(self, order: str, tasks: list[bytes], merges: int) -> list[bytes]:
            moments.append(json.loads(order)["time"])
            if len(moments) < 3:
                error = millpond.ExternalError("SnapshotTooOld, says a task", "the hint")
                vars(error)["forgotten"] = True
                raise error
            return super().__call__(order, tasks, merges)

    moments: list[Any] = []
    settings = json.dumps({"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name})
    books, _ = _native.aggregate(
        settings, _native.CancelToken(), None, None, Forgetful(settings, 1, 1, random.Random(1))
    )
    assert json.loads(books)["counted"] == 1
    assert all(moments)
