"""Exactly-once Kafka to Kafka to MongoDB to PostgreSQL, native in Airflow.

`bridge()`, `sink()` and `aggregate()` are the three arrows of the pipeline. Nothing native is loaded before one of them
is asked for, so that importing this in a DAG file costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millpond._native import CancelToken, __version__
    from millpond.auditing import audit, audit_report
    from millpond.checks import Check
    from millpond.errors import (
        BugError,
        Cancelled,
        ConfigError,
        DataError,
        Error,
        ExternalError,
        FencedError,
        PositionError,
    )
    from millpond.functions import function
    from millpond.jaas import kafka_from_jaas
    from millpond.ledger import explain_report, partials, prune_partials, runs
    from millpond.progress import Progress
    from millpond.replay import replay_dead_letters, replay_stored_letters
    from millpond.reports import Key, Report, Where
    from millpond.results import (
        AggregateResult,
        AuditResult,
        BridgeResult,
        Frame,
        ReplayResult,
        SinkResult,
        StoredReplayResult,
    )
    from millpond.transforms import PRODUCT_VIEW_REPORTS, PRODUCT_VIEWS, DropIf, Field, Secret, Transform
    from millpond.verbs import aggregate, bridge, sink

_WHERE = {
    "millpond._native": ("CancelToken", "__version__"),
    "millpond.auditing": ("audit", "audit_report"),
    "millpond.checks": ("Check",),
    "millpond.errors": (
        "BugError", "Cancelled", "ConfigError", "DataError", "Error", "ExternalError", "FencedError", "PositionError",
    ),
    "millpond.functions": ("function",),
    "millpond.jaas": ("kafka_from_jaas",),
    "millpond.ledger": ("explain_report", "partials", "prune_partials", "runs"),
    "millpond.progress": ("Progress",),
    "millpond.replay": ("replay_dead_letters", "replay_stored_letters"),
    "millpond.reports": ("Key", "Report", "Where"),
    "millpond.results": (
        "AggregateResult", "AuditResult", "BridgeResult", "Frame", "ReplayResult", "SinkResult", "StoredReplayResult",
    ),
    "millpond.transforms": ("PRODUCT_VIEWS", "PRODUCT_VIEW_REPORTS", "DropIf", "Field", "Secret", "Transform"),
    "millpond.verbs": ("aggregate", "bridge", "sink"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "PRODUCT_VIEWS",
    "PRODUCT_VIEW_REPORTS",
    "AggregateResult",
    "AuditResult",
    "BridgeResult",
    "BugError",
    "CancelToken",
    "Cancelled",
    "Check",
    "ConfigError",
    "DataError",
    "DropIf",
    "Error",
    "ExternalError",
    "FencedError",
    "Field",
    "Frame",
    "Key",
    "PositionError",
    "Progress",
    "ReplayResult",
    "Report",
    "Secret",
    "SinkResult",
    "StoredReplayResult",
    "Transform",
    "Where",
    "__version__",
    "aggregate",
    "audit",
    "audit_report",
    "bridge",
    "explain_report",
    "function",
    "kafka_from_jaas",
    "partials",
    "prune_partials",
    "replay_dead_letters",
    "replay_stored_letters",
    "runs",
    "sink",
]


def __getattr__(name: str) -> object:
    """Load what is asked for, when it is asked for (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be asked for."""
    return sorted(__all__)
