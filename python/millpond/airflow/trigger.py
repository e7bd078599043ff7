"""The trigger behind `NewEventsSensor`: it asks again and again, and never blocks the triggerer's event loop.

Owns the waiting. Refuses to hold a secret or a client: its serialised form is names and numbers, so that another
triggerer can go on with it, to the same deadline.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from millpond.airflow import lag
from millpond.airflow.compat import BaseTrigger, TriggerEvent
from millpond.airflow.connections import UnusableConnectionError, connection, kafka_properties


class NewEventsTrigger(BaseTrigger):
    """Fires when a bridge's source holds at least `min_events` that its job has not read.

    Args:
        source_conn_id: Kafka connection of the source.
        target_conn_id: Kafka connection of the target, which keeps the positions.
        job: Name of the bridge's job.
        min_events: How many are enough.
        poke_interval: Seconds between two questions.
        deadline: Seconds since 1970 at which waiting ends.
    """

    def __init__(
        self,
        *,
        source_conn_id: str,
        target_conn_id: str,
        job: str,
        min_events: int,
        poke_interval: float,
        deadline: float,
    ) -> None:
        """Keep names and numbers."""
        super().__init__()
        self.source_conn_id = source_conn_id
        self.target_conn_id = target_conn_id
        self.job = job
        self.min_events = min_events
        self.poke_interval = poke_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's name and the arguments."""
        names = ("source_conn_id", "target_conn_id", "job", "min_events", "poke_interval", "deadline")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[Any]:
        """Yield one event: what was found, that time is up, or what no waiting can help."""
        yield TriggerEvent(await self._outcome())

    async def _outcome(self) -> dict[str, Any]:
        import millpond

        while True:
            try:
                # A server that hangs must not hold the deadline up either.
                found = await asyncio.wait_for(self._ask(), max(self.deadline - time.time(), 1.0))
            except TimeoutError:
                return {"timed_out": True}
            except UnusableConnectionError as error:
                return {"error": str(error)}
            except millpond.Error as error:
                if not error.retryable:
                    return {"error": str(error)}
                self.log.warning("new events of job %s: asked in vain, asking again: %s", self.job, error)
            else:
                if enough(found, self.min_events):
                    return {"found": found.to_dict()}
            left = self.deadline - time.time()
            if left <= 0:
                return {"timed_out": True}
            await asyncio.sleep(min(self.poke_interval, left))

    async def _ask(self) -> lag.Lag:
        import millpond

        token = millpond.CancelToken()

        def ask() -> lag.Lag:
            # Connections too: a secrets backend may take its time.
            source, target = (
                kafka_properties(connection(conn_id)) for conn_id in (self.source_conn_id, self.target_conn_id)
            )
            return lag.of_bridge(source, target, self.job, token)

        try:
            return await asyncio.to_thread(ask)
        finally:
            # A trigger that is cancelled leaves its thread behind; this ends what it asks.
            token.cancel()


def enough(found: lag.Lag, min_events: int) -> bool:
    """Whether a run is due: enough is there, or the job has never run."""
    return found.events is None or found.events >= min_events
