"""The reports on Spark: ours against the usual job (MongoDB connector, group-bys, JDBC) on one cluster, cold and warm.

Goal: >= 3 x warm. Then the same on one worker's core, for the ratio of one to two. The cluster is the reference's, one
master and two workers, with a core and a gigabyte each.
`python benchmarks/spark.py [--stack DIR] [--documents N] [--rounds N] [--spark ENVIRONMENT]`
"""

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

from aggregate import DATE, DATES, NEXT_DATE, fill
from data import DATABASE, servers
from machine import describe
from race import Contender, race, ratio
from usual_spark import SPARK, usual, warmed

import millpond
from millpond.local import spark


def ours(cluster: spark.Cluster, **job: Any) -> list[str]:
    """A job of ours; the session's environment has no millpond, so that the executors are sent it."""
    return [str(cluster.python), "ours_spark.py", json.dumps(job | {"master": cluster.master})]


def alone(folder: Path) -> None:
    """Put the package alone where drivers find it."""
    source = Path(millpond.__file__).parent
    shutil.copytree(source, folder / "millpond", ignore=shutil.ignore_patterns("__pycache__", "local"))
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["PYSPARK_PYTHON"] = str(SPARK / "bin" / "python")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=3, help="warm runs after each cold one; the last counts")
    parser.add_argument("--stack", type=Path, help="use the running servers of this directory")
    parser.add_argument("--spark", type=Path, default=SPARK, help="environment with pyspark (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=2_000_000, help="a third of them read; then a tenth of it")
    options = parser.parse_args()
    print(describe())
    with (
        servers(options.stack) as (stack, folder),
        spark.cluster(folder / "spark", environment=options.spark) as cluster,
    ):
        alone(folder / "driver")
        for count in (options.documents, options.documents // 10):
            job: dict[str, Any] = {"database": DATABASE, "collection": fill(stack, count, DATES, count // 5, 100_000)}
            job |= {"uri": stack.uri, "date": DATE, "warm": options.warm}
            mine = {**job, "dsn": stack.dsn}
            one = mine | {"conf": {"spark.cores.max": "1"}}
            contenders = [
                Contender("millpond on Spark, cold", lambda: ours(cluster, **mine)),  # noqa: B023
                Contender("the usual Spark job, cold", lambda: usual(cluster, stack.dsn, **job, next_date=NEXT_DATE)),  # noqa: B023
                Contender("millpond on one worker, cold", lambda: ours(cluster, **one)),  # noqa: B023
            ]
            race(f"a third of {count:,}", contenders, options.rounds)
            two, theirs, single = contenders
            ratio("millpond / usual, cold", two, theirs, "", None)
            ratio("millpond / usual, warm", warmed(two), warmed(theirs), ">= 3", lambda r: r >= 3)
            ratio("two workers / one, warm", warmed(two), warmed(single), "", None)
            for contender in contenders:
                seconds = [answer["seconds"] for answer in warmed(contender).answers]
                print(f"{warmed(contender).name}: median {statistics.median(seconds):.2f} s of {seconds}")
            print(f"phases of the last warm run, s: {two.answers[-1]['phases']}", flush=True)


if __name__ == "__main__":
    main()
