"""The whole pipeline with its reports made on a Spark cluster: remote Kafka → local Kafka → MongoDB → PostgreSQL.

Names no server: the connections `kafka_remote`, `kafka_default`, `mongo_default`, `postgres_default`, `spark_default`
do. The rows are those of `kafka_pipeline_all_in_one`, whatever the cluster; executors may die, and the task too.
"""

from datetime import UTC, datetime, timedelta

from millpond.airflow import AggregateOperator, BridgeOperator, SinkOperator
from millpond.airflow.compat import DAG, Param

with DAG(
    dag_id="kafka_pipeline_on_spark",
    description="Product views, the reports on Spark: remote Kafka → local Kafka → MongoDB → PostgreSQL",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(hours=2)},
    params={
        "source_topic": Param("product_views", type="string", description="Topic of the remote cluster"),
        "target_topic": Param("processed_product_view_test", type="string", description="Topic of the local cluster"),
        "database": Param("kafka_data_db", type="string", description="MongoDB database"),
        "collection": Param("product_views_records", type="string", description="MongoDB collection"),
    },
    tags=["millpond"],
) as dag:
    bridge = BridgeOperator(
        task_id="bridge",
        source_conn_id="kafka_remote",
        source_topic="{{ params.source_topic }}",
        target_topic="{{ params.target_topic }}",
        transform="product_views",
    )
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
        engine="spark",
        spark_conn_id="spark_default",
    )
    bridge >> sink >> aggregate
