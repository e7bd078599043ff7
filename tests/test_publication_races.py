"""Publications beside each other, beside a reader, and cut off: whole generations, one copy of each row (I2, I3)."""

import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.report_tables import COLUMNS, counts, held, published, store, until, views, waiting

import millpond

DAY, OTHER = "2025-10-31", "2025-11-01"


def run(servers: Any, name: str, dsn: str, **words: Any) -> millpond.AggregateResult:
    return millpond.aggregate(servers.mongo_uri, dsn, database="tests", collection=name, **{"dates": DAY} | words)


@pytest.fixture
def beside():
    """Runs a function beside the test."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def test_a_polling_reader_sees_one_generation_in_all_three_tables(servers, name, postgres):
    """Each generation has keys of its own and one more event than the one before it."""
    store(servers, name, views(DAY, 40, "g0"))
    run(servers, name, postgres)
    seen: list[Any] = []
    torn: list[Any] = []
    ended = threading.Event()
    keys = [(table, names[0]) for table, names in COLUMNS.items()]

    def look() -> None:
        with psycopg.connect(postgres) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while not ended.is_set():
                with connection.transaction():
                    found = [
                        connection.execute(f"SELECT {key}, view_count, created_at FROM {table}").fetchall()
                        for table, key in keys
                    ]
                seen.append(found[0][0][:2] if found[0] else None)
                if found[0] != found[1] or found[1] != found[2] or len(found[0]) != 1:
                    torn.append(found)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        with servers.mongo() as client:
            for generation in range(1, 41):
                key = f"g{generation}"
                store(servers, name, views(DAY, 1, key))
                names = {"product_id": key, "store_id": key, "referrer_url": key}
                client["tests"][name].update_many({}, {"$set": names})
                run(servers, name, postgres)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert torn == []
    assert None not in seen
    assert {views - 40 for _, views in seen} == {int(key[1:]) for key, _ in seen}
    assert len(set(seen)) > 10, "the readers hardly met a run"


def test_two_jobs_on_one_date_never_double_a_row(servers, name, postgres, beside):
    """Threads on tables that nobody has made yet, then processes."""
    store(servers, name, [event for i in range(50) for event in views(DAY, 3, str(i))])
    expected = {(str(i), DAY): 3 for i in range(50)}
    for turn in range(20):
        if turn % 4 == 0:
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA {name} CASCADE")
                connection.execute(f"CREATE SCHEMA {name}")
        pair = [beside(run, servers, name, postgres, job=job) for job in ("one", "two")]
        answers = [future.result() for future in pair]
        assert all(answer.counted == 150 for answer in answers)
        assert sum(answer.superseded == [] for answer in answers) >= 1
        assert counts(postgres) == expected
    call = f"millpond.aggregate({servers.mongo_uri!r}, {postgres!r}, database='tests', collection={name!r},"
    code = f"import millpond\nfor _ in range(20): {call} dates={DAY!r}, job='j')"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    while any(child.poll() is None for child in children):
        assert counts(postgres) == expected
    assert [child.returncode for child in children] == [0, 0]
    assert counts(postgres) == expected


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_two_first_publications_that_met_at_the_lock_keep_one_copy(servers, name, postgres, beside, isolation):
    """Whatever isolation a role or database has set for itself."""
    store(servers, name, views(DAY, 1, "other date"))
    run(servers, name, postgres)
    store(servers, name, views(OTHER, 4))
    options = f"-c search_path={name} -c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}"
    dsn = make_conninfo(servers.dsn, options=options)
    with held(postgres, OTHER):
        pair = [beside(run, servers, name, dsn, dates=OTHER, job=job) for job in ("one", "two")]
        until(lambda: len(waiting(postgres)) == 2)
    for future in pair:
        future.result()
    assert counts(postgres) == {("other date", DAY): 1, ("p", OTHER): 4}
    assert [len(rows) for rows in published(postgres, OTHER).values()] == [1, 1, 1]


def test_an_older_read_never_overwrites_a_newer_one(servers, name, postgres, beside):
    """The older run has read both dates and waits for the first; the newer one publishes the second meanwhile."""
    store(servers, name, views(DAY, 2) + views(OTHER, 2))
    run(servers, name, postgres, dates=[DAY, OTHER])
    with held(postgres, DAY):
        older: Future[millpond.AggregateResult] = beside(run, servers, name, postgres, dates=[OTHER, DAY])
        until(lambda: len(waiting(postgres)) == 1)
        store(servers, name, views(DAY, 5) + views(OTHER, 5))
        newer = run(servers, name, postgres, dates=OTHER)
        assert (newer.superseded, counts(postgres)[("p", OTHER)]) == ([], 7)
        assert not older.done()
    assert older.result().superseded == [OTHER]
    assert older.result().dates == [DAY, OTHER]
    assert counts(postgres) == {("p", DAY): 2, ("p", OTHER): 7}
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("SELECT dates::text[] FROM millpond_runs WHERE run_id = %s", (older.result().run_id,))
        assert rows.fetchall() == [([DAY],)]
    assert run(servers, name, postgres, dates=[DAY, OTHER]).superseded == []
    assert counts(postgres) == {("p", DAY): 7, ("p", OTHER): 7}


@pytest.mark.parametrize("style", ["ISO", "German", "SQL, DMY", "Postgres, MDY"])
def test_a_later_reading_in_the_ledger_is_found_in_every_date_style(servers, name, postgres, style):
    store(servers, name, views("2025-10-09", 2) + views(OTHER, 2))
    run(servers, name, postgres, dates="all")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE millpond_runs SET read_at = now() + interval '1 hour', dates = '{2025-10-09}'")
    store(servers, name, views("2025-10-09", 5) + views(OTHER, 5))
    options = f"-c search_path={name} -c datestyle={style.replace(' ', '')}"
    result = run(servers, name, make_conninfo(servers.dsn, options=options), dates="all")
    assert result.superseded == ["2025-10-09"]
    assert counts(postgres) == {("p", "2025-10-09"): 2, ("p", OTHER): 7}


@pytest.mark.parametrize("table", COLUMNS)
def test_one_date_waits_for_itself_alone(servers, name, postgres, beside, table):
    store(servers, name, views(DAY, 2) + views(OTHER, 3))
    run(servers, name, postgres, dates="1999-01-01")
    with held(postgres, DAY, tables=[table]):
        same: Future[millpond.AggregateResult] = beside(run, servers, name, postgres)
        until(lambda: len(waiting(postgres)) == 1)
        assert run(servers, name, postgres, dates=OTHER).seconds < 60
        assert counts(postgres) == {("p", OTHER): 3}
        assert not same.done()
    assert same.result().counted == 2
    assert counts(postgres) == {("p", DAY): 2, ("p", OTHER): 3}


def test_many_dates_take_the_table_alone(servers, name, postgres, beside):
    days = [f"{year}-{month:02}-{day:02}" for year in (2024, 2025) for month in range(1, 13) for day in range(1, 22)]
    store(servers, name, [event for day in days[:501] for event in views(day, 1)])
    run(servers, name, postgres, dates="1999-01-01")
    with held(postgres):
        many: Future[millpond.AggregateResult] = beside(run, servers, name, postgres, dates="all")
        until(lambda: len(waiting(postgres)) == 1)
        assert not many.done()
    assert len(many.result().dates) == 501
    with held(postgres, whole=True):
        one: Future[millpond.AggregateResult] = beside(run, servers, name, postgres, dates=days[0])
        until(lambda: len(waiting(postgres)) == 1)
    assert one.result().counted == 1
    assert len(counts(postgres)) == 501


def test_the_day_before_1970_is_a_date_like_any_other(servers, name, postgres, beside):
    """As a number of days it is -1, which is also the name of the lock for a whole table."""
    store(servers, name, views("1969-12-31", 3))
    run(servers, name, postgres, dates="1999-01-01")
    with held(postgres, whole=True):
        pair = [beside(run, servers, name, postgres, dates="1969-12-31", job=job) for job in ("one", "two")]
        until(lambda: len(waiting(postgres)) == 2)
    for future in pair:
        future.result()
    assert counts(postgres) == {("p", "1969-12-31"): 3}


def test_a_connection_cut_in_the_middle_leaves_the_old_rows(servers, name, postgres, beside):
    store(servers, name, views(DAY, 2))
    run(servers, name, postgres)
    before = published(postgres)
    store(servers, name, views(DAY, 3))
    for table in COLUMNS:
        with held(postgres, DAY, tables=[table]):
            cut: Future[millpond.AggregateResult] = beside(run, servers, name, postgres)
            until(lambda: len(waiting(postgres)) == 1)
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (waiting(postgres)[0],))
            with pytest.raises(millpond.ExternalError, match="postgres") as told:
                cut.result(timeout=120)
        assert told.value.retryable
        assert published(postgres) == before
    run(servers, name, postgres)
    assert counts(postgres) == {("p", DAY): 5}
