"""Ratios against raw copies and today's libraries: real servers, the same data, interleaved, all runs printed.

`make bench` calls this. Floors: bridge >= 0.65 of the raw copy, sink >= 0.8 of raw inserts, aggregate <= 1.4 of the raw
scan's time, 10,000 documents aggregated in <= 0.3 s; peak memory bridge < 250 MB, sink < 200 MB, aggregate < 500 MB,
the same when the topic is ten times longer.
"""

import argparse
import json
import secrets
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import DATABASE, Servers, arguments, servers
from machine import describe
from race import Contender, race, ratio, run

DATE, NEXT_DATE = "2025-10-30", "2025-10-31"
RACES = ("bridge", "sink", "aggregate", "small")


def ours(verb: str, servers: list[Any], **arguments: Any) -> list[str]:
    return [sys.executable, "ours.py", verb, json.dumps({"servers": servers, **arguments})]


def peer(script: str, **job: Any) -> list[str]:
    return [sys.executable, script, json.dumps(job)]


def raw_limit(raw: Path, verb: str, **job: Any) -> list[str]:
    return [str(raw), verb, json.dumps(job)]


class Bench:
    """The data of a whole run, made once, and the races over it."""

    def __init__(self, servers: Servers, raw: Path, folder: Path, options: argparse.Namespace) -> None:
        self.servers, self.raw, self.folder, self.options = servers, raw, folder, options
        self.peaks: dict[str, list[tuple[int, float]]] = {}

    def remember(self, verb: str, answer: dict[str, Any]) -> None:
        self.peaks.setdefault(verb, []).append((answer["events"], answer["peak_mb"]))

    def fresh_bridge(self, topic: str) -> tuple[list[str], str]:
        """A target that exists and a job that has its positions: what every run but a job's first one finds."""
        target = self.servers.target()
        words = {"source_topic": topic, "target_topic": target, "transform": "product_views"}
        both = [self.servers.remote, self.servers.kafka]
        run(ours("bridge", both, **words, max_events=1))
        return ours("bridge", both, **words), target

    def bridge(self) -> None:
        topic = self.servers.events(3 * self.options.events, self.folder)
        used: list[str] = []

        def millpond() -> list[str]:
            command, target = self.fresh_bridge(topic)
            used.append(target)
            return command

        def other(command: Callable[[str], list[str]]) -> Callable[[], list[str]]:
            def prepare() -> list[str]:
                used.append(self.servers.target())
                return command(used[-1])

            return prepare

        job: dict[str, Any] = {"source": self.servers.remote, "target": self.servers.kafka, "source_topic": topic}
        contenders = [
            Contender("millpond.bridge", millpond),
            Contender(
                "raw copy (librdkafka, no guarantee)",
                other(lambda target: raw_limit(self.raw, "copy", **job, target_topic=target)),
            ),
            Contender(
                "confluent-kafka + orjson, transactions",
                other(
                    lambda target: peer(
                        "peer_bridge.py", **job, target_topic=target, dead_letter_topic=f"{target}.dead_letters"
                    )
                ),
            ),
        ]
        race("bridge", contenders, self.options.rounds)
        mine, raw, today = contenders
        ratio("bridge / raw copy", mine, raw, ">= 0.65", lambda median: median >= 0.65)
        ratio("bridge / confluent-kafka + orjson", mine, today, "", None)
        for answer in mine.answers:
            self.remember("bridge", answer)
        self.servers.forget(*used, *(f"{name}.dead_letters" for name in used))

    def stored(self, topic: str, collection: str) -> str:
        """Carry a remote topic into a collection; peaks are remembered, for topics of different length."""
        command, target = self.fresh_bridge(topic)
        self.remember("bridge", run(command))
        store = {"topic": target, "database": DATABASE, "collection": collection}
        self.remember("sink", run(ours("sink", [self.servers.kafka, self.servers.uri], **store)))
        return target

    def sink(self) -> None:
        file, documents = self.folder / "documents.bson", self.servers.collection()
        target = self.stored(self.servers.events(self.options.events, self.folder), documents)
        self.servers.dump(documents, file)
        store = {"topic": target, "database": DATABASE}
        place = {"uri": self.servers.uri, "database": DATABASE}
        flight = {"file": str(file), "batch_size": 1_000, "in_flight": 8}

        def new() -> dict[str, str]:
            return {"collection": self.servers.collection()}

        contenders = [
            Contender("millpond.sink", lambda: ours("sink", [self.servers.kafka, self.servers.uri], **store, **new())),
            Contender("raw inserts (mongodb driver, BSON ready)", self.indexed(place, flight, new)),
            Contender(
                "confluent-kafka + orjson + pymongo",
                lambda: peer("peer_sink.py", **place, source=self.servers.kafka, topic=target, **new()),
            ),
        ]
        race("sink", contenders, self.options.rounds)
        mine, raw, today = contenders
        ratio("sink / raw inserts", mine, raw, ">= 0.8", lambda median: median >= 0.8)
        ratio("sink / confluent-kafka + orjson + pymongo", mine, today, "", None)
        for answer in mine.answers:
            self.remember("sink", answer)

    def indexed(
        self, place: dict[str, str], flight: dict[str, Any], new: Callable[[], dict[str, str]]
    ) -> Callable[[], list[str]]:
        """All three write under the same index on `timestamp`."""

        def prepare() -> list[str]:
            words = new()
            with self.servers.mongo() as client:
                client[DATABASE][words["collection"]].create_index("timestamp")
            return raw_limit(self.raw, "insert", **place, **flight, **words)

        return prepare

    def aggregate(self) -> None:
        collection = self.servers.collection()
        self.stored(self.servers.events(self.options.documents, self.folder), collection)
        words = {"database": DATABASE, "collection": collection}
        both = [self.servers.uri, self.servers.dsn]
        dated = {"uri": self.servers.uri, **words, "date": DATE, "next_date": NEXT_DATE}
        # Another job each time, so that each is a first run: it reads all, and keeps its Partial for the next one.
        contenders = [
            Contender(
                "millpond.aggregate", lambda: ours("aggregate", both, **words, dates=DATE, job=secrets.token_hex(5))
            ),
            Contender("raw scan (raw batches, 2 cursors)", lambda: raw_limit(self.raw, "scan", **dated, cursors=2)),
            Contender("pymongoarrow + polars", lambda: peer("peer_reports.py", **dated)),
            Contender(
                'millpond.aggregate, mode="full"',
                lambda: ours("aggregate", both, **words, dates=DATE, mode="full", job=secrets.token_hex(5)),
            ),
        ]
        race("aggregate", contenders, self.options.rounds)
        mine, raw, today, full = contenders
        ratio("scan's time / aggregate's time", mine, raw, "aggregate <= 1.4 of the scan", lambda r: r >= 1 / 1.4)
        ratio("scan's time / the time without a Partial", full, raw, "", None)
        ratio("aggregate / pymongoarrow + polars", mine, today, "", None)
        print(f"phases of the last run, s: {mine.answers[-1]['phases']}")
        for answer in mine.answers:
            self.remember("aggregate", answer)

    def small(self) -> None:
        collection = self.servers.collection()
        self.stored(self.servers.events(10_000, self.folder), collection)
        words = {"database": DATABASE, "collection": collection, "dates": "all"}
        both = [self.servers.uri, self.servers.dsn]
        contender = Contender("millpond.aggregate, 10,000 documents", lambda: ours("aggregate", both, **words))
        race("small", [contender], self.options.rounds)
        median = statistics.median(answer["seconds"] for answer in contender.answers)
        print(f"10,000 documents aggregated: median {median:.3f} s; <= 0.3 s: {'holds' if median <= 0.3 else 'NOT'}")

    def memory(self) -> None:
        for verb, limit in (("bridge", 250), ("sink", 200), ("aggregate", 500)):
            longest: dict[int, float] = {}
            for events, peak in self.peaks.get(verb, []):
                longest[events] = max(peak, longest.get(events, 0))
            told = ", ".join(f"{peak:.0f} MB at {events:,} events" for events, peak in sorted(longest.items()))
            if told:
                print(f"peak memory of {verb}: {told}; < {limit} MB: {max(longest.values()) < limit}")


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--only", default=",".join(RACES), help="races, separated by commas (default: %(default)s)")
    parser.add_argument("--events", type=int, default=200_000, help="of the sink's race, a third of the bridge's")
    parser.add_argument("--documents", type=int, default=2_000_000, help="of the aggregate's, a third of them read")
    options = parser.parse_args()
    print(describe())
    with servers(options.stack) as (running, folder):
        bench = Bench(running, options.raw.resolve(), folder, options)
        for name in options.only.split(","):
            getattr(bench, name)()
        bench.memory()


if __name__ == "__main__":
    main()
