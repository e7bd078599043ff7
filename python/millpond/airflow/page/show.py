"""The HTML of the page, the same for both majors: templates filled in with everything escaped.

Owns what is shown for which address, and how long an answer is shown again. Refuses to know who asks: the views do.
"""

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from millpond.airflow.page import facts, words
from millpond.airflow.page.places import Places, configured

_TEMPLATES = Path(__file__).with_name("templates")
# Addresses hold few and short words; whatever is longer is no name of ours.
_LONGEST = 500
_KEPT = 8


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["w"] = words
    return made


@cache
def style() -> str:
    """Return the style sheet."""
    return (_TEMPLATES / "style.css").read_text()


@dataclass
class _Shelf:
    """The last overviews, shown again for a few seconds; one look at a time in a process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[Any, facts.Overview] = field(default_factory=dict)

    def overview(self, places: Places, table: str | None, date: str | None) -> facts.Overview:
        with self.lock:
            key = (places, table, date)
            found = self.kept.get(key)
            if found is None or time.time() - found.at > places.cache_seconds:
                found = facts.overview(places, table, date)
                self.kept.pop(key, None)
                self.kept[key] = found
                for old in list(self.kept)[:-_KEPT]:
                    del self.kept[old]
            return found


_SHELF = _Shelf()


def overview(query: Mapping[str, str], *, embedded: bool) -> str:
    """Show everything; `table` and `date` choose the report."""
    found = _SHELF.overview(configured(), _word(query, "table"), _word(query, "date"))
    bridges = [told.value for _, told in found.bridges.value or [] if told.value]
    sinks = [told.value for _, told in found.sinks.value or [] if told.value]
    lags = [words.added(one["positions"], "lag") for one in (*bridges, *sinks)]
    held = [words.kept(told.value) for _, told in found.letters if told.value]
    top = found.top.value or {"rows": [], "key": ""}
    names = list(top["rows"][0]) if top["rows"] else []
    return _fill(
        "overview.html",
        embedded=embedded,
        at=found.at,
        runs=found.runs,
        top=found.top,
        bridges=found.bridges,
        sinks=found.sinks,
        letters=[(place, _name(place), told) for place, told in found.letters],
        lag=sum(known) if (known := [lag for lag in lags if lag is not None]) else None,
        jobs=len(lags),
        held=sum(held) if held else None,
        tables=_tables(found.runs.value or []),
        shown=[name for name in names if name not in (top["key"], "report_date", "created_at")],
        times=[name for name in names if name.endswith("_time")],
        most_runs=facts.RUNS,
    )


def letters(query: Mapping[str, str], *, embedded: bool) -> str:
    """List the dead letters of a place: `topic`, or `database` and `collection`; `reason` chooses."""
    place, reason = place_of(query), _word(query, "reason")
    told = _ask(place, None)
    listed = (told.value or {"letters": []})["letters"]
    shown = [letter for letter in listed if reason in (None, letter["reason"])]
    return _fill(
        "letters.html", embedded=embedded, at=time.time(), name=_name(place), place=place, reason=reason, told=told,
        shown=shown,
    )  # fmt: skip


def letter(query: Mapping[str, str], *, embedded: bool) -> str:
    """Show one dead letter, `id` of its place, with its raw bytes."""
    place, one = place_of(query), _word(query, "id")
    told = _ask(place, one) if one else facts.Answer(problem="no letter is named", absent=True)
    return _fill("letter.html", embedded=embedded, name=_name(place), id=one or "\N{EN DASH}", place=place, told=told)


def refused(why: str, *, embedded: bool) -> str:
    """Say that somebody may not see this."""
    return _fill("refused.html", embedded=embedded, why=why)


def alone(title: str, body: str) -> tuple[str, str]:
    """Make a document of its own around a body; the second value is its Content-Security-Policy."""
    nonce = secrets.token_urlsafe(16)
    script = Markup((_TEMPLATES / "theme.js").read_text())  # noqa: S704 - a file of ours
    text = _fill("alone.html", title=title, style=Markup(style()), script=script, nonce=nonce, body=Markup(body))  # noqa: S704
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return text, policy


def place_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the place of dead letters that an address names; empty where it names none."""
    if topic := _word(query, "topic"):
        return {"topic": topic}
    database, collection = _word(query, "database"), _word(query, "collection")
    return {"database": database, "collection": collection} if database and collection else {}


def connection_of(place: Mapping[str, str]) -> str:
    """Return the connection through which a place is read."""
    places = configured()
    return places.target if "topic" in place else places.mongo


def _ask(place: dict[str, str], one: str | None) -> facts.Answer:
    if not place:
        return facts.Answer(problem="no place of dead letters is named", absent=True)
    with facts.looking(configured()) as look:
        return facts.answer(connection_of(place), lambda: look.letters(place, one))


def _name(place: dict[str, str]) -> str:
    return place.get("topic") or (
        f"{place['database']}.{place['collection']}_dead_letters" if place else "Dead letters"
    )


def _tables(runs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(table for run in runs for table in run.get("rows") or {}))[:20]


def _word(query: Mapping[str, str], name: str) -> str | None:
    text = str(query.get(name) or "").strip()
    return text if 0 < len(text) <= _LONGEST and text.isprintable() else None


def _fill(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)
