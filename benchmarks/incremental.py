r"""Incremental reports against full ones: what new events cost, in a collection of any size and age.

Goals: 1% new events, a tenth of them late by days, in <= 5% of a full aggregate of the dates concerned, 0.1% in <= 2%;
flat in the size of the collection. `python benchmarks/incremental.py [--stack DIR] [--only share,sizes,minutes,memory]`
"""

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pymongo
from bson import Int64
from machine import describe

import millpond
from millpond.local import Stack

DATABASE = "benchmarks"
PARTITIONS = 6
FIRST = date(2025, 1, 1)
HEX = [f"{i:02x}" for i in range(256)]


def at(values: list[str], index: Any) -> dict[str, Any]:
    """An expression: the value at a computed place."""
    return {"$arrayElemAt": [values, {"$toInt": index}]}


def text(number: Any) -> dict[str, Any]:
    """An expression: a whole number as text."""
    return {"$toString": {"$toLong": number}}


def mixed(number: Any, factor: int, modulus: int) -> dict[str, Any]:
    """An expression: a number below the modulus that looks like chance."""
    return {"$mod": [{"$multiply": [number, factor]}, modulus]}


class Place:
    """A collection that a sink of one topic might have filled, and the reports of it in a schema of their own.

    `whole` is another schema, for full reports beside them.
    """

    def __init__(self, uri: str, dsn: str, options: argparse.Namespace) -> None:
        """Choose names."""
        self.uri, self.options = uri, options
        self.name = f"run_{secrets.token_hex(5)}"
        # In the same tables each run would find the other's rows, and replace whole dates, not rows that changed.
        self.whole = f"{self.name}_whole"
        self.dsn, self.admin = f"{dsn}?options=-csearch_path%3D{self.name}", dsn
        self.client: pymongo.MongoClient[Any] = pymongo.MongoClient(uri)
        self.database = self.client[DATABASE]
        self.tag = secrets.randbits(32)
        self.next = 0
        self.database[self.name].create_index("timestamp")
        (found,) = self.database.list_collections(filter={"name": self.name})
        self.uuid = found["info"]["uuid"]
        source = {"_id": Int64(self.tag), "cluster": "bench", "topic": self.name, "topic_id": self.name}
        self.database["millpond_sources"].insert_one(source)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {self.name}; CREATE SCHEMA {self.whole}")

    def remove(self) -> None:
        """Leave nothing."""
        self.database.drop_collection(self.name)
        self.database["millpond_sources"].delete_one({"_id": Int64(self.tag)})
        self.database["millpond_positions"].delete_many({"_id.collection": self.name})
        self.client.close()
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {self.name}, {self.whole} CASCADE")

    def arrive(self, count: int, day: Any) -> None:
        """Make events in the server, the n-th of them on the date that `day` computes of `$n`; then raise positions."""
        n: Any = {"$add": [{"$multiply": ["$a", 65_536]}, {"$multiply": ["$b", 256]}, "$c"]}
        offset: Any = {"$toLong": {"$floor": {"$divide": ["$n", PARTITIONS]}}}
        digits = [at(HEX, {"$mod": [{"$floor": {"$divide": ["$o", 256**place]}}, 256]}) for place in (3, 2, 1, 0)]
        event_id = {"$concat": [f"{self.tag:08x}00", at(HEX, {"$mod": ["$n", PARTITIONS]}), "0000", *digits]}
        visitors, keys, second = self.options.visitors, self.options.keys, mixed("$n", 7_919, 86_400)
        clock = [
            at([f"{i:02}" for i in range(60)], part)
            for part in (
                {"$floor": {"$divide": [second, 3_600]}},
                {"$mod": [{"$floor": {"$divide": [second, 60]}}, 60]},
                {"$mod": [second, 60]},
            )
        ]
        days = [(FIRST + timedelta(days=i)).isoformat() for i in range(400)]
        skewed = {"$floor": {"$multiply": [{"$pow": [{"$divide": [mixed("$n", 104_729, 9_973), 9_973]}, 4]}, keys]}}
        fields = {
            "_id": {"$toObjectId": event_id},
            "product_id": text(skewed),
            "device_id": {"$concat": ["device-", text(mixed("$n", 15_485_863, visitors)), "-abcdef0123"]},
            "store_id": {"$concat": ["S", text(mixed("$n", 1_299_709, 80))]},
            "referrer_url": {"$concat": ["https://www.site", text(mixed("$n", 32_452_843, 300)), ".example/p"]},
            "remote_ip": "192.168.1.1",
            "timestamp": {"$concat": [at(days, day), "T", clock[0], ":", clock[1], ":", clock[2], "Z"]},
        }  # fmt: skip
        first, last = self.next, self.next + count
        self.database.aggregate(
            [
                {"$documents": [{"a": {"$range": [first // 65_536, last // 65_536 + 1]}}]},
                {"$unwind": "$a"},
                {"$set": {"b": {"$range": [0, 256]}}},
                {"$unwind": "$b"},
                {"$set": {"c": {"$range": [0, 256]}}},
                {"$unwind": "$c"},
                {"$set": {"n": n}},
                {"$match": {"n": {"$gte": first, "$lt": last}}},
                {"$set": {"o": offset}},
                {"$project": fields},
                {"$merge": {"into": self.name, "whenMatched": "fail"}},
            ]
        )
        self.next = last
        for partition in range(PARTITIONS):
            identity = {"collection": self.name, "source": Int64(self.tag), "partition": partition}
            next_offset = Int64((last - partition + PARTITIONS - 1) // PARTITIONS)
            kept = {"next": next_offset, "collection_uuid": self.uuid, "id": "kafka", "topic": self.name}
            self.database["millpond_positions"].update_one({"_id": identity}, {"$set": kept}, upsert=True)

    def fill(self, documents: int) -> int:
        """The events of days in their order; returns the number of the newest."""
        self.arrive(documents, {"$floor": {"$divide": ["$n", self.options.per_date]}})
        return (documents - 1) // self.options.per_date

    def late(self, count: int, newest: int) -> None:
        """New events, a tenth of them late by one to three days."""
        back = {
            "$cond": [
                {"$eq": [{"$mod": ["$n", 10]}, 0]},
                {"$add": [1, {"$mod": [{"$floor": {"$divide": ["$n", 10]}}, 3]}]},
                0,
            ]
        }
        self.arrive(count, {"$max": [0, {"$subtract": [newest, back]}]})

    def follow(self, times: int, newest: int) -> list[float]:
        """Seconds of so many incremental runs, each after new events."""
        seconds = []
        for _ in range(times):
            self.late(self.options.new, newest)
            result, mine = self.run(dates="changed")
            assert result.mode == "incremental", result.why_full
            seconds.append(mine)
        return seconds

    def run(self, **words: Any) -> tuple[millpond.AggregateResult, float]:
        """A run, and its seconds."""
        began = time.perf_counter()
        result = millpond.aggregate(self.uri, self.dsn, database=DATABASE, collection=self.name, **words)
        return result, time.perf_counter() - began

    def kept(self) -> str:
        """What the Partials take."""
        rows = millpond.partials(self.dsn)["partials"]
        size, visitors = sum(row["bytes"] for row in rows), sum(row["visitors"] for row in rows)
        return f"{len(rows)} partials of {size:,} bytes, {size / max(visitors, 1):.1f} per distinct visitor and date"


def share(place: Place, options: argparse.Namespace) -> None:
    """1% and 0.1% new events beside a full aggregate of the same dates."""
    newest = place.fill(options.documents)
    _, first = place.run(dates="changed")
    print(f"{options.documents:,} documents; first run {first:.2f} s; {place.kept()}")
    for part, goal in ((100, 0.05), (1_000, 0.02)):
        ratios = []
        for _ in range(options.rounds):
            place.late(options.documents // part, newest)
            result, mine = place.run(dates="changed")
            assert result.mode == "incremental", result.why_full
            assert not result.full_scans, result.full_scans
            full, whole = place.run(dates=result.dates, mode="full", job="full", schema=place.whole)
            assert full.rows == result.rows
            ratios.append(mine / whole)
            phases = {name: round(seconds, 3) for name, seconds in result.phases.items()}
            print(
                f"1/{part} new ({result.read:,} events, {len(result.dates)} dates): {mine:.3f} s beside {whole:.2f} s, "
                f"{mine / whole:.1%}; phases {phases}",
                flush=True,
            )
        median = statistics.median(ratios)
        print(f"1/{part} new: median {median:.1%}; <= {goal:.0%}: {'holds' if median <= goal else 'DOES NOT HOLD'}")
    print(place.kept())


def sizes(place: Place, options: argparse.Namespace) -> None:
    """The same new events in collections of several sizes."""
    filled, newest = 0, 0
    for documents in options.sizes:
        place.arrive(documents - filled, {"$floor": {"$divide": ["$n", options.per_date]}})
        filled, newest = place.next, (documents - 1) // options.per_date
        place.run(dates="changed")
        seconds = place.follow(options.rounds, newest)
        print(f"{documents:,} documents, {options.new:,} new: median {statistics.median(seconds):.3f} s of {seconds}")
        filled = place.next


def minutes(place: Place, options: argparse.Namespace) -> None:
    """An hour of runs, one each minute, of what came meanwhile."""
    newest = place.fill(options.documents)
    place.run(dates="changed")
    seconds = place.follow(options.minutes, newest)
    ordered = sorted(seconds)
    print(
        f"{options.minutes} runs of {options.new:,} new events each: median {statistics.median(seconds):.3f} s, "
        f"least {ordered[0]:.3f}, most {ordered[-1]:.3f}, all {sum(seconds):.1f} s; {place.kept()}"
    )


PEAK = """
import json, millpond, resource, sys
result = millpond.aggregate(**json.loads(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(json.dumps([result.mode, len(result.dates), len(result.full_scans), result.kept, peak]))
"""


def memory(place: Place, options: argparse.Namespace) -> None:
    """What a process takes at most whose new events lie on few dates, and on many."""
    dates = max(options.dates)
    place.arrive(dates * 50_000, {"$floor": {"$divide": ["$n", 50_000]}})
    place.run(dates="changed", keep_partials_days=400)
    words = {"mongo_uri": place.uri, "postgres_dsn": place.dsn, "database": DATABASE, "collection": place.name}
    words |= {"dates": "changed", "memory_limit": options.memory_limit << 20, "keep_partials_days": 400}
    for dates in options.dates:
        # A third of what is kept: each date is written together anew.
        place.arrive(dates * 15_000, {"$mod": ["$n", dates]})
        command = [sys.executable, "-c", PEAK, json.dumps(words)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        mode, made, whole, kept, peak = json.loads(answer)
        print(
            f"{made} dates ({mode}, {whole} read as a whole), {kept:,} events kept, memory_limit "
            f"{options.memory_limit} MiB: peak {peak} MiB; {place.kept()}",
            flush=True,
        )


def main() -> None:
    """Print every run, and the medians of ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stack", type=Path, help="use the running servers of this directory")
    parser.add_argument("--only", default="share,sizes,minutes,memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--per-date", type=int, default=500_000, dest="per_date")
    parser.add_argument("--visitors", type=int, default=400_000)
    parser.add_argument("--keys", type=int, default=10_000, help="products")
    parser.add_argument(
        "--sizes", type=lambda text: [int(one) for one in text.split(",")], default=[1_000_000, 4_000_000, 10_000_000]
    )
    parser.add_argument("--new", type=int, default=2_000, help="new events of a run, of sizes and minutes")
    parser.add_argument(
        "--dates", type=lambda text: [int(one) for one in text.split(",")], default=[10, 40], help="of memory"
    )
    parser.add_argument("--memory-limit", type=int, default=64, dest="memory_limit", help="MiB, of memory")
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory(prefix="millpond-bench-", ignore_cleanup_errors=True) as directory:
        stack = Stack(options.stack or Path(directory) / "stack")
        status = stack.status() if options.stack else stack.up(["mongo", "postgres"])
        try:
            for name in options.only.split(","):
                place = Place(status["mongo"]["uri"], status["postgres"]["dsn"], options)
                try:
                    globals()[name](place, options)
                finally:
                    place.remove()
        finally:
            if options.stack is None:
                stack.down(delete=True)


if __name__ == "__main__":
    main()
