"""The commands `millpond local …`."""

import datetime as dt
import json
from pathlib import Path

import click

from millpond.local.layout import DEFAULT_DIRECTORY
from millpond.local.stack import GROUPS, LocalError, Stack

_directory = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=DEFAULT_DIRECTORY, show_default=True,
    help="Where the stack keeps its ports, data and logs.",
)  # fmt: skip


class _Group(click.Group):
    """Turns `LocalError` into a message and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LocalError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
def local() -> None:
    """Run real servers on this machine: a remote Kafka (SASL/PLAIN), three brokers, MongoDB, PostgreSQL."""


@local.command()
@_directory
@click.option("--only", default=",".join(GROUPS), show_default=True, help="Groups to start, separated by commas.")
@click.option(
    "--mongo-nodes", type=click.Choice(["1", "3"]), default=None, help="Nodes of the replica set [default: 1]"
)
def up(directory: Path, only: str, mongo_nodes: str | None) -> None:
    """Start the servers that are not running yet (about 15 s)."""
    groups = [group.strip() for group in only.split(",") if group.strip()]
    Stack(directory).up(groups, int(mongo_nodes) if mongo_nodes else None)
    _show(Stack(directory))


@local.command()
@_directory
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(directory: Path, as_json: bool) -> None:
    """Show addresses and process ids."""
    if as_json:
        click.echo(json.dumps(Stack(directory).status(), indent=1))
    else:
        _show(Stack(directory))


@local.command()
@_directory
@click.option("--delete", is_flag=True, help="Remove data and logs as well.")
def down(directory: Path, delete: bool) -> None:
    """End every server of this stack, and nothing else."""
    Stack(directory).down(delete=delete)


@local.command()
@_directory
@click.argument("name")
def kill(directory: Path, name: str) -> None:
    """End one server with SIGKILL."""
    Stack(directory).kill(name)


@local.command()
@_directory
@click.argument("name")
def stop(directory: Path, name: str) -> None:
    """Freeze one server (SIGSTOP)."""
    Stack(directory).stop(name)


@local.command()
@_directory
@click.argument("name")
def cont(directory: Path, name: str) -> None:
    """Let a frozen server go on (SIGCONT)."""
    Stack(directory).cont(name)


@local.command()
@_directory
@click.argument("name")
def restart(directory: Path, name: str) -> None:
    """Start one server anew on the same ports and data."""
    Stack(directory).restart(name)


@local.command()
@_directory
@click.option("--count", type=click.IntRange(min=1), required=True, help="Events to write.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same events.")
@click.option(
    "--days", type=click.IntRange(1, 366), default=3, show_default=True, help="Dates that they are spread over."
)
@click.option("--malformed-share", type=click.FloatRange(0, 1), default=0.002, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 1000), default=6, show_default=True)
@click.option("--topic", default="product_views", show_default=True)
@click.option("--truth", type=click.Path(path_type=Path), help="Truth file [default: truth.json in --dir]")
@click.option(
    "--end-date", type=click.DateTime(["%Y-%m-%d"]), default="2025-10-31", show_default=True, help="The last date."
)
def produce(  # noqa: PLR0917
    directory: Path,
    count: int,
    seed: int,
    days: int,
    malformed_share: float,
    partitions: int,
    topic: str,
    truth: Path | None,
    end_date: dt.datetime,
) -> None:
    """Write deterministic events to the remote broker, and what the reports must be to a truth file."""
    from millpond.local.events import Parameters
    from millpond.local.produce import produce as write

    remote = Stack(directory).status().get("remote")
    if remote is None or remote["pid"] is None:
        raise LocalError(f"no remote broker runs under {directory}: millpond local up --dir {directory}")
    properties = {
        "bootstrap.servers": remote["bootstrap"],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": remote["username"],
        "sasl.password": remote["password"],
    }
    file = truth or directory / "truth.json"
    parameters = Parameters(seed, count, days, malformed_share, partitions, end_date.date().isoformat())
    done = write(properties, topic, parameters, file)
    rate = f"{done['events_per_second']:,.0f} events/s"
    click.echo(f"{done['written']:,} events into {topic} in {done['seconds']:.1f} s, {rate}; truth: {file}")


def _show(stack: Stack) -> None:
    state = stack.status()
    if not state:
        click.echo(f"nothing was started under {stack.directory}")
        return
    if remote := state.get("remote"):
        click.echo(f"remote    {remote['bootstrap']}  SASL/PLAIN, {remote['jaas']}  {_pid(remote['pid'])}")
    for section, key in (("kafka", "brokers"), ("mongo", "nodes")):
        for server in state.get(section, {}).get(key, []):
            click.echo(f"{server['name']:<9} 127.0.0.1:{server['port']}  {_pid(server['pid'])}")
    if database := state.get("postgres"):
        click.echo(f"postgres  127.0.0.1:{database['port']}  {_pid(database['pid'])}")
    click.echo(f"logs      {stack.directory / 'logs'}")


def _pid(pid: int | None) -> str:
    return f"pid {pid}" if pid else "not running"
