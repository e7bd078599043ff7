"""The page Millpond in a real browser, on both majors: it shows what stands in the stores, to those who may see it."""

import json
import os
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.airflow_environment import MAJORS, Airflow
from tests.airflow_web import Web, browser, opened

import millpond

# A database migrated, accounts made and a server started before its first test, for each major.
pytestmark = pytest.mark.timeout(1_800)
EVENTS = 400
HOSTILE = b'{"product_id": {"a": "<script>document.title=\'hit\'</script>"}, "device_id": "d"}'
# Where screenshots go that the docs show; by default they are only made and measured.
SHOTS = os.environ.get("MILLPOND_SCREENSHOTS")
SIZES = {"wide": (1280, 860), "narrow": (420, 860)}


@dataclass
class Shown:
    """A web server, and what its page has to show."""

    web: Web
    topic: str
    views: Counter[str]
    secret: str


def event(n: int) -> bytes:
    product = f"p{int(n**0.5) % 12}"
    return json.dumps({"product_id": product, "device_id": f"d{n % 9}", "store_id": "US",
                       "timestamp": f"2025-10-{30 + n % 2}T03:{n % 60:02}:00Z"}).encode()  # fmt: skip


def fill(servers: Any, topic: str, dsn: str) -> Counter[str]:
    """Run the pipeline once, with dead letters of both kinds, and leave events that no run has read."""
    servers.create(servers.remote, topic, 2)
    servers.send(servers.remote, topic, [(str(n), event(n), n % 2) for n in range(EVENTS)])
    servers.send(servers.remote, topic, [("h", HOSTILE, 0), ("e", b"", 1), ("e", b"\xff\xfe", 1)])
    target = f"{topic}_to"
    millpond.bridge(servers.remote, servers.kafka, source_topic=topic, target_topic=target, transform="product_views")
    # Past the bridge, what only the sink refuses.
    servers.send(servers.kafka, target, [("k", b'{"n": 1e7000}', 0)])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=target, database=topic, collection="events")
    millpond.aggregate(servers.mongo_uri, dsn, database=topic, collection="events", dates="all")
    servers.send(servers.remote, topic, [("later", event(1), 0)] * 7)
    return Counter(f"p{int(n**0.5) % 12}" for n in range(EVENTS) if n % 2)


