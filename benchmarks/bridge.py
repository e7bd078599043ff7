"""bridge() beside everything that could be used instead, on 2,000,000 events of about 490 bytes.

`make bench-bridge` calls this. Goals: >= 0.8 of the raw copy with exactly once and transform, >= 0.9 with
`transform=None`; >= 1.6 x the fastest Python in transactions with at most a third of its CPU; ahead of MirrorMaker 2.
"""

import secrets
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import Servers, arguments, servers
from machine import describe
from race import Contender, race, ratio, run
from run import ours, peer, raw_limit

from millpond.local.jars import KAFKA_VERSION, jars

ALIAS = "remote-"


class Bench:
    """One data set under one compression, and those who copy it."""

    def __init__(self, servers: Servers, raw: Path, topic: str, compression: str, events: int) -> None:
        self.servers, self.raw, self.events, self.topic = servers, raw, events, topic
        self.compression = compression
        self.used: list[str] = []
        source = {"source": servers.remote, "target": servers.kafka, "source_topic": topic}
        self.job: dict[str, Any] = source | {"compression": compression, "events": events}

    def target(self) -> str:
        """Make a fresh target; the one before last is of no use any more."""
        while len(self.used) > 1:
            gone = self.used.pop(0)
            self.servers.forget(gone, f"{gone}.dead_letters")
        self.used.append(self.servers.target())
        return self.used[-1]

    def mine(self, transform: str | None) -> Callable[[], list[str]]:
        """bridge() on a job that has its positions: what every run but a job's first one finds."""

        def prepare() -> list[str]:
            words = {"source_topic": self.topic, "target_topic": self.target(), "transform": transform}
            both = [self.servers.remote, self.servers.kafka | {"compression.type": self.compression}]
            run(ours("bridge", both, **words, max_events=1))
            return ours("bridge", both, **words)

        return prepare

    def shards(self, count: int) -> Callable[[], list[str]]:
        """The same as so many mapped tasks."""

        def prepare() -> list[str]:
            _, script, *rest = self.mine("product_views")()
            return [sys.executable, str(Path(script).with_name("shards.py")), str(count), *rest]

        return prepare

    def copy(self, verb: str) -> Callable[[], list[str]]:
        """One of the raw limits."""
        return lambda: raw_limit(self.raw, verb, **self.job, target_topic=self.target())

    def python(self, parser: str) -> Callable[[], list[str]]:
        """confluent-kafka in transactions."""

        def prepare() -> list[str]:
            target = self.target()
            letters = {"target_topic": target, "dead_letter_topic": f"{target}.dead_letters"}
            return peer("peer_bridge.py", **self.job, **letters, parser=parser)

        return prepare

    def mirror(self) -> list[str]:
        """MirrorMaker 2 names its target after the source's alias, and remembers: each run has an alias of its own."""
        folder = jars(Path(__file__).with_name("mirror-pom.xml"), f"mirror-{KAFKA_VERSION}", "connect-mirror-*.jar")
        self.servers.forget(*(name for name in self.servers.topics() if ALIAS in name))
        return peer("peer_mirrormaker.py", **self.job, jars=str(folder), alias=f"{ALIAS}{secrets.token_hex(4)}")

    def scale(self, rounds: int) -> None:
        """Race layouts of 1, 2 and 4 shards."""
        contenders = [Contender(f"millpond.bridge, {n} shard{'s'[: n > 1]}", self.shards(n)) for n in (1, 2, 4)]
        race("bridge, shards", contenders, rounds)
        one, *more = contenders
        for layout in more:
            ratio(f"{layout.name} / 1", layout, one, "", None)

    def compare(self, rounds: int) -> None:
        """Race them all, then tell the ratios that the goals are about."""
        contenders = [
            Contender("millpond.bridge, PRODUCT_VIEWS", self.mine("product_views")),
            Contender("millpond.bridge, transform=None", self.mine(None)),
            Contender("raw copy (librdkafka, no guarantee)", self.copy("copy")),
            Contender("raw produce (from memory)", self.copy("produce")),
            Contender("confluent-kafka + orjson, transactions", self.python("orjson")),
            Contender("confluent-kafka + json, transactions", self.python("json")),
            Contender("MirrorMaker 2, exactly once", self.mirror),
        ]
        # Uncounted: brokers whose JVMs are cold answer slowly, and the first contender alone would pay for it.
        for warming in (contenders[2], contenders[1]):
            run(warming.prepare())
        race(f"bridge, {self.compression}", contenders, rounds)
        transformed, plain, raw, _, orjson, _, mirror = contenders
        ratio("PRODUCT_VIEWS / raw copy", transformed, raw, ">= 0.8", lambda median: median >= 0.8)
        ratio("transform=None / raw copy", plain, raw, ">= 0.9", lambda median: median >= 0.9)
        ratio("PRODUCT_VIEWS / orjson, transactions", transformed, orjson, ">= 1.6", lambda median: median >= 1.6)
        ratio("transform=None / MirrorMaker 2", plain, mirror, "> 1", lambda median: median > 1)
        both = [statistics.median(one.cpu_per_million) for one in (transformed, orjson)]
        print(f"CPU of PRODUCT_VIEWS / CPU of orjson: {both[0] / both[1]:.2f}; goal <= 0.33")
        copying = [answer["events"] / answer["copying_s"] for answer in mirror.answers]
        print(f"MirrorMaker 2 once it copies: {', '.join(f'{rate:,.0f}' for rate in copying)} events/s")


def main() -> None:
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--compression", default="lz4,none", help="separated by commas (default: %(default)s)")
    parser.add_argument("--only", choices=("peers", "shards"), help="one of the races (default: both)")
    options = parser.parse_args()
    print(describe())
    with servers(options.stack) as (running, folder):
        for compression in options.compression.split(","):
            topic = running.events(options.events, folder, compression)
            bench = Bench(running, options.raw.resolve(), topic, compression, options.events)
            for name, races in (("peers", bench.compare), ("shards", bench.scale)):
                if options.only in (None, name):
                    races(options.rounds)


if __name__ == "__main__":
    main()
