"""The whole pipeline as three tasks: remote Kafka → local Kafka → MongoDB → daily reports in PostgreSQL.

Names no server: the connections `kafka_remote`, `kafka_default`, `mongo_default` and `postgres_default` do. Each task
can be killed and run again at any moment; what it did before is kept, and nothing is done twice.
"""

from datetime import UTC, datetime, timedelta

from millpond.airflow import AggregateOperator, BridgeOperator, SinkOperator
from millpond.airflow.compat import DAG, Param

with DAG(
    dag_id="kafka_pipeline_all_in_one",
    description="Product views: remote Kafka → local Kafka → MongoDB → PostgreSQL",
    doc_md=__doc__,
    schedule="0 */2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        # A run that takes longer is ended cleanly and goes on from its positions in the next try.
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "source_topic": Param("product_views", type="string", description="Topic of the remote cluster"),
        "target_topic": Param("processed_product_view_test", type="string", description="Topic of the local cluster"),
        "database": Param("kafka_data_db", type="string", description="MongoDB database"),
        "collection": Param("product_views_records", type="string", description="MongoDB collection"),
        "dates": Param(
            "latest",
            type=["string", "array"],
            description="Dates to report: latest, all, a date, a range 2025-10-01..2025-10-31, or a list",
        ),
    },
    tags=["millpond"],
) as dag:
    bridge = BridgeOperator(
        task_id="bridge",
        source_conn_id="kafka_remote",
        target_conn_id="kafka_default",
        source_topic="{{ params.source_topic }}",
        target_topic="{{ params.target_topic }}",
        transform="product_views",
    )
    sink = SinkOperator(
        task_id="sink",
        kafka_conn_id="kafka_default",
        mongo_conn_id="mongo_default",
        topic="{{ params.target_topic }}",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
    )
    aggregate = AggregateOperator(
        task_id="aggregate",
        mongo_conn_id="mongo_default",
        postgres_conn_id="postgres_default",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
        dates="{{ params.dates if params.dates is string else params.dates | join(',') }}",
    )
    bridge >> sink >> aggregate
