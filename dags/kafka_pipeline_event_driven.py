"""The whole pipeline as events come: a run waits in the triggerer for events that were not read, and carries them.

A wait takes no worker's slot, reads no event and joins no group. When an hour brings nothing the run is skipped, and
the next one waits on.
"""

from datetime import UTC, datetime, timedelta

from millpond.airflow import AggregateOperator, BridgeOperator, NewEventsSensor, SinkOperator
from millpond.airflow.compat import DAG, Asset, Param

with DAG(
    dag_id="kafka_pipeline_event_driven",
    description="Product views, carried when there are some",
    doc_md=__doc__,
    # One run after the other; it needs max_active_runs=1.
    schedule="@continuous",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(hours=2)},
    params={
        "source_topic": Param("product_views", type="string", description="Topic of the remote cluster"),
        "target_topic": Param("processed_product_view_test", type="string", description="Topic of the local cluster"),
        "database": Param("kafka_data_db", type="string", description="MongoDB database"),
        "collection": Param("product_views_records", type="string", description="MongoDB collection"),
        "min_events": Param(1, type="integer", minimum=1, description="Events that are worth a run"),
    },
    tags=["millpond"],
) as dag:
    # [START waiting]
    new_events = NewEventsSensor(
        task_id="new_events",
        source_topic="{{ params.source_topic }}",
        target_topic="{{ params.target_topic }}",
        min_events="{{ params.min_events }}",
        poke_interval=10,
        timeout=3600,
        soft_fail=True,
    )
    bridge = BridgeOperator(
        task_id="bridge",
        source_topic="{{ params.source_topic }}",
        target_topic="{{ params.target_topic }}",
        transform="product_views",
    )
    # [END waiting]
    sink = SinkOperator(
        task_id="sink",
        topic="{{ params.target_topic }}",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
    )
    aggregate = AggregateOperator(
        task_id="aggregate",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
        # However late they came; what they cost follows the new events (docs/incremental.md).
        dates="changed",
        # Its events name the dates: what schedules on it knows what has changed.
        outlets=[Asset("product_views_daily")],
    )
    new_events >> bridge >> sink >> aggregate
