"""The operator of the second arrow: local Kafka to MongoDB, effectively once.

Owns the arguments of `millpond.sink` as a task's. Refuses defaults of its own: what is left out is left to the verb.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from millpond.airflow import arguments
from millpond.airflow.connections import kafka_properties, mongo_uri
from millpond.airflow.links import LettersLink
from millpond.airflow.task import VerbOperator


class SinkOperator(VerbOperator):
    """Store the events of a topic as documents up to the topic's end, each effectively once.

    Every argument is templated. A killed or failed task is simply run again.

    Args:
        topic: Topic to read.
        database: Database to write.
        collection: Collection to write.
        kafka_conn_id: Kafka connection; its extra holds librdkafka's properties.
        mongo_conn_id: MongoDB connection.
        group_id: Consumer group whose offsets are committed for lag tools.
        batch_size: Documents per insert.
        id: How `_id` is made: `"kafka"` (the default), `"key"`, or `"field:<dotted name>"`.
        shard: `(i, n)` or `"i/n"`: this task's share of the partitions, for mapped tasks.
        start: `"earliest"`, `"latest"`, `"group"` or an RFC 3339 time, for partitions without a position.
        max_events: Events to read at most.
        max_seconds: Seconds to read at most.
        max_dead_letters: Dead letters of one run that are tolerated.
        on_gap: `"fail"`, or `"earliest"` to go on after events that the topic has lost and report them as `gaps`.
        ensure_indexes: Whether the index on `timestamp` is made.
        write_concern: How far an insert must have got: `"majority"`, a number of members, or a mapping (also as JSON).
        compressors: Of zstd, snappy and zlib those that may be used.
        dead_letter_ttl: Seconds after which a dead letter expires.
        metadata: Field under which topic, partition, offset, key and headers are stored.
        max_events_per_second: Read no faster.
        max_bytes_per_second: The same by bytes of key and value.
    """

    verb = "sink"
    readers: ClassVar[dict[str, arguments.Reader]] = {
        "topic": arguments.text,
        "database": arguments.text,
        "collection": arguments.text,
        "group_id": arguments.text,
        "batch_size": arguments.integer,
        "id": arguments.text,
        "shard": arguments.shard,
        "start": arguments.start,
        "max_events": arguments.integer,
        "max_seconds": arguments.number,
        "max_dead_letters": arguments.integer,
        "on_gap": arguments.text,
        "ensure_indexes": arguments.truth,
        "write_concern": arguments.concern,
        "compressors": arguments.texts,
        "dead_letter_ttl": arguments.seconds,
        "metadata": arguments.text,
        "max_events_per_second": arguments.number,
        "max_bytes_per_second": arguments.number,
    }
    connections: ClassVar[dict[str, Any]] = {
        "source": ("kafka_conn_id", kafka_properties),
        "mongo_uri": ("mongo_conn_id", mongo_uri),
    }
    operator_extra_links = (LettersLink(),)
    template_fields: Sequence[str] = ("kafka_conn_id", "mongo_conn_id", *readers)

    def __init__(
        self,
        *,
        topic: str,
        database: str,
        collection: str,
        kafka_conn_id: str = "kafka_default",
        mongo_conn_id: str = "mongo_default",
        group_id: str | None = None,
        batch_size: int | str | None = None,
        id: str | None = None,  # noqa: A002 - the verb's own word
        shard: Any = None,
        start: Any = None,
        max_events: int | str | None = None,
        max_seconds: float | str | None = None,
        max_dead_letters: int | str | None = None,
        on_gap: str | None = None,
        ensure_indexes: bool | str | None = None,
        write_concern: Any = None,
        compressors: Any = None,
        dead_letter_ttl: Any = None,
        metadata: str | None = None,
        max_events_per_second: float | str | None = None,
        max_bytes_per_second: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the arguments; they are read when the task runs."""
        super().__init__(**kwargs)
        self.topic = topic
        self.database = database
        self.collection = collection
        self.kafka_conn_id = kafka_conn_id
        self.mongo_conn_id = mongo_conn_id
        self.group_id = group_id
        self.batch_size = batch_size
        self.id = id
        self.shard = shard
        self.start = start
        self.max_events = max_events
        self.max_seconds = max_seconds
        self.max_dead_letters = max_dead_letters
        self.on_gap = on_gap
        self.ensure_indexes = ensure_indexes
        self.write_concern = write_concern
        self.compressors = compressors
        self.dead_letter_ttl = dead_letter_ttl
        self.metadata = metadata
        self.max_events_per_second = max_events_per_second
        self.max_bytes_per_second = max_bytes_per_second

    def dead_letters_in(self, settings: dict[str, Any]) -> dict[str, str] | None:
        """Return the collection beside which they are kept."""
        return {name: settings[name] for name in ("database", "collection")}
