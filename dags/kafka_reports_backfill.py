"""The reports of one date per run, for dates that have passed: made anew as often as it is run.

`airflow dags backfill` (2.10) and `airflow backfill create` (3.x) run it for a range. Dates may be made side by side.
"""

from datetime import UTC, datetime, timedelta

from millpond.airflow import AggregateOperator
from millpond.airflow.compat import DAG, CronDataIntervalTimetable, Param

with DAG(
    dag_id="kafka_reports_backfill",
    description="Product views: the reports of each run's own date",
    doc_md=__doc__,
    # Named, because "@daily" means the day before in 2.10 and the day itself in 3.x.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=2,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(hours=2)},
    params={
        "database": Param("kafka_data_db", type="string", description="MongoDB database"),
        "collection": Param("product_views_records", type="string", description="MongoDB collection"),
    },
    tags=["millpond"],
) as dag:
    # [START dated]
    AggregateOperator(
        task_id="aggregate",
        database="{{ params.database }}",
        collection="{{ params.collection }}",
        dates="{{ ds }}",
    )
    # [END dated]
