"""The DAG files as Airflow's parser sees them, on both majors: quick, nothing native loaded, no server named."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.airflow_environment import DAGS, MAJORS, ROOT, Airflow
from tests.promptness import within

import millpond

PARSE = """
import json, runpy, sys, time
import airflow.models.dag, airflow.models.param, airflow.models.baseoperator, airflow.hooks.base, airflow.exceptions
# Of a core: what else the machine does is no matter of the file.
began = time.process_time()
dag = runpy.run_path(sys.argv[1])["dag"]
seconds = time.process_time() - began
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


def parse(home: Path) -> Any:
    said = Airflow(home).python("-c", PARSE, str(DAGS / "kafka_pipeline_all_in_one.py"))
    return json.loads(said.partition("ANSWER")[2])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    return parse(tmp_path_factory.mktemp("airflow"))


def test_parsing_is_quick_and_loads_nothing_native(parsed, tmp_path):
    assert parsed["native"] == []
    assert parsed["heavy"] == []
    # Where two share a core, each takes longer.
    taken = [parsed]
    within(0.5, lambda: float((taken.pop() if taken else parse(tmp_path))["seconds"]))


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


BLOCK = re.compile(r"(?:^<!-- region (\w+) of (\S+) -->\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_documented_regions_are_those_of_the_dags():
    blocks = [block for block in BLOCK.findall((ROOT / "docs" / "airflow.md").read_text()) if block[0]]
    shown = set()
    for region, file, text in blocks:
        whole = (ROOT / file).read_text()
        wanted = textwrap.dedent(whole.partition(f"# [START {region}]\n")[2].partition(f"# [END {region}]")[0])
        assert wanted.strip() == text.strip(), f"{file}, region {region}"
        shown.add(Path(file).name)
    marked = {file.name for file in DAGS.glob("*.py") if "# [START " in file.read_text()}
    assert shown == marked


def test_documented_examples_are_dags(tmp_path):
    found = BLOCK.findall((ROOT / "docs" / "airflow.md").read_text())
    blocks = [text for region, _, text in found if not region]
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


PROVIDER = """
import importlib, json, sys
from millpond.airflow.provider import get_provider_info
from airflow.providers_manager import ProvidersManager
import jsonschema
from pathlib import Path
import airflow
info = get_provider_info()
schema = Path(airflow.__path__[0]) / "provider_info.schema.json"
jsonschema.validate(info, json.loads(schema.read_text()))
for kind in ("operators", "sensors", "triggers"):
    for group in info[kind]:
        for module in group["python-modules"]:
            importlib.import_module(module)
known = ProvidersManager().providers["millpond"]
print("ANSWER" + json.dumps({
    "version": known.version,
    "description": known.data["description"],
    "native": [name for name in sys.modules if "_native" in name and "millpond" in name],
}))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_airflow_lists_the_package_as_a_provider(tmp_path, major):
    """What `airflow providers list` prints, from the metadata that the wheel brings."""
    said = Airflow(tmp_path, environment=MAJORS[major]).python("-c", PROVIDER)
    known = json.loads(said.partition("ANSWER")[2])
    assert known["version"] == millpond.__version__
    assert "Exactly-once" in known["description"]
    assert known["native"] == []


IMPORTED = """
import json, runpy, sys, time
import airflow
from millpond.airflow import compat
began = time.perf_counter()
told = {}
for file in sys.argv[1:]:
    dag = runpy.run_path(file)["dag"]
    told[dag.dag_id] = {task.task_id: task.operator_class.__name__ if hasattr(task, "operator_class") and
                        isinstance(task.operator_class, type) else type(task).__name__ for task in dag.tasks}
print("ANSWER" + json.dumps({
    "dags": told, "native": [name for name in sys.modules if "_native" in name and "millpond" in name],
}))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_every_dag_file_imports(tmp_path, major):
    files = [str(file) for file in sorted(DAGS.glob("*.py"))]
    said = Airflow(tmp_path, environment=MAJORS[major]).python("-c", IMPORTED, *files)
    found = json.loads(said.partition("ANSWER")[2])
    assert found["native"] == []
    verbs = {"bridge": "BridgeOperator", "sink": "SinkOperator", "aggregate": "AggregateOperator"}
    assert found["dags"] == {
        "kafka_pipeline_all_in_one": verbs,
        "kafka_pipeline_event_driven": {"new_events": "NewEventsSensor"} | verbs,
        "kafka_pipeline_on_spark": verbs,
        "kafka_pipeline_sharded": verbs,
        "kafka_reports_backfill": {"aggregate": "AggregateOperator"},
    }


OLD = """
import airflow
airflow.__version__ = "2.9.3"
try:
    import millpond.airflow
    millpond.airflow.BridgeOperator
except ImportError as error:
    print("ANSWER" + str(error))
"""


def test_an_older_airflow_is_refused_by_name(tmp_path):
    told = Airflow(tmp_path).python("-c", OLD).partition("ANSWER")[2]
    assert "2.10 or newer" in told
    assert "2.9.3" in told
