"""What a run tells OpenLineage: data sets by its names, and never a secret; nothing where it is not installed."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from tests.airflow_environment import MAJORS, Airflow

from millpond.airflow.lineage import Lineage


@dataclass
class Place:
    host: str | None
    port: int | None = None
    schema: str | None = None
    login: str = "me"
    password: str = "hunter2-never-told"


def told(verb: str, settings: dict[str, Any], **places: tuple[Place, Any]) -> Lineage:
    lineage = Lineage(verb)
    for argument, (place, value) in places.items():
        lineage.know(argument, place, value)
    lineage.names(settings)
    return lineage


KAFKA = (Place(None), {"bootstrap.servers": "a:1,b:2", "sasl.password": "hunter2-never-told"})
MONGO = (Place("m-1,m-2"), "mongodb://me:hunter2-never-told@m-1,m-2/")
STORED = {"database": "shop", "collection": "views"}


def test_data_sets_have_the_names_of_openlineage_and_no_secret():
    bridge = told("bridge", {"source_topic": "s", "target_topic": "t"}, source=KAFKA, target=KAFKA)
    assert (bridge.read, bridge.written) == ([("kafka://a:1", "s")], [("kafka://a:1", "t")])
    sink = told("sink", {"topic": "t"} | STORED, source=KAFKA, mongo_uri=MONGO)
    assert (sink.read, sink.written) == ([("kafka://a:1", "t")], [("mongodb://m-1:27017", "shop.views")])
    reports = (Place("db", 5433, "reports"), "host='db'")
    aggregate = told("aggregate", {"schema": "daily"} | STORED, mongo_uri=MONGO, postgres_dsn=reports)
    assert aggregate.read == [("mongodb://m-1:27017", "shop.views")]
    assert aggregate.places["postgres_dsn"] == ("postgres://db:5433", "reports")
    assert aggregate.schema == "daily"
    for lineage in (bridge, sink, aggregate):
        assert "hunter2" not in repr(lineage)


SCRIPT = """
import json
from millpond.airflow import AggregateOperator, BridgeOperator, NewEventsSensor, SinkOperator
from millpond.airflow.lineage import Lineage
from millpond.airflow.task import _tooltip
bridge = BridgeOperator(task_id="b", source_topic="s", target_topic="t")
before = bridge.get_openlineage_facets_on_complete(None)
bridge._told_of = {"lineage": Lineage("bridge"), "books": {"written": 1}}
print("ANSWER" + json.dumps({
    "before": before, "without": bridge.get_openlineage_facets_on_complete(None),
    "doc": [one(task_id="x", **words).doc_md for one, words in (
        (NewEventsSensor, {"source_topic": "s", "target_topic": "t"}),
        (SinkOperator, {"topic": "t", "database": "d", "collection": "c"}),
        (AggregateOperator, {"database": "d", "collection": "c"}))],
    "short": _tooltip("a  line"), "long": _tooltip("topic x: " + "lost offsets, " * 40),
}))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_without_openlineage_nothing_is_told_and_messages_fit_a_tooltip(tmp_path, major):
    said = json.loads(Airflow(tmp_path, environment=MAJORS[major]).python("-c", SCRIPT).partition("ANSWER")[2])
    assert said["before"] is None
    assert said["without"] is None
    assert all("- **" in doc for doc in said["doc"])
    assert said["short"] == "a line"
    assert len(said["long"]) <= 250
    assert said["long"].endswith("(the log has the rest)")
