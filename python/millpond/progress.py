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
    """

    read: int
    written: int
    dead_lettered: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second since the start."""
        return self.read / self.seconds if self.seconds > 0 else 0.0


@contextmanager
def bar(verb: str) -> Iterator[Callable[[Progress], None]]:
    """Draw a bar in a terminal or notebook while the block runs."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TimeRemainingColumn()) as bars:
        task = bars.add_task(verb, total=None)

        def show(now: Progress) -> None:
            bars.update(task, completed=now.read, total=now.total or None)

        yield show
