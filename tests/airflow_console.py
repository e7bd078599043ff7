"""Runs in Airflow's own environment, of either major: makes DAG runs and tells how they stand, one JSON line each.

Owns the questions that tests ask of Airflow's database. Refuses to run a task: a scheduler does.
"""

import json
import os
import sys
from typing import Any

# Airflow logs to standard output; answers go to a copy of it.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from airflow import __version__
from airflow.models import DagModel, DagRun
from airflow.utils.session import create_session

MODERN = not __version__.startswith("2.")


def trigger(dag_id: str, run_id: str, conf: dict[str, Any]) -> str:
    """Make a run, once the scheduler has read the file."""
    from airflow.api.common.trigger_dag import trigger_dag

    with create_session() as session:
        known = session.get(DagModel, dag_id)
        if known is None or not (known.is_active if hasattr(known, "is_active") else not known.is_stale):
            return "unknown"
    words: dict[str, Any] = {}
    if MODERN:
        from airflow.utils.types import DagRunTriggeredByType

        words["triggered_by"] = DagRunTriggeredByType.TEST
    trigger_dag(dag_id=dag_id, run_id=run_id, conf=conf, **words)
    return "made"


def stand(dag_id: str, run_id: str | None = None) -> dict[str, Any]:
    """Tell the state of a run (without an id: of all runs of the DAG) and of its tasks, and their results."""
    with create_session() as session:
        runs = session.query(DagRun).filter(DagRun.dag_id == dag_id)
        if run_id:
            runs = runs.filter(DagRun.run_id == run_id)
        return {run.run_id: {"state": str(run.state.value if hasattr(run.state, "value") else run.state),
                             "tasks": tasks(run, session)} for run in runs}  # fmt: skip


def tasks(run: DagRun, session: Any) -> dict[str, Any]:
    """Tell each task's state, the try it is in, and what it left in XCom."""
    found = {}
    for one in run.get_task_instances(session=session):
        name = one.task_id if one.map_index < 0 else f"{one.task_id}/{one.map_index}"
        found[name] = {"state": str(one.state), "tries": one.try_number, "books": books(one, session), "pid": one.pid}
    return found


def books(one: Any, session: Any, name: str = "return_value") -> Any:
    """Return the result of a task, or what else it left in XCom."""
    from airflow.models.xcom import XComModel as Model

    key = {name: getattr(one, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    row = session.query(Model).filter_by(**key, key=name).one_or_none()
    return None if row is None else Model.deserialize_value(row)


def mark(dag_id: str, run_id: str, task_id: str, state: str) -> bool:
    """Mark a task, as the web UI does."""
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        return bool(run.get_task_instance(task_id, session=session).set_state(state, session=session))


def links(dag_id: str, run_id: str) -> dict[str, dict[str, str]]:
    """Return the buttons of a run's tasks, as the web server makes them."""
    from airflow.models.serialized_dag import SerializedDagModel

    dag = SerializedDagModel.get_dag(dag_id)
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        found = {one.task_id: one for one in run.get_task_instances(session=session)}
        return {
            task.task_id: {name: task.get_extra_links(found[task.task_id], name) for name in task.extra_links}
            for task in dag.task_dict.values()
        }


def left(dag_id: str, run_id: str, task_id: str, name: str) -> Any:
    """Return what a task left in XCom under a name."""
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        return books(run.get_task_instance(task_id, session=session), session, name)


def clear(dag_id: str, run_id: str) -> None:
    """Clear all tasks of a run, as the web UI does."""
    from airflow.models.taskinstance import clear_task_instances

    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one()
        clear_task_instances(run.get_task_instances(session=session), session)


def covered(dag_id: str, run_id: str) -> list[Any]:
    """Return the extras of the asset events that a run has left."""
    if MODERN:
        from airflow.models.asset import AssetEvent as Event
    else:
        from airflow.models.dataset import DatasetEvent as Event
    with create_session() as session:
        return [event.extra for event in session.query(Event).filter_by(source_dag_id=dag_id, source_run_id=run_id)]


if not MODERN:
    import airflow.models.xcom

    airflow.models.xcom.XComModel = airflow.models.xcom.BaseXCom  # the name of 3.x

answers.write('"ready"\n')
for line in sys.stdin:
    words = json.loads(line)
    do: Any = {one.__name__: one for one in (trigger, stand, covered, mark, clear, left, links)}[words.pop("do")]
    answers.write(json.dumps(do(**words)) + "\n")
