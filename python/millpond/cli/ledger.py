"""`millpond runs` and `millpond explain report`: what was published, and from what."""

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings
from millpond.cli.failure import fail

FILE = click.option("--config", type=click.Path(path_type=Path), help="TOML file; [postgres] names the server.")
DSN = click.option("--postgres-dsn", metavar="VALUE", help="Any libpq form.")
SCHEMA = click.option("--schema", metavar="NAME", help="Default: the first one of the search path.")
JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")


def place(file: Path | None, postgres_dsn: str | None, schema: str | None) -> dict[str, Any]:
    """Return where the ledger is: of flags, the environment, or the file.

    Raises:
        ConfigError: Nothing says it.
    """
    found = settings.servers(file)
    dsn = postgres_dsn if postgres_dsn is not None else found["postgres_dsn"]
    if dsn is None:
        raise errors.ConfigError("postgres_dsn is missing", "give --postgres-dsn, MILLPOND_POSTGRES_DSN or a file")
    return {"postgres_dsn": dsn, "schema": schema or found["schema"]}


@click.command()
@FILE
@DSN
@SCHEMA
@click.option("--job", metavar="NAME", help="Those of one job.")
@click.option("--date", metavar="YYYY-MM-DD", help="Those that published this date.")
@click.option("-n", "limit", type=click.IntRange(1), default=20, show_default=True, help="The newest.")
@JSON
def runs(config: Path | None, as_json: bool, postgres_dsn: str | None, schema: str | None, **chosen: Any) -> None:
    """List the publications, newest first."""
    import millpond

    try:
        where = place(config, postgres_dsn, schema)
        found = millpond.runs(**where, **chosen)
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    names = ("published", "job", "dates", "counted", "excluded", "rows", "mode", "engine", "seconds", "run")
    table = Table(*names)
    for run in found:
        rows = ", ".join(f"{name} {count:,}" for name, count in run["rows"].items())
        excluded = ", ".join(f"{reason} {count:,}" for reason, count in run["excluded"].items())
        words = (_time(run["created_at"]), run["job"], _dates(run["dates"]), f"{run['counted']:,}", excluded, rows)
        table.add_row(
            *words,
            run.get("mode") or "full",
            f"{run['engine']} {run['version']}",
            f"{run['seconds']:.1f}",
            run["run_id"],
        )
    # Not cut to a terminal's width where there is none.
    Console(width=None if sys.stdout.isatty() else 240).print(table)


@click.command()
@click.option("--date", metavar="YYYY-MM-DD", required=True)
@click.option("--table", metavar="NAME", help="One report. Default: each that the ledger names for the date.")
@FILE
@DSN
@SCHEMA
@click.option("--mongo-uri", metavar="VALUE", help="To say whether newer events have arrived since.")
@JSON
def report(config: Path | None, as_json: bool, date: str, table: str | None, **places: str | None) -> None:
    """Say when a date's reports were made, from what, and whether newer events have arrived since."""
    import millpond

    try:
        uri = places.pop("mongo_uri") or settings.servers(config)["mongo_uri"]
        where = place(config, **places)
        told = millpond.explain_report(**where, date=date, table=table, mongo_uri=uri)
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(told))
        return
    for one in told:
        click.echo("\n".join(_said(date, one)))
    if not told:
        click.echo(f"no report of {date} was published")


def _said(date: str, one: dict[str, Any]) -> list[str]:
    run = one["run"]
    lines = [f"{one['table']} of {date}: {one['rows']:,} rows"]
    if run is None:
        return [*lines, "    no run in the ledger published this date"]
    lines.append(f"    made {_time(run['created_at'])} by job {run['job']}, run {run['run_id']}")
    lines.append(f"    from {run.get('source') or 'a collection that an older version did not name'},")
    lines.append(f"    read {_time(run['read_at'])}: {run['counted']:,} of {run['scanned']:,} events counted")
    if run.get("mode") == "incremental":
        lines.append(f"    incremental: {run['kept']:,} of them kept by earlier runs, the others read by this one")
        lines += [f"    {day} was read as a whole: {why}" for day, why in (run["full_scans"] or {}).items()]
    for partition, position in run["positions"].items():
        lines.append(f"    {partition} up to offset {position:,}")
    if one["untouched"] is False:
        lines.append("    rows were added, changed or removed since by others")
    newer = one["newer"]
    if newer is None:
        lines.append("    whether newer events have arrived is not known")
    elif not any(newer.values()):
        lines.append("    no newer events have arrived")
    else:
        lines.append(f"    {sum(newer.values()):,} newer events have arrived since, of whatever date:")
        lines += [f"        {count:,} of {partition}" for partition, count in newer.items() if count]
    return lines


def _time(text: str) -> str:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _dates(dates: list[str]) -> str:
    return ", ".join(dates) if len(dates) < 3 else f"{min(dates)} … {max(dates)} ({len(dates):,})"
