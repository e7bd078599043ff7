"""`millpond audit` and `millpond audit report`: events, documents and reports compared with each other."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings
from millpond.cli.failure import fail

_JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")
_FILE = click.option("--config", type=click.Path(path_type=Path), help="TOML file.")
_FLAGS = {
    "mongo_uri": "MongoDB connection string.",
    "postgres_dsn": "Any libpq form.",
    "database": "Database of the events.",
    "collection": "Collection of the events.",
    "reports": "product_views, or the path of a TOML file of [[reports]].",
    "time_field": "The field whose date counts.",
    "schema": "Where the reports are kept.",
}


def _options(command: Any) -> Any:
    for name, text in reversed(_FLAGS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=text)(command)
    return command


@click.group(invoke_without_command=True)
@_FILE
@_JSON
@_options
@click.option("--target", metavar="VALUE", help="librdkafka properties as JSON: the cluster that the sink reads.")
@click.option("--bridge-job", metavar="NAME", help="[default: that of the file's section bridge]")
@click.option("--metadata", metavar="FIELD", help="As of the sink.")
@click.option("--deep", is_flag=True, help="Read and compare everything.")
@click.pass_context
def audit(ctx: click.Context, /, config: Path | None, as_json: bool, deep: bool, **flags: Any) -> None:
    """Compare a bridge's totals, documents with dead letters, and reports; exits with 6 when they do not agree."""
    if ctx.invoked_subcommand is not None:
        return
    import millpond

    try:
        found = millpond.audit(**settings.audit(config, flags | ({"deep": "true"} if deep else {})))
    except errors.Error as error:
        fail(error)
        return
    _tell(found, as_json=as_json)


@audit.command()
@click.option("--date", metavar="YYYY-MM-DD", required=True)
@_FILE
@_JSON
@_options
def report(config: Path | None, as_json: bool, date: str, **flags: Any) -> None:
    """Recompute the reports of a date and compare them row by row; exits with 6 when they differ."""
    import millpond

    try:
        found = millpond.audit_report(**settings.read("audit_report", config, flags | {"date": date}))
    except errors.Error as error:
        fail(error)
        return
    _tell(found, as_json=as_json)


def _tell(found: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _tell_people(found)
    if not found.balanced:
        sys.exit(6)


def _tell_people(found: Any) -> None:
    if found.bridge:
        totals = ", ".join(
            f"{name} {found.bridge[name]:,}" for name in ("read", "written", "filtered", "dead_lettered")
        )
        click.echo(f"bridge {found.bridge['job']}: {totals}")
    for one in found.partitions:
        words = [f"{one['documents']:,} documents", f"{one['dead_letters']:,} dead letters up to {one['next']:,}"]
        words += [f"{one['written']:,} written"] if one["written"] is not None else []
        words += [f"{one['ahead']:,} to come"] if one["ahead"] else []
        words += [f"{one['compared']:,} compared one by one"] if one["compared"] is not None else []
        click.echo(f"{one['topic']}/{one['partition']}: {', '.join(words)}")
    dates = {one["date"] for one in found.reports}
    if dates:
        recounted = len({one["date"] for one in found.reports if one["recounted"]})
        click.echo(f"reports: {len(found.reports):,} of {len(dates):,} dates, {recounted:,} dates counted again")
    for note in found.notes:
        click.echo(f"audit: note: {note}", err=True)
    for one in found.findings:
        place = [
            f"{name} {one[name]}" for name in ("topic", "partition", "offset", "table", "date") if one[name] is not None
        ]
        click.echo(f"{one['stage']}: {one['kind']}: {' '.join(place)}: {one['text']}")
    if found.first_hole:
        hole = found.first_hole
        click.echo(f"the first hole: topic {hole['topic']} partition {hole['partition']} offset {hole['offset']}")
    click.echo("balanced" if found.balanced else f"{found.found:,} findings")
