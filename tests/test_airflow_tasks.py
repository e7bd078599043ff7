"""Operators as real Airflow tasks on real servers: run, templated, killed, timed out, refused.

Each task runs as a worker runs it: a job that forks, watches the child and hands SIGTERM on.
"""

import json
import signal
import time
import uuid
from typing import Any

import psycopg
import pymongo
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.airflow_environment import DAGS, Airflow
from tests.local_servers import until
from tests.promptness import within

EVENTS = 20_000
HEAD = """
import datetime
from millpond.airflow import AggregateOperator, BridgeOperator, SinkOperator
from millpond.airflow.compat import DAG
with DAG({dag_id!r}, schedule=None, start_date=datetime.datetime(2025, 1, 1)):
"""
SINK = (
    HEAD
    + "    SinkOperator(task_id='sink', topic={topic!r}, database={database!r}, collection='{{{{ dag_run.conf.to }}}}',"
    + " batch_size='{{{{ dag_run.conf.batch }}}}', group_id='{{{{ params.group }}}}', params={{'group': None}},"
    + " {more})\n"
)


def stored_event(n: int) -> bytes:
    event = {
        "product_id": str(n % 50), "device_id": f"d{n % 700}", "store_id": f"s{n % 7}",
        "referrer_url": f"https://r.example/?q={n % 9}", "local_time": "2025-10-30 10:00:00",
        "remote_ip": "10.0.0.1", "timestamp": f"2025-10-{30 + n % 2}T03:{n % 60:02}:00Z",
    }  # fmt: skip
    return json.dumps(event).encode()


def fill(properties: dict[str, Any], topic: str, events: int, replicas: int) -> None:
    """Make a topic and write events; one request in flight, so that the feeder itself never doubles."""
    admin = AdminClient(properties)
    admin.create_topics([NewTopic(topic, 3, replicas, config={"retention.ms": "-1"})])[topic].result(90)
    until(lambda: len(admin.list_topics(topic, timeout=60).topics[topic].partitions) == 3)
    producer = Producer({**properties, "acks": "all", "linger.ms": 50, "max.in.flight.requests.per.connection": 1})
    for n in range(events):
        producer.produce(topic, stored_event(n), key=str(n), partition=n % 3)
        if n % 1000 == 0:
            producer.poll(0)
    assert producer.flush(180) == 0


@pytest.fixture(scope="module")
def status(stack):
    return stack.status()


@pytest.fixture(scope="module")
def remote(status):
    return {
        "bootstrap.servers": status["remote"]["bootstrap"],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": status["remote"]["username"],
        "sasl.password": status["remote"]["password"],
    }


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, status, remote):
    home = Airflow(tmp_path_factory.mktemp("airflow"), dsn=status["postgres"]["dsn"])
    home.connect("kafka_remote", {"conn_type": "kafka", "extra": remote})
    home.connect("kafka_default", {"conn_type": "kafka", "extra": {"bootstrap.servers": status["kafka"]["bootstrap"]}})
    # As URIs: the other form in which people keep connections in the environment.
    home.connect("mongo_default", status["mongo"]["uri"])
    home.connect("postgres_default", status["postgres"]["dsn"])
    home.call("db", "migrate")
    yield home
    home.drop()


@pytest.fixture
def database(status):
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(status["mongo"]["uri"])
    name = f"airflow_{uuid.uuid4().hex[:8]}"
    yield client[name]
    client.drop_database(name)
    client.close()


@pytest.fixture(scope="module")
def topic(status):
    name = f"airflow_{uuid.uuid4().hex[:8]}"
    fill({"bootstrap.servers": status["kafka"]["bootstrap"]}, name, EVENTS, 3)
    return name


def sink_dag(airflow, topic, database, *, batch, more="retries=0"):
    dag_id = f"sink_{uuid.uuid4().hex[:8]}"
    source = SINK.format(dag_id=dag_id, topic=topic, database=database.name, more=more)
    return dag_id, airflow.trigger(dag_id, source, {"to": "events", "batch": batch})


def test_killed_task_is_no_success_and_the_next_run_finishes(airflow, topic, database):
    # I5: SIGTERM → on_kill → the task's end; I2: what it did is kept, the next run does the rest, nothing twice.
    kept = 0

    def once() -> float:
        nonlocal kept
        dag_id, run_id = sink_dag(airflow, topic, database, batch="1")
        with airflow.start_task(dag_id, "sink", run_id) as job:
            until(lambda: database.events.estimated_document_count() > kept + 100)
            job.send_signal(signal.SIGTERM)
            began = time.monotonic()
            until(lambda: airflow.child_ended(job))
            took = time.monotonic() - began
            job.communicate(timeout=300)
        killed = airflow.outcome(dag_id, "sink", run_id)
        before, kept = kept, database.events.count_documents({})
        assert killed.state == "failed", killed.log
        assert killed.books is None
        assert "AirflowTaskTerminated" in killed.log
        assert before + 100 < kept < EVENTS
        return took

    # Two seconds for the run, the rest for Airflow.
    within(5, once)

    dag_id, run_id = sink_dag(airflow, topic, database, batch="1000")
    finished = airflow.run_task(dag_id, "sink", run_id)
    assert finished.state == "success", finished.log
    books = finished.books
    assert books["read"] == books["inserted"] + books["already_present"] + books["dead_lettered"]
    assert kept + books["inserted"] == EVENTS
    assert database.events.count_documents({}) == EVENTS
    assert finished.xcom_bytes < 48 * 1024


