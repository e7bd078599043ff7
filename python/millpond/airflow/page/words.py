"""Numbers, times and bars as a person reads them.

Owns the spelling, and what is added up of several partitions. Refuses to make HTML: `show` does.
"""

import datetime as dt
from typing import Any


def count(value: Any) -> str:
    """Spell a number with thousands apart; what is not known is a dash."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.2f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def size(value: int) -> str:
    """Spell a number of bytes."""
    amount = float(value)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024 or unit == "MiB":
            return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"
        amount /= 1024
    raise AssertionError


def moment(value: Any) -> dt.datetime | None:
    """Read an ISO time, or milliseconds since 1970; what is neither is None."""
    try:
        if isinstance(value, int | float):
            return dt.datetime.fromtimestamp(value / 1000, dt.UTC)
        read = dt.datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return read.replace(tzinfo=dt.UTC) if read.tzinfo is None else read.astimezone(dt.UTC)


def clock(value: Any) -> str:
    """Spell a time in UTC, to the second."""
    read = moment(value)
    return read.strftime("%Y-%m-%d %H:%M:%S") if read else "\N{EN DASH}"


def ago(value: Any, now: float) -> str:
    """Spell how long ago a time was."""
    read = moment(value)
    if read is None:
        return "\N{EN DASH}"
    seconds = now - read.timestamp()
    if seconds < 0:
        return "in the future"
    for step, unit in ((60, "s"), (60, "min"), (24, "h")):
        if seconds < step:
            return f"{seconds:.0f} {unit} ago"
        seconds /= step
    return f"{seconds:,.0f} {'day' if round(seconds) == 1 else 'days'} ago"


def dates(found: list[str]) -> str:
    """Spell the dates of a run."""
    ordered = sorted(found)
    if len(ordered) < 3:
        return ", ".join(ordered) or "\N{EN DASH}"
    return f"{ordered[0]} … {ordered[-1]} ({len(ordered):,})"


def added(places: list[dict[str, Any]], name: str) -> int | None:
    """Add a number up over partitions; None where none of them knows it."""
    known = [place[name] for place in places if place.get(name) is not None]
    return sum(known) if known else None


def totals(inventory: dict[str, Any]) -> dict[str, int]:
    """Add the running books of a bridge up (I1)."""
    kept = [place["kept"] for place in inventory["positions"] if place["kept"]]
    return {name: sum(one[name] for one in kept) for name in ("read", "written", "filtered", "dead_lettered")}


def behind(run: dict[str, Any], sinks: list[tuple[Any, Any]]) -> int | None:
    """Add up what a run's source has been stored since; None where that is not known."""
    source, then = run.get("source") or "", run.get("positions") or {}
    for (database, collection), told in sinks:
        if told.value and f"{database}.{collection}" == source and run.get("repeatable"):
            now = {f"{p['cluster']}/{p['topic']}/{p['partition']}": p["next"] for p in told.value["positions"]}
            return sum(max(next_ - then.get(place, 0), 0) for place, next_ in now.items())
    return None


def by_job(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the newest run of each job first, with how many of the job's there are."""
    jobs: dict[str, dict[str, Any]] = {}
    for run in runs:
        jobs.setdefault(run["job"], {"run": run, "count": 0})["count"] += 1
    return list(jobs.values())


def first(tables: list[str]) -> str | None:
    """Choose the report that is shown unless another one is named."""
    return "product_views_daily" if "product_views_daily" in tables else next(iter(tables), None)


def kept(letters: dict[str, Any]) -> int:
    """Count the dead letters that are kept, about: a topic's offsets hold the ends of transactions too."""
    # So few are looked at to the last, in whatever number of partitions.
    return int(letters["looked_at"] if letters["held"] <= 60 else letters["held"])
