"""Today's reports without a cluster: pymongoarrow into polars, three group-bys, rows in memory and no publication."""

import json
import sys
import time
from typing import Any

import polars as pl
import pyarrow as pa
import pymongo
from answer import answer
from pymongoarrow.api import Schema, find_arrow_all


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(job["uri"])
    names = ("product_id", "device_id", "store_id", "referrer_url", "timestamp")
    table = find_arrow_all(
        client[job["database"]][job["collection"]],
        {"timestamp": {"$gte": job["date"], "$lt": job["next_date"]}},
        schema=Schema(dict.fromkeys(names, pa.string())),
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    views, visitors = pl.len().alias("view_count"), pl.col("device_id").drop_nulls().n_unique()
    last = pl.col("timestamp").str.to_datetime("%+", strict=False).max().alias("last_view_time")
    reports = [
        frame.group_by("product_id").agg(views, visitors, last),
        frame.group_by("store_id").agg(views, visitors),
        frame.group_by("referrer_url").agg(views),
    ]
    assert all(len(report) for report in reports)
    answer(len(frame), time.perf_counter() - began)


main(json.loads(sys.argv[1]))
