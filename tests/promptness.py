"""Promises of time: they are the product's, and a pause of the machine breaks none of them.

Owns the tries, and what a machine that many share may take longer. Refuses to widen a promise where a core is free.
"""

import time
from collections.abc import Callable

TRIES = 3
# Of so much of a core's time it is asked how long it takes here and now.
LOOK_S = 0.1
MOST = 5.0


def within(seconds: float, measure: Callable[[], float]) -> None:
    """Have `measure` run something and return how long it took, until that is less than was promised."""
    told = []
    for _ in range(TRIES):
        took, factor = measure(), 1.0
        if took >= seconds:
            factor = crowd()
        if took < seconds * factor:
            return
        told.append(f"{took:.2f} s on a machine that took {factor:.1f} times as long as it had to")
    raise AssertionError(f"{seconds} s are promised: {'; '.join(told)}")


def crowd() -> float:
    """How many times as long as on a core of its own something takes now."""
    wall, own = time.monotonic(), time.thread_time()
    while time.thread_time() - own < LOOK_S:
        pass
    return min(max((time.monotonic() - wall) / (time.thread_time() - own), 1.0), MOST)
