"""The operator of the first arrow: remote Kafka to local Kafka, exactly once.

Owns the arguments of `millpond.bridge` as a task's. Refuses defaults of its own: what is left out is left to the verb.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from millpond.airflow import arguments
from millpond.airflow.connections import kafka_properties
from millpond.airflow.lineage import Lineage
from millpond.airflow.links import LettersLink
from millpond.airflow.task import VerbOperator


class BridgeOperator(VerbOperator):
    """Copy the events of a topic from one cluster to another up to the source's end, each exactly once.

    Every argument is templated. A killed or failed task is simply run again.

    Args:
        source_topic: Topic to read.
        target_topic: Topic to write; made when absent.
        source_conn_id: Kafka connection of the source; its extra holds librdkafka's properties.
        target_conn_id: Kafka connection of the target.
        job: Name of the positions; two tasks of one name fence each other.
        transform: `"product_views"`, `millpond.PRODUCT_VIEWS`, a `millpond.Transform`, the same as a mapping or the
            path of a TOML file, or None to keep every byte.
        shard: `(i, n)` or `"i/n"`: this task's share of the partitions, for mapped tasks.
        start: `"earliest"`, `"latest"` or an RFC 3339 time, for partitions without a position.
        max_events: Events to read at most.
        max_seconds: Seconds to read at most.
        dead_letter_topic: Default `<target_topic>.dead_letters`; None: the first dead letter fails the task.
        max_dead_letters: Dead letters of one run that are tolerated.
        on_gap: `"fail"`, or `"earliest"` to go on after events that the source has lost and report them as `gaps`.
        wait_for_open_transactions: Seconds to wait at the start for transactions that are open on the source.
        target_retention: Retention of a target topic that is made.
        allow: Checks of an existing target topic that are waived.
        max_events_per_second: Read no faster, over all lanes of the task.
        max_bytes_per_second: The same by bytes of key and value.
        statistics: Whether the result holds what the clients counted.
    """

    verb = "bridge"
    readers: ClassVar[dict[str, arguments.Reader]] = {
        "source_topic": arguments.text,
        "target_topic": arguments.text,
        "job": arguments.text,
        "transform": arguments.as_it_is,
        "shard": arguments.shard,
        "start": arguments.start,
        "max_events": arguments.integer,
        "max_seconds": arguments.number,
        "dead_letter_topic": arguments.as_it_is,
        "max_dead_letters": arguments.integer,
        "on_gap": arguments.text,
        "wait_for_open_transactions": arguments.number,
        "target_retention": arguments.as_it_is,
        "allow": arguments.texts,
        "max_events_per_second": arguments.number,
        "max_bytes_per_second": arguments.number,
        "statistics": arguments.truth,
    }
    connections: ClassVar[dict[str, Any]] = {
        "source": ("source_conn_id", kafka_properties),
        "target": ("target_conn_id", kafka_properties),
    }
    operator_extra_links = (LettersLink(),)
    template_fields: Sequence[str] = ("source_conn_id", "target_conn_id", *readers)

    def __init__(
        self,
        *,
        source_topic: str,
        target_topic: str,
        source_conn_id: str = "kafka_remote",
        target_conn_id: str = "kafka_default",
        job: str | None = None,
        transform: Any = None,
        shard: Any = None,
        start: Any = None,
        max_events: int | str | None = None,
        max_seconds: float | str | None = None,
        dead_letter_topic: Any = ...,
        max_dead_letters: int | str | None = None,
        on_gap: str | None = None,
        wait_for_open_transactions: float | str | None = None,
        target_retention: Any = None,
        allow: Any = None,
        max_events_per_second: float | str | None = None,
        max_bytes_per_second: float | str | None = None,
        statistics: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the arguments; they are read when the task runs."""
        super().__init__(**kwargs)
        self.source_topic = source_topic
        self.target_topic = target_topic
        self.source_conn_id = source_conn_id
        self.target_conn_id = target_conn_id
        self.job = job
        self.transform = transform
        self.shard = shard
        self.start = start
        self.max_events = max_events
        self.max_seconds = max_seconds
        self.dead_letter_topic = dead_letter_topic
        self.max_dead_letters = max_dead_letters
        self.on_gap = on_gap
        self.wait_for_open_transactions = wait_for_open_transactions
        self.target_retention = target_retention
        self.allow = allow
        self.max_events_per_second = max_events_per_second
        self.max_bytes_per_second = max_bytes_per_second
        self.statistics = statistics

    def _settings(self, lineage: Lineage) -> dict[str, Any]:
        settings = super()._settings(lineage)
        if self.dead_letter_topic is None:
            # The one argument whose None says something: the first dead letter ends the run.
            settings["dead_letter_topic"] = None
        elif self.dead_letter_topic is ...:
            settings.pop("dead_letter_topic", None)
        return settings

    def dead_letters_in(self, settings: dict[str, Any]) -> dict[str, str] | None:
        """Return the topic that takes them."""
        topic = settings.get("dead_letter_topic", f"{settings['target_topic']}.dead_letters")
        return {"topic": topic} if topic else None
