"""`millpond explain`: what a setting means for one example, and what a report was made from."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings
from millpond.cli.ledger import report


@click.group()
def explain() -> None:
    """Show what a setting means for one example, or what a report was made from."""


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
