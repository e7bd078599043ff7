"""The names that moved between Airflow 2.10 and 3.x, from wherever the installed one keeps them, when first asked for.

Owns every import of Airflow in this package. Refuses to hold behaviour: what differs in meaning is handled where it
matters.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

_OLDEST = (2, 10)

# Name → its module in 3.x, its module in 2.10.
_HOMES = {
    "Asset": ("airflow.sdk", "airflow.datasets"),
    "CronDataIntervalTimetable": ("airflow.sdk", "airflow.timetables.interval"),
    "DAG": ("airflow.sdk", "airflow"),
    "AirflowFailException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowNotFoundException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowSensorTimeout": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "AirflowSkipException": ("airflow.sdk.exceptions", "airflow.exceptions"),
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseTrigger": ("airflow.triggers.base", "airflow.triggers.base"),
    # A connection as a server of Airflow reads it, not through a task's supervisor.
    "Stored": ("airflow.models", "airflow.models"),
    "XCom": ("airflow.sdk.bases.xcom", "airflow.models.xcom"),
    "conf": ("airflow.configuration", "airflow.configuration"),
    "Param": ("airflow.sdk", "airflow.models.param"),
    "TriggerEvent": ("airflow.triggers.base", "airflow.triggers.base"),
    "task": ("airflow.sdk", "airflow.decorators"),
}
# Under another name in 2.10.
_RENAMED = {"Asset": "Dataset"}
# Under another name in both.
_CALLED = {"Stored": "Connection", "XCom": "BaseXCom"}


def major() -> int:
    """Return which major is installed: 2 or 3.

    Raises:
        ImportError: It is older than 2.10.
    """
    from airflow import __version__

    version = tuple(int(part) for part in __version__.split(".")[:2])
    if version < _OLDEST:
        raise ImportError(f"millpond's operators need Airflow 2.10 or newer, {__version__} is installed: upgrade it")
    return 3 if version >= (3,) and find_spec("airflow.sdk") else 2


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modern = major() == 3
    home = import_module(_HOMES[name][0 if modern else 1])
    found = globals()[name] = getattr(home, _CALLED.get(name, name if modern else _RENAMED.get(name, name)))
    return found
