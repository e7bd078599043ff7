"""A target that does not answer for a while: the bridge waits for it without taking the cores that it needs."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.local_servers import until
from tests.secured_kafka import secured_kafka
from tests.topics import written

EVENTS = 4_800
CHILD = """
import millpond
millpond.bridge({source!r}, {target!r}, source_topic={name!r}, target_topic={name!r}, job={name!r},
                max_events_per_second=240)
"""


@pytest.fixture
def target(tmp_path):
    with secured_kafka(tmp_path / "broker") as broker:
        yield broker


def test_waiting_costs_no_cores(servers, name, target):
    """A thread of the client that does not sleep while a request is under way would take one per broker and lane."""
    servers.create(servers.remote, name, 6)
    servers.send(servers.remote, name, [(None, b"%06d" % i + os.urandom(5_000), i % 6) for i in range(EVENTS)])
    cluster = target.at("INTERNAL")
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(source=servers.remote, target=cluster, name=name)])
    try:
        until(lambda: all(written(cluster, name, partition) for partition in range(6)))
        os.kill(target.pid, signal.SIGSTOP)
        # Batches are due, and linger for longer than anybody would want to wait for an answer.
        time.sleep(2.5)
        process = psutil.Process(child.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(3)
        spent, waited = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
    finally:
        os.kill(target.pid, signal.SIGCONT)
    assert child.wait(300) == 0
    found = sorted(int(message.value()[:6]) for message in servers.read(cluster, name))
    assert found == list(range(EVENTS))
    print(f"{spent:.2f} s of CPU")
    assert spent < waited / 4, f"{spent:.2f} s of CPU in {waited:.1f} s of waiting"
