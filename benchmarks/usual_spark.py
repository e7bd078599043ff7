"""The usual Spark job as a contender: its jars, its command, and its warm runs out of the answers of the cold ones."""

import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from race import Contender

from millpond.local.jars import jars
from millpond.local.spark import Cluster

HERE = Path(__file__).resolve().parent
SPARK = HERE.parent / ".venv" / "spark"
SCHEMA = "usual"


def usual(cluster: Cluster, dsn: str, *, warm: int = 1, **job: Any) -> list[str]:
    """One cold run and so many warm ones, into tables of a schema of their own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    words = conninfo_to_dict(dsn)
    jdbc = f"jdbc:postgresql://{words['host']}:{words['port']}/{words['dbname']}"
    place = {"jdbc": f"{jdbc}?user={words['user']}&password={words['password']}", "schema": SCHEMA}
    where = {"master": cluster.master, "jars": str(jars(HERE / "spark-pom.xml", "spark-usual-10.5.0", "mongo-spark-*"))}
    return [str(cluster.python), "peer_spark.py", json.dumps(job | place | where | {"partitions": 4, "warm": warm})]


def warmed(cold: Contender) -> Contender:
    """The last warm run of each answer."""
    answers = [answer | {"seconds": answer["warm_s"][-1]} for answer in cold.answers]
    return Contender(f"{cold.name.removesuffix(', cold')}, warm", cold.prepare, answers)
