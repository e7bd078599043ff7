"""`dates="changed"`: exactly the dates that received events since, found by positions and `_id`, and a watermark that
moves with the publication or not at all."""

import random
from typing import Any

import psycopg
import pytest
from tests.hand_sunk import Collection, event_id, visit, visits
from tests.oracle_reports import covered_by, tell
from tests.report_tables import published

import millpond

DATES = [f"2025-10-{day:02}" for day in range(20, 32)]


@pytest.fixture
def client(servers: Any) -> Any:
    with servers.mongo() as client:
        yield client


def changed(servers: Any, name: str, dsn: str | None, **words: Any) -> millpond.AggregateResult:
    words = {"database": "tests", "collection": name, "dates": "changed"} | words
    return millpond.aggregate(servers.mongo_uri, dsn, **words)


def right(stored: Collection, dsn: str) -> None:
    """Every date is reported as a recount of all documents has it."""
    assert published(dsn) == tell(stored.documents(), covered=covered_by(stored.covers)).rows


@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_the_dates_are_those_of_the_new_events_and_no_others(servers, client, name, postgres, mode):
    stored = Collection(client, name, topics=2)
    chance = random.Random(1)
    stored.arrive(visits(chance, DATES[:6], 300), partition=0)
    stored.arrive(visits(chance, DATES[:6], 300), partition=3, topic=1)
    first = changed(servers, name, postgres, mode=mode)
    assert set(first.dates) >= set(DATES[:6])
    assert (first.watermark, first.mode) == (True, "full")
    assert "watermark" in first.why_full
    right(stored, postgres)

    nothing = changed(servers, name, postgres, mode=mode)
    assert (nothing.dates, nothing.published, nothing.nothing_new, nothing.scanned) == ([], False, True, 0)
    assert len(millpond.runs(postgres)) == 1

    stored.land([visit(DATES[1], 5), visit(DATES[7], 5)], partition=0)
    stored.land([visit(DATES[4], 5)], partition=2, topic=1)
    assert changed(servers, name, postgres, mode=mode).dates == [], "nothing of it is covered yet"
    stored.cover(partition=0)
    late = changed(servers, name, postgres, mode=mode)
    assert late.dates == [DATES[1], DATES[7]]
    right(stored, postgres)
    stored.cover(partition=2, topic=1)
    assert changed(servers, name, postgres, mode=mode).dates == [DATES[4]]
    right(stored, postgres)


def test_an_offset_brings_an_event_to_the_date_of_its_moment(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(DATES[0])])
    changed(servers, name, postgres)
    stored.arrive([visit(DATES[3], timestamp=f"{DATES[3]}T01:00:00+07:00"), {"timestamp": "N/A"}, {"a": 1}])
    result = changed(servers, name, postgres)
    assert result.dates == [DATES[2]]
    assert (result.excluded["malformed_time"], result.excluded["missing_time"]) == (1, 1)
    right(stored, postgres)
    stored.arrive([{"timestamp": "N/A"}])
    assert changed(servers, name, postgres).nothing_new
    assert changed(servers, name, postgres).read == 0, "the watermark has passed what has no date"


def test_a_run_with_other_dates_leaves_the_watermark(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(date) for date in DATES[:3]])
    changed(servers, name, postgres)
    stored.arrive([visit(DATES[0], 9), visit(DATES[2], 9)])
    for mode in ("incremental", "full"):
        result = changed(servers, name, postgres, dates="latest", mode=mode)
        assert (result.dates, result.watermark) == ([DATES[2]], False)
    assert changed(servers, name, postgres).dates == [DATES[0], DATES[2]]
    right(stored, postgres)


