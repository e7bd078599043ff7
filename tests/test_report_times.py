"""Times that mislead an index: the order of texts is not the order of moments, and garbage lies at the top."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from tests import oracle_reports as oracle

import millpond

MINUTE = dt.timedelta(minutes=1)


def later(**ahead: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(**ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


def fill(servers: Any, name: str, times: Iterable[Any]) -> list[dict[str, Any]]:
    documents = [{"_id": i, "timestamp": time, "product_id": "p"} for i, time in enumerate(times)]
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many(documents)
    return documents


def seconds_of(clock: str, offset: str, count: int) -> list[str]:
    start = dt.datetime.fromisoformat(clock)
    return [(start - dt.timedelta(seconds=i)).isoformat() + offset for i in range(count)]


NEWEST: dict[str, tuple[str, list[Any]]] = {
    "an offset of the next local day lies over a Z of it": (
        "2025-11-01", ["2025-11-01T05:00:00+07:00", "2025-11-01T04:00:00Z", "2025-10-31T00:00:00Z"],
    ),
    "many of them lie over it": (
        "2025-11-01", [*seconds_of("2025-11-01T06:59:59", "+07:00", 1_500), "2025-11-01T00:00:00Z"],
    ),
    "an offset lies over a smaller one": (
        "2025-11-01", ["2025-11-01T05:00:00+07:00", "2025-11-01T04:00:00.5+03:00", "2025-10-31T00:00:00Z"],
    ),
    "an offset with a blank and a fraction is the newest": (
        "2025-11-01", ["2025-10-31T23:59:59Z", "2025-10-31 20:00:00.000001-04:30", "2025-10-31T12:00:00"],
    ),
    "an offset of the day before is the newest": (
        "2025-11-01", ["2025-10-31T23:59:59Z", "2025-10-31T12:00:00-12:00"],
    ),
    "many texts without Z lie over it": (
        "2025-11-01", [*seconds_of("2025-10-31T23:59:59", "+00:00", 1_500), "2025-10-31T13:00:00-12:00"],
    ),
    "lowercase and blank": ("2025-11-01", ["2025-10-31T23:59:59Z", "2025-11-01 00:00:00z", "2025-10-31t23:59:59z"]),
    "a bare date": ("2025-11-01", ["2025-10-31T23:59:59Z", "2025-11-01"]),
    "a BSON date": ("2025-11-01", ["2025-10-31T23:59:59Z", DatetimeMS(1_761_955_200_000)]),
    "a text newer than BSON dates": ("2025-11-02", ["2025-11-02T00:00:00Z", DatetimeMS(1_761_955_200_000)]),
    "a list over BSON dates": (
        "2025-11-01", [[DatetimeMS(1_761_999_999_999)], DatetimeMS(1_761_955_200_000), DatetimeMS(0)],
    ),
    "a list over texts": ("2025-11-01", [["2025-11-05T00:00:00Z"], "2025-11-01T00:00:00Z"]),
    "only BSON dates before 1970": ("1969-12-31", [DatetimeMS(-1), DatetimeMS(-86_400_001)]),
    "garbage of other types": ("2025-10-31", [*[True, {"a": 1}, ObjectId(), None, 7] * 300, "2025-10-31"]),
    "as much garbage as is stepped over": ("2025-10-31", [*["N/A"] * 1_000, "2025-10-31T00:00:00Z"]),
    "garbage and an offset under it": (
        "2025-11-01", [*["N/A"] * 990, *seconds_of("2025-10-31T23:59:59", "z", 20), "2025-10-31T22:00:00-05:00"],
    ),
    "the future": ("2025-10-31", [later(days=5), later(days=800), "9999-12-31T23:59:59Z", "2025-10-31T00:00:00Z"]),
    "BSON dates of the future": (
        "2025-10-31", [*[DatetimeMS(4_102_444_800_000 + i) for i in range(1_100)], DatetimeMS(1_761_868_800_000)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEWEST)
def test_latest_is_the_newest_moment(servers, name, case):
    newest, times = NEWEST[case]
    documents = fill(servers, name, times)
    assert oracle.latest(documents).isoformat() == newest
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name)
    assert result.dates == [newest]
    assert result.counted == oracle.tell(documents, {dt.date.fromisoformat(newest)}).counted


def test_more_garbage_than_is_stepped_over_is_refused(servers, name, postgres):
    fill(servers, name, [*["N/A"] * 1_001, "2025-10-31T00:00:00Z"])
    words: dict[str, Any] = {"database": "tests", "collection": name}
    with pytest.raises(millpond.DataError, match="timestamp") as refused:
        millpond.aggregate(servers.mongo_uri, postgres, **words)
    assert refused.value.hint
    assert not refused.value.retryable
    assert millpond.aggregate(servers.mongo_uri, postgres, **words, dates="2025-10-31").counted == 1
    assert millpond.aggregate(servers.mongo_uri, postgres, **words, dates="all").excluded == {"malformed_time": 1_001}


@pytest.mark.parametrize("times", [[], [None, None], ["N/A"] * 3, [later(days=3)]])
def test_a_collection_without_a_readable_time_has_no_latest(servers, name, postgres, times):
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
    if times:
        fill(servers, name, times)
    result = millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection=name)
    assert (result.dates, result.counted) == ([], 0)
    assert [len(table) for table in result.tables.values()] == [0, 0, 0]
    told = f"no date: none of {len(times)} documents"
    assert (result.unplaced, [told in warning for warning in result.warnings]) == (len(times), [True] * bool(times))


@pytest.mark.parametrize("days", [1, 30])
def test_the_skew_that_latest_allows(servers, name, days):
    """In seconds; a day when it is not given."""
    near, far = later(days=days, minutes=-5), later(days=days, minutes=5)
    documents = fill(servers, name, [near, far, "2025-10-31T00:00:00Z"])
    words: dict[str, Any] = {} if days == 1 else {"max_future_skew": days * 86_400}
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, **words)
    assert result.dates == [near[:10]]
    assert result.counted == oracle.tell(documents, {dt.date.fromisoformat(near[:10])}).counted


def test_latest_looks_at_what_the_positions_cover(servers, name):
    """A report is a function of the positions: an event beyond them moves no date."""
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, b'{"product_id":1,"timestamp":"2025-10-31T00:00:00Z"}', 0)])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    with servers.mongo() as client:
        (event,) = client["tests"][name].find()
        offset = int.from_bytes(event["_id"].binary[6:], "big") + 1
        event["_id"] = ObjectId(event["_id"].binary[:6] + offset.to_bytes(6, "big"))
        client["tests"][name].insert_one({**event, "timestamp": "2025-11-01T00:00:00Z"})
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name)
    assert (result.dates, result.counted) == (["2025-10-31"], 1)


def test_a_source_without_positions_yet_is_not_counted(servers, name):
    """A sink that died before its first position has stored documents of a known source."""
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, b'{"product_id":1,"timestamp":"2025-10-31T00:00:00Z"}', 0)])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database="tests", collection=name)
    with servers.mongo() as client:
        assert client["tests"]["millpond_positions"].delete_many({"_id.collection": name}).deleted_count == 1
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="all")
    assert (result.counted, result.excluded) == (0, {"beyond_position": 1})


BORDERS = [
    "0001-01-01", "0001-01-01T00:00:00Z", "0001-01-01T14:00:00+14:00", "9999-12-31", "9999-12-31T23:59:59.999999Z",
    "9999-12-31 22:00:00", "9999-12-31T11:59:59-12:00",
    DatetimeMS(-62_135_596_800_000), DatetimeMS(253_402_300_799_999),
]  # fmt: skip
BEYOND = [
    "0001-01-01T00:00:00+07:00", "9999-12-31T23:59:59-05:00", "0000-12-31", DatetimeMS(-62_135_596_800_001),
    DatetimeMS(253_402_300_800_000), DatetimeMS(1_761_880_931_000_000), DatetimeMS(2**63 - 1), DatetimeMS(-(2**63)),
]  # fmt: skip


@pytest.mark.parametrize("dates", ["all", "0001-01-01", "9999-12-31", "2025-10-31"])
def test_the_calendar_ends_with_the_years_1_and_9999(servers, name, postgres, dates):
    """A clock that was never set, or counts in microseconds, must not keep the other dates from their report."""
    documents = fill(servers, name, [*BORDERS, *BEYOND, "2025-10-31T10:00:00Z"])
    truth = oracle.tell(documents, None if dates == "all" else {dt.date.fromisoformat(dates)})
    assert oracle.tell(documents).excluded == {"malformed_time": len(BEYOND)}
    result = millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection=name, dates=dates)
    assert (result.dates, result.counted) == (truth.dates, truth.counted)
    if dates == "all":
        assert result.excluded == truth.excluded
    assert list(result.tables["product_views_daily"]) == truth.rows["product_views_daily"]
    with psycopg.connect(postgres) as connection:
        found = connection.execute(
            "SELECT product_id, view_count, unique_visitors, last_view_time, report_date FROM product_views_daily"
            " ORDER BY report_date"
        ).fetchall()
    assert found == truth.rows["product_views_daily"]


@pytest.mark.parametrize("dates", [["2025-10-30", "2025-11-01"], ["2025-11-01", "2025-10-28", "2025-10-30"]])
def test_a_day_between_two_dates_is_read_once(servers, name, dates):
    """Its noon is an offset's way from both."""
    clocks = ("00:30", "11:59", "12:00", "12:30", "13:00", "13:59", "14:00", "23:59")
    documents = fill(
        servers, name, [f"2025-10-31T{at}:00{by}" for at in clocks for by in ("+14:00", "-12:00", "+13:30")]
    )
    truth = oracle.tell(documents, {dt.date.fromisoformat(date) for date in dates})
    result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=dates)
    assert list(result.tables["product_views_daily"]) == truth.rows["product_views_daily"]
    assert (result.counted, result.scanned <= len(documents)) == (truth.counted, True)


