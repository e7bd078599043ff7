"""`millpond positions show|reset`: what a bridge's job or a sink has read, and an operator's way on past what was lost.

Owns words and the question before a reset. Refuses to judge positions: the native part does, against the real logs.
"""

import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli.failure import fail
from millpond.cli.settings import collection, job


@click.group()
def positions() -> None:
    """The kept positions of a bridge's job, or of a sink's collection (--collection): show them, or move them."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For machines."),
        click.option("--source", metavar="VALUE", help="librdkafka properties as JSON."),
        click.option("--target", metavar="VALUE", help="librdkafka properties as JSON."),
        click.option("--job", "name", metavar="NAME", help="[default: that of the file's section bridge]"),
        click.option("--topic", metavar="NAME", help="Of a sink: where the collection holds several."),
        click.option("--collection", metavar="NAME", help="Of a sink: the collection whose positions are meant."),
        click.option("--database", metavar="NAME", help="Of a sink: the collection's."),
        click.option("--mongo-uri", metavar="VALUE", help="Of a sink: MongoDB connection string."),
        click.option("--config", type=click.Path(path_type=Path), help="TOML file."),
    ):
        command = option(command)
    return command


def _clusters(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the sources of tokens out of both sides' properties."""
    from millpond import oauth

    sides = {side: settings[side] for side in ("source", "target") if isinstance(settings.get(side), dict)}
    return settings | {side: oauth.plain(properties) for side, properties in sides.items()}, oauth.callbacks(**sides)


@positions.command()
@_options
def show(config: Path | None, as_json: bool, **flags: str | None) -> None:
    """List each source partition: the next offset, the source's log, lag, totals, and what does not fit."""
    from millpond import _native

    stored = flags["collection"] is not None
    try:
        settings, tokens = _clusters(collection(config, flags) if stored else job(config, flags))
        ask = _native.stored_positions_show if stored else _native.positions_show
        shown = json.loads(ask(json.dumps(settings), _native.CancelToken(), tokens))
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(shown))
        return
    if stored:
        _show_stored(shown)
        return
    from rich.console import Console
    from rich.table import Table

    columns = ("partition", "next", "log", "lag", "held back", "read", "written", "filtered", "dead letters", "problem")
    table = Table(*columns, title=f"{shown['job']}: topic {shown['source_topic']} on cluster {shown['source_cluster']}")
    for place in shown["positions"]:
        kept = place["kept"] or {}
        log = "" if place["start"] is None else f"{place['start']}..{place['end']}"
        totals = (kept.get(total) for total in ("read", "written", "filtered", "dead_lettered"))
        cells = (place["partition"], place["next"], log, place["lag"], place["held_back"], *totals, place["problem"])
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for target, transform in sorted(
        {(p["kept"]["target_topic"], p["kept"]["transform"]) for p in shown["positions"] if p["kept"]}
    ):
        click.echo(f"target topic {target}, transform {transform}")
    for warning in shown["warnings"]:
        click.echo(f"positions: warning: {warning}", err=True)


def _show_stored(shown: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("topic", "partition", "next", "log", "lag", "id", "problem")
    table = Table(*columns, title=f"{shown['database']}.{shown['collection']}")
    for place in shown["positions"]:
        log = "" if place["start"] is None else f"{place['start']}..{place['end']}"
        problem = "an earlier topic of this name, left behind" if place["closed"] else place["problem"]
        cells = (place["topic"], place["partition"], place["next"], log, place["lag"], place["id"], problem)
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for warning in shown["warnings"]:
        click.echo(f"positions: warning: {warning}", err=True)


@positions.command()
@_options
@click.option(
    "--to", metavar="PLACE",
    help="earliest, latest, an offset, or an RFC 3339 time [default: where they are, or the log's start where that does"
    " not fit; topics that were recreated or emptied are accepted as they are]",
)  # fmt: skip
@click.option("--partition", "partitions", type=int, multiple=True, help="Only this one; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(
    config: Path | None, as_json: bool, to: str | None, partitions: tuple[int, ...], yes: bool, **flags: str | None
) -> None:
    """Move the positions of a job or a collection: the next run begins there.

    A bridge's running tasks are fenced first; end a sink's yourself.
    """
    from millpond import _native

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("positions reset changes what is read next: give --yes where nobody can be asked")
    try:
        stored = flags["collection"] is not None
        settings, tokens = _clusters(collection(config, flags) if stored else job(config, flags))
        settings |= {"to": _place(to), "partitions": list(partitions)}
        move = _native.stored_positions_reset if stored else _native.positions_reset

        def ask(*, write: bool) -> dict[str, Any]:
            told = json.dumps(settings | {"write": write})
            return dict(json.loads(move(told, _native.CancelToken(), tokens)))

        if not yes:
            _tell(ask(write=False))
            click.confirm("move them?" if stored else "fence what runs, and move them?", abort=True)
        moved = ask(write=True)
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(moved))
    else:
        _tell(moved)


def _place(to: str | None) -> str | dict[str, int] | None:
    if to is None or to in {"earliest", "latest"}:
        return to
    if to.isdecimal():
        return {"offset": int(to)}
    try:
        time = dt.datetime.fromisoformat(to)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise errors.ConfigError(
            f"--to: {to!r} is no place in a log",
            "give earliest, latest, an offset, or a time with its offset from UTC: 2025-10-31T00:00:00Z",
        )
    return {"time_ms": int(time.timestamp() * 1000)}


def _tell(moved: dict[str, Any]) -> None:
    verb = "moved" if moved["written"] else "would move"
    stored = "collection" in moved
    whose = f"{moved['database']}.{moved['collection']}" if stored else moved["job"]
    topic = moved["topic"] if stored else moved["source_topic"]
    click.echo(f"{whose}: positions of topic {topic} {verb}:")
    for place in moved["positions"]:
        before = "none" if place["before"] is None else place["before"]
        again = "read" if stored else "copied"
        notes = [f"{place['repeats']} offsets will be {again} again"] if place["repeats"] else []
        notes += [f"{place['skips']} offsets will be skipped"] if place["skips"] else []
        notes += [place["problem"]] if place["problem"] else []
        click.echo(f"  partition {place['partition']}: {before} -> {place['after']}; {'; '.join(notes) or 'no change'}")
