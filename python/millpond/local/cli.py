"""The commands `millpond local …`."""

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
