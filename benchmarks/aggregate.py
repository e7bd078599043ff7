r"""Reports against a raw scan through the same index, pymongoarrow + polars, MongoDB's pipelines, the usual Spark job.

Goals: <= 1.2 of the raw scan's time; >= 20 x the usual Spark job cold and >= 10 x warm; 10,000 documents in <= 0.15 s;
>= 700,000 rows/s into new tables of PostgreSQL and >= 0.8 of `psql \copy`; < 400 MB for 5M events of one date with 1M
visitors, and the same rows with a tenth of the memory.
`python benchmarks/aggregate.py --raw RAW [--stack DIR] [--only scan,small,copy,memory] [--spark ENVIRONMENT]`
"""

import random
import statistics
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data import DATABASE, Servers, arguments, servers
from machine import describe
from publish import copies
from race import Contender, race, ratio, run
from run import ours, peer, raw_limit
from usual_spark import SPARK, usual, warmed

from millpond.local import spark

RACES = ("scan", "small", "copy", "memory")
DATES = ("2025-10-29", "2025-10-30", "2025-10-31")
DATE, NEXT_DATE = "2025-10-31", "2025-11-01"


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def events(count: int, dates: tuple[str, ...], visitors: int, keys: int) -> Iterator[dict[str, Any]]:
    """Events of about 230 bytes, products by a power law."""
    chance = random.Random(1)  # noqa: S311 - events, no secrets
    for i in range(count):
        second = chance.randrange(86_400)
        time_of_day = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        yield {
            "product_id": str(int(chance.paretovariate(0.6)) % keys), "device_id": f"{i * 7_919 % visitors:032x}",
            "store_id": str(chance.randrange(80)), "referrer_url": f"https://www.site{chance.randrange(300)}.example/p",
            "local_time": f"{dates[i % len(dates)]} {time_of_day}", "remote_ip": "192.168.1.1",
            "timestamp": f"{dates[i % len(dates)]}T{time_of_day}Z",
        }  # fmt: skip


def fill(stack: Servers, count: int, dates: tuple[str, ...], visitors: int, keys: int) -> str:
    """A new collection with an index on `timestamp`."""
    name: str = stack.collection()
    with stack.mongo() as client:
        client[DATABASE][name].create_index("timestamp")
        for some in batched(events(count, dates, visitors, keys), 10_000):
            client[DATABASE][name].insert_many(some, ordered=False)
    return name


def scan(stack: Servers, folder: Path, options: Any) -> None:
    with spark.cluster(folder / "spark", environment=options.spark) as cluster:
        scans(stack, cluster, options)


def scans(stack: Servers, cluster: spark.Cluster, options: Any) -> None:
    raw = options.raw.resolve()
    for count in (options.documents, options.documents // 10):
        words = {"database": DATABASE, "collection": fill(stack, count, DATES, count // 5, 100_000)}
        dated = {"uri": stack.uri, **words, "date": DATE, "next_date": NEXT_DATE}
        both = [stack.uri, stack.dsn]
        contenders = [
            Contender("millpond.aggregate", lambda: ours("aggregate", both, **words, dates=DATE)),  # noqa: B023
            Contender("raw scan, 2 cursors", lambda: raw_limit(raw, "scan", **dated, cursors=2)),  # noqa: B023
            Contender("pymongoarrow + polars", lambda: peer("peer_reports.py", **dated)),  # noqa: B023
            Contender("MongoDB's pipelines", lambda: peer("peer_pipeline.py", **dated)),  # noqa: B023
            Contender("the usual Spark job, cold", lambda: usual(cluster, stack.dsn, **dated)),  # noqa: B023
        ]
        race(f"a third of {count:,}", contenders, options.rounds)
        mine, limit, frames, pipelines, cold = contenders
        ratio("scan's time / aggregate's time", mine, limit, "aggregate <= 1.2 of the scan", lambda r: r >= 1 / 1.2)
        ratio("aggregate / pymongoarrow + polars", mine, frames, "", None)
        ratio("aggregate / MongoDB's pipelines", mine, pipelines, "", None)
        ratio("aggregate / the usual Spark job, cold", mine, cold, ">= 20", lambda r: r >= 20)
        ratio("aggregate / the usual Spark job, warm", mine, warmed(cold), ">= 10", lambda r: r >= 10)
        print(f"phases of the last run, s: {mine.answers[-1]['phases']}")


def small(stack: Servers, _folder: Path, options: Any) -> None:
    words = {"database": DATABASE, "collection": fill(stack, 10_000, DATES[2:], 2_000, 1_000), "dates": DATE}
    contender = Contender("10,000 documents", lambda: ours("aggregate", [stack.uri, stack.dsn], **words))
    race("small", [contender], options.rounds)
    median = statistics.median(answer["seconds"] for answer in contender.answers)
    print(f"10,000 documents: median {median:.3f} s; <= 0.15 s: {'holds' if median <= 0.15 else 'DOES NOT HOLD'}")


def copy(stack: Servers, folder: Path, options: Any) -> None:
    copies(stack.uri, stack.dsn, folder, 1_000_000, options.rounds)


def memory(stack: Servers, _folder: Path, options: Any) -> None:
    """Five million events of one date, a million visitors; then with a tenth of what that took."""
    name = fill(stack, options.documents * 5 // 2, DATES[2:], options.documents // 2, 100_000)
    words = {"database": DATABASE, "collection": name, "dates": DATE}
    free = run(ours("aggregate", [stack.uri, None], **words))
    small = run(ours("aggregate", [stack.uri, None], **words, memory_limit=options.tight))
    for told, answer in (("without limit", free), (f"memory_limit {options.tight >> 20} MiB", small)):
        print(f"memory: {told}: peak {answer['peak_mb']:.0f} MB, {answer['seconds']:.1f} s, phases {answer['phases']}")


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--only", default=",".join(RACES), help="races, separated by commas (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=2_000_000, help="of the scan's race, a third of them read")
    parser.add_argument("--spark", type=Path, default=SPARK, help="environment with pyspark (default: %(default)s)")
    parser.add_argument("--tight", type=int, default=24 << 20, help="memory_limit of the last race, in bytes")
    options = parser.parse_args()
    print(describe())
    with servers(options.stack) as (running, folder):
        for name in options.only.split(","):
            globals()[name](running, folder, options)


if __name__ == "__main__":
    main()
