"""Functions of a user's own: asked for distinct values, never per event; what they raise and return is told."""

import datetime as dt
import json
from typing import Any

import polars as pl
import pytest
from bson import ObjectId
from tests.report_tables import store

import millpond
from millpond import functions
from millpond import reports as r

COUNTRIES = ["US", "DE", "FR", "VN", None, "", "zz"]
EVENTS = 6_000


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has functions of its own."""
    monkeypatch.setattr(functions, "_REGISTRY", {})


@pytest.fixture
def words(servers, name) -> dict[str, Any]:
    documents = [
        {"_id": ObjectId(), "timestamp": f"2025-10-3{i % 2}T0{i % 9}:00:00Z", "store_id": COUNTRIES[i % 7],
         "price": i % 5 + 0.5, "device_id": i % 100}
        for i in range(EVENTS)
    ]  # fmt: skip
    store(servers, name, documents)
    return {"mongo_uri": servers.mongo_uri, "database": "tests", "collection": name, "dates": "all"}


def count(words: dict[str, Any], dsn: str | None = None, **report: Any) -> Any:
    words = dict(words)
    report = {"table": "t", "metrics": {"n": r.count()}} | report
    return millpond.aggregate(words.pop("mongo_uri"), dsn, **words, reports=r.Report(**report))


def test_a_function_sees_each_distinct_value_once_a_batch(words, postgres):
    asked: list[list[Any]] = []

    @millpond.function("region")
    def region(store: pl.Series) -> pl.Series:
        asked.append(store.to_list())
        return store.replace_strict({"US": "America", "VN": "Asia"}, default="Europe", return_dtype=pl.String)

    result = count(words, postgres, key={"region": r.call("region", "store_id")})
    found = {(row[0], str(row[-1])): row[1] for row in result.tables["t"]}
    # NULL is a value that a function is asked for, too.
    each = {name: sum(1 for i in range(EVENTS) if COUNTRIES[i % 7] == name) for name in COUNTRIES}
    assert sum(n for (region, _), n in found.items() if region == "America") == each["US"]
    assert sum(found.values()) == EVENTS
    for values in asked:
        assert len(values) == len(set(values))
    assert sum(map(len, asked)) <= 7 * 16, "asked per event"
    assert result.excluded_keys == {"t": {}}


def test_functions_of_several_columns_and_of_each_other(words):
    @millpond.function("band", returns="bigint")
    def band(store: pl.Series, price: pl.Series, hour: pl.Series, at: pl.Series) -> pl.Series:
        assert [series.dtype for series in (store, price, hour, at)] == [
            pl.String, pl.Float64, pl.Int64, pl.Datetime("us"),
        ]  # fmt: skip
        return price.floor().cast(pl.Int32) + hour * 10

    @millpond.function("half", returns="double")
    def half(band: pl.Series) -> pl.Series:
        assert band.dtype == pl.Int64
        return band / 2

    @millpond.function("tomorrow", returns="date")
    def tomorrow(at: pl.Series) -> pl.Series:
        return at.dt.date() + dt.timedelta(days=1)

    @millpond.function("known", returns="boolean")
    def known(store: pl.Series) -> pl.Series:
        return store.is_in(["US", "DE"])

    nested = r.call("band", "store_id", r.number("price"), r.hour(), r.date_trunc("day"))
    result = count(
        words,
        key={"band": nested, "tomorrow": r.call("tomorrow", r.event_time()), "known": r.call("known", "store_id")},
        metrics={"n": r.count(), "halves": r.sum(r.call("half", nested)), "bands": r.count_distinct(nested)},
        where=[r.Where(r.call("half", nested), at_least=5)],
    )
    wanted: dict[tuple[Any, ...], int] = {}
    for i in range(EVENTS):
        band_of, store_id = i % 5 + i % 9 * 10, COUNTRIES[i % 7]
        date = dt.date(2025, 10, 30 + i % 2)
        if band_of / 2 >= 5 and store_id is not None:
            group = (band_of, date + dt.timedelta(days=1), store_id in ("US", "DE"), date)
            wanted[group] = wanted.get(group, 0) + 1
    rows = list(result.tables["t"])
    assert {(*row[:3], row[-1]): row[3] for row in rows} == wanted
    assert all(float(row[4]) == row[0] / 2 * row[3] and row[5] == 1 for row in rows)
    # is_in of NULL is NULL: such events have no key.
    assert result.excluded_keys["t"]["null_key"] > 0


def test_what_a_function_raises_names_it_and_a_value(words, postgres):
    @millpond.function("picky")
    def picky(store: pl.Series) -> pl.Series:
        if "FR" in store.to_list():
            raise ValueError("no French")
        return store

    before = count(words, postgres, key={"store": "store_id"}).rows
    with pytest.raises(millpond.DataError) as raised:
        count(words, postgres, key={"store": r.call("picky", "store_id")})
    assert "function picky raised ValueError: no French; given 'FR'" in raised.value.message
    assert before["t"] > 0
    report = millpond.explain_report(postgres, date="2025-10-30", table="t")
    assert report[0]["rows"] > 0, "the old report stays"


@pytest.mark.parametrize(
    ("made", "returns", "told"),
    [
        (lambda s: s.head(1), "text", "returned 1 values for"),
        (lambda s: s.to_list(), "text", "value of type list"),
        (lambda s: None, "text", "value of type NoneType"),
        (lambda s: s.str.len_chars(), "text", "returned UInt32, not text"),
        (lambda s: s, "bigint", "returned String, not bigint"),
        (lambda s: s, "timestamp", "returned String, not timestamp"),
    ],
)
def test_what_a_function_returns_is_checked(words, made, returns, told):
    millpond.function("f", made, returns=returns)
    with pytest.raises(millpond.ConfigError, match="function f ") as refused:
        count(words, key={"f": r.call("f", "store_id")})
    assert told in refused.value.message


def test_a_function_may_know_nothing_of_a_value(words):
    millpond.function("none", lambda store: pl.Series([None] * len(store)))
    result = count(words, key={"f": r.call("none", "store_id")})
    assert result.excluded_keys == {"t": {"null_key": EVENTS}}


def test_names_types_and_versions_of_functions_are_checked(words):
    with pytest.raises(millpond.ConfigError, match="returns"):
        millpond.function("f", lambda s: s, returns="txt")
    with pytest.raises(millpond.ConfigError, match="cannot be called"):
        millpond.function("f", 3)  # type: ignore[call-overload]
    with pytest.raises(millpond.ConfigError, match="name"):
        millpond.function("", lambda s: s)
    millpond.function("region", lambda s: s)
    with pytest.raises(millpond.ConfigError) as refused:
        count(words, key={"f": r.call("regoin", "store_id")})
    assert "region" in refused.value.hint
    one = count(words, key={"f": r.call("region", "store_id")}).definition
    millpond.function("region", lambda s: s, version="2")
    assert count(words, key={"f": r.call("region", "store_id")}).definition != one


def test_a_file_names_the_modules_that_register_its_functions(words, tmp_path, monkeypatch):
    (tmp_path / "shop_functions.py").write_text(
        "import millpond\nmillpond.function('loud', lambda store: store.str.to_uppercase(), version='1')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "reports.toml"
    file.write_text(
        'modules = ["shop_functions"]\n[[reports]]\ntable = "t"\nmetrics = {n = "count"}\n'
        'key = {loud = {call = "loud", of = ["store_id"]}}\n'
    )
    words = dict(words)
    result = millpond.aggregate(words.pop("mongo_uri"), None, **words, reports=file)
    assert {row[0] for row in result.tables["t"]} == {"US", "DE", "FR", "VN", "", "ZZ"}
    json.dumps(result.to_dict())
    file.write_text('modules = ["no_such_module_here"]\n')
    with pytest.raises(millpond.ConfigError, match="no_such_module_here"):
        millpond.aggregate("mongodb://nowhere.invalid", None, **words, reports=file)
