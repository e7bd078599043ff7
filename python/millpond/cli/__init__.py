"""The command `millpond`: the three functions, `run` for all of them, `replay`, `positions`, `top`, `doctor`, `local`.

Exit codes: 0 done, 1 unexpected, 2 wrong usage or `ConfigError`, 3 `ExternalError` (try again), 4 `FencedError`,
5 `PositionError`, 6 `DataError`, 7 `BugError`, 130 interrupted.
"""

from millpond.cli import replay
from millpond.cli.commands import main

__all__ = ["main", "replay"]
