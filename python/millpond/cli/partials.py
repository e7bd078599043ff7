"""`millpond partials show|prune`: what incremental runs keep in PostgreSQL."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli.failure import fail
from millpond.cli.ledger import DSN, FILE, JSON, SCHEMA, place


@click.group()
def partials() -> None:
    """What incremental runs keep of each date: show it, or remove it."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (JSON, click.option("--job", metavar="NAME", help="Those of one job."), SCHEMA, DSN, FILE):
        command = option(command)
    return command


@partials.command()
@_options
def show(config: Path | None, as_json: bool, postgres_dsn: str | None, schema: str | None, job: str | None) -> None:
    """List the kept dates: events, distinct visitors, bytes, and why one cannot be used."""
    import millpond

    try:
        found = millpond.partials(**place(config, postgres_dsn, schema), job=job)
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("job", "definition", "date", "events", "visitors", "bytes", "made", "not used since")
    for one in found["partials"]:
        numbers = (f"{one[name]:,}" for name in ("counted", "visitors", "bytes"))
        table.add_row(one["job"], one["definition"][:12], one["date"], *numbers, one["made_at"][:19], one["why"] or "")
    console.print(table)
    for mark in found["watermarks"]:
        reported = sum((mark["reported"] or {}).values())
        click.echo(
            f"{mark['job']} {mark['definition'][:12]}: every event of {reported:,} offsets lies in a report"
            if mark["reported"]
            else f"{mark['job']} {mark['definition'][:12]}: no watermark"
        )
    click.echo(f"{sum(one['bytes'] for one in found['partials']):,} bytes")


@partials.command()
@_options
@click.option("--before", metavar="YYYY-MM-DD", help="Those of earlier dates.")
@click.option("--all", "everything", is_flag=True, help="Those of every date.")
def prune(config: Path | None, as_json: bool, everything: bool, **words: Any) -> None:
    """Remove kept dates: they are read as a whole when they are reported next."""
    import millpond

    try:
        where = place(config, words.pop("postgres_dsn"), words.pop("schema"))
        gone = millpond.prune_partials(**where, **words, all=everything)
    except errors.Error as error:
        fail(error)
        return
    click.echo(json.dumps(gone) if as_json else f"{gone['partials']:,} removed, {gone['bytes']:,} bytes")
