"""`mode="incremental"`: kept Partials and the events beyond them give the rows of a full recomputation.

That is done here in plain Python after each run; what cannot be relied on is read as a whole, and said.
"""

import random
import signal
from typing import Any

import psycopg
import pytest
from tests.hand_sunk import Collection, event_id, visit, visits
from tests.oracle_reports import covered_by, tell
from tests.report_tables import published
from tests.test_changed import DATES, changed, client
from tests.test_mutants import child

import millpond
from millpond import reports as r

__all__ = ["client"]
STEPS = ["while_reading", "after_touched", "after_copy", "after_mark", "after_keep", "before_commit", "after_commit"]
MINE = millpond.Report(
    "mine", key={"store_id": "store_id", "hour": r.hour()},
    metrics={
        "n": r.count(), "visitors": r.count_distinct("device_id"), "products": r.count_distinct("product_id"),
        "paid": r.sum("price"), "mean": r.mean("price"), "least": r.min("price"), "last": r.max(r.event_time()),
        "text": r.max("referrer_url", type="text"),
    },
)  # fmt: skip


def right(stored: Collection, dsn: str, dates: list[str] | None = None) -> None:
    """The dates (default: all) are reported as a recount of all documents has them."""
    truth = tell(stored.documents(), covered=covered_by(stored.covers)).rows
    rows = published(dsn)
    if dates is not None:
        truth, rows = (
            {table: [row for row in those if str(row[-1]) in dates] for table, those in each.items()}
            for each in (truth, rows)
        )
    for table, told in truth.items():
        assert rows[table] == told, (table, set(rows[table]) ^ set(told))


def balanced(result: millpond.AggregateResult) -> None:
    assert result.scanned == result.counted + sum(result.excluded.values()) == result.read + result.kept


def killed(step: str, servers: Any, name: str, dsn: str, words: dict[str, Any]) -> bool:
    """A run that SIGKILL ends at a step; one that publishes nothing may not come there."""
    place = {"mongo_uri": servers.mongo_uri, "postgres_dsn": dsn, "database": "tests", "collection": name}
    mine = MINE in words["reports"]
    told = place | words | {"reports": ["product_views"]}
    call = "from tests.test_incremental import MINE; " if mine else ""
    call += f"words = {told!r}; words['reports'] += {'[MINE]' if mine else '[]'}; millpond.aggregate(**words)"
    process = child(call, None, f"KILL:aggregate.{step}")
    _, said = process.communicate(timeout=300)
    assert process.returncode in {0, -signal.SIGKILL}, said.decode()
    return process.returncode != 0


@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(3, 23))])
def test_random_interleavings_give_the_rows_of_a_recount(servers, client, name, postgres, seed):
    chance = random.Random(seed)
    stored = Collection(client, name, topics=2)
    definitions: list[Any] = [["product_views"], ["product_views", MINE]]
    reports, kinds, kills = definitions[0], set(), 0
    holes: list[Any] = []
    for step in range(60):
        act = chance.choice(["arrive"] * 4 + ["late", "land", "cover", "hole", "resink", "delete", "move", "define"])
        place = {"partition": chance.randrange(3), "topic": chance.randrange(2)}
        where = (stored.tags[place["topic"]], place["partition"])
        events = visits(chance, DATES[:3] if act == "late" else DATES[6:9], chance.choice([0, 1, 1, 20]))
        for event in events:
            event["price"] = chance.choice([1, 2.5, None, "x", 10**17])
        if act in {"arrive", "late"}:
            stored.arrive(events, **place) if where in stored.ends or events else None
        elif act in {"land", "hole"}:
            stored.land(events, **place, holes=int(act == "hole"))
            if act == "hole" and events:
                holes.append((where, stored.ends[where] - len(events) - 1))
        elif act == "cover":
            for tag, partition in stored.ends:
                stored.move((tag, partition), stored.ends[tag, partition])
        elif act == "resink" and holes:
            # A dead letter that is stored after all, below the position or above it.
            (tag, partition), offset = holes.pop()
            stored.events.insert_one({"_id": event_id(tag, partition, offset), **visit(DATES[chance.randrange(9)])})
        elif act == "delete":
            stored.events.delete_one({"timestamp": {"$gte": chance.choice(DATES)}})
        elif act == "move":
            # To another date: an edit that keeps the counts of its own is `millpond audit --deep`'s to find.
            stored.events.update_one(
                {"timestamp": {"$gte": DATES[6], "$lt": DATES[8]}}, {"$set": {"timestamp": f"{DATES[8]}T01:00:00Z"}}
            )
        elif act == "define":
            reports = chance.choice(definitions)
        if not stored.positions or chance.random() < 0.4:
            continue
        dates = chance.choice(["changed", "changed", "latest", DATES[7], [DATES[1], DATES[8]], "all"])
        words = {"dates": dates, "reports": reports, "mode": chance.choice(["incremental"] * 5 + ["full"])}
        if dates == "latest":
            words["lookback_days"] = 1
        if chance.random() < 0.2:
            kills += killed(chance.choice(STEPS), servers, name, postgres, words)
        result = changed(servers, name, postgres, **words)
        kinds.add(result.mode)
        balanced(result)
        told = f"seed {seed}, step {step}, {act}: {result!r} {result.full_scans}"
        try:
            # An edit of a date that nobody asked for is not of this run.
            right(stored, postgres, result.dates)
        except AssertionError as wrong:
            raise AssertionError(told) from wrong
        if len(reports) > 1 and result.dates:
            truth = changed(servers, name, None, dates=result.dates, reports=[MINE], mode="full")
            assert list(result.tables["mine"]) == list(truth.tables["mine"]), told
    whole = changed(servers, name, postgres, dates="all", reports=reports)
    for _ in range(6):
        stored.arrive(visits(chance, DATES[:9], 9), partition=chance.randrange(3))
        changed(servers, name, postgres, reports=reports)
        # A date that was emptied keeps its rows under "all".
        right(stored, postgres, whole.dates)
    assert kinds == {"full", "incremental"}
    assert kills > 0


