"""What the command line says of a failure, and the exit code by who must act."""

import sys

import click

from millpond import errors

_CODES: tuple[tuple[type[errors.Error], int], ...] = (
    (errors.ConfigError, 2), (errors.ExternalError, 3), (errors.FencedError, 4), (errors.PositionError, 5),
    (errors.DataError, 6), (errors.BugError, 7), (errors.Cancelled, 130),
)  # fmt: skip


def fail(error: errors.Error) -> None:
    """Say what went wrong and leave with the family's code."""
    code = next(code for family, code in _CODES if isinstance(error, family))
    click.echo(f"{type(error).__name__}: {error}", err=True)
    sys.exit(code)
