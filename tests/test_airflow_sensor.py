"""The trigger in an event loop of its own: it never blocks the loop, keeps its deadline, and ends when cancelled."""

import json

import pytest
from tests.airflow_environment import MAJORS, Airflow
from tests.promptness import within

SCRIPT = """
import asyncio, json, sys, time
from millpond.airflow.trigger import NewEventsTrigger
words = json.loads(sys.argv[1])
import millpond
millpond.CancelToken()  # the native library is loaded: that is no part of what is measured
async def main():
    began, gaps, loop = time.monotonic(), [0.0], asyncio.get_running_loop()
    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            gaps.append(time.monotonic() - before)
    ticking = loop.create_task(tick())
    classpath, arguments = NewEventsTrigger(
        source_conn_id=words["source"], target_conn_id=words["target"], job="j", min_events=1, poke_interval=0.2,
        deadline=time.time() + words["seconds"]).serialize()
    # As another triggerer would make it.
    again = NewEventsTrigger(**json.loads(json.dumps(arguments)))
    waiting = loop.create_task(anext(again.run()))
    event = None
    try:
        event = (await asyncio.wait_for(waiting, words["cancel_after"])).payload
    except TimeoutError:
        event = "cancelled"
    ticking.cancel()
    return {"event": event, "took": time.monotonic() - began, "gap": max(gaps), "classpath": classpath}
began = time.monotonic()
told = asyncio.run(main())
# With the threads that it left behind.
print("ANSWER" + json.dumps(told | {"all": time.monotonic() - began}))
"""


@pytest.fixture(scope="module", params=sorted(MAJORS))
def airflow(request, tmp_path_factory):
    home = Airflow(tmp_path_factory.mktemp("airflow"), environment=MAJORS[request.param])
    home.connect("silent", {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:1"}})
    home.connect("typed", {"conn_type": "kafka", "extra": {"bootstrap.servers": ["127.0.0.1:1"]}})
    if request.param == 3:
        # The triggerer's own way to connections runs through its supervisor; here they are in the environment.
        home.env["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    return home


def waited(airflow, source, target, seconds=60.0, cancel_after=60.0):
    words = {"source": source, "target": target, "seconds": seconds, "cancel_after": cancel_after}
    return json.loads(airflow.python("-c", SCRIPT, json.dumps(words)).partition("ANSWER")[2])


def test_the_deadline_is_kept_while_servers_hang_and_the_loop_runs_on(airflow):
    def once() -> float:
        told = waited(airflow, "silent", "silent", seconds=3)
        assert told["event"] == {"timed_out": True}
        assert told["took"] > 2.5
        assert told["classpath"] == "millpond.airflow.trigger.NewEventsTrigger"
        # Parts of what each may take: longer, and the loop stood still, or a thread was left behind.
        print(told)
        return float(max(told["took"] / 6, told["gap"] / 1.5, told["all"] / 10))

    within(1, once)


def test_a_cancelled_trigger_ends_what_it_asks(airflow):
    def once() -> float:
        told = waited(airflow, "silent", "silent", cancel_after=1)
        assert told["event"] == "cancelled"
        return float(told["all"])

    within(8, once)


def test_what_no_waiting_can_help_is_told_at_once(airflow):
    told = waited(airflow, "typed", "silent")
    assert "'typed': extra 'bootstrap.servers' must be" in told["event"]["error"]
    # And not when the deadline of a minute has come.
    assert told["took"] < 30
