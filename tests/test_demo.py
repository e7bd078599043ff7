"""`make demo`'s script from end to end with few events, twice: real servers, a real scheduler, equal to the truth."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from scripts.demo_steps import compare
from tests.airflow_environment import ENVIRONMENT, ROOT

from millpond.local import Stack


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--dir", str(folder), "--airflow", str(ENVIRONMENT)]
    env = os.environ | {"COLUMNS": "140"}
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=400, check=False, env=env)


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "demo"
    Stack(tmp_path / "demo" / "stack").down(delete=True)
    shutil.rmtree(tmp_path / "demo", ignore_errors=True)


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
    second = demo(folder, "--count", "1000")
    assert second.returncode == 0, second.stdout + second.stderr
    assert re.search(r"^bridge +1,000 read", second.stdout, re.MULTILINE)
    assert re.search(r"^sink +[\d,]+ read = [\d,]+ inserted \+ 0 already_present", second.stdout, re.MULTILINE)
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
