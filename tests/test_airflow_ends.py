"""Every operator under a real scheduler, of both majors, ended in every way that Airflow has: the native work ends at
once, what was ended is never green, and the next try goes on to the right end.
"""

import json
import os
import re
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import pytest
from tests.airflow_environment import MAJORS
from tests.airflow_services import Services
from tests.local_servers import until
from tests.report_tables import counts, held, store, views, waiting

import millpond

pytestmark = pytest.mark.chaos

VERBS = ("bridge", "sink", "aggregate")
WAYS = ("marked", "cleared", "execution_timeout", "run_timeout", "terminated", "orphaned")
EVENTS = 12_000
DAY = "2025-10-31"
DAGS = """
import datetime
from millpond.airflow import AggregateOperator, BridgeOperator, SinkOperator
from millpond.airflow.compat import DAG
seconds = lambda n: datetime.timedelta(seconds=n)
# The first try would take a minute.
rate = "{{ 200 if ti.try_number == 1 and dag_run.conf.slow else '' }}"
name = "{{ dag_run.conf.name }}"
for way, dag_words, words in (
    ("marked", {}, {}), ("cleared", {}, {}), ("terminated", {}, {}), ("orphaned", {}, {}),
    ("execution_timeout", {}, {"execution_timeout": seconds(20)}), ("run_timeout", {"dagrun_timeout": seconds(30)}, {}),
):
    with DAG("ends_" + way, schedule=None, start_date=datetime.datetime(2025, 1, 1), **dag_words) as dag:
        words = words | {"retries": 1, "retry_delay": seconds(1)}
        BridgeOperator(task_id="bridge", source_topic=name, target_topic=name + "_to", max_events_per_second=rate,
                       **words)
        SinkOperator(task_id="sink", kafka_conn_id="kafka_remote", topic=name, database="tests",
                     collection=name + "_stored", max_events_per_second=rate, **words)
        AggregateOperator(task_id="aggregate", database="tests", collection=name, dates="2025-10-31",
                          schema=name, **words)
    globals()[dag.dag_id] = dag
"""


@dataclass
class Ground:
    """A whole Airflow beside the servers."""

    airflow: Services
    servers: Any


@pytest.fixture(scope="module", params=sorted(MAJORS))
def ground(request, servers, tmp_path_factory):
    airflow = Services(tmp_path_factory.mktemp("airflow"), request.param, servers.dsn)
    airflow.connect("kafka_remote", {"conn_type": "kafka", "extra": servers.remote})
    airflow.connect("kafka_default", {"conn_type": "kafka", "extra": servers.kafka})
    airflow.connect("mongo_default", servers.mongo_uri)
    airflow.connect("postgres_default", servers.dsn)
    # How soon a task whose supervisor is gone is missed.
    airflow.env["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "10"
    airflow.env["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL"] = "2"
    (airflow.dags / "ends.py").write_text(DAGS)
    airflow.call("db", "migrate")
    airflow.up()
    try:
        yield Ground(airflow, servers)
    finally:
        airflow.down()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_when_airflow_says_so_and_the_next_try_is_right(ground, way):
    airflow, servers, name = ground.airflow, ground.servers, f"t{secrets.token_hex(5)}"
    servers.create(servers.remote, name, 2)
    event = json.dumps(views(DAY, 1)[0]).encode()
    servers.send(servers.remote, name, [(str(n), event, n % 2) for n in range(EVENTS)])
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    dsn = f"{servers.dsn}?options=-csearch_path%3D{name}"
    store(servers, name, views(DAY, 2))
    millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, dates=DAY)
    store(servers, name, views(DAY, 3))
    dag_id = f"ends_{way}"
    try:
        with held(dsn, DAY), servers.mongo() as client:
            stored = client["tests"][f"{name}_stored"]
            run_id = airflow.make_run(dag_id, {"name": name, "slow": True})

            def tasks() -> Any:
                return airflow.tasks(dag_id, run_id)

            # All three are in the midst of it.
            until(lambda: stored.estimated_document_count() > 20 and waiting(dsn), 90)
            until(lambda: re.search(r"bridge: [1-9][\d,]* of [\d,]+ read", airflow.logs(dag_id, run_id)), 60)
            pids = {verb: task["pid"] for verb, task in tasks().items()}
            assert pids.keys() == set(VERBS)
            assert all(is_alive(pid) for pid in pids.values()), airflow.logs(dag_id, run_id)
            told = time.monotonic()
            end(airflow, way, dag_id, run_id, pids)
            # Two seconds for the run; the rest is Airflow's: a heartbeat until it notices, its own farewell.
            patience = {"terminated": 6, "orphaned": 4}.get(way, 60)
            until(lambda: not is_alive(pids["sink"]), patience)
            # At once: what was cleared begins anew.
            kept = stored.estimated_document_count()
            until(lambda: not any(is_alive(pid) for pid in pids.values()), patience)
            took = time.monotonic() - told
            assert 20 < kept < EVENTS, "the sink was to be ended in its midst"
            assert counts(dsn) == {("p", DAY): 2}, "a report that was never committed is seen"
            assert not any(task["state"] == "success" and task["tries"] == 1 for task in tasks().values())
        print(f"{way}: processes gone after {took:.1f} s")
        if way in ("marked", "run_timeout"):
            assert_given_up(airflow, way, dag_id, run_id)
            run_id = airflow.make_run(dag_id, {"name": name, "slow": False})
        run = airflow.ended(dag_id, run_id, 150)
        assert run["state"] == "success", airflow.logs(dag_id, run_id)
        if way not in ("marked", "run_timeout"):
            assert {verb: task["tries"] for verb, task in run["tasks"].items()} == dict.fromkeys(VERBS, 2)
        books = {verb: task["books"] for verb, task in run["tasks"].items()}
        assert books["bridge"]["read"] == books["bridge"]["written"] + books["bridge"]["dead_lettered"]
        assert len(servers.read(servers.kafka, f"{name}_to")) == EVENTS
        with servers.mongo() as client:
            assert client["tests"][f"{name}_stored"].count_documents({}) == EVENTS
            assert books["sink"]["read"] < EVENTS, "what the first try did was to be kept"
        assert counts(dsn) == {("p", DAY): 5}
    finally:
        with psycopg.connect(servers.dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


def end(airflow: Services, way: str, dag_id: str, run_id: str, pids: dict[str, int]) -> None:
    """Do what the way is named after; time-outs come by themselves."""
    if way == "marked":
        for verb in VERBS:
            airflow.ask("mark", dag_id=dag_id, run_id=run_id, task_id=verb, state="failed")
    elif way == "cleared":
        airflow.ask("clear", dag_id=dag_id, run_id=run_id)
    elif way == "terminated":
        for pid in pids.values():
            os.kill(pid, signal.SIGTERM)
    elif way == "orphaned":
        for parent in {psutil.Process(pid).ppid() for pid in pids.values()}:
            os.kill(parent, signal.SIGKILL)


def assert_given_up(airflow: Services, way: str, dag_id: str, run_id: str) -> None:
    """A run that was given up is failed, and none of its tasks is green or has a result."""
    run = airflow.ended(dag_id, run_id, 60)
    assert run["state"] == "failed"
    states = {task["state"] for task in run["tasks"].values()}
    assert states <= ({"failed"} if way == "marked" else {"failed", "skipped"}), run
    assert all(task["books"] is None for task in run["tasks"].values())
