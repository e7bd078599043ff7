"""The usual Spark job: the MongoDB connector, a filter that it pushes down, three group-bys, rows by JDBC.

Cold is what a scheduled task pays: the JVM, the session and the executors, then the job. Warm is the same job again in
the same session. The schema is given, and what is read stays in the executors' memory for the three reports: both are
kinder than what most jobs do.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from answer import answer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

NAMES = ("product_id", "device_id", "store_id", "referrer_url", "timestamp")


def session(job: dict[str, Any]) -> SparkSession:
    jars = ",".join(str(jar) for jar in sorted(Path(job["jars"]).glob("*.jar")))
    builder = SparkSession.builder.master(job["master"]).appName("usual").config("spark.jars", jars)
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.ui.showConsoleProgress", "false")
    # 200 by default, for clusters a hundred times this size.
    return builder.config("spark.sql.shuffle.partitions", str(job["partitions"])).getOrCreate()


def reports(events: DataFrame, date: str) -> Iterator[tuple[str, DataFrame]]:
    views, visitors = f.count("*").alias("view_count"), f.countDistinct("device_id").alias("unique_visitors")
    last = f.max(f.to_timestamp("timestamp")).alias("last_view_time")
    of_date = f.lit(date).cast("date")
    for table, key, metrics in (
        ("product_views_daily", "product_id", [views, visitors, last]),
        ("country_views_daily", "store_id", [views, visitors]),
        ("referrer_views_daily", "referrer_url", [views]),
    ):
        yield table, events.groupBy(key).agg(*metrics).where(f.col(key).isNotNull()).withColumn("report_date", of_date)


def run(spark: SparkSession, job: dict[str, Any]) -> int:
    schema = ", ".join(f"{name} string" for name in NAMES)
    reader = spark.read.format("mongodb").schema(schema).option("connection.uri", job["uri"])
    events = reader.option("database", job["database"]).option("collection", job["collection"]).load()
    events = events.where((f.col("timestamp") >= job["date"]) & (f.col("timestamp") < job["next_date"])).persist()
    for table, rows in reports(events, job["date"]):
        writer = rows.write.format("jdbc").option("url", job["jdbc"]).option("dbtable", f"{job['schema']}.{table}")
        writer = writer.option("driver", "org.postgresql.Driver").option("batchsize", 10_000).option("truncate", "true")
        writer.mode("overwrite").save()
    count = events.count()
    events.unpersist()
    return count


def main(job: dict[str, Any]) -> None:
    began = time.perf_counter()
    spark = session(job)
    events = run(spark, job)
    cold = time.perf_counter() - began
    warm = []
    for _ in range(job["warm"]):
        began = time.perf_counter()
        run(spark, job)
        warm.append(time.perf_counter() - began)
    spark.stop()
    answer(events, cold, warm_s=warm)


main(json.loads(sys.argv[1]))
