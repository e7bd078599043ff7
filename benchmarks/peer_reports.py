"""Today's reports without a cluster: pymongoarrow into polars, three group-bys, rows in memory and no publication."""

import json
import sys
import time
from typing import Any

import polars as pl
import pyarrow as pa
import pymongo
from answer import answer
from polars_reports import FIELDS, reports
from pymongoarrow.api import Schema, find_arrow_all


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(job["uri"])
    table = find_arrow_all(
        client[job["database"]][job["collection"]],
        {"timestamp": {"$gte": job["date"], "$lt": job["next_date"]}},
        schema=Schema(dict.fromkeys(FIELDS, pa.string())),
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert all(len(report) for report in reports(frame))
    answer(len(frame), time.perf_counter() - began)


main(json.loads(sys.argv[1]))