def test_a_later_report_keeps_its_rows_and_the_watermark_stays(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(DATES[0])])
    changed(servers, name, postgres)
    stored.arrive([visit(DATES[0], 9)])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE millpond_runs SET read_at = now() + interval '1 hour'")
        late = changed(servers, name, postgres)
        assert (late.superseded, late.watermark) == ([DATES[0]], False)
        connection.execute("UPDATE millpond_runs SET read_at = now() - interval '1 hour'")
    assert changed(servers, name, postgres).dates == [DATES[0]]
    right(stored, postgres)


def test_another_definition_a_dropped_table_and_another_collection_begin_anew(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(date) for date in DATES[:3]])
    changed(servers, name, postgres)
    mine = millpond.Report("mine", key="store_id", metrics={"n": millpond.reports.count()})
    both = changed(servers, name, postgres, reports=["product_views", mine])
    assert (both.dates, both.mode) == (DATES[:3], "full")
    stored.arrive([visit(DATES[1], 7)])
    assert changed(servers, name, postgres, reports=["product_views", mine]).dates == [DATES[1]]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE mine")
        assert changed(servers, name, postgres, reports=["product_views", mine]).dates == DATES[:3]
        assert connection.execute("SELECT sum(n) FROM mine").fetchone() == (4,)
    other = millpond.Report("mine", key="product_id", metrics={"n": millpond.reports.count()})
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE mine")
    changed(servers, name, postgres, reports=[other])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE mine")
    assert changed(servers, name, postgres, reports=["product_views", mine]).dates == DATES[:3], (
        "its rows were replaced"
    )
    client["tests"].drop_collection(name)
    again = Collection(client, name)
    again.arrive([visit(DATES[2])])
    assert changed(servers, name, postgres).dates == [DATES[2]]


def test_positions_that_went_back_begin_anew(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.land([visit(date) for date in DATES[:3]], holes=5)
    stored.cover()
    changed(servers, name, postgres)
    # A reset, and what was skipped is stored after all: beyond no position, on a date of its own.
    (tag,) = stored.tags
    stored.move((tag, 0), 2)
    stored.events.insert_one({"_id": event_id(tag, 0, 1), **visit(DATES[5])})
    assert DATES[5] in changed(servers, name, postgres).dates
    stored.move((tag, 0), 8)
    assert changed(servers, name, postgres).dates == DATES[:3]
    right(stored, postgres)


@pytest.mark.parametrize("who", ["key", "others", "nobody"])
def test_what_cannot_be_known_is_refused_with_what_to_use_instead(servers, client, name, postgres, who):
    stored = Collection(client, name)
    if who != "nobody":
        stored.arrive([visit(DATES[0])])
        changed(servers, name, postgres)
    if who == "key":
        kept = client["tests"]["millpond_positions"]
        kept.update_one({"_id.collection": name}, {"$set": {"id": "key"}})
    elif who == "others":
        stored.events.insert_one(visit(DATES[0]))
    with pytest.raises(millpond.ConfigError) as caught:
        changed(servers, name, postgres)
    words = {"key": 'id="key"', "others": "other programs", "nobody": "no positions"}[who]
    assert words in str(caught.value)
    assert "lookback_days" in caught.value.hint
    result = changed(servers, name, postgres, dates=DATES[0])
    assert result.mode == "full"
    assert words in result.why_full
    with pytest.raises(millpond.ConfigError, match="postgres_dsn"):
        changed(servers, name, None)


def test_it_asks_no_document_of_the_old_ones(servers, client, name, postgres):
    """What the server looks at follows the new events."""
    stored = Collection(client, name)
    stored.arrive(visits(random.Random(2), DATES, 20_000))
    changed(servers, name, postgres)
    stored.arrive([visit(date) for date in DATES[:2]])

    def examined() -> int:
        told = client["admin"].command("serverStatus")["metrics"]["queryExecutor"]
        return int(told["scannedObjects"])

    # Of all tests that these servers have seen.
    known = sum(client["tests"][kept].estimated_document_count() for kept in ("millpond_sources", "millpond_positions"))
    before = examined()
    assert changed(servers, name, postgres).read == 2
    assert examined() - before < known + 2_000
