"""Real servers on one machine without Docker: a remote Kafka with SASL/PLAIN, three brokers, MongoDB and PostgreSQL.

For development, tests and the demo (extra ``local``). It starts and ends servers of its own under one directory and
never touches any other process. Everything listens on 127.0.0.1.
"""

from millpond.local.stack import LocalError, Stack

__all__ = ["LocalError", "Stack"]
