"""Our hash tables beside Polars: the default reports of the same events, from BSON and from columns, on one core.

`python benchmarks/kernel.py --fold FOLD [--events N]`: FOLD is the compiled benchmarks/fold.rs. Nothing is read from a
server: ours begins with raw BSON, Polars with columns that stand in memory, and once with what makes columns of BSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bson
from machine import describe

ROUNDS = 5


def polars(file: Path) -> dict[str, Any]:
    """Seconds of each step, the best of the rounds."""
    import polars as pl
    import pyarrow as pa
    from polars_reports import FIELDS, reports
    from pymongoarrow.api import Schema
    from pymongoarrow.context import PyMongoArrowContext

    best: dict[str, float] = {}
    rows = 0
    for _ in range(ROUNDS):
        began = time.perf_counter()

        def lap(step: str) -> None:
            nonlocal began
            best[step] = min(best.get(step, 1e9), time.perf_counter() - began)
            began = time.perf_counter()

        context = PyMongoArrowContext(Schema(dict.fromkeys(FIELDS, pa.string())))
        context.process_bson_stream(file.read_bytes())
        frame = pl.from_arrow(context.finish())
        assert isinstance(frame, pl.DataFrame)
        lap("columns")
        made = reports(frame)
        lap("group_by")
        pairs = [
            frame.select(key, "device_id").unique().group_by(key).len().height for key in ("product_id", "store_id")
        ]
        lap("distinct_by_unique")
        ranked = [report.sort("view_count", descending=True) for report in made]
        top = [report.head(10) for report in ranked]
        lap("rank")
        rows = sum(report.height for report in made)
        assert all(len(one) for one in top)
        assert sum(pairs) == made[0].height + made[1].height
    return {"events": frame.height, "rows": rows, "seconds": best}


def main() -> None:
    """Print both."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from aggregate import events

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fold", type=Path)
    parser.add_argument("--events", type=int, default=666_000)
    parser.add_argument("--visitors", type=int, default=200_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--polars", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.polars:
        print(json.dumps(polars(options.polars)))
        return
    print(describe())
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as directory:
        file = Path(directory) / "events.bson"
        with file.open("wb") as out:
            for event in events(options.events, ("2025-10-31",), options.visitors, options.keys):
                out.write(bson.encode({"_id": bson.ObjectId()} | event))
        for name, command, threads in (
            ("ours", [options.fold, file], "1"),
            ("Polars, one thread", [sys.executable, __file__, "--polars", file], "1"),
            ("Polars, all cores", [sys.executable, __file__, "--polars", file], ""),
        ):
            environment = os.environ | ({"POLARS_MAX_THREADS": threads} if threads else {})
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, env=environment)
            told = json.loads(done.stdout)
            shown = ", ".join(f"{step} {seconds:.3f} s" for step, seconds in told["seconds"].items())
            print(f"{name}: {told['events']:,} events, {told['rows']:,} rows: {shown}", flush=True)


if __name__ == "__main__":
    main()
