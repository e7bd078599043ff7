"""Which connections the page looks through: the section `[millpond]` of Airflow's configuration.

Owns the options and their defaults. Refuses to hold a secret: they are names and numbers.
"""

from dataclasses import dataclass

from millpond.airflow.compat import conf


@dataclass(frozen=True)
class Places:
    """Where the page looks. An empty connection id leaves its part out.

    Attributes:
        source: Kafka connection of the bridges' source.
        target: Kafka connection of their target, which keeps their positions and dead letters.
        mongo: MongoDB connection of the sinks.
        postgres: PostgreSQL connection of the reports.
        schema: Schema of the reports; None: the first one of the search path.
        jobs: Patterns of the bridges' names that are looked at, as on a command line.
        databases: MongoDB databases to look at, beside those that the ledger names.
        seconds: After so long a server that has not answered is left out.
        cache_seconds: So long an answer is shown again.
    """

    source: str
    target: str
    mongo: str
    postgres: str
    schema: str | None
    jobs: tuple[str, ...]
    databases: tuple[str, ...]
    seconds: float
    cache_seconds: float


def configured() -> Places:
    """Read the section; an option is also `AIRFLOW__MILLPOND__<OPTION>`."""

    def text(option: str, default: str) -> str:
        return str(conf.get("millpond", option, fallback=default)).strip()

    def texts(option: str, default: str) -> tuple[str, ...]:
        return tuple(filter(None, (part.strip() for part in text(option, default).split(","))))

    return Places(
        source=text("source_conn_id", "kafka_remote"),
        target=text("target_conn_id", "kafka_default"),
        mongo=text("mongo_conn_id", "mongo_default"),
        postgres=text("postgres_conn_id", "postgres_default"),
        schema=text("schema", "") or None,
        jobs=texts("jobs", "*"),
        databases=texts("databases", ""),
        seconds=min(max(conf.getfloat("millpond", "page_seconds", fallback=8.0), 1.0), 30.0),
        cache_seconds=min(max(conf.getfloat("millpond", "page_cache_seconds", fallback=10.0), 0.0), 600.0),
    )
