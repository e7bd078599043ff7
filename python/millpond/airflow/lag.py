"""How many events a bridge has not read yet, by metadata alone.

Owns the comparison of kept positions with the source's last stable offsets. Refuses to read an event, to join a group
and to write: any number of these may look at a job while it runs.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond import CancelToken


@dataclass(frozen=True)
class Lag:
    """What a bridge's next run would find.

    Attributes:
        events: Offsets up to the last stable one that are not read; None when the job keeps no positions yet.
        positions: Partition → the next offset to read and the source's end.
    """

    events: int | None
    positions: dict[int, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"events": self.events, "positions": {str(key): list(value) for key, value in self.positions.items()}}


def of_bridge(source: dict[str, str], target: dict[str, str], job: str, token: "CancelToken") -> Lag:
    """Compare the positions of a job with its source. Blocks: not for an event loop's own thread.

    Raises:
        millpond.Error: A server did not answer, or refused.
    """
    from millpond import ConfigError, _native, oauth

    tokens = oauth.callbacks(source=source, target=target)
    sides = {"target": oauth.plain(target), "job": job}
    try:
        shown = json.loads(_native.positions_show(json.dumps(sides | {"source": oauth.plain(source)}), token, tokens))
    except ConfigError:
        try:
            _native.positions_show(json.dumps(sides), token, tokens)
        except ConfigError:
            # Nothing is kept: the first run is due, and decides where to begin. Where it is the target's connection
            # that is wrong, that run says so.
            return Lag(None, {})
        raise
    known = [place for place in shown["positions"] if place["end"] is not None]
    events = sum(max(place["end"] - (place["next"] or 0), 0) for place in known)
    return Lag(events, {place["partition"]: (place["next"] or 0, place["end"]) for place in known})
