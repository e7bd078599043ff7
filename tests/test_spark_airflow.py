"""Reports on Spark as a task of Airflow, on both majors: the DAG file, the connection, the button to Spark's page."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.airflow_environment import DAGS, MAJORS, Airflow
from tests.report_tables import published

import millpond

DAG_ID = "kafka_pipeline_on_spark"
DATES = ("2025-10-30", "2025-10-31")


@dataclass
class Home:
    """An Airflow that knows the servers and the cluster."""

    airflow: Airflow
    schema: str
    dsn: str

    def ask(self, do: str, **words: Any) -> Any:
        """Ask Airflow's database."""
        command = [str(self.airflow.bin / "python"), str(Path(__file__).with_name("airflow_console.py"))]
        question = json.dumps({"do": do, "dag_id": DAG_ID} | words)
        done = subprocess.run(
            command, env=self.airflow.env, input=question, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=sorted(MAJORS))
def home(request, servers, spark, tmp_path) -> Iterator[Home]:
    """Airflow's own environment, with Spark's packages behind its own."""
    packages = spark.cluster.home.parent
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(packages)!r})\n")
    (tmp_path / "spark-defaults.conf").write_text("spark.driver.host 127.0.0.1\nspark.ui.showConsoleProgress false\n")
    schema = f"t{secrets.token_hex(5)}"
    airflow = Airflow(tmp_path / "airflow", environment=MAJORS[request.param], dsn=servers.dsn)
    # As a URI: the other form in which people keep connections in the environment.
    airflow.connect("spark_default", spark.cluster.master)
    airflow.connect("kafka_remote", {"conn_type": "kafka", "extra": servers.remote})
    airflow.connect("kafka_default", {"conn_type": "kafka", "extra": servers.kafka})
    airflow.connect("mongo_default", servers.mongo_uri)
    dsn = f"{servers.dsn}?options=-csearch_path%3D{schema}"
    airflow.connect("postgres_default", dsn)
    airflow.env |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(spark.package)]),
        "PYSPARK_PYTHON": str(spark.cluster.python),
        "SPARK_CONF_DIR": str(tmp_path),
    }
    airflow.call("db", "migrate")
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield Home(airflow, schema, dsn)
    airflow.drop()
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def event(n: int) -> tuple[str, bytes, int]:
    body = {"product_id": str(n % 5), "device_id": f"d{n % 7}", "store_id": ["US", "DE", None][n % 3],
            "timestamp": f"{DATES[n % 2]}T03:{n % 60:02}:00Z"}  # fmt: skip
    return str(n), json.dumps(body).encode(), n % 4


@pytest.mark.chaos
def test_the_dag_on_spark_gives_the_native_rows_and_a_button_to_its_page(servers, spark, home, postgres):
    topic, airflow = f"t{secrets.token_hex(5)}", home.airflow
    servers.create(servers.remote, topic, 4)
    servers.send(servers.remote, topic, [event(n) for n in range(600)])
    conf = {"source_topic": topic, "target_topic": f"{topic}_to", "database": topic, "collection": "events"}
    source = (DAGS / f"{DAG_ID}.py").read_text()
    modern = airflow.bin.parent == MAJORS[3]
    history = "http://127.0.0.1:1"
    if modern:
        (airflow.dags / f"{DAG_ID}.py").write_text(source)
        airflow.call("dags", "test", DAG_ID, "-c", json.dumps(conf))
    else:
        with Path(airflow.env["SPARK_CONF_DIR"], "spark-defaults.conf").open("a") as defaults:
            defaults.write(f"spark.millpond.history {history}/\n")
        run_id = airflow.trigger(DAG_ID, source, conf)
        for task in ("bridge", "sink", "aggregate"):
            outcome = airflow.run_task(DAG_ID, task, run_id)
            assert outcome.state == "success", outcome.log
            assert servers.remote["sasl.password"] not in outcome.log
    ((run_id, run),) = home.ask("stand").items()
    tasks = run["tasks"]
    assert {name: task["state"] for name, task in tasks.items()} == dict.fromkeys(
        ("bridge", "sink", "aggregate"), "success"
    )
    books = tasks["aggregate"]["books"]
    assert (books["engine"], books["counted"], books["dates"], books["published"]) == ("spark", 300, [DATES[1]], True)

    application, page = books["spark"]["application"], books["spark"]["page"]
    assert application.startswith("app-")
    assert page.startswith("http://")
    shown = page if modern else f"{history}/history/{application}/"
    assert home.ask("links", run_id=run_id)["aggregate"]["Spark"] == shown
    # Left as soon as there was a session: where it can be looked at while it runs.
    assert home.ask("left", run_id=run_id, task_id="aggregate", name="_link_SparkLink") == page
    known = [app["id"] for app in spark.cluster.state()["completedapps"]]
    assert application in known, "the session ends with the task"
    assert spark.cluster.state()["activeapps"] == []

    millpond.aggregate(servers.mongo_uri, postgres, database=topic, collection="events")
    assert published(home.dsn) == published(postgres)
    assert len(published(postgres)["product_views_daily"]) == 5