@pytest.fixture(scope="module", params=sorted(MAJORS))
def shown(request, servers, tmp_path_factory):
    web = Web(tmp_path_factory.mktemp("airflow"), request.param, servers.dsn)
    topic = f"t{secrets.token_hex(5)}"
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {topic}")
    web.connect("kafka_remote", {"conn_type": "kafka", "extra": servers.remote})
    web.connect("kafka_default", {"conn_type": "kafka", "extra": servers.kafka})
    web.connect("mongo_default", servers.mongo_uri)
    dsn = f"{servers.dsn}?options=-csearch_path%3D{topic}"
    web.connect("postgres_default", dsn)
    web.env |= {"AIRFLOW__MILLPOND__JOBS": f"{topic}*", "AIRFLOW__MILLPOND__PAGE_CACHE_SECONDS": "0"}
    try:
        web.up()
        yield Shown(web, topic, fill(servers, topic, dsn), servers.remote["sasl.password"])
    finally:
        web.down()
        with psycopg.connect(servers.dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {topic} CASCADE")


def test_nobody_sees_anything_without_a_login(shown):
    for path in ("/millpond/", "/millpond/letters?topic=x", "/millpond/letter?topic=x&id=0:0"):
        status, leads, body = shown.web.get(path)
        assert status == 302
        assert "login" in leads
        assert shown.topic not in body


def test_a_person_finds_the_page_and_it_tells_the_truth(shown):
    with browser() as chromium:
        page = opened(chromium, viewport={"width": 1280, "height": 860})
        shown.web.log_in(page, "admin")
        # By the menu, as a person does.
        page.get_by_text("Browse", exact=True).first.click()
        page.get_by_text("Millpond", exact=True).first.click()
        frame = page.frame_locator("iframe") if shown.web.major == 3 else page
        frame.locator(".millpond h1").wait_for()

        rows = frame.locator("#reports tbody tr")
        first = [rows.nth(n).locator("td").all_inner_texts() for n in range(rows.count())]
        ordered = sorted(shown.views.items(), key=lambda item: (-item[1], item[0]))[:10]
        assert [(row[1], row[3]) for row in first] == [(product, str(count)) for product, count in ordered]
        jobs = frame.locator("#jobs").inner_text()
        assert re.search(
            rf"{shown.topic}-to-{shown.topic}_to\s+{shown.topic}, 2 partitions\s+7\s+403\s+400\s+0\s+3", jobs
        )
        assert re.search(rf"{shown.topic}\.events\s+{shown.topic}_to\s+0\s+2", jobs)
        assert "400" in frame.locator("#runs tbody tr").first.inner_text()
        letters = frame.locator("#letters")
        assert letters.get_by_text("1 number_inexact").count() == 1

        letters.get_by_text("1 type").click()
        frame.locator("tbody a", has_text="type").click()
        assert "<script>" in frame.locator("pre").first.inner_text()
        assert page.title() != "hit"
        assert shown.secret not in page.content()
        if shown.web.major == 3:
            assert shown.secret not in frame.locator("html").inner_html()
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(shown, scheme):
    with browser() as chromium:
        for size, (width, height) in SIZES.items():
            page = opened(chromium, viewport={"width": width, "height": height}, color_scheme=scheme)
            page.add_init_script(f"localStorage.setItem('darkTheme', {json.dumps(scheme == 'dark')})")
            wrong = errors_of(page)
            shown.web.log_in(page, "admin")
            wrong.clear()
            page.goto(f"{shown.web.address}/millpond/")
            page.locator(".millpond #runs").wait_for()
            assert wrong == []
            body = page.locator(".millpond")
            assert body.evaluate("e => e.scrollWidth <= e.clientWidth"), f"{size} runs over"
            assert contrast(body) >= 4.5
            if SHOTS:
                page.wait_for_timeout(300)
                page.screenshot(path=Path(SHOTS) / f"page-{shown.web.major}-{scheme}-{size}.png", full_page=True)
            page.context.close()


def errors_of(page: Any) -> list[Any]:
    """What goes wrong in a page from now on."""
    wrong: list[Any] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return wrong


def contrast(body: Any) -> float:
    """The contrast of text and ground, as the accessibility rules count it."""
    told = body.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
    light = sorted(luminance([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in told)
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(colour: list[int]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_raw_events_are_for_those_who_may_read_the_connection(shown):
    with browser() as chromium:
        page = opened(chromium)
        shown.web.log_in(page, "viewer")
        page.goto(f"{shown.web.address}/millpond/letters?topic={shown.topic}_to.dead_letters")
        page.locator("tbody a", has_text="type").click()
        page.get_by_text("Raw events are for those who may read the connection kafka_default.").wait_for()
        assert "<script>document" not in page.locator(".millpond").inner_text()
        assert page.locator("pre").count() == 0


LOOK = """
import json, sys, time
from millpond.airflow.page import show
began = time.monotonic()
html = show.overview({"table": "<b>", "date": "x' OR 1=1"}, embedded=False)
letters = show.letters({"topic": "nowhere"}, embedded=False) + show.letter({}, embedded=False)
print("ANSWER" + json.dumps({"html": html, "letters": letters, "took": time.monotonic() - began}))
"""


@pytest.mark.parametrize("major", MAJORS)
def test_with_nothing_configured_it_says_so(tmp_path, major):
    told = json.loads(Airflow(tmp_path, environment=MAJORS[major]).python("-c", LOOK).partition("ANSWER")[2])
    for conn_id in ("kafka_default", "mongo_default", "postgres_default"):
        assert conn_id in told["html"] or conn_id == "mongo_default"
    assert "box bad" not in told["html"]
    assert "Nothing" in told["html"] or "nothing" in told["html"]
    assert "kafka_default" in told["letters"]
    assert "<b>" not in told["html"].replace("<b>0", "")


@pytest.mark.parametrize("major", MAJORS)
def test_servers_that_hang_are_left_out_in_time(tmp_path, major):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        airflow = Airflow(tmp_path, environment=MAJORS[major])
        airflow.connect("kafka_default", {"conn_type": "kafka", "extra": {"bootstrap.servers": f"127.0.0.1:{port}"}})
        airflow.connect("mongo_default", f"mongodb://me:hunter2@127.0.0.1:{port}/d")
        airflow.connect("postgres_default", f"postgresql://me:hunter2@127.0.0.1:{port}/d?connect_timeout=60")
        airflow.env["AIRFLOW__MILLPOND__PAGE_SECONDS"] = "2"
        airflow.env["AIRFLOW__MILLPOND__DATABASES"] = "d"
        told = json.loads(airflow.python("-c", LOOK).partition("ANSWER")[2])
    # The overview, and one list of letters; a connection that is waited for takes a minute.
    assert told["took"] < 30
    assert "no answer in time" in told["html"]
    assert "hunter2" not in told["html"] + told["letters"]


def test_a_server_that_is_down_takes_nothing_from_the_others(servers, name, postgres, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        airflow = Airflow(tmp_path, environment=MAJORS[3])
        port = silent.getsockname()[1]
        airflow.connect("kafka_remote", {"conn_type": "kafka", "extra": {"bootstrap.servers": f"127.0.0.1:{port}"}})
        airflow.connect("kafka_default", {"conn_type": "kafka", "extra": servers.kafka})
        airflow.connect("mongo_default", f"mongodb://127.0.0.1:{port}/d")
        airflow.connect("postgres_default", postgres)
        airflow.env["AIRFLOW__MILLPOND__JOBS"] = f"{name}*"
        fill(servers, name, postgres)
        look = LOOK.replace("<b>", "product_views_daily").replace("x' OR 1=1", "")
        # Those that answer may need longer beside other work; the silent one takes all that there is.
        for seconds in ("15", "60"):
            airflow.env["AIRFLOW__MILLPOND__PAGE_SECONDS"] = seconds
            html = json.loads(airflow.python("-c", look).partition("ANSWER")[2])["html"]
            if "p11" in html and f"{name}_to.dead_letters" in html:
                break
    # The bridge's books without its source's logs; the reports; and of the silent one, that it is.
    assert "its log is not compared: no answer in time" in html
    assert re.search(r"403</td>.*400</td>.*3</td>", html, re.DOTALL)
    assert "p11" in html
    assert f"{name}_to.dead_letters" in html
    # MongoDB's: out of time here, or told by its driver before.
    assert '<div class="box bad">' in html
