"""Airflow operators for the three arrows, and the way from Airflow's connections to their settings.

Owns what a DAG file imports. Refuses to load the native library, a client or an operator before one is asked for: a
DAG file is parsed every few seconds, by processes that never run a task.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond.airflow.aggregate import AggregateOperator
    from millpond.airflow.bridge import BridgeOperator
    from millpond.airflow.connections import kafka_properties, mongo_uri, postgres_dsn
    from millpond.airflow.sensor import NewEventsSensor
    from millpond.airflow.sink import SinkOperator

__all__ = [
    "AggregateOperator",
    "BridgeOperator",
    "NewEventsSensor",
    "SinkOperator",
    "kafka_properties",
    "mongo_uri",
    "postgres_dsn",
]

_HOME = {
    "AggregateOperator": "aggregate",
    "BridgeOperator": "bridge",
    "NewEventsSensor": "sensor",
    "SinkOperator": "sink",
    "kafka_properties": "connections",
    "mongo_uri": "connections",
    "postgres_dsn": "connections",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
