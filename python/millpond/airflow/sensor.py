"""The sensor that waits for events which a bridge has not read yet.

Owns the task's side: a first look, the hand-over to the triggerer, and how the wait ends in Airflow's terms. Refuses to
read an event or to join a consumer group.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from millpond.airflow import arguments, lag
from millpond.airflow.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
)
from millpond.airflow.connections import UnusableConnectionError, connection, kafka_properties
from millpond.airflow.task import documented
from millpond.airflow.trigger import NewEventsTrigger, enough

# The trigger keeps the time-out itself. Where no triggerer runs, the scheduler ends the wait so much later.
_GRACE = timedelta(seconds=30)


class NewEventsSensor(BaseSensorOperator):
    """Wait until the source of a bridge holds events that its job has not read.

    Compares the positions that the job keeps with the source's last stable offsets: metadata alone, in no consumer
    group. A job that has never run is due at once. Succeeds with what it found (`events`, `positions`) in XCom. The
    sensor's own arguments `poke_interval`, `timeout`, `soft_fail` and `mode` mean what they mean everywhere.

    Args:
        source_topic: The bridge's topic to read.
        target_topic: The bridge's topic to write.
        source_conn_id: Kafka connection of the source.
        target_conn_id: Kafka connection of the target.
        job: The bridge's `job`; default: `<source_topic>-to-<target_topic>`, as there.
        min_events: Wait until there are so many.
        deferrable: Wait in the triggerer (the default), or, where none runs, in the task itself.
    """

    ui_color = "#fff2cc"
    template_fields: Sequence[str] = (
        "source_topic", "target_topic", "source_conn_id", "target_conn_id", "job", "min_events",
    )  # fmt: skip

    def __init__(
        self,
        *,
        source_topic: str,
        target_topic: str,
        source_conn_id: str = "kafka_remote",
        target_conn_id: str = "kafka_default",
        job: str | None = None,
        min_events: int | str = 1,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        """Keep the arguments; they are read when the task runs."""
        super().__init__(**documented(type(self), kwargs))
        self.source_topic = source_topic
        self.target_topic = target_topic
        self.source_conn_id = source_conn_id
        self.target_conn_id = target_conn_id
        self.job = job
        self.min_events = min_events
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        """Look once; when too little is there, wait in the triggerer, or here.

        Raises:
            AirflowSensorTimeout: The time-out has passed.
            AirflowFailException: No waiting can help; the message says what to do.
        """
        if not self.deferrable:
            return super().execute(context)
        deadline = time.time() + self.timeout
        if (found := self._look()) is not None:
            return found
        trigger = NewEventsTrigger(**self._watched(), poke_interval=self.poke_interval, deadline=deadline)
        return self.defer(
            trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout) + _GRACE
        )

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - Airflow's
        """End as the trigger says.

        Raises:
            AirflowSensorTimeout: The time-out has passed.
            AirflowFailException: No waiting can help.
        """
        if (found := event.get("found")) is not None:
            self._tell(found)
            return dict(found)
        if event.get("timed_out"):
            text = f"no {self.min_events} new events within {self.timeout:.0f} s"
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(text)
        raise AirflowFailException(event.get("error", "the trigger ended without a word"))

    def poke(self, context: Any) -> Any:  # noqa: ARG002 - Airflow passes it
        """Look once, for a sensor that does not defer."""
        return self._look() is not None

    def _look(self) -> dict[str, Any] | None:
        import millpond

        try:
            watched = self._watched()
            source, target = (
                kafka_properties(connection(watched[side])) for side in ("source_conn_id", "target_conn_id")
            )
            found = lag.of_bridge(source, target, watched["job"], millpond.CancelToken())
        except (arguments.UnusableArgumentError, UnusableConnectionError) as error:
            raise AirflowFailException(f"new events: {error}") from error
        except millpond.Error as error:
            if error.retryable:
                # Waiting is what a sensor does; the time-out bounds it.
                self.log.warning("asked in vain: %s", error)
                return None
            raise AirflowFailException(str(error)) from error
        if not enough(found, watched["min_events"]):
            return None
        self._tell(found.to_dict())
        return found.to_dict()

    def _watched(self) -> dict[str, Any]:
        names = {name: arguments.text(name, getattr(self, name)) for name in ("source_conn_id", "target_conn_id")}
        topics = [arguments.text(name, getattr(self, name)) for name in ("source_topic", "target_topic")]
        job = "-to-".join(topics) if arguments.absent(self.job) else arguments.text("job", self.job)
        return names | {"job": job, "min_events": arguments.integer("min_events", self.min_events)}

    def _tell(self, found: dict[str, Any]) -> None:
        if found["events"] is None:
            self.log.info("the job keeps no positions yet: its first run is due")
        else:
            self.log.info("%s new events", f"{found['events']:,}")
