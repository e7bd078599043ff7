"""The commands: read settings, call a function, show its books."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from millpond import errors
from millpond.cli import settings as config
from millpond.cli.audit import audit
from millpond.cli.explain import explain
from millpond.cli.failure import fail
from millpond.cli.ledger import runs
from millpond.cli.partials import partials
from millpond.cli.positions import positions


class Commands(click.Group):
    """Loads `local` only when it is asked for: it needs the extra of that name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command."""
        return [*super().list_commands(ctx), "local"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command."""
        if cmd_name != "local":
            return super().get_command(ctx, cmd_name)
        try:
            from millpond.local.cli import local
        except ImportError:
            raise click.UsageError("millpond local needs more packages: pip install 'millpond[local]'") from None
        return local


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="millpond")
def main() -> None:
    """Move events from Kafka to Kafka to MongoDB to daily reports in PostgreSQL, each counted once."""


main.add_command(audit)
main.add_command(partials)
main.add_command(positions)


def _options(verb: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add one flag for each argument of a verb, without loading the native part."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(_FLAGS[verb]):
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, metavar="VALUE", help=_HELP.get(name, ""))(command)
        command = click.option("--json", "as_json", is_flag=True, help="For machines.")(command)
        return click.option("--config", type=click.Path(path_type=Path), help="TOML file.")(command)

    return add


_FLAGS = {
    "bridge": (
        "source_topic", "target_topic", "job", "transform", "shard", "start", "max_events", "max_seconds",
        "dead_letter_topic", "max_dead_letters", "on_gap", "wait_for_open_transactions", "target_retention", "allow",
        "max_events_per_second", "max_bytes_per_second", "statistics", "source", "target",
    ),
    "sink": (
        "topic", "database", "collection", "group_id", "batch_size", "id", "shard", "start", "max_events",
        "max_seconds", "max_dead_letters", "on_gap", "ensure_indexes", "write_concern", "compressors",
        "dead_letter_ttl", "metadata", "in_flight", "max_events_per_second", "max_bytes_per_second", "mongo_uri",
        "source",
    ),
    "aggregate": (
        "database", "collection", "dates", "mode", "time_field", "job", "keep_partials_days", "lookback_days",
        "max_future_skew", "allow_scan", "mongo_uri", "postgres_dsn", "schema", "checks", "reports", "memory_limit",
        "engine", "spark",
    ),
}  # fmt: skip
_HELP = {
    "source": "librdkafka properties as JSON.",
    "target": "librdkafka properties as JSON.",
    "id": "kafka, key, or field:<dotted name>.",
    "shard": "As JSON: [0, 2].",
    "checks": 'As JSON: [{"table": "product_views_daily", "min_rows": 1}].',
    "reports": "product_views, or the path of a TOML file of [[reports]].",
    "memory_limit": "Bytes, before a temporary file is used.",
    "schema": "Where the reports are kept in PostgreSQL.",
    "engine": "native, or spark.",
    "spark": "With --engine spark: the URL of a master.",
    "dates": "latest, all, changed, a date, or first..last.",
    "mode": "incremental (default), or full.",
    "keep_partials_days": "Of how many days back Partials are kept.",
    "transform": "product_views, or the path of a TOML file.",
    "on_gap": "fail, or earliest.",
    "wait_for_open_transactions": "Seconds.",
    "ensure_indexes": "false: make none.",
    "write_concern": 'majority, 1, or as JSON: {"w": 1, "j": true}.',
    "compressors": "Of zstd, snappy, zlib, with commas.",
    "dead_letter_ttl": "Seconds after which a dead letter expires.",
    "max_events_per_second": "Read no faster.",
    "max_bytes_per_second": "Read no faster.",
    "statistics": "true: what the clients counted, in the result.",
}


def _call(verb: str, file: Path | None, flags: dict[str, Any], *, bar: bool) -> Any:
    import millpond

    arguments = config.read(verb, file, flags)
    return getattr(millpond, verb)(**arguments, progress=bar)


