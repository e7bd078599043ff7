"""`make demo`'s script from end to end with few events, twice: real servers, a real scheduler, equal to the truth."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
from scripts.demo_steps import compare
from tests.airflow_environment import ENVIRONMENT, ROOT
from tests.airflow_web import browser, opened
from tests.local_servers import until

from millpond.local import Stack


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--dir", str(folder), "--airflow", str(ENVIRONMENT)]
    env = os.environ | {"COLUMNS": "140"}
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=1_500, check=False, env=env)


def watched_ui(folder: Path, *words: str) -> str:
    """`make demo-ui`: the page opens with the account that is said, and Ctrl-C leaves nothing of Airflow behind."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--dir", str(folder), "--airflow", str(ENVIRONMENT)]
    env = os.environ | {"COLUMNS": "140"}
    # In a group of its own: Ctrl-C reaches every process of a terminal's group.
    with subprocess.Popen(
        [*command, "--ui", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        said = ""
        for line in running.stdout:
            said += line
            if "web UI" in line:
                break
        found = re.search(r"(http://\S+)/millpond/ \(user (\w+), password (\S+)\)", said)
        assert found, said
        address, user, password = found.groups()
        with browser() as chromium:
            page = opened(chromium)
            page.goto(f"{address}/login/")
            page.locator("input[name=username]").fill(user)
            page.locator("input[name=password]").fill(password)
            page.locator("input[type=submit]").click()
            page.goto(f"{address}/millpond/")
            assert page.locator("#reports tbody tr").count() == 10
        os.killpg(running.pid, signal.SIGINT)
        said += running.stdout.read()
    assert running.returncode == 0, said
    assert "Airflow has ended" in said

    def left() -> list[psutil.Process]:
        running = psutil.process_iter(["environ"])
        return [one for one in running if str(folder / "airflow") in str(one.info["environ"])]

    # What was killed may still be on its way out.
    until(lambda: not left(), 10)
    return said


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "demo"
    Stack(tmp_path / "demo" / "stack").down(delete=True)
    shutil.rmtree(tmp_path / "demo", ignore_errors=True)


@pytest.mark.timeout(3_600)
def test_equal_to_the_truth_and_again_and_caught_when_not(folder):
    first = demo(folder, "--count", "2000")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.rstrip().endswith("demo: reports equal the truth")
    books = r"^bridge +2,000 read = [\d,]+ written \+ 0 filtered \+ \d+ dead_lettered; .* events/s$"
    assert re.search(books, first.stdout, re.MULTILINE)
    for table in ("product_views_daily", "country_views_daily", "referrer_views_daily"):
        assert table in first.stdout
    for word in ("psql ", "mongosh ", "logs:", "stop the servers"):
        assert word in first.stdout

    # Goes on: new events only, and the truth covers both batches.
    second = watched_ui(folder, "--count", "1000")
    assert re.search(r"^bridge +1,000 read", second, re.MULTILINE)
    assert re.search(r"^sink +[\d,]+ read = [\d,]+ inserted \+ 0 already_present", second, re.MULTILINE)
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["produced"] == 3_000
    assert len(truth["dates"]) == 3

    # The comparison is one that can fail: a row changed behind its back in a date that the next run does not touch.
    dsn = Stack(folder / "stack").status()["postgres"]["dsn"]
    status = Stack(folder / "stack").status()
    assert compare.differences(status, truth) == []
    with psycopg.connect(dsn, autocommit=True) as reports:
        reports.execute(
            "UPDATE referrer_views_daily SET view_count = view_count + 1 WHERE ctid = "
            "(SELECT ctid FROM referrer_views_daily ORDER BY report_date LIMIT 1)"
        )
        assert len(compare.differences(status, truth)) == 2
        reports.execute("INSERT INTO country_views_daily VALUES ('nowhere', 1, 1, '1999-01-01')")
    assert any("1999-01-01" in line for line in compare.differences(status, truth))
