"""`aggregate(..., engine="spark")` as a job of its own: cold with the session's start, then warm in that session."""

import json
import sys
import time
from typing import Any

from answer import answer
from pyspark.sql import SparkSession

import millpond


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    builder = SparkSession.builder.master(job["master"]).appName("millpond").config("spark.driver.host", "127.0.0.1")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    for name, value in job.get("conf", {}).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    words = {"database": job["database"], "collection": job["collection"], "dates": job["date"]}
    result = millpond.aggregate(job["uri"], job["dsn"], **words, engine="spark", spark=spark)
    cold = time.perf_counter() - began
    warm, phases = [], result.phases
    for _ in range(job["warm"]):
        began = time.perf_counter()
        phases = millpond.aggregate(job["uri"], job["dsn"], **words, engine="spark", spark=spark).phases
        warm.append(time.perf_counter() - began)
    spark.stop()
    answer(result.counted, cold, warm_s=warm, phases=phases)


main(json.loads(sys.argv[1]))
