"""`millpond explain`: what a setting means for one example, where an `_id` comes from, what a report was made from."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings
from millpond.cli.failure import fail
from millpond.cli.ledger import report


@click.group()
def explain() -> None:
    """Show what a transform makes of an event, where the event of an _id was read, or what a report was made from."""


@explain.command()
@click.argument("event")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; its [bridge] names the transform.")
@click.option("--transform", metavar="VALUE", help="product_views, or the path of a TOML file.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def transform(event: str, config: Path | None, transform: str | None, as_json: bool) -> None:
    """Show what becomes of EVENT, field by field; "-" reads it from standard input."""
    from millpond import transforms

    raw = sys.stdin.buffer.read() if event == "-" else os.fsencode(event)
    try:
        told = transforms.explain(settings.transform(config, transform), raw)
    except errors.ConfigError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(told) if as_json else _shown(told))


explain.add_command(report)


@explain.command("id")
@click.argument("object_id")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; its [mongo] and [sink] name the database.")
@click.option("--mongo-uri", help="MongoDB connection string.")
@click.option("--database", help="The sink's.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def identity(object_id: str, config: Path | None, mongo_uri: str | None, database: str | None, as_json: bool) -> None:
    """Show where the event of OBJECT_ID was read: cluster, topic, partition, offset.

    Without a MongoDB the topic stays a tag. Dead letters have the same _id as their event would.
    """
    from millpond import _native

    try:
        named = settings.servers(config)
        uri, place = mongo_uri or named["mongo_uri"], database or named["database"]
        if uri is not None and place is None:
            raise errors.ConfigError("database is missing", "give --database, MILLPOND_DATABASE or a file")
        told = json.loads(_native.explain_id(object_id, uri, place))
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        if value is not None:
            click.echo(f"{name:<10}{value}")


def _shown(told: dict[str, Any]) -> str:
    lines = []
    for field in told["fields"]:
        lines.append(f"{field['field']}  ({field['rule']})")
        found = "missing or null" if field["source"] is None else f"{field['source']} = {field['raw']}"
        became = field["value"] if field["reason"] is None else f"{field['reason']}: {field['detail']}"
        lines.append(f"    {found}  →  {became}")
    if told["unknown"]:
        fate = "kept" if told["keep_unknown"] else "not kept"
        lines.append(f"taken by no field, {fate}: {', '.join(told['unknown'])}")
    if told["outcome"] == "filtered":
        lines.append(f"filtered: {told['filter']}")
    elif told["outcome"] == "dead_letter":
        lines.append(f"dead letter: {told['reason']}: {told['detail']}")
    else:
        lines.append(f"written: {told['output']}")
    return "\n".join(lines)