def test_timed_out_task_is_no_success(airflow, topic, database):
    dag_id, run_id = sink_dag(
        airflow, topic, database, batch="1", more="retries=0, execution_timeout=datetime.timedelta(seconds=3)"
    )
    outcome = airflow.run_task(dag_id, "sink", run_id)
    assert outcome.state == "failed", outcome.log
    assert "AirflowTaskTimeout" in outcome.log
    assert outcome.books is None
    assert database.events.count_documents({}) < EVENTS


REFUSED = {
    "wrong password": (
        "BridgeOperator(task_id='t', source_topic='x', target_topic='y', source_conn_id='wrong', retries=2)",
        "failed",
        "password",
    ),
    "no such connection": (
        "SinkOperator(task_id='t', topic='x', database='d', collection='c', kafka_conn_id='nowhere', retries=2)",
        "failed",
        "AIRFLOW_CONN_NOWHERE",
    ),
    "bad date": (
        "AggregateOperator(task_id='t', database='d', collection='c', dates='2025-13-01', retries=2)",
        "failed",
        "2025-13-01",
    ),
    "bad number": (
        "SinkOperator(task_id='t', topic='x', database='d', collection='c', max_events='many', retries=2)",
        "failed",
        "max_events",
    ),
    "unreachable": (
        "SinkOperator(task_id='t', topic='x', database='d', collection='c', kafka_conn_id='silent', retries=2)",
        "up_for_retry",
        "127.0.0.1:1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_only_what_a_retry_can_help_is_retried(airflow, remote, case):
    operator, state, named = REFUSED[case]
    secret = "hunter2-never-told"
    airflow.connect("wrong", {"conn_type": "kafka", "extra": {**remote, "sasl.password": secret}})
    airflow.connect("silent", {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:1"}})
    dag_id = f"refused_{uuid.uuid4().hex[:8]}"
    run_id = airflow.trigger(dag_id, HEAD.format(dag_id=dag_id) + f"    {operator}\n")
    outcome = airflow.run_task(dag_id, "t", run_id)
    assert outcome.state == state, outcome.log
    assert named in outcome.log
    assert secret not in outcome.log
    assert outcome.books is None


def test_the_pipeline_with_parameters_of_a_run(airflow, servers, status, remote, database):
    # A schema of its own: the report tables have fixed names.
    name = database.name
    fill(remote, name, 3_000, 1)
    with psycopg.connect(status["postgres"]["dsn"], autocommit=True) as reports:
        reports.execute(f"CREATE SCHEMA {name}")
        airflow.connect("postgres_default", f"{status['postgres']['dsn']}?options=-csearch_path%3D{name}")
        conf = {"source_topic": name, "target_topic": f"{name}_to", "database": name, "dates": ["2025-10-30"]}
        source = (DAGS / "kafka_pipeline_all_in_one.py").read_text()
        run_id = airflow.trigger("kafka_pipeline_all_in_one", source, conf)
        try:
            outcomes = {
                task: airflow.run_task("kafka_pipeline_all_in_one", task, run_id)
                for task in ("bridge", "sink", "aggregate")
            }
            for outcome in outcomes.values():
                assert outcome.state == "success", outcome.log
                assert outcome.xcom_bytes < 48 * 1024
            assert outcomes["bridge"].books["read"] == outcomes["bridge"].books["written"] == 3_000
            assert outcomes["sink"].books["inserted"] == 3_000
            assert outcomes["aggregate"].books["dates"] == ["2025-10-30"]
            query = f"SELECT report_date::text, sum(view_count) FROM {name}.product_views_daily GROUP BY 1"
            assert reports.execute(query).fetchall() == [("2025-10-30", 1_500)]
        finally:
            reports.execute(f"DROP SCHEMA {name} CASCADE")
            airflow.connect("postgres_default", status["postgres"]["dsn"])
    assert database.product_views_records.count_documents({}) == 3_000
    # To the ends of its log, and not until nothing has come for a while.
    assert len(servers.read(servers.kafka, f"{name}_to")) == 3_000
