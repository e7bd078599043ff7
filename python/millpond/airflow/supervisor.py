"""The process that watches over a task: when it is gone, nobody can end the task any more, and the task ends itself.

Owns the look at the parent. Refuses to judge a parent that is no Python, a shell say: what somebody starts by hand may
outlive it.
"""

import os
import sys
from pathlib import Path


class Supervisor:
    """The parent of this process, as it was when a run began."""

    def __init__(self) -> None:
        """Remember it."""
        self._pid = os.getppid()
        self._watches = _is_python(self._pid)

    def is_gone(self) -> bool:
        """Whether it died: the process has another parent now."""
        return self._watches and os.getppid() != self._pid


def _is_python(pid: int) -> bool:
    """Whether a process runs the same interpreter: Airflow forks its tasks, or starts them by it."""
    try:
        return Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()
    except OSError:
        return False
