"""Incremental runs that are killed at a named step, and two of them side by side (I2, I3).

Reports, kept Partials, what these cover and the watermark are of one transaction: whoever looks finds all of them old
or all of them new, and the run that comes after equals a recount in plain Python. Wrong orderings, which the package
with the test-only feature has, are caught by the same scenarios.
"""

import subprocess
import sys
from typing import Any

import psycopg
import pytest
from tests.fault_servers import met
from tests.hand_sunk import Collection, visit
from tests.report_tables import counts, published, until
from tests.test_changed import DATES, changed, client, right
from tests.test_mutants import die

import millpond

__all__ = ["client"]
KEPT = (
    "SELECT run_id, reported::text, covered::text, reported_documents, covered_documents FROM millpond_watermarks",
    "SELECT date, run_id, covered::text, documents, counted, base_sum, more_sum FROM millpond_partials ORDER BY date",
    "SELECT run_id FROM millpond_runs ORDER BY run_id",
)
STEPS = ["while_reading", "after_touched", "after_delete", "after_copy", "after_mark", "after_keep",
         "before_commit", "after_commit"]  # fmt: skip


def state(dsn: str) -> Any:
    """All that a publication leaves."""
    with psycopg.connect(dsn) as connection:
        return published(dsn), [connection.execute(query).fetchall() for query in KEPT]


def words(servers: Any, name: str, dsn: str, **more: Any) -> dict[str, Any]:
    return {
        "mongo_uri": servers.mongo_uri, "postgres_dsn": dsn, "database": "tests", "collection": name,
        "dates": "changed",
    } | more  # fmt: skip


def filled(client: Any, servers: Any, name: str, dsn: str) -> Collection:
    """Three dates that are reported and kept; then new events on one of them, on a new one, and late ones."""
    stored = Collection(client, name)
    stored.arrive([visit(DATES[i % 3], i, product_id=f"p{i % 9}", device_id=f"d{i % 40}") for i in range(300)])
    changed(servers, name, dsn)
    stored.arrive([visit(DATES[1], 8, product_id="p1", device_id="new"), visit(DATES[4], 3)], partition=1)
    return stored


def goes_on(servers: Any, stored: Collection, dsn: str) -> None:
    """What was kept is exact: events that come now are all that is read, and the rows are those of a recount."""
    stored.arrive([visit(DATES[1], 70, product_id="p1", device_id="new"), visit(DATES[2], 9, product_id="p2")])
    result = changed(servers, stored.name, dsn)
    assert (result.mode, result.full_scans, result.dates) == ("incremental", {}, [DATES[1], DATES[2]])
    right(stored, dsn)


@pytest.mark.parametrize(
    ("mutant", "step", "exact"),
    [*[(None, step, True) for step in STEPS],
     ("keep_before_reports", "after_delete", False),
     ("delete_and_insert_in_two_transactions", "after_copy", False)],
)  # fmt: skip
def test_a_killed_run_leaves_all_of_it_old_or_all_of_it_new(servers, client, name, postgres, mutant, step, exact):
    stored = filled(client, servers, name, postgres)
    before = state(postgres)
    die(f"millpond.aggregate(**{words(servers, name, postgres)!r})", mutant, f"aggregate.{step}")
    if step == "after_commit":
        assert state(postgres) != before
    elif not exact:
        # The mutant's half is there for everybody.
        until(lambda: state(postgres) != before)
        if mutant == "keep_before_reports":
            assert changed(servers, name, postgres).dates == []
            with pytest.raises(AssertionError):
                right(stored, postgres)
        return
    else:
        assert state(postgres) == before
    result = changed(servers, name, postgres)
    assert result.dates == ([] if step == "after_commit" else [DATES[1], DATES[4]])
    assert result.read == (0 if step == "after_commit" else 3)
    right(stored, postgres)
    goes_on(servers, stored, postgres)


