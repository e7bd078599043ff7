"""The DAG files run by a whole Airflow, 2.10 and 3.x, on real servers: events awaited, shards mapped, dates backfilled.

The triggerer is killed while sensors wait in it: both go on in the next one, to events and to the time-out.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from tests.airflow_environment import DAGS, MAJORS, ROOT
from tests.airflow_services import Services
from tests.compose import services
from tests.local_servers import until

import millpond

# Whole Airflows, started for each major.
pytestmark = pytest.mark.timeout(1_800)
SHARDS = 2
WAIT = """
import datetime
from millpond.airflow import NewEventsSensor
from millpond.airflow.compat import DAG
with DAG("waits", schedule=None, start_date=datetime.datetime(2025, 1, 1)):
    NewEventsSensor(
        task_id="silence", source_topic="{{{{ dag_run.conf.topic }}}}", target_topic="{{{{ dag_run.conf.topic }}}}_to",
        poke_interval=1, timeout={timeout}, retries=2,
    )
"""
# Longer than a busy machine needs until both sensors wait; the pipeline beside it takes as long.
TIMEOUT = 75
SLOW = """
import datetime
from millpond.airflow import SinkOperator
from millpond.airflow.compat import DAG
with DAG("ended", schedule=None, start_date=datetime.datetime(2025, 1, 1)):
    for name, more in {"marked": {}, "terminated": {}, "timed_out": {"execution_timeout": 20}}.items():
        SinkOperator(
            task_id=name, topic="{{ dag_run.conf.topic }}", database="{{ dag_run.conf.topic }}", collection=name,
            # The first try takes four minutes, far longer than the test waits for its end; the second one seconds.
            max_events_per_second="{{ 50 if ti.try_number == 1 else '' }}",
            batch_size="{{ 10 if ti.try_number == 1 else 1000 }}", retries=1, retry_delay=datetime.timedelta(seconds=1),
            **{word: datetime.timedelta(seconds=seconds) for word, seconds in more.items()},
        )
