"""What goes wrong with local servers."""


class LocalError(RuntimeError):
    """A server could not be started or found; the message ends with the last lines of its log where there is one."""