@pytest.mark.parametrize("step", ["while_reading", "after_touched", "after_keep", "before_commit", "after_commit"])
def test_a_killed_run_of_named_dates_leaves_the_watermark(servers, client, name, postgres, step):
    stored = filled(client, servers, name, postgres)
    before = state(postgres)
    call = words(servers, name, postgres, dates=[DATES[1]])
    die(f"millpond.aggregate(**{call!r})", None, f"aggregate.{step}")
    assert (state(postgres) == before) is (step != "after_commit")
    assert changed(servers, name, postgres, dates=[DATES[1]]).read == (0 if step == "after_commit" else 2)
    assert changed(servers, name, postgres).dates == [DATES[1], DATES[4]], "the watermark has stayed"
    right(stored, postgres)
    goes_on(servers, stored, postgres)


@pytest.mark.parametrize(
    ("mutant", "step", "faster", "exact"),
    [(None, "before_commit", "", True),
     *[(None, "while_reading", faster, True) for faster in ("changed", "latest", "named")],
     *[("any_run_keeps", "while_reading", faster, False) for faster in ("changed", "named")]],
)  # fmt: skip
def test_a_run_that_is_overtaken_keeps_nothing_of_its_own(servers, client, name, postgres, mutant, step, faster, exact):
    """The slower one has read less: its rows, its Partials and its watermark must not replace the faster one's."""
    stored = filled(client, servers, name, postgres)
    with met(step, words(servers, name, postgres), mutant or "") as slow:
        stored.arrive([visit(DATES[2], 8, product_id="p1"), visit(DATES[1], 9, device_id="newer")])
        # At the commit it holds the locks: another one would wait for it.
        if faster:
            dates = [DATES[1], DATES[2]] if faster == "named" else faster
            fast = changed(servers, name, postgres, dates=dates).dates
    left = [DATES[1], DATES[2]]
    if faster:
        left = [] if faster == "changed" else [DATES[1], DATES[2], DATES[4]]
        assert slow.answer["superseded"] == [date for date in (DATES[1], DATES[4]) if date in fast]
        assert mutant or (slow.answer["watermark"], slow.answer["partials"]) == (False, 0)
    try:
        again = changed(servers, name, postgres)
        assert again.dates == left
        assert DATES[2] not in again.full_scans, "what is kept of it is of use"
        right(stored, postgres)
        goes_on(servers, stored, postgres)
    except AssertionError:
        assert not exact
        return
    assert exact


@pytest.mark.parametrize("mutant", [None, "partials_of_any_run"])
def test_partials_that_another_run_has_made_anew_are_not_added_to_again(servers, client, name, postgres, mutant):
    """The slower one has read what is covered; what it then finds kept holds the same new events already."""
    stored = filled(client, servers, name, postgres)
    with met("after_kept", words(servers, name, postgres), mutant or "") as slow:
        stored.arrive([visit(DATES[1], 9, product_id="p2", device_id="newer")])
        changed(servers, name, postgres)
    assert (slow.answer["superseded"], slow.answer["watermark"]) == ([], False)
    if mutant:
        with pytest.raises(AssertionError):
            right(stored, postgres)
        return
    assert "another run of this job" in slow.answer["full_scans"][DATES[1]]
    right(stored, postgres)
    goes_on(servers, stored, postgres)


def test_runs_side_by_side_that_never_stop_count_each_event_once(servers, client, name, postgres):
    """Two processes without a pause while events arrive: no row twice at any look, and all of it right in the end."""
    stored = filled(client, servers, name, postgres)
    call = f"millpond.aggregate(**{words(servers, name, postgres)!r})"
    code = f"import millpond, time\nend = time.time() + 4\nwhile time.time() < end: {call}"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    turn = 0
    while any(child.poll() is None for child in children):
        stored.arrive([visit(DATES[turn % 5], turn, product_id=f"p{turn % 7}", device_id=f"d{turn}")], turn % 3)
        assert all(count > 0 for count in counts(postgres).values())
        turn += 1
    assert [child.returncode for child in children] == [0, 0]
    changed(servers, name, postgres)
    right(stored, postgres)
    goes_on(servers, stored, postgres)
    assert millpond.audit(servers.mongo_uri, postgres, database="tests", collection=name, deep=True).balanced
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM millpond_watermarks").fetchone() == (1,)
