"""sink() beside raw inserts and today's Python, on 1,000,000 events of the reference shape.

`make bench-sink` calls this. Goals: >= 0.9 of raw inserts of the same documents with majority; >= 1.7 x
confluent-kafka + orjson + pymongo with majority, at most a quarter of its client CPU; peak memory < 150 MB, the same
for a longer topic; an empty run in < 1.5 s.
"""

import statistics
from collections.abc import Callable
from typing import Any

from data import DATABASE, Servers, arguments, servers
from machine import describe
from race import Contender, race, ratio, run
from run import Bench, ours, peer, raw_limit

IN_FLIGHT = 8


class SinkBench:
    """One topic and its documents, and those who store it."""

    def __init__(self, bench: Bench, servers: Servers, best: int, seed_events: int) -> None:
        self.bench, self.servers, self.best = bench, servers, best
        self.file = bench.folder / "documents.bson"
        documents = servers.collection()
        self.topic = bench.stored(servers.events(seed_events, bench.folder), documents)
        servers.dump(documents, self.file)

    def mine(self, batch_size: int, topic: str | None = None) -> Callable[[], list[str]]:
        """sink() into a new collection."""

        def prepare() -> list[str]:
            words = {"topic": topic or self.topic, "database": DATABASE, "collection": self.servers.collection()}
            return ours("sink", [self.servers.kafka, self.servers.uri], batch_size=batch_size, **words)

        return prepare

    def raw(self, batch_size: int) -> Callable[[], list[str]]:
        """The same documents, BSON already and in memory, over as many connections, under the same index."""

        def prepare() -> list[str]:
            job: dict[str, Any] = {"file": str(self.file), "batch_size": batch_size, "in_flight": IN_FLIGHT}
            with self.servers.mongo() as client:
                name = self.servers.collection()
                client[DATABASE][name].create_index("timestamp")
            return raw_limit(self.bench.raw, "insert", uri=self.servers.uri, database=DATABASE, collection=name, **job)

        return prepare

    def python(self, concern: int | str) -> Callable[[], list[str]]:
        """confluent-kafka, orjson and pymongo."""

        def prepare() -> list[str]:
            place = {"uri": self.servers.uri, "database": DATABASE, "collection": self.servers.collection()}
            return peer("peer_sink.py", source=self.servers.kafka, topic=self.topic, w=concern, **place)

        return prepare

    def compare(self, rounds: int) -> Contender:
        """Race them all, then tell the ratios that the goals are about."""
        contenders = [
            Contender("millpond.sink, batches of 1,000", self.mine(1_000)),
            Contender(f"millpond.sink, batches of {self.best:,}", self.mine(self.best)),
            Contender("raw inserts, majority, 1,000", self.raw(1_000)),
            Contender(f"raw inserts, majority, {self.best:,}", self.raw(self.best)),
            Contender("orjson + pymongo, majority", self.python("majority")),
            Contender("orjson + pymongo, w=1", self.python(1)),
        ]
        race("sink", contenders, rounds)
        mine, best, raw, raw_best, python, hasty = contenders
        ratio("sink / raw inserts, 1,000", mine, raw, ">= 0.9", lambda median: median >= 0.9)
        ratio(f"sink / raw inserts, {self.best:,}", best, raw_best, ">= 0.9", lambda median: median >= 0.9)
        ratio("sink / orjson + pymongo, majority", mine, python, ">= 1.7", lambda median: median >= 1.7)
        ratio("sink at its best / orjson + pymongo, majority", best, python, ">= 1.7", lambda median: median >= 1.7)
        ratio("sink / orjson + pymongo, w=1", mine, hasty, "", None)
        share = statistics.median(mine.cpu_per_million) / statistics.median(python.cpu_per_million)
        print(f"CPU of sink / CPU of orjson + pymongo, majority: {share:.2f}; <= 0.25: {share <= 0.25}")
        return mine

    def empty(self, rounds: int) -> None:
        """A run that finds nothing to do."""
        words = {"topic": self.topic, "database": DATABASE, "collection": self.servers.collection()}
        command = ours("sink", [self.servers.kafka, self.servers.uri], **words)
        run(command)
        seconds = [run(command)["seconds"] for _ in range(rounds)]
        told = " ".join(f"{value:.2f}" for value in seconds)
        print(f"an empty run: median {statistics.median(seconds):.2f} s ({told}); < 1.5 s: {max(seconds) < 1.5}")

    def memory(self, long: int, events: int, peaks: list[float]) -> None:
        """Peaks of this topic and of a longer one."""
        topic = self.bench.stored(self.servers.events(long, self.bench.folder), self.servers.collection())
        longer = [run(self.mine(size, topic)())["peak_mb"] for size in (1_000, self.best)]
        at = ", ".join(f"{peak:.0f}" for peak in longer)
        print(
            f"peak memory: {max(peaks):.0f} MB at {events:,} events, {at} MB at {long:,} (batches of 1,000 and "
            f"{self.best:,}); < 150 MB: {max(*peaks, *longer) < 150}"
        )


def main() -> None:
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=3_000_000, help="events of the longer topic; 0: none")
    parser.add_argument("--best", type=int, default=3_000, help="the batch size that is best here")
    options = parser.parse_args()
    print(describe())
    with servers(options.stack) as (running, folder):
        bench = Bench(running, options.raw.resolve(), folder, options)
        sink = SinkBench(bench, running, options.best, options.events)
        mine = sink.compare(options.rounds)
        sink.empty(options.rounds)
        if options.long:
            sink.memory(options.long, options.events, [answer["peak_mb"] for answer in mine.answers])


if __name__ == "__main__":
    main()
