"""Servers of a test's own that it may end, a run that waits at a step, and a way to PostgreSQL that can be cut.

Runs that are met at a named step use the package with the test-only feature, as `tests/test_mutants.py` does.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.test_mutants import SABOTAGE

ANSWER = """
import json, millpond, sys
try:
    result = millpond.aggregate(**json.loads(sys.argv[1]))
    print(json.dumps({**result.to_dict(), "products": list(map(str, result.tables["product_views_daily"]))}))
except millpond.Error as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error), "hint": error.hint,
                      "retryable": error.retryable}))
"""


class Met:
    """A run that a step has stopped, and what it answers once it goes on."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Keep the process."""
        self.process = process
        self.answer: dict[str, Any] = {}


@contextmanager
def met(step: str, words: dict[str, Any], mutant: str = "") -> Iterator[Met]:
    """Run until `step` (with `:nth`) stops it; it goes on, to its end, when the block is left."""
    environment = os.environ | {"PYTHONPATH": SABOTAGE, "MILLPOND_SABOTAGE_AT": f"STOP:aggregate.{step}"}
    environment["MILLPOND_SABOTAGE"] = mutant
    command = [sys.executable, "-c", ANSWER, json.dumps(words)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        run = Met(process)
        yield run
        os.kill(process.pid, signal.SIGCONT)
        out, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
        run.answer.update(json.loads(out))
    finally:
        process.kill()
        process.wait()
