"""Trigger a DAG run and tell, as JSON lines, each change of a task's state and at last the results in XCom.

Runs in Airflow's environment: `python dag_run.py DAG_ID RUN_ID CONF SECONDS`. Refuses to run a task: the scheduler
does.
"""

import json
import os
import sys
import time
from typing import Any

# Airflow logs to standard output; the lines for our reader go to a copy of it.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def tell(**words: Any) -> None:
    """Write one line to the reader."""
    print(json.dumps(words), file=answers, flush=True)


def main(dag_id: str, run_id: str, conf: str, seconds: float) -> None:
    """Trigger, watch, and tell."""
    # Here and not above: what Airflow says while it is imported must not reach the reader either.
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound
    from airflow.models import DagRun, XCom
    from airflow.utils.session import create_session

    deadline = time.monotonic() + seconds
    while True:
        try:
            trigger_dag(dag_id=dag_id, run_id=run_id, conf=json.loads(conf))
            break
        except DagNotFound:
            # The scheduler has not read the DAG file yet.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    known: dict[str, str] = {}
    while True:
        with create_session() as session:
            run = DagRun.find(dag_id=dag_id, run_id=run_id, session=session)[0]
            tasks = {task.task_id: str(task.state) for task in run.get_task_instances(session=session)}
            state = str(run.state)
        for task, now in tasks.items():
            if now != known.get(task) and now in ("running", "success", "failed", "up_for_retry", "upstream_failed"):
                tell(task=task, state=now)
        known = tasks
        if state in ("success", "failed") or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    with create_session() as session:
        results = {
            task: XCom.get_one(key="return_value", dag_id=dag_id, task_id=task, run_id=run_id, session=session)
            for task in known
        }
    tell(state=state, results={task: result for task, result in results.items() if result is not None})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
