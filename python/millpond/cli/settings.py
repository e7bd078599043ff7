"""Settings of the command line: a TOML file, then environment variables, then flags; the last one wins."""

import difflib
import inspect
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from millpond.errors import ConfigError

# Argument of a verb → where it is found in the file: servers are named once, for all verbs.
SHARED = {
    "bridge": {"source": "source", "target": "target"},
    "sink": {"source": "target"},
    "aggregate": {},
    "replay_dead_letters": {"target": "target"},
    "replay_stored_letters": {},
    "audit": {"target": "target"},
    "audit_report": {},
}
# A verb without a section of its own takes, of another's, what it knows.
_BORROWED = {
    "replay_dead_letters": "bridge",
    "replay_stored_letters": "sink",
    "audit": "aggregate",
    "audit_report": "aggregate",
}
_SECTIONS = ("source", "target", "mongo", "postgres", "bridge", "sink", "aggregate")
# A text also where it is spelled like JSON.
_TEXTS = {"mongo_uri", "postgres_dsn", "dates", "topic", "job", "bridge_job", "schema", "database", "collection"}
_OF_CALLERS = {"progress", "cancel", "spark"}


def arguments_of(verb: str) -> dict[str, inspect.Parameter]:
    """Return the arguments that a verb takes from settings."""
    import millpond

    signature = inspect.signature(getattr(millpond, verb))
    return {name: parameter for name, parameter in signature.parameters.items() if name not in _OF_CALLERS}


