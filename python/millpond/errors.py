"""The exceptions of millpond: their class says who must act, `.retryable` whether trying again can help."""

from typing import Any


class Error(Exception):
    """The family's root.

    Attributes:
        hint: What to do now; may be empty.
        retryable: Whether running the same thing again can help.
    """

    retryable = False

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep message and hint; both survive pickling."""
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, and the hint where there is one."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(Error):
    """A setting is wrong: an argument, a property, a right, a table of another shape."""


class ExternalError(Error):
    """A server or network failed; a retry can help."""

    retryable = True


class FencedError(Error):
    """Another run of the same job took over; retrying would fence it in turn."""


class PositionError(Error):
    """The kept position and the log no longer fit together: a choice about loss is the operator's."""


class DataError(Error):
    """Records were refused beyond what the settings allow."""


class Cancelled(Error):  # noqa: N818 - the name that Python's own libraries use
    """The run was asked to stop and ended at a clean boundary.

    Attributes:
        outcome: What was done until then: read, written, dead_lettered, seconds.
    """

    outcome: dict[str, Any] | None = None


class BugError(Error):
    """An invariant of millpond's own is broken; nothing more was committed."""