def kept(dsn: str, query: str = "SELECT count(*) FROM millpond_partials") -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]  # type: ignore[index]


def test_only_new_events_are_read_and_the_books_say_so(servers, client, name, postgres):
    stored = Collection(client, name)
    chance = random.Random(4)
    stored.arrive(visits(chance, DATES[:4], 5_000))
    first = changed(servers, name, postgres, dates=DATES[:4])
    balanced(first)
    assert (first.mode, first.partials) == ("full", 4)
    assert "first run" in first.why_full
    stored.arrive(visits(chance, DATES[:6], 50))
    second = changed(servers, name, postgres, dates=DATES[:4])
    balanced(second)
    assert (second.mode, second.read, second.full_scans) == ("incremental", 50, {})
    assert second.kept == first.counted
    right(stored, postgres, DATES[:4])
    (row,) = millpond.runs(postgres, limit=1)
    assert (row["mode"], row["kept"], row["counted"]) == ("incremental", first.counted, second.counted)
    (told, *_) = millpond.explain_report(postgres, date=DATES[0])
    assert told["run"]["mode"] == "incremental"
    # A date that is not kept is read as a whole beside those that are.
    third = changed(servers, name, postgres, dates=[DATES[3], DATES[4]])
    assert (third.mode, list(third.full_scans)) == ("incremental", [DATES[4]])
    assert "no partial of the date" in third.full_scans[DATES[4]]
    full = changed(servers, name, postgres, dates=[DATES[3], DATES[4]], mode="full")
    assert (full.mode, full.kept, full.why_full) == ("full", 0, None)
    assert full.rows == third.rows
    for table in third.tables:
        assert list(full.tables[table]) == list(third.tables[table])


def test_new_events_beyond_a_quarter_are_written_into_the_base(servers, client, name, postgres):
    stored = Collection(client, name)
    chance = random.Random(5)
    for _ in range(8):
        stored.arrive(visits(chance, DATES[:2], 400))
        changed(servers, name, postgres, reports=["product_views", MINE])
        right(stored, postgres)
    assert kept(postgres, "SELECT count(*) FROM millpond_partials WHERE length(more) > length(base)") == 0
    result = changed(servers, name, postgres, dates=DATES[:2], reports=["product_views", MINE])
    assert (result.mode, result.read) == ("incremental", 0)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM millpond_partials", "no partial"),
        ("UPDATE millpond_partials SET base = set_byte(base, length(base) / 2, 255 - get_byte(base, length(base) / 2))",
         "damaged"),
        ("UPDATE millpond_partials SET base = substring(base FROM 1 FOR 90)", "damaged"),
        ("UPDATE millpond_partials SET more = '\\x00', more_sum = 0", "damaged"),
        ("UPDATE millpond_partials SET covered = '[1]'", "damaged"),
        ("UPDATE millpond_partials SET version = 0", "another version"),
        ("UPDATE millpond_partials SET documents = documents + 1", "counts differ"),
        ("DELETE FROM millpond_watermarks", "positions went back|first run|no partial"),
    ],
)  # fmt: skip
def test_a_lost_or_damaged_partial_is_made_again_and_said(servers, client, name, postgres, harm, said):
    stored = Collection(client, name)
    stored.arrive(visits(random.Random(6), DATES[:3], 300))
    changed(servers, name, postgres, dates=DATES[0])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(harm)
    stored.arrive([visit(DATES[0], 5)])
    result = changed(servers, name, postgres, dates=DATES[0])
    assert result.mode == "full"
    assert any(word in result.why_full for word in said.split("|")), result.why_full
    right(stored, postgres, [DATES[0]])
    again = changed(servers, name, postgres, dates=DATES[0])
    assert (again.mode, again.read) == ("incremental", 0)


