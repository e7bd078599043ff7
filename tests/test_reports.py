"""Daily reports of random collections, in every form of `dates`, equal what an independent oracle tells of them.

`tests/oracle_reports.py` is the oracle. Rows in PostgreSQL, the frames and the books are compared. MILLPOND_SEED makes
the same collections again.
"""

import datetime as dt
import json
import os
import random
from collections.abc import Sequence
from typing import Any

import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, ObjectId, Regex
from bson.datetime_ms import DatetimeMS
from tests import oracle_reports as oracle
from tests.promptness import within
from tests.report_tables import COLUMNS, published

import millpond

DATES = [
    "1969-12-30", "1969-12-31", "1970-01-01", "2024-02-29",
    "2025-10-27", "2025-10-28", "2025-10-30", "2025-10-31", "2025-11-01",
]  # fmt: skip
CLOCKS = ["00:00:00", "00:29:59", "01:59:59", "02:00:00", "11:59:59", "12:00:00", "22:00:00", "23:00:00", "23:59:59"]
FRACTIONS = ["", "", ".5", ".500", ".000001", ".9999999", ".999999999", ".123456789012", ".1000000"]
OFFSETS = ["Z", "Z", "Z", "Z", "z", "", "+00:00", "-00:00", "+07:00", "-03:30", "+05:45", "+14:00", "-12:00"]
BEYOND = ["+14:01", "-12:01", "+23:59", "+99:99", "+07:60", "+0700", "+07", "UTC", " +07:00", "Z ", "-"]
GARBAGE: list[Any] = [
    "", "N/A", "zzz", "null", " 2025-10-31T00:00:00Z", "2025-10-31T10:00:60Z", "2025-10-31T24:00:00Z", "2025-02-29",
    "2025-10-31T10:00Z", "2025-10-31T10:00:00,5Z", "2025-10-31T10:00:00.Z", "2025-10-31Z", "20251031T100000Z",
    "2025-10-31_10:00:00Z", "31.10.2025", "2025-10-31T10:00:0\N{ARABIC-INDIC DIGIT ONE}Z", "2025-10-31\0", "2025-10-3",
    "0000-01-01T00:00:00Z", 1761880931, Int64(1761880931000), 1.5, True, False, Decimal128("1"), {}, [],
    {"$date": "2025-10-31"}, ["N/A"], ["2025-10-31T10:00:00Z"], ["2025-10-27T00:00:00Z", "2025-11-01T00:00:00Z"],
    [DatetimeMS(1_761_880_931_000)], ObjectId(), Regex("2025"), Binary(b"2025-10-31"), Code("2025-10-31"), MaxKey(),
]  # fmt: skip
KEYS: list[Any] = [
    "1", "2", "3", 1, 2, Int64(3), Int64(2**63 - 1), Int64(-(2**63)), "-9223372036854775808", -1, "007", 7, "", None,
    None, "US", "us", " US", "US ", "a\u0301", "\u00e1", "\U0001f600", "\uffff", "\u00e9" * 255, "\u00e9" * 256,
    "\U0001f600" * 255, "\U0001f600" * 256, "k" * 256, "a\0b", "\0", True, 1.0, float("nan"), Decimal128("1"), ["1"],
    {"id": "1"}, DatetimeMS(0), ObjectId("0" * 24), Binary(b"1"), Code("1"), Regex("1"), "\t\\N\n\"',",
]  # fmt: skip
LONG_TEXT = "https://r.example/?q=" + "\u00e9" * 5_000
FUTURE = [(dt.date.today() + dt.timedelta(days=days)).isoformat() for days in (4, 700)]


def dice() -> random.Random:
    seed = int(os.environ.get("MILLPOND_SEED", random.randrange(10**6)))
    print(f"MILLPOND_SEED={seed}")
    return random.Random(seed)


