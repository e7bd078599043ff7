"""The whole pipeline with the two Kafka arrows in mapped tasks: each takes its share of the partitions, side by side.

The number of shards may change from run to run: positions belong to partitions, and layouts of every kind fence each
other. A shard that fails is tried again alone.
"""

from datetime import UTC, datetime, timedelta

from millpond.airflow import AggregateOperator, BridgeOperator, SinkOperator
from millpond.airflow.compat import DAG, Param

SHARDS = 4

with DAG(
    dag_id="kafka_pipeline_sharded",
    description="Product views: both Kafka arrows in mapped tasks, then the reports",
    doc_md=__doc__,
    schedule="0 */2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(hours=2)},
    params={
        "source_topic": Param("product_views", type="string", description="Topic of the remote cluster"),
        "target_topic": Param("processed_product_view_test", type="string", description="Topic of the local cluster"),
        "database": Param("kafka_data_db", type="string", description="MongoDB database"),
        "collection": Param("product_views_records", type="string", description="MongoDB collection"),
        "dates": Param("latest", type="string", description="Dates to report"),
    },
    tags=["millpond"],
) as dag:
    # [START mapped]
    shards = [f"{shard}/{SHARDS}" for shard in range(SHARDS)]
    bridge = BridgeOperator.partial(
        task_id="bridge",
        source_topic="{{ params.source_topic }}",
        target_topic="{{ params.target_topic }}",
        transform="product_views",
    ).expand(shard=shards)
    sink = SinkOperator.partial(
        task_id="sink",
        topic="{{ params.target_topic }}",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
    ).expand(shard=shards)
    # [END mapped]
    aggregate = AggregateOperator(
        task_id="aggregate",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
        dates="{{ params.dates }}",
    )
    bridge >> sink >> aggregate