"""
EVENTS = 12_000
DATES = ("2025-10-30", "2025-10-31")


def event(n: int) -> tuple[str, bytes, int]:
    body = {"product_id": str(n % 5), "device_id": f"d{n % 7}", "timestamp": f"{DATES[n % 2]}T03:{n % 60:02}:00Z"}
    return str(n), json.dumps(body).encode(), n % 4


@dataclass
class Pipeline:
    """A whole Airflow beside the servers."""

    airflow: Services
    servers: Any
    schema: str

    def topic(self, events: int) -> str:
        """Make a topic of its own, with so many events that a bridge has read."""
        name = f"t{secrets.token_hex(5)}"
        self.servers.create(self.servers.remote, name, 4)
        if events:
            self.send(name, 0, events)
            millpond.bridge(
                self.servers.remote, self.servers.kafka, source_topic=name, target_topic=f"{name}_to",
                transform="product_views",
            )  # fmt: skip
        return name

    def send(self, topic: str, first: int, count: int) -> None:
        self.servers.send(self.servers.remote, topic, [event(n) for n in range(first, first + count)])

    def conf(self, topic: str) -> dict[str, Any]:
        return {"source_topic": topic, "target_topic": f"{topic}_to", "database": topic, "collection": "events"}


# Airflow 2.10 runs the same bodies in test_airflow_tasks.py and in the demo: its turn here is part of `make chaos`.
OLDER = pytest.param(2, marks=pytest.mark.chaos)


@pytest.fixture(scope="module", params=[OLDER, *sorted(MAJORS.keys() - {2})])
def pipeline(request, servers, tmp_path_factory):
    airflow = Services(tmp_path_factory.mktemp("airflow"), request.param, servers.dsn)
    schema = f"t{secrets.token_hex(5)}"
    airflow.connect("kafka_remote", {"conn_type": "kafka", "extra": servers.remote})
    airflow.connect("kafka_default", {"conn_type": "kafka", "extra": servers.kafka})
    airflow.connect("mongo_default", servers.mongo_uri)
    airflow.connect("postgres_default", f"{servers.dsn}?options=-csearch_path%3D{schema}")
    for file in DAGS.glob("*.py"):
        (airflow.dags / file.name).write_text(file.read_text().replace("SHARDS = 4", f"SHARDS = {SHARDS}"))
    (airflow.dags / "waits.py").write_text(WAIT.format(timeout=TIMEOUT))
    (airflow.dags / "ended.py").write_text(SLOW)
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    if request.param == 2:
        # As the deployment's first container does it.
        script = ROOT / "deploy" / "airflow" / "initialise"
        login = {"ADMIN_USER": "admin", "ADMIN_PASSWORD": f"-{secrets.token_hex(8)}"}
        done = subprocess.run([script], env=airflow.env | login, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        airflow.call("db", "migrate")
    airflow.up()
    try:
        yield Pipeline(airflow, servers, schema)
    finally:
        airflow.down()
        with psycopg.connect(servers.dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


def runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def groups(cluster: dict[str, str]) -> set[str]:
    # Kept in a name: a client that is collected answers nobody.
    admin = AdminClient(dict(cluster))
    return {group.group_id for group in admin.list_consumer_groups().result(60).valid}


def test_new_events_are_awaited_by_one_triggerer_after_the_other(pipeline):
    airflow, servers = pipeline.airflow, pipeline.servers
    silent, topic = pipeline.topic(10), pipeline.topic(20)
    before = groups(servers.remote), groups(servers.kafka)
    run_id = airflow.make_run("kafka_pipeline_event_driven", pipeline.conf(topic))
    waiting = airflow.make_run("waits", {"topic": silent})
    until(lambda: airflow.tasks("kafka_pipeline_event_driven", run_id)["new_events"]["state"] == "deferred", 400)
    # It may have given up by then: a sensor that nobody has seen waiting has waited all the same.
    until(lambda: airflow.tasks("waits", waiting)["silence"]["state"] in ("deferred", "failed"), 400)
    deferred = time.monotonic()

    airflow.end("triggerer", signal.SIGKILL)
    airflow.serve("triggerer")
    assert (groups(servers.remote), groups(servers.kafka)) == before
    pipeline.send(topic, 20, 100)
    carried = airflow.ended("kafka_pipeline_event_driven", run_id)
    told = airflow.logs("kafka_pipeline_event_driven", run_id)
    assert carried["state"] == "success", told
    results = {name: task["books"] for name, task in carried["tasks"].items()}
    assert results["new_events"]["events"] == 100
    assert results["bridge"]["read"] == results["bridge"]["written"] == 100
    assert results["sink"]["inserted"] == 120
    assert results["aggregate"]["dates"] == list(DATES)
    assert servers.remote["sasl.password"] not in told
    (extra,) = airflow.ask("covered", dag_id="kafka_pipeline_event_driven", run_id=run_id)
    assert (extra["millpond"], extra["dates"], extra["counted"]) == ("aggregate", list(DATES), 120)

    # Folded, with what ran and where; and the buttons lead to the page.
    assert re.search(r"::group::sink: settings.*?topic = .*?::endgroup::", told, re.DOTALL)
    links = airflow.ask("links", dag_id="kafka_pipeline_event_driven", run_id=run_id)
    assert links["bridge"] == {"Dead letters": f"/millpond/letters?topic={topic}_to.dead_letters"}
    assert links["sink"] == {"Dead letters": f"/millpond/letters?database={topic}&collection=events"}
    assert links["aggregate"] == {"Report": f"/millpond/?table=product_views_daily&date={DATES[-1]}#reports"}

    gave_up = airflow.ended("waits", waiting)
    assert (gave_up["state"], gave_up["tasks"]["silence"]["tries"]) == ("failed", 1), "a time-out is for good"
    assert f"no 1 new events within {TIMEOUT} s" in airflow.logs("waits", waiting)
    assert time.monotonic() - deferred >= 1


def test_shards_share_a_topic(pipeline):
    topic = pipeline.topic(0)
    pipeline.send(topic, 0, 400)
    run_id = pipeline.airflow.make_run("kafka_pipeline_sharded", pipeline.conf(topic))
    run = pipeline.airflow.ended("kafka_pipeline_sharded", run_id)
    assert run["state"] == "success", pipeline.airflow.logs("kafka_pipeline_sharded", run_id)
    parts = {name: task["books"] for name, task in run["tasks"].items()}
    assert parts.keys() == {*(f"{verb}/{n}" for verb in ("bridge", "sink") for n in range(SHARDS)), "aggregate"}
    assert [parts[f"bridge/{n}"]["written"] for n in range(SHARDS)] == [200, 200]
    assert [parts[f"sink/{n}"]["inserted"] for n in range(SHARDS)] == [200, 200]
    assert parts["aggregate"]["counted"] == 200


def test_dates_are_backfilled(pipeline):
    topic = pipeline.topic(300)
    millpond.sink(
        pipeline.servers.kafka, pipeline.servers.mongo_uri, topic=f"{topic}_to", database=topic, collection="events"
    )
    conf = json.dumps({"database": topic, "collection": "events"})
    airflow, dag_id = pipeline.airflow, "kafka_reports_backfill"
    if airflow.major == 2:
        airflow.call("dags", "backfill", dag_id, "-s", DATES[0], "-e", DATES[1], "--conf", conf)
    else:
        words = ("--dag-id", dag_id, "--from-date", DATES[0], "--to-date", DATES[1], "--dag-run-conf", conf)
        airflow.call("backfill", "create", *words)
    until(lambda: len(airflow.ask("stand", dag_id=dag_id)) == 2)
    for run_id in airflow.ask("stand", dag_id=dag_id):
        run = airflow.ended(dag_id, run_id)
        assert run["state"] == "success", airflow.logs(dag_id, run_id)
    query = f"SELECT report_date::text, sum(view_count)::int FROM {pipeline.schema}.product_views_daily GROUP BY 1"
    with psycopg.connect(pipeline.servers.dsn) as connection:
        assert dict(connection.execute(query).fetchall()) == dict.fromkeys(DATES, 150)


@pytest.mark.parametrize("pipeline", [3], indirect=True)
def test_a_task_ends_when_airflow_says_so_and_the_next_try_goes_on(pipeline):
    """3.x, where a handler calls `on_kill` and returns; for 2.10 see test_airflow_tasks.py."""
    airflow, servers = pipeline.airflow, pipeline.servers
    topic = f"t{secrets.token_hex(5)}"
    servers.create(servers.kafka, topic, 3)
    servers.send(servers.kafka, topic, [(str(n), b'{"n":%d}' % n, n % 3) for n in range(EVENTS)])
    run_id = airflow.make_run("ended", {"topic": topic})
    with servers.mongo() as client:
        stored = {name: client[topic][name] for name in ("marked", "terminated", "timed_out")}
        count = {name: (lambda of=of: of.estimated_document_count()) for name, of in stored.items()}

        until(lambda: count["terminated"]() > 50, 400)
        # The process of the task itself, as a pod's end would tell it.
        os.kill(airflow.tasks("ended", run_id)["terminated"]["pid"], signal.SIGTERM)
        until(lambda: count["marked"]() > 50, 400)
        pid = airflow.tasks("ended", run_id)["marked"]["pid"]
        airflow.ask("mark", dag_id="ended", run_id=run_id, task_id="marked", state="failed")
        until(lambda: not runs(pid))
        kept = count["marked"]()

        run = airflow.ended("ended", run_id)
        told = airflow.logs("ended", run_id)
        states = {name: (task["state"], task["tries"]) for name, task in run["tasks"].items()}
        assert states == {"marked": ("failed", 1), "terminated": ("success", 2), "timed_out": ("success", 2)}, told
        assert run["tasks"]["marked"]["books"] is None
        assert 50 < count["marked"]() == kept < EVENTS
        assert "AirflowTaskTimeout" in told
        for name in ("terminated", "timed_out"):
            books = run["tasks"][name]["books"]
            # Less than all: what the first try did was kept; and all are there, once.
            assert books["read"] < EVENTS
            assert books["read"] == books["inserted"] + books["already_present"]
            assert stored[name].count_documents({}) == EVENTS


def test_the_deployments_health_checks_pass(pipeline):
    """Those of docker-compose.yml, for the version that it deploys."""
    airflow = pipeline.airflow
    for name in ("airflow-scheduler", "airflow-triggerer"):
        kind, *words = services()[name]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", words[0].replace("$$", "$")]
        words = [word.replace("localhost:8974", f"localhost:{airflow.health_port}") for word in words]
        env = airflow.env | {"HOSTNAME": airflow.python("-c", HOSTNAME).strip().splitlines()[-1]}
        # As the engine does it: again, where a heart has been late once.
        for _ in range(services()[name]["healthcheck"]["retries"]):
            done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode == 0:
                break
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


HOSTNAME = "from airflow.utils.net import get_hostname; print(get_hostname())"
