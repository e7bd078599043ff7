"""sink() beside raw inserts and today's Python, on 1,000,000 events of the reference shape.

`make bench-sink` calls this. Goals: >= 0.9 of raw inserts of the same documents with majority; >= 1.7 x
confluent-kafka + orjson + pymongo with majority, at most a quarter of its client CPU; peak memory < 150 MB, the same
for a longer topic; an empty run in < 1.5 s.
"""

import statistics
from collections.abc import Callable

from data import DATABASE, Servers, arguments, servers
from machine import describe
from race import Contender, race, ratio, run
from run import Bench, ours, peer, raw_limit


def on_their_way(batch_size: int) -> int:
    """How many batches both send at once: eight, or as many as hold 12,000 events."""
    return max(2, min(8, 12_000 // batch_size))


class SinkBench:
    """One topic and its documents, and those who store it."""

    def __init__(self, bench: Bench, servers: Servers, best: int, seed_events: int) -> None:
        self.bench, self.servers, self.best = bench, servers, best
        self.file = bench.folder / "documents.bson"
        self.last: str | None = None
        documents = servers.collection()
        self.topic = bench.stored(servers.events(seed_events, bench.folder), documents)
        servers.dump(documents, self.file)

    def place(self) -> dict[str, str]:
        """A new collection; the one before is dropped, so that the server's disk and cache are the same for all."""
        with self.servers.mongo() as client:
            if self.last is not None:
                client[DATABASE].drop_collection(self.last)
            self.last = self.servers.collection()
            client[DATABASE][self.last].create_index("timestamp")
        return {"database": DATABASE, "collection": self.last}

    def mine(self, batch_size: int, topic: str | None = None) -> Callable[[], list[str]]:
        """sink() into a new collection."""
        both = [self.servers.kafka, self.servers.uri]
        words = {"topic": topic or self.topic, "batch_size": batch_size, "in_flight": on_their_way(batch_size)}
        return lambda: ours("sink", both, **words, **self.place())

    def raw(self, batch_size: int, *, retry_writes: bool = False) -> Callable[[], list[str]]:
        """The same documents, BSON already and in memory, over as many connections."""
        words = {"uri": self.servers.uri, "file": str(self.file), "retry_writes": retry_writes}
        words |= {"batch_size": batch_size, "in_flight": on_their_way(batch_size)}
        return lambda: raw_limit(self.bench.raw, "insert", **words, **self.place())

    def python(self, concern: int | str) -> Callable[[], list[str]]:
        """confluent-kafka, orjson and pymongo."""
        words = {"uri": self.servers.uri, "source": self.servers.kafka, "topic": self.topic, "w": concern}
        return lambda: peer("peer_sink.py", **words, **self.place())

    def compare(self, rounds: int) -> Contender:
        """Race them all, then tell the ratios that the goals are about."""
        contenders = [
            Contender("millpond.sink, 1,000", self.mine(1_000)),
            Contender("raw inserts, 1,000", self.raw(1_000)),
            Contender("raw inserts, 1,000, retryWrites", self.raw(1_000, retry_writes=True)),
            Contender("orjson + pymongo, majority", self.python("majority")),
            Contender("orjson + pymongo, w=1", self.python(1)),
            Contender(f"millpond.sink, {self.best:,}", self.mine(self.best)),
            Contender(f"raw inserts, {self.best:,}", self.raw(self.best)),
        ]
        race("sink", contenders, rounds)
        mine, raw, usual, python, hasty, best, raw_best = contenders
        floor, holds = ">= 0.9", lambda median: median >= 0.9
        ratio("sink / raw inserts, 1,000", mine, raw, floor, holds)
        ratio("sink / raw inserts as the driver does by default", mine, usual, floor, holds)
        ratio(f"sink / raw inserts, {self.best:,}", best, raw_best, floor, holds)
        ratio("sink / orjson + pymongo, majority", mine, python, ">= 1.7", lambda median: median >= 1.7)
        ratio(f"sink, {self.best:,} / orjson + pymongo, majority", best, python, ">= 1.7", lambda median: median >= 1.7)
        ratio("sink / orjson + pymongo, w=1", mine, hasty, "", None)
        shares = [one / other for one, other in zip(mine.cpu_per_million, python.cpu_per_million, strict=True)]
        share, told = statistics.median(shares), " ".join(f"{value:.2f}" for value in shares)
        print(f"CPU of sink / CPU of orjson + pymongo, majority: median {share:.2f} ({told}); <= 0.25: {share <= 0.25}")
        return mine

    def empty(self, rounds: int) -> None:
        """A run that finds nothing to do."""
        command = self.mine(1_000)()
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
