"""What a progress callback gets, and the bar that `progress=True` draws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A run so far; events in the bridge and the sink, documents in the aggregate.

    Attributes:
        read: Taken in.
        written: Committed or acknowledged in their place.
        dead_lettered: Dead letters so far.
        total: Expected in all; 0 while unknown.
        seconds: Since the start.
        rate: Events per second over the last ten seconds.
        lag: Events that remain up to the ends asked at the start, at most; None while unknown.
        seconds_left: Until the run ends by its ends or its limits, at this rate; None while unknown.
    """

    read: int
    written: int
    dead_lettered: int
    total: int
    seconds: float
    rate: float = 0.0
    lag: int | None = None
    seconds_left: float | None = None


def pace(now: Progress) -> str:
    """Return rate, lag and time left in words."""
    words = [f"{now.rate:,.0f}/s"]
    if now.lag is not None:
        words.append(f"lag {now.lag:,}")
    if now.seconds_left is not None:
        minutes, seconds = divmod(round(now.seconds_left), 60)
        words.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(words)


@contextmanager
def bar(verb: str) -> Iterator[Callable[[Progress], None]]:
    """Draw a bar in a terminal or notebook while the block runs."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TextColumn("{task.fields[pace]}")) as bars:
        task = bars.add_task(verb, total=None, pace="")

        def show(now: Progress) -> None:
            bars.update(task, completed=now.read, total=now.total or None, pace=pace(now))

        yield show