def test_a_list_of_times_is_one_event_without_a_time(servers, name):
    """An index holds each item of it; a dated run meets it for none of them, and says that it did not place it (I1)."""
    fill(servers, name, [["2025-10-31T01:00:00Z", "2025-10-31T22:30:00Z", "2025-11-02"], "2025-10-31T10:00:00Z"])
    words: dict[str, Any] = {"database": "tests", "collection": name}
    result = millpond.aggregate(servers.mongo_uri, None, **words, dates="2025-10-31")
    assert (result.scanned, result.counted, result.excluded, result.unplaced) == (1, 1, {}, 1)
    result = millpond.aggregate(servers.mongo_uri, None, **words, dates="all")
    assert (result.scanned, result.counted, result.excluded) == (2, 1, {"malformed_time": 1})


def test_every_minute_around_a_day_in_every_offset_is_placed(servers, name):
    """Both borders of a day, through the ranges of a dated run and through the whole collection."""
    offsets = ["Z", "z", "", "+00:00", "+14:00", "+13:59", "+05:30", "-00:01", "-11:59", "-12:00", "+14:01", "-12:01"]
    midnight = dt.datetime(2025, 10, 31)
    times: list[Any] = []
    for hours in (-14, -12, -1, 0, 1, 2, 12, 14, 22, 23, 24, 26, 36, 38):
        for minute in (-1, 0, 1):
            moment = midnight + dt.timedelta(hours=hours) + minute * MINUTE
            times += [moment.isoformat(sep) + offset for sep in "T " for offset in offsets]
            times.append(DatetimeMS((moment - oracle.EPOCH) // dt.timedelta(milliseconds=1)))
    documents = fill(servers, name, times)
    for date in ("2025-10-30", "2025-10-31", "2025-11-01"):
        truth = oracle.tell(documents, {dt.date.fromisoformat(date)})
        result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=date)
        assert list(result.tables["product_views_daily"]) == truth.rows["product_views_daily"]
        assert result.counted == truth.counted > 0
    whole = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="all")
    assert list(whole.tables["product_views_daily"]) == oracle.tell(documents).rows["product_views_daily"]
    assert whole.excluded == oracle.tell(documents).excluded