def time_of(chance: random.Random, dates: Sequence[str]) -> Any:
    date = chance.choice(dates)
    clock = chance.choice([*CLOCKS, f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}"])
    kind = chance.random()
    if kind < 0.12:
        moment = dt.datetime.fromisoformat(f"{date}T{clock}") - oracle.EPOCH
        return DatetimeMS(moment // dt.timedelta(milliseconds=1) + chance.randrange(1000))
    if kind < 0.15:
        return date
    if kind < 0.18:
        return f"{date}T{clock}{chance.choice(BEYOND)}"
    if kind < 0.25:
        return chance.choice(GARBAGE)
    return date + chance.choice("TTTt ") + clock + chance.choice(FRACTIONS) + chance.choice(OFFSETS)


def document_of(chance: random.Random, dates: Sequence[str]) -> dict[str, Any]:
    identity = chance.choice([ObjectId(), Int64(chance.getrandbits(60)), chance.randbytes(9).hex()])
    document: dict[str, Any] = {"_id": identity}
    fields: dict[str, Any] = {
        "timestamp": time_of(chance, dates),
        "local_time": time_of(chance, dates),
        "product_id": chance.choice(KEYS),
        "device_id": chance.choice([*KEYS, *map(str, range(30))]),
        "store_id": chance.choice(KEYS),
        "referrer_url": chance.choice([*KEYS, LONG_TEXT]),
        "nested": {"timestamp": "2025-10-31T00:00:00Z", "product_id": "no"},
    }
    names = list(fields)
    chance.shuffle(names)
    for name in names:
        if (left := chance.random()) > 0.06:
            document[name] = None if left < 0.09 else fields[name]
    return document


def check_books(result: millpond.AggregateResult, truth: oracle.Truth, *, whole: bool) -> None:
    """I1; a run over the whole collection counts each reason exactly, a dated run those that it met."""
    assert result.scanned == result.counted + sum(result.excluded.values())
    assert result.counted == truth.counted
    assert result.dates == truth.dates
    for table in COLUMNS:
        assert result.excluded_keys.get(table, {}) == dict(truth.excluded_keys[table]), table
        views = sum(row[1] for row in result.tables[table])
        assert views + sum(truth.excluded_keys[table].values()) == result.counted
        assert result.rows[table] == len(truth.rows[table])
    if whole:
        assert result.scanned == truth.scanned
        assert result.excluded == dict(truth.excluded)
    json.dumps(result.to_dict(), allow_nan=False)


def check_frames(result: millpond.AggregateResult, truth: oracle.Truth) -> None:
    kinds = {"view_count": pl.Int64, "unique_visitors": pl.Int64, "report_date": pl.Date}
    frames: Any = pd.DataFrame  # whose stubs do not know from_arrow yet
    kinds_of_time = {"last_view_time": pl.Datetime("us")}
    for table, names in COLUMNS.items():
        frame = result.tables[table]
        assert frame.columns == names
        assert list(frame) == truth.rows[table], table
        assert len(frame) == len(truth.rows[table])
        polars = pl.DataFrame(frame)
        assert dict(polars.schema) == {name: (kinds | kinds_of_time).get(name, pl.String()) for name in names}
        assert polars.rows() == truth.rows[table], table
        arrow = pa.table(frame)
        assert [tuple(row.values()) for row in arrow.to_pylist()] == truth.rows[table], table
        pandas = frames.from_arrow(frame)
        assert list(pandas["view_count"]) == [row[1] for row in truth.rows[table]]
        assert list(pandas[names[0]]) == [row[0] for row in truth.rows[table]]


@pytest.mark.parametrize("field", ["timestamp", "local_time"])
def test_random_collections_in_every_form_of_dates(servers, name, postgres, field):
    chance = dice()
    documents = [document_of(chance, DATES) for _ in range(2_500)]
    documents += [{**document_of(chance, DATES), field: f"{date}T01:00:00Z"} for date in FUTURE for _ in range(3)]
    documents = list({repr(document["_id"]): document for document in documents}.values())
    days = [dt.date.fromisoformat(date) for date in DATES]
    newest = oracle.latest(documents, field)
    range_of_days = {days[5] + dt.timedelta(days=i) for i in range((days[7] - days[5]).days + 1)}
    forms: list[tuple[dict[str, Any], set[dt.date] | None]] = [
        ({"dates": "all"}, None),
        *(({"dates": date}, {day}) for date, day in zip(DATES, days, strict=True)),
        ({"dates": days[7]}, {days[7]}),
        ({"dates": (DATES[8], days[0], DATES[8], dt.datetime(2025, 10, 28, 23))}, {days[8], days[0], days[5]}),
        ({"dates": f"{DATES[5]}..{DATES[7]}"}, range_of_days),
        ({"dates": FUTURE[1]}, {dt.date.fromisoformat(FUTURE[1])}),
        ({"dates": "2019-01-01"}, {dt.date(2019, 1, 1)}),
        ({"dates": "latest"}, {newest}),
        ({}, {newest}),
        ({"dates": "latest", "lookback_days": 3}, {newest - dt.timedelta(days=i) for i in range(4)}),
    ]
    with servers.mongo() as client:
        client["tests"][name].insert_many(documents)
        client["tests"][name].create_index(field)
    for form, dates in forms:
        truth = oracle.tell(documents, dates, field)
        with psycopg.connect(postgres, autocommit=True) as connection:
            for table in COLUMNS:
                connection.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
        result = millpond.aggregate(
            servers.mongo_uri, postgres, database="tests", collection=name, time_field=field, **form
        )
        print(form)
        check_books(result, truth, whole=dates is None)
        if dates is None:
            assert set(truth.excluded) == {"missing_time", "malformed_time"}, "the collection shows every reason"
            assert {len(reasons) for reasons in truth.excluded_keys.values()} == {3}
        assert published(postgres) == truth.rows, form
        assert result.published
        assert not result.repeatable or not truth.counted
    check_frames(millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates="all",
                                    time_field=field), oracle.tell(documents, None, field))  # fmt: skip


def test_positions_cut_what_a_sink_is_still_writing(servers, name, postgres):
    chance = dice()
    servers.create(servers.kafka, name, 3)
    words = {"database": "tests", "collection": name}

    def stored(i: int) -> bytes:
        time = f"{chance.choice(DATES)}T{chance.choice(CLOCKS)}{chance.choice(['Z', '+07:00', '-05:00'])}"
        event = {"product_id": i % 17, "device_id": f"d{i % 40}", "store_id": "S", "timestamp": time}
        return json.dumps(event).encode()

    servers.send(servers.kafka, name, [(None, stored(i), i % 2) for i in range(400)])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, **words)
    with servers.mongo() as client:
        events = client["tests"][name]
        kept = list(client["tests"]["millpond_positions"].find({"_id.collection": name}))
        positions = {(int(row["_id"]["source"]), int(row["_id"]["partition"])): int(row["next"]) for row in kept}
        assert sorted(positions.values()) == [0, 200, 200]
        (tag,) = {tag for tag, _ in positions}
        late = [{**document_of(chance, DATES), "timestamp": f"{chance.choice(DATES)}T05:00:00Z"} for _ in range(60)]
        for i, document in enumerate(late):
            partition = (0, 1, 2, 7, 65_535)[i % 5]
            offset = positions.get((tag, partition), 0) + (0, 1, 2**48 - 1_000)[i % 3] + 3 * (i // 15)
            document["_id"] = ObjectId(f"{tag:08x}{partition:04x}{offset:012x}")
        events.insert_many(late)
        repeatable = millpond.aggregate(servers.mongo_uri, None, **words, dates="all")
        others = [document_of(chance, DATES) for _ in range(100)]
        others += [{"_id": ObjectId(f"{tag ^ 1:08x}" + "0" * 16), "timestamp": f"{DATES[8]}T00:00:00Z"}]
        events.insert_many(list({repr(document["_id"]): document for document in others}.values()))
        documents = list(events.find())
    assert repeatable.repeatable
    assert repeatable.excluded == {"beyond_position": len(late)}
    covered = oracle.covered_by(positions)
    assert oracle.tell(documents, covered=covered).excluded["beyond_position"] == len(late)
    for dates in ("all", *DATES, "latest"):
        newest = oracle.latest(document for document in documents if covered(document["_id"]))
        asked = {newest if dates == "latest" else dt.date.fromisoformat(dates)} if dates != "all" else None
        truth = oracle.tell(documents, asked, covered=covered)
        result = millpond.aggregate(servers.mongo_uri, postgres, **words, dates=dates)
        check_books(result, truth, whole=dates == "all")
        # A dated run may meet none of the other programs' documents.
        assert dates != "all" or not result.repeatable
        assert sorted(result.positions.values()) == [0, 200, 200]
        assert all(name in place for place in result.positions)
    assert published(postgres) == oracle.tell(documents, covered=covered).rows


def test_every_place_that_an_id_can_take_is_read_once(servers, name):
    """Sources at both ends of the tags and beside each other, partitions and offsets at the borders of every range."""
    tags = (0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
    positions = {(tag, partition): 450_000 for tag in tags for partition in (0, 3)} | {(5, 300): 20_000_000}
    edges = (0, 1, 199_999, 200_000, 200_001, 399_999, 400_000, 449_999, 450_000, 19_999_999, 20_000_000, 2**48 - 1)
    places = [(tag, partition) for tag in (*tags, 3, 5, 6, 0xFFFF_FFFD) for partition in (0, 1, 3, 4, 300, 65_535)]
    identities: list[Any] = [ObjectId(f"{t:08x}{p:04x}{offset:012x}") for t, p in places for offset in edges]
    identities += [None, "text", 0, -1.5, Int64(7), {"a": ObjectId()}, Binary(b"1" * 12), True, dt.datetime(2025, 1, 1)]
    documents = [{"_id": identity, "timestamp": "2025-10-31", "product_id": "p"} for identity in identities]
    with servers.mongo() as client:
        kept = [
            {"_id": {"collection": name, "source": Int64(tag), "partition": partition}, "next": Int64(following)}
            for (tag, partition), following in positions.items()
        ]
        client[name]["millpond_positions"].insert_many(kept)
        client[name]["millpond_sources"].insert_many(
            {"_id": Int64(tag), "cluster": "c", "topic": f"t{tag}", "topic_id": None}
            for tag in {t for t, _ in positions}
        )
        client[name][name].insert_many(documents)
        client[name][name].create_index("timestamp")
        try:
            for dates in ("all", "2025-10-31"):
                truth = oracle.tell(documents, covered=oracle.covered_by(positions))
                result = millpond.aggregate(servers.mongo_uri, None, database=name, collection=name, dates=dates)
                check_books(result, truth, whole=True)
                assert len(result.positions) == len(positions)
        finally:
            client.drop_database(name)


def test_offsets_in_the_billions_cost_no_more_than_their_events(servers, name):
    """A topic that has lived long: retention took what was before, and the rest is all there is to read."""
    tag, following = 7, 10**10
    identities = [ObjectId(f"{tag:08x}0000{following - 1 - i:012x}") for i in range(100)]
    with servers.mongo() as client:
        place = {"collection": name, "source": Int64(tag), "partition": 0}
        client[name]["millpond_positions"].insert_one({"_id": place, "next": Int64(following)})
        client[name][name].create_index("timestamp")
        client[name][name].insert_many({"_id": identity, "timestamp": "2025-10-31"} for identity in identities)

        def once() -> float:
            result = millpond.aggregate(servers.mongo_uri, None, database=name, collection=name, dates="all")
            assert (result.scanned, result.counted, result.repeatable) == (100, 100, True)
            return float(result.seconds)

        try:
            within(3, once)
        finally:
            client.drop_database(name)


def test_keys_that_no_table_holds_are_counted_and_sampled(servers, name, postgres):
    unfit = {"product_id": "p" * 256, "store_id": "s\0s", "referrer_url": 1.5, "device_id": "d" * 256}
    good = {"product_id": "p", "store_id": "s", "referrer_url": "r", "device_id": "d", "timestamp": "2025-10-31"}
    with servers.mongo() as client:
        client["tests"][name].create_index("timestamp")
        client["tests"][name].insert_many([{**good}, {**good, **unfit, "_id": "the-sample"}])
    result = millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection=name, dates="all")
    assert result.excluded_keys == {
        "product_views_daily": {"key_unfit": 1},
        "country_views_daily": {"key_unfit": 1},
        "referrer_views_daily": {"key_type": 1},
    }
    assert result.tables["product_views_daily"].top(1)[0]["unique_visitors"] == 1
    told = json.dumps(result.to_dict())
    assert "the-sample" in told or "p" * 20 in told, "no sample of what was excluded"


def test_without_an_index_the_command_is_told_and_a_scan_must_be_allowed(servers, name, postgres):
    chance = dice()
    documents = [document_of(chance, DATES) for _ in range(300)]
    documents = list({repr(document["_id"]): document for document in documents}.values())
    with servers.mongo() as client:
        client["tests"][name].insert_many(documents)
        client["tests"][name].create_index([("absent", 1), ("timestamp", 1)])
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": DATES[7]}
    for field in ("timestamp", "local_time"):
        with pytest.raises(millpond.ConfigError) as refused:
            millpond.aggregate(servers.mongo_uri, postgres, **words, time_field=field)
        assert f'db.{name}.createIndex({{"{field}": 1}})' in refused.value.hint
        result = millpond.aggregate(servers.mongo_uri, postgres, **words, time_field=field, allow_scan=True)
        truth = oracle.tell(documents, {dt.date.fromisoformat(DATES[7])}, field)
        check_books(result, truth, whole=False)
        assert published(postgres) == truth.rows
    words["dates"] = "latest"
    latest = millpond.aggregate(servers.mongo_uri, None, **words, allow_scan=True)
    assert latest.dates == [oracle.latest(documents).isoformat()]
    with pytest.raises(millpond.ConfigError, match="missing-one"):
        millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection="missing-one")


def test_an_order_of_the_collection_changes_no_report(servers, name, postgres):
    """A collation orders texts by a language; times and keys stay binary."""
    chance = dice()
    documents = [document_of(chance, DATES) for _ in range(800)]
    documents = list({repr(document["_id"]): document for document in documents}.values())
    with servers.mongo() as client:
        client["tests"].create_collection(name, collation={"locale": "en", "strength": 1, "numericOrdering": True})
        client["tests"][name].create_index("timestamp")
        try:
            client["tests"][name].insert_many(documents, ordered=False)
        except Exception as error:  # ids that the collation takes for equal
            print(error)
        documents = list(client["tests"][name].find({}, {"nested": 0}))
    for dates in ("all", DATES[7], "latest"):
        asked = {oracle.latest(documents)} if dates == "latest" else {dt.date.fromisoformat(DATES[7])}
        truth = oracle.tell(documents, None if dates == "all" else asked)
        result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=dates)
        check_books(result, truth, whole=dates == "all")
        assert {table: list(result.tables[table]) for table in COLUMNS} == truth.rows
