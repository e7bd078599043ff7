"""The operator of the third arrow: MongoDB to the daily reports in PostgreSQL.

Owns the arguments of `millpond.aggregate` as a task's. Refuses defaults of its own: what is left out is left to the
verb.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from millpond.airflow import arguments
from millpond.airflow.connections import connection, mongo_uri, postgres_dsn, spark_master
from millpond.airflow.lineage import Lineage
from millpond.airflow.links import ReportLink, SparkLink
from millpond.airflow.task import VerbOperator

if TYPE_CHECKING:
    from millpond import CancelToken


class AggregateOperator(VerbOperator):
    """Make the reports of one or more dates anew, all tables and dates in one transaction.

    Every argument is templated. A killed or failed task is simply run again.

    Args:
        database: Database to read.
        collection: Collection to read.
        dates: `"latest"`, `"all"`, `"changed"` (those with new events since the last such task), a date (`"{{ ds }}"`),
            a range, or a list of dates, also with commas.
        mongo_conn_id: MongoDB connection.
        postgres_conn_id: PostgreSQL connection; None computes the books and writes nothing.
        time_field: Field that gives an event its date.
        lookback_days: With `latest`: that many dates before it as well.
        max_future_skew: With `latest`: seconds that an event may lie beyond now.
        job: Name in the ledger.
        engine: `"native"`, or `"spark"`: on the executors of a cluster, with the same rows (docs/spark.md).
        spark_conn_id: With `engine="spark"`: the connection that holds the master.
        mode: `"incremental"` (read what came since, where that is exact) or `"full"` (read whole dates).
        keep_partials_days: Of how many days back Partials are kept for incremental runs.
        reports: The reports to make; default: the three of product views. As in `millpond.aggregate`, also as JSON;
            functions that they call are registered where the DAG file, or a module that it imports, is read.
        allow_scan: Read the whole collection when no index begins with `time_field`.
        schema: Where the reports are kept; default: the first schema of the search path.
        checks: What must hold before the commit: a list of `millpond.Check`s or of their fields, also as JSON.
        memory_limit: Bytes that reports may take while events are read, before a temporary file is used.
    """

    verb = "aggregate"
    # This run's, once it has begun.
    _instance: Any = None
    readers: ClassVar[dict[str, arguments.Reader]] = {
        "database": arguments.text,
        "collection": arguments.text,
        "dates": arguments.dates,
        "time_field": arguments.text,
        "lookback_days": arguments.integer,
        "max_future_skew": arguments.number,
        "job": arguments.text,
        "engine": arguments.text,
        "mode": arguments.text,
        "keep_partials_days": arguments.integer,
        "reports": arguments.reports,
        "allow_scan": arguments.truth,
        "schema": arguments.text,
        "checks": arguments.listed,
        "memory_limit": arguments.integer,
    }
    connections: ClassVar[dict[str, Any]] = {
        "mongo_uri": ("mongo_conn_id", mongo_uri),
        "postgres_dsn": ("postgres_conn_id", postgres_dsn),
    }
    operator_extra_links: Sequence[Any] = (ReportLink(),)
    template_fields: Sequence[str] = ("mongo_conn_id", "postgres_conn_id", "spark_conn_id", *readers)

    def __init__(
        self,
        *,
        database: str,
        collection: str,
        dates: Any = "latest",
        mongo_conn_id: str = "mongo_default",
        postgres_conn_id: str | None = "postgres_default",
        time_field: str | None = None,
        lookback_days: int | str | None = None,
        max_future_skew: float | str | None = None,
        job: str | None = None,
        engine: str | None = None,
        mode: str | None = None,
        keep_partials_days: int | str | None = None,
        reports: Any = None,
        allow_scan: bool | str | None = None,
        schema: str | None = None,
        checks: Any = None,
        memory_limit: int | str | None = None,
        spark_conn_id: str = "spark_default",
        **kwargs: Any,
    ) -> None:
        """Keep the arguments; they are read when the task runs."""
        super().__init__(**kwargs)
        self.database = database
        self.collection = collection
        self.dates = dates
        self.mongo_conn_id = mongo_conn_id
        self.postgres_conn_id = postgres_conn_id
        self.time_field = time_field
        self.lookback_days = lookback_days
        self.max_future_skew = max_future_skew
        self.job = job
        self.engine = engine
        self.mode = mode
        self.keep_partials_days = keep_partials_days
        self.reports = reports
        self.allow_scan = allow_scan
        self.schema = schema
        self.checks = checks
        self.memory_limit = memory_limit
        self.spark_conn_id = spark_conn_id
        if engine == "spark":
            self.operator_extra_links = (ReportLink(), SparkLink())

    def execute(self, context: Any) -> dict[str, Any]:
        """Make the reports; see [`VerbOperator.execute`]."""
        self._instance = context.get("ti")
        return super().execute(context)

    def _settings(self, lineage: Lineage) -> dict[str, Any]:
        settings = super()._settings(lineage)
        if settings.get("engine") == "spark":
            settings["spark"] = spark_master(connection(self.spark_conn_id))
        return settings

    def _line(self, token: "CancelToken") -> Callable[[Any], None]:
        show = super()._line(token)
        if self.engine != "spark":
            return show
        from millpond.spark import running

        told = self._told_of or {}

        def linked(progress: Any) -> None:
            if "spark" not in told and (now := running()):
                told["spark"] = now
                # No link is worth a run.
                with suppress(Exception):
                    self._instance.xcom_push(key=SparkLink.key, value=now["page"])
            show(progress)

        return linked
