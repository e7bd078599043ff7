"""The DAG file as Airflow's parser sees it: quick, nothing native loaded, three tasks in a row, no server named."""

import json
import re
from pathlib import Path

import pytest
from tests.airflow_environment import DAGS, ROOT, Airflow

PARSE = """
import json, runpy, sys, time
import airflow.models.dag, airflow.models.param, airflow.models.baseoperator, airflow.hooks.base, airflow.exceptions
began = time.perf_counter()
dag = runpy.run_path(sys.argv[1])["dag"]
seconds = time.perf_counter() - began
from airflow.serialization.serialized_objects import SerializedDAG
SerializedDAG.to_dict(dag)
print("ANSWER" + json.dumps({
    "seconds": seconds,
    "native": [name for name in sys.modules if "_native" in name and "millpond" in name],
    "heavy": [name for name in ("polars", "pyarrow", "pyspark", "confluent_kafka") if name in sys.modules],
    "dag_id": dag.dag_id, "schedule": dag.schedule_interval, "catchup": dag.catchup,
    "max_active_runs": dag.max_active_runs,
    "tasks": {
        task.task_id: {
            "kind": type(task).__name__, "after": sorted(task.upstream_task_ids), "retries": task.retries,
            "backoff": task.retry_exponential_backoff, "templated": sorted(task.template_fields),
        }
        for task in dag.tasks
    },
}))
"""

DOCUMENTED = """
import datetime, json, sys
from millpond.airflow.compat import DAG
with DAG("documented", schedule=None, start_date=datetime.datetime(2025, 1, 1)) as dag:
    exec(sys.argv[1])
tasks = {
    task.task_id: {"after": sorted(task.upstream_task_ids), "mapped": type(task).__name__ == "MappedOperator"}
    for task in dag.tasks
}
print("ANSWER" + json.dumps(tasks))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    said = Airflow(tmp_path_factory.mktemp("airflow")).python("-c", PARSE, str(DAGS / "kafka_pipeline_all_in_one.py"))
    return json.loads(said.partition("ANSWER")[2])


def test_parsing_is_quick_and_loads_nothing_native(parsed):
    assert parsed["native"] == []
    assert parsed["heavy"] == []
    assert parsed["seconds"] < 0.5


def test_three_tasks_in_a_row_every_two_hours(parsed):
    assert (parsed["dag_id"], parsed["schedule"]) == ("kafka_pipeline_all_in_one", "0 */2 * * *")
    assert (parsed["max_active_runs"], parsed["catchup"]) == (1, False)
    kinds = {name: (task["kind"], task["after"]) for name, task in parsed["tasks"].items()}
    assert kinds == {
        "bridge": ("BridgeOperator", []),
        "sink": ("SinkOperator", ["bridge"]),
        "aggregate": ("AggregateOperator", ["sink"]),
    }
    for task in parsed["tasks"].values():
        assert task["retries"] >= 1
        assert task["backoff"] is True


def test_arguments_are_templated(parsed):
    wanted = {
        "bridge": {"source_conn_id", "target_conn_id", "source_topic", "target_topic", "job", "start", "max_events"},
        "sink": {"kafka_conn_id", "mongo_conn_id", "topic", "database", "collection", "start", "max_events"},
        "aggregate": {"mongo_conn_id", "postgres_conn_id", "database", "collection", "dates", "job"},
    }
    for name, fields in wanted.items():
        assert fields <= set(parsed["tasks"][name]["templated"])


@pytest.mark.parametrize("file", sorted(DAGS.glob("*.py")), ids=lambda file: file.name)
def test_no_server_is_named(file: Path):
    text = file.read_text()
    assert not re.search(r"\b\w[\w.-]*:\d{2,5}\b|\d+\.\d+\.\d+\.\d+|localhost|://", text)


def test_documented_examples_are_dags(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "airflow.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    # The second continues the first's imports with a mapped task of the same name: a name of its own here.
    source = "\n".join([blocks[0], blocks[1].replace('task_id="bridge"', 'task_id="mapped"')])
    said = Airflow(tmp_path).python("-c", DOCUMENTED, source)
    assert json.loads(said.partition("ANSWER")[2]) == {
        "bridge": {"after": [], "mapped": False},
        "sink": {"after": ["bridge"], "mapped": False},
        "aggregate": {"after": ["sink"], "mapped": False},
        "mapped": {"after": [], "mapped": True},
    }