def read(verb: str, file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a verb.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown; the nearest known name is told.
    """
    tables = _tables(file)
    known = arguments_of(verb)
    settings: dict[str, Any] = {}
    for name, section in SHARED[verb].items():
        if section in tables:
            settings[name] = tables[section]
    if "mongo_uri" in known and "uri" in tables.get("mongo", {}):
        settings["mongo_uri"] = tables["mongo"]["uri"]
    if "postgres_dsn" in known:
        settings["postgres_dsn"] = tables.get("postgres", {}).get("dsn")
    if "schema" in known and "schema" in tables.get("postgres", {}):
        settings["schema"] = tables["postgres"]["schema"]
    borrowed = tables.get(_BORROWED.get(verb, ""), {})
    # There `source_topic` says what to read, here it would choose among letters.
    settings |= {name: value for name, value in borrowed.items() if name in known and name != "source_topic"}
    for name, value in tables.get(verb, {}).items():
        _refuse_unknown(f"[{verb}] {name}", name, list(known))
        settings[name] = value
    for name in known:
        for variable in (f"MILLPOND_{verb}_{name}".upper(), f"MILLPOND_{name}".upper()):
            if variable in os.environ:
                settings[name] = _typed(os.environ[variable], known[name])
                break
    settings |= {name: _typed(value, known[name]) for name, value in flags.items() if value is not None}
    missing = [
        name for name, parameter in known.items() if parameter.default is parameter.empty and name not in settings
    ]
    if missing:
        raise ConfigError(
            f"{verb}: {missing[0]} is missing",
            f"give --{missing[0].replace('_', '-')}, MILLPOND_{missing[0].upper()} or a file",
        )
    return settings


def transform(file: Path | None, flag: str | None) -> Any:
    """Return the transform that `millpond bridge` would use: of the flag, the environment, or the file.

    Raises:
        ConfigError: The file cannot be read.
    """
    for told in (flag, os.environ.get("MILLPOND_BRIDGE_TRANSFORM"), os.environ.get("MILLPOND_TRANSFORM")):
        if told is not None:
            return _typed(told, arguments_of("bridge")["transform"])
    return _tables(file).get("bridge", {}).get("transform")


def servers(file: Path | None) -> dict[str, Any]:
    """Return the servers that file and environment name.

    Raises:
        ConfigError: As `read`.
    """
    tables = _tables(file)
    found: dict[str, Any] = {name: tables[name] for name in ("source", "target") if name in tables}
    places = {"source_topic": "bridge", "target_topic": "bridge", "database": "sink", "collection": "sink"}
    for name, section in places.items():
        found[name] = os.environ.get(f"MILLPOND_{name.upper()}", tables.get(section, {}).get(name))
    found["mongo_uri"] = os.environ.get("MILLPOND_MONGO_URI", tables.get("mongo", {}).get("uri"))
    found["postgres_dsn"] = os.environ.get("MILLPOND_POSTGRES_DSN", tables.get("postgres", {}).get("dsn"))
    found["schema"] = os.environ.get("MILLPOND_SCHEMA", tables.get("postgres", {}).get("schema"))
    return found


def job(file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the two clusters of a bridge and the name of its job: `source` (may be missing), `target`, `job`.

    Raises:
        ConfigError: As `read`.
    """
    tables = _tables(file)
    bridge = tables.get("bridge", {})
    found: dict[str, Any] = {}
    for name in ("source", "target"):
        value = flags.get(name) or os.environ.get(f"MILLPOND_{name.upper()}") or tables.get(name)
        try:
            found[name] = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError:
            raise ConfigError(f"{name}: no valid JSON", "give librdkafka properties as a JSON object") from None
    named = flags.get("name") or os.environ.get("MILLPOND_JOB") or bridge.get("job")
    if named is None and {"source_topic", "target_topic"} <= bridge.keys():
        named = f"{bridge['source_topic']}-to-{bridge['target_topic']}"
    if named is None:
        raise ConfigError("job is missing", "give --job, MILLPOND_JOB or a file")
    if found["target"] is None:
        raise ConfigError("target is missing", "give --target, MILLPOND_TARGET or a file")
    return found | {"job": named}


def collection(file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return where a sink keeps positions, and the cluster that it reads: `source` (may be missing).

    Raises:
        ConfigError: As `read`.
    """
    tables = _tables(file)
    sink = tables.get("sink", {})
    found: dict[str, Any] = {"topic": flags.get("topic")}
    found["mongo_uri"] = (
        flags.get("mongo_uri") or os.environ.get("MILLPOND_MONGO_URI") or tables.get("mongo", {}).get("uri")
    )
    for name in ("database", "collection"):
        found[name] = flags.get(name) or os.environ.get(f"MILLPOND_{name.upper()}") or sink.get(name)
    # A sink reads what the file calls the target.
    source = flags.get("source") or sink.get("source") or tables.get("target")
    try:
        found["source"] = json.loads(source) if isinstance(source, str) else source
    except json.JSONDecodeError:
        raise ConfigError("source: no valid JSON", "give librdkafka properties as a JSON object") from None
    for name in ("mongo_uri", "database", "collection"):
        if not found[name]:
            raise ConfigError(f"{name} is missing", f"give --{name.replace('_', '-')}, or a file")
    return found


def audit(file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an audit: the bridge's job and the sink's metadata are those of their sections.

    Raises:
        ConfigError: As `read`.
    """
    tables = _tables(file)
    bridge = tables.get("bridge", {})
    found = read("audit", file, flags)
    named = bridge.get("job")
    if named is None and {"source_topic", "target_topic"} <= bridge.keys():
        named = f"{bridge['source_topic']}-to-{bridge['target_topic']}"
    found.setdefault("bridge_job", named)
    found.setdefault("metadata", tables.get("sink", {}).get("metadata"))
    return found


def _tables(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})", "check --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigError(f"{file}: no valid TOML", "check --config") from None
    for section, table in tables.items():
        _refuse_unknown(f"{file}: [{section}]", section, list(_SECTIONS))
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section} is no table", f"write [{section}]")
    for section, keys in (("mongo", ["uri"]), ("postgres", ["dsn", "schema"])):
        for name in tables.get(section, {}):
            _refuse_unknown(f"{file}: [{section}] {name}", name, keys)
    return tables


def _refuse_unknown(place: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.0)
        raise ConfigError(f"{place}: unknown setting", f"did you mean {near[0]}?" if near else "")


def _typed(value: Any, parameter: inspect.Parameter) -> Any:
    """Read a word of the command line or the environment: JSON where it is JSON of another type than text."""
    if not isinstance(value, str) or parameter.name in _TEXTS:
        return value
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return value if isinstance(read, str) else read
