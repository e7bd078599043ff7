"""MongoDB's own pipelines: the three reports of a date, rows in memory and no publication."""

import json
import sys
import time
from typing import Any

import pymongo
from answer import answer


def distinct(key: str) -> list[dict[str, Any]]:
    """Count views and distinct devices: pairs first, then keys."""
    return [
        {"$group": {"_id": {"key": f"${key}", "device": "$device_id"}, "views": {"$sum": 1},
                    "last": {"$max": "$timestamp"}}},
        {"$group": {"_id": "$_id.key", "views": {"$sum": "$views"}, "last": {"$max": "$last"},
                    "visitors": {"$sum": {"$cond": [{"$gt": ["$_id.device", None]}, 1, 0]}}}},
    ]  # fmt: skip


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(job["uri"])
    collection = client[job["database"]][job["collection"]]
    match = [{"$match": {"timestamp": {"$gte": job["date"], "$lt": job["next_date"]}}}]
    reports = [
        distinct("product_id"),
        distinct("store_id"),
        [{"$group": {"_id": "$referrer_url", "views": {"$sum": 1}}}],
    ]
    rows = [list(collection.aggregate(match + report, allowDiskUse=True, batchSize=10_000)) for report in reports]
    assert all(rows)
    answer(sum(row["views"] for row in rows[0]), time.perf_counter() - began)


main(json.loads(sys.argv[1]))
