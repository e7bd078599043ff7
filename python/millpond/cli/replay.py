"""`millpond replay`: what was left aside, sent again."""

import sys
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings as config
from millpond.cli.commands import main, show
from millpond.cli.failure import fail

_FLAGS = {
    "target_topic": "Topic to write.",
    "dead_letter_topic": "Default: <target_topic>.dead_letters.",
    "job": "Job of the bridge that wrote the letters.",
    "transform": "The corrected one: product_views, or the path of a TOML file.",
    "since": "Letters written at or after this time, as 2025-10-31T03:22:11Z.",
    "until": "Letters written at or before this time.",
    "source_topic": "Letters whose events came from this topic.",
    "partition": "Letters whose events came from this partition of the source.",
    "offsets": "Letters whose events had these offsets in the source, as 100..200.",
    "allow": "As JSON: checks of the target topic that are waived.",
    "target": "librdkafka properties as JSON.",
    "mongo_uri": "Of stored dead letters: MongoDB connection string.",
    "database": "Of stored dead letters: database of the collection.",
    "collection": "Store the dead letters of this collection after all, instead of a bridge's.",
    "metadata": "Of stored dead letters: as in sink.",
}
_OF_STORED = {"mongo_uri", "database", "collection", "metadata"}
_OF_BRIDGES = {"target_topic", "dead_letter_topic", "job", "allow", "target"}


@click.group()
def replay() -> None:
    """Send again what a run left aside."""


def _options(command: Any) -> Any:
    for name, text in reversed(_FLAGS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=text)(command)
    return command


@replay.command("dead-letters")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="TOML file: [target], [bridge]; [mongo], [sink]."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--reason", "reasons", multiple=True, metavar="REASON", help="Letters of this reason; may be repeated.")
@_options
def dead_letters(file: Path | None, as_json: bool, reasons: tuple[str, ...], **flags: Any) -> None:
    """Dead letters of a bridge → its target topic, or of a sink → its collection (--collection), once each.

    Exits with 6 when a letter fails again: it stays where it is.
    """
    import millpond

    stored = flags["collection"] is not None
    for name in sorted(_OF_BRIDGES if stored else _OF_STORED):
        if flags.pop(name) is not None:
            with_it = "a bridge's dead letters only" if stored else "--collection"
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {with_it}")
    verb = "replay_stored_letters" if stored else "replay_dead_letters"
    try:
        arguments = config.read(verb, file, flags | {"reasons": list(reasons) or None})
        result = getattr(millpond, verb)(**arguments, progress=sys.stderr.isatty() and not as_json)
    except errors.Error as error:
        fail(error)
        return
    except KeyboardInterrupt:
        sys.exit(130)
    show("replay", result, as_json=as_json)
    for failure in result.failures[: 0 if as_json else None]:
        if stored:
            place = f"{failure['id']} ({failure['source']})"
        else:
            source = failure["source"] or "of no bridge"
            place = f"partition {failure['partition']} offset {failure['offset']} ({source})"
        click.echo(f"replay: failed: {place}: {failure['reason']}: {failure['detail']}", err=True)
    if result.failed:
        sys.exit(6)


main.add_command(replay)