def show(verb: str, result: Any, *, as_json: bool) -> None:
    """Print the books of a run, warnings to standard error."""
    books = result.to_dict()
    if as_json:
        click.echo(json.dumps({verb: books}))
        return
    words = (
        f"{name} {value:,}" for name, value in books.items() if isinstance(value, int) and not isinstance(value, bool)
    )
    click.echo(f"{verb}: {', '.join(words)}; {books['seconds']:.1f} s")
    if books.get("nothing_new"):
        click.echo(f"{verb}: no date has new events: nothing was published")
    for warning in books["warnings"]:
        click.echo(f"{verb}: warning: {warning}", err=True)


def _run(verbs: tuple[str, ...], file: Path | None, flags: dict[str, Any], *, as_json: bool) -> None:
    try:
        for verb in verbs:
            show(verb, _call(verb, file, flags, bar=sys.stderr.isatty() and not as_json), as_json=as_json)
    except errors.Error as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


@main.command()
@_options("bridge")
def bridge(config: Path | None, as_json: bool, **flags: Any) -> None:
    """Remote Kafka → transform → local Kafka, exactly once."""
    _run(("bridge",), config, flags, as_json=as_json)


@main.command()
@_options("sink")
def sink(config: Path | None, as_json: bool, **flags: Any) -> None:
    """Kafka → MongoDB, effectively once."""
    _run(("sink",), config, flags, as_json=as_json)


@main.command()
@_options("aggregate")
def aggregate(config: Path | None, as_json: bool, **flags: Any) -> None:
    """MongoDB → daily reports → PostgreSQL, in one transaction."""
    _run(("aggregate",), config, flags, as_json=as_json)


@main.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="TOML file.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def run(config: Path, as_json: bool) -> None:
    """All three, in order."""
    _run(("bridge", "sink", "aggregate"), config, {}, as_json=as_json)


@main.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor(config: Path | None, as_json: bool) -> None:
    """Ask every server that is configured, and say what to do."""
    from millpond import _native, oauth
    from millpond.cli.settings import servers

    try:
        named = servers(config)
        sides = {side: named[side] for side in ("source", "target") if side in named}
        tokens = oauth.callbacks(**sides)
        settings = named | {side: oauth.plain(properties) for side, properties in sides.items()}
        findings = json.loads(_native.doctor(json.dumps(settings), tokens))
    except errors.Error as error:
        fail(error)
        return
    if as_json:
        click.echo(json.dumps(findings))
    else:
        for found in findings:
            click.echo(f"{'ok  ' if found['ok'] else 'FAIL'} {found['what']}: {found['detail']}")
            if found["hint"]:
                click.echo(f"     {found['hint']}")
        if not findings:
            click.echo("no server is configured: give --config")
    if not findings or not all(found["ok"] for found in findings):
        sys.exit(2)


@main.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file.")
@click.option("--date", help="YYYY-MM-DD [default: the latest one reported]")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows per table.")
@click.option("--mongo-uri", help="MongoDB connection string.")
@click.option("--database")
@click.option("--collection")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def top(
    config: Path | None,
    date: str | None,
    count: int,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Show the top rows of each report of a date, computed now; nothing is written."""
    import millpond
    from millpond.cli.settings import read

    try:
        arguments = read("aggregate", config, {**flags, "dates": date or "latest"})
        arguments["postgres_dsn"] = None
        arguments.pop("checks", None)
        tables = millpond.aggregate(**arguments).tables
    except errors.Error as error:
        fail(error)
        return
    best = {name: table.top(count) for name, table in tables.items()}
    if as_json:
        click.echo(json.dumps(best, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    for name, rows in best.items():
        table = Table(*(rows[0] if rows else ("no rows",)), title=name)
        for row in rows:
            table.add_row(*(str(cell) for cell in row.values()))
        Console().print(table)


main.add_command(explain)
main.add_command(runs)