@pytest.mark.parametrize("what", ["deleted", "moved", "added", "deleted in a large date"])
def test_a_document_that_was_edited_behind_our_back_is_noticed(servers, client, name, postgres, what):
    stored = Collection(client, name)
    large = "large" in what
    stored.arrive([visit(DATES[int(i > 100)], i, device_id=f"d{i % 70}") for i in range(50_200 if large else 400)])
    changed(servers, name, postgres)
    of_date = {"timestamp": {"$gte": DATES[1], "$lt": DATES[2]}}
    (tag,) = stored.tags
    if "deleted" in what:
        stored.events.delete_one(of_date)
    elif what == "moved":
        stored.events.update_one(of_date, {"$set": {"timestamp": f"{DATES[5]}T00:00:00Z"}})
    else:
        stored.land([], holes=1)
        stored.cover()
        changed(servers, name, postgres)
        stored.events.insert_one({"_id": event_id(tag, 0, 400), **visit(DATES[1])})
    stored.arrive([visit(DATES[1], 1)])
    result = changed(servers, name, postgres)
    assert DATES[1] in result.dates
    assert "counts differ" in result.full_scans[DATES[1]]
    assert DATES[0] not in result.full_scans
    right(stored, postgres, [DATES[1]])
    if what != "moved":
        right(stored, postgres)


def test_old_partials_go_and_none_is_kept_where_none_is_wanted(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(date) for date in DATES])
    changed(servers, name, postgres, keep_partials_days=0)
    assert kept(postgres) == 0
    stored.arrive([visit(DATES[2], 9)])
    result = changed(servers, name, postgres, keep_partials_days=0)
    assert (result.dates, result.mode) == ([DATES[2]], "full")
    changed(servers, name, postgres, dates="all", keep_partials_days=4)
    assert kept(postgres, "SELECT string_agg(date::text, ' ' ORDER BY date) FROM millpond_partials") == " ".join(
        DATES[-5:]
    )
    right(stored, postgres)


def test_a_role_that_may_keep_nothing_reads_all_and_says_so(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(date) for date in DATES[:2]])
    changed(servers, name, postgres)
    with psycopg.connect(servers.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA {name} TO {name}")
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
        connection.execute(f"REVOKE ALL ON {name}.millpond_partials, {name}.millpond_watermarks FROM {name}")
    try:
        mine = f"{postgres}&user={name}&password=secret"
        result = changed(servers, name, mine, dates=DATES[0])
        assert (result.mode, result.published) == ("full", True)
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in result.why_full
        with pytest.raises(millpond.ConfigError, match="millpond_partials"):
            changed(servers, name, mine)
    finally:
        with psycopg.connect(servers.dsn, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_rows_without_new_events_stay_and_rows_that_others_touched_are_put_right(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(DATES[i % 2], i, product_id=f"p{i % 50}", device_id=f"d{i}") for i in range(1_000)])
    changed(servers, name, postgres)

    def times() -> set[Any]:
        with psycopg.connect(postgres) as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT created_at FROM product_views_daily")}

    def untouched() -> set[bool | None]:
        return {one["untouched"] for date in DATES[:2] for one in millpond.explain_report(postgres, date=date)}

    stored.arrive([visit(DATES[0], 5, product_id="p3"), visit(DATES[0], 6, product_id="new")])
    result = changed(servers, name, postgres)
    assert (result.mode, result.rows["product_views_daily"]) == ("incremental", 27)
    assert len(times()) == 2
    assert untouched() == {True}
    right(stored, postgres)
    for harm in (
        "UPDATE product_views_daily SET view_count = 7 WHERE product_id = 'p8'",
        "DELETE FROM product_views_daily WHERE product_id = 'p8'",
        "INSERT INTO product_views_daily (product_id, report_date) VALUES ('x', '2025-10-20')",
        "UPDATE product_views_daily SET created_at = created_at WHERE product_id = 'p8'",
    ):
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(harm)
        stored.arrive([visit(DATES[0], 5, product_id="p3"), visit(DATES[1], 5, product_id="p3")])
        assert changed(servers, name, postgres).mode == "incremental"
        right(stored, postgres)
        assert untouched() == {True}, harm
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE product_views_daily SET view_count = 7 WHERE product_id = 'p8'")
    assert False in untouched()


def test_a_later_date_that_only_an_offset_makes_is_the_latest(servers, client, name, postgres):
    stored = Collection(client, name)
    stored.arrive([visit(DATES[7]), visit(DATES[8])])
    changed(servers, name, postgres, dates=DATES[7])
    stored.arrive([visit(DATES[8], timestamp=f"{DATES[8]}T20:00:00-11:00")])
    result = changed(servers, name, postgres, dates="latest", lookback_days=1)
    assert result.dates == [DATES[8], DATES[9]]
    right(stored, postgres)
