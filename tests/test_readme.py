"""README.md holds what it says: its examples run as they stand, its commands and make targets exist.

The blocks are taken from the file, never copied here.
"""

import datetime as dt
import html
import itertools
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import nbclient
import nbformat
import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from tests.airflow_environment import ROOT, Airflow

import millpond

README = (ROOT / "README.md").read_text()
# The names that the examples use: there is one pipeline in the README.
REMOTE_TOPIC, TARGET = "product_views", "processed_product_view_test"
LOCAL_TOPICS = [TARGET, f"{TARGET}.dead_letters", f"millpond.positions.{REMOTE_TOPIC}-to-{TARGET}"]
DATABASE, COLLECTION = "kafka_data_db", "product_views_records"


def block(heading: str) -> str:
    """The only Python block of a section."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert section, heading
    [found] = re.findall(r"^```python\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_examples_are_as_short_as_promised():
    assert len(block("In a PythonOperator").splitlines()) <= 15
    assert len(block("In Jupyter").splitlines()) <= 10


def forget(cluster: dict[str, str], topics: list[str]) -> None:
    """Delete topics and wait until the cluster knows them no more."""
    admin = AdminClient(dict(cluster))
    for future in admin.delete_topics(topics, operation_timeout=60).values():
        try:
            future.result(timeout=90)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART, error
    deadline = time.monotonic() + 120
    while set(topics) & admin.list_topics(timeout=60).topics.keys():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def blank(servers) -> Iterator[None]:
    """The fixed names, as if nothing had ever run; nothing of it is left behind either."""

    def wipe() -> None:
        forget(servers.remote, [REMOTE_TOPIC])
        forget(servers.kafka, LOCAL_TOPICS)
        with servers.mongo() as client:
            client.drop_database(DATABASE)

    wipe()
    yield
    wipe()


def view(product: int, device: str, date: str) -> bytes:
    return json.dumps({"product_id": product, "device_id": device, "timestamp": f"{date}T10:00:00Z"}).encode()


DAG = """
import datetime
from airflow import DAG
with DAG({dag_id!r}, schedule=None, start_date=datetime.datetime(2025, 1, 1)):
{block}
"""


def test_the_python_operator_carries_events_to_reports(servers, blank, name, postgres, tmp_path, request):
    airflow = Airflow(tmp_path / "airflow", dsn=servers.dsn)
    request.addfinalizer(airflow.drop)
    airflow.call("db", "migrate")
    airflow.env |= {
        "REMOTE_KAFKA": json.dumps(servers.remote),
        "LOCAL_KAFKA": json.dumps(servers.kafka),
        "MONGO_URI": servers.mongo_uri,
        "POSTGRES_DSN": postgres,
    }
    source = DAG.format(dag_id=name, block=textwrap.indent(block("In a PythonOperator"), "    "))
    earliest = dt.datetime.now(dt.UTC).date()
    run_id = airflow.trigger(name, source)
    # A run's date is the day on which it was made; around midnight that may be either.
    dates = sorted({earliest.isoformat(), dt.datetime.now(dt.UTC).date().isoformat()})
    servers.create(servers.remote, REMOTE_TOPIC, 2)
    for date in dates:
        events = [view(7, f"d{n % 2}", date) for n in range(3)] + [view(8, "d", date), b"{"]
        servers.send(servers.remote, REMOTE_TOPIC, [(None, event, n % 2) for n, event in enumerate(events)])
    servers.send(servers.remote, REMOTE_TOPIC, [(None, view(9, "d", "2025-10-31"), 0)])

    outcome = airflow.run_task(name, "carry", run_id)
    assert outcome.state == "success", outcome.log
    assert outcome.books is not None
    [date] = outcome.books["dates"]
    assert date in dates
    with psycopg.connect(postgres) as connection:
        rows = connection.execute(
            "SELECT product_id, view_count, unique_visitors, report_date::text FROM product_views_daily ORDER BY 1"
        ).fetchall()
    assert rows == [("7", 3, 2, date), ("8", 1, 1, date)]
    with servers.mongo() as client:
        assert client[DATABASE][COLLECTION].count_documents({}) == 4 * len(dates) + 1
    letters = servers.read(servers.kafka, f"{TARGET}.dead_letters")
    assert [letter.value() for letter in letters] == [b"{"] * len(dates)


def test_the_notebook_shows_the_top_products(servers, blank, name, monkeypatch, tmp_path):
    servers.create(servers.kafka, name, 1)
    views = {101: 2, 102: 5, 103: 1} | {200 + i: 1 for i in range(10)}
    events = [view(product, f"d{n}", "2025-10-31") for product, count in views.items() for n in range(count)]
    events.append(view(104, "d", "2025-10-30"))
    servers.send(servers.kafka, name, [(None, event, 0) for event in events])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database=DATABASE, collection=COLLECTION)

    monkeypatch.setenv("MONGO_URI", servers.mongo_uri)
    # What a user's notebook may have in its home is none of this test's.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(block("In Jupyter"))])
    nbclient.NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3").execute()
    outputs: list[dict[str, Any]] = notebook.cells[0].outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    [shown] = [output["data"] for output in outputs if output["output_type"] == "execute_result"]
    assert "<table" in shown["text/html"]
    names, *rows = [
        [html.unescape(re.sub("<.*?>", "", cell)).strip('"') for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", shown["text/html"], re.DOTALL)
    ]
    # Polars shows each column's type below its name.
    tops = [dict(zip(names, row, strict=True)) for row in rows[1:]]
    assert len(tops) == 10
    assert [(row["product_id"], row["view_count"]) for row in tops[:2]] == [("102", "5"), ("101", "2")]
    assert tops[0]["unique_visitors"] == "5"
    assert {row["report_date"] for row in tops} == {"2025-10-31"}


def code() -> list[str]:
    """Each line of a shell block and each piece of inline code."""
    shell = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for text in shell for line in text.splitlines()] + re.findall(r"`([^`\n]+)`", prose)


def commands() -> list[tuple[list[str], list[str]]]:
    """Each `millpond …` of the README: subcommands, of which a|b names two, and flags."""
    found = []
    for line in code():
        program, *words = line.partition("#")[0].split() or [""]
        if program == "millpond" and words:
            flags = [word for word in words if word.startswith("--")]
            steps = itertools.takewhile(lambda word: re.fullmatch(r"[a-z|]+", word), words)
            found += [(list(path), flags) for path in itertools.product(*(step.split("|") for step in steps))]
    return found


def test_every_command_exists():
    named = commands()
    verbs = {"bridge", "sink", "aggregate", "run", "replay", "top", "doctor", "positions", "explain", "runs"}
    verbs |= {"audit", "local"}
    assert {path[0] for path, _ in named} == verbs
    assert ["local", "up"] in [path for path, _ in named]
    for path, flags in named:
        command = [sys.executable, "-c", "from millpond.cli import main; main(prog_name='millpond')", *path, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"Usage: millpond {' '.join(path)} ")
        for flag in flags:
            assert re.search(rf"{flag}\b", done.stdout), f"millpond {' '.join(path)} has no {flag}"


def test_every_target_is_listed_by_make_help():
    named = {found[1] for line in code() if (found := re.match(r"make ([\w-]+)", line))}
    assert {"demo", "test", "help"} <= named
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert named <= listed
