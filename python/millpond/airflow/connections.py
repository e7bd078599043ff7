"""From an Airflow connection to the settings of a client.

Owns what each field and each extra of the three connection types means here. Refuses to leave one aside in silence:
an extra is honoured, or refused by its name. Messages name fields, never their values: these hold secrets (I6).
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import quote

from millpond.airflow import connection_extras as extras


class Connection(Protocol):
    """What is read of an Airflow connection."""

    conn_id: str | None
    conn_type: str | None
    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra as a mapping."""


class UnusableConnectionError(ValueError):
    """A connection that says something we cannot honour; the message ends with what to do."""


def connection(conn_id: str) -> Any:
    """Return a connection, from wherever Airflow is told to keep it.

    Raises:
        UnusableConnectionError: There is none of that name.
    """
    from millpond.airflow.compat import AirflowNotFoundException, BaseHook

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise UnusableConnectionError(
            f"there is no connection {conn_id!r}; make it in the web UI, with `airflow connections add`, "
            f"or as AIRFLOW_CONN_{conn_id.upper()}"
        ) from error


def kafka_properties(connection: Connection) -> dict[str, str]:
    """Return librdkafka properties: the extra as it is, host, login and password as their three properties.

    Raises:
        UnusableConnectionError: No servers are named, a value is no plain one, or a field contradicts the extra.
    """
    name = _checked(connection, "kafka")
    properties = {key: _plain(name, key, value) for key, value in connection.extra_dejson.items() if value is not None}
    fields = {"bootstrap.servers": _servers(connection, default_port=9092)}
    fields |= {"sasl.username": connection.login or "", "sasl.password": connection.password or ""}
    for key, value in fields.items():
        if value and properties.setdefault(key, value) != value:
            raise UnusableConnectionError(
                f"connection {name!r}: {key} is given in a field and, otherwise, in the extra; keep one of the two"
            )
    if connection.schema:
        raise UnusableConnectionError(f"connection {name!r}: a Kafka connection has no schema; clear that field")
    if "bootstrap.servers" not in properties:
        raise UnusableConnectionError(
            f'connection {name!r}: no servers; put {{"bootstrap.servers": "host:port"}} into extra'
        )
    return properties


def mongo_uri(connection: Connection) -> str:
    """Return a MongoDB URI; extras are the options of a URI, `srv` and those of Airflow's own MongoDB hook.

    Raises:
        UnusableConnectionError: No host, a host that is a URI itself, or an extra that the driver does not know.
    """
    name = _checked(connection, "mongo", "mongodb", "mongodb+srv")
    given = {key: value for key, value in connection.extra_dejson.items() if value is not None}
    srv = _truth(name, "srv", given.pop("srv", False)) or connection.conn_type == "mongodb+srv"
    servers = _servers(connection)
    if not servers:
        raise UnusableConnectionError(f"connection {name!r}: no host")
    if srv and ("," in servers or connection.port or ":" in servers):
        raise UnusableConnectionError(f"connection {name!r}: srv takes one host name and no port")
    options: dict[str, str] = {}
    if not any(_truth(name, key, given.get(key, False)) for key in ("ssl", "tls")):
        # As for Airflow's own hook: without one of them it says nothing. The driver would take it for a wish for TLS.
        given.pop("allow_insecure", None)
    for key, value in given.items():
        option = _known(name, key, extras.MONGO, extras.MONGO_REFUSED, "a MongoDB option")
        text = _mongo_value(name, key, value)
        if options.setdefault(option, text) != text:
            raise UnusableConnectionError(f"connection {name!r}: {option} is given twice, with two values")
    user = quote(connection.login or "", safe="")
    if connection.password:
        user += ":" + quote(connection.password, safe="")
    path = quote(connection.schema or "", safe="")
    query = "&".join(f"{key}={quote(value, safe=':,')}" for key, value in options.items())
    return f"mongodb{'+srv' if srv else ''}://{user}{'@' if user else ''}{servers}/{path}{'?' if query else ''}{query}"


def postgres_dsn(connection: Connection) -> str:
    """Return libpq's `key='value'` form; extras are libpq's keywords, `sslmode` and its certificates among them.

    Raises:
        UnusableConnectionError: An extra is no keyword of libpq, or asks for what only AWS's client can do.
    """
    name = _checked(connection, "postgres", "postgresql")
    fields = {"host": connection.host, "port": connection.port, "dbname": connection.schema}
    fields |= {"user": connection.login, "password": connection.password}
    words = {key: str(value) for key, value in fields.items() if value not in (None, "")}
    for key, value in connection.extra_dejson.items():
        if value is None or key in extras.POSTGRES_INERT:
            continue
        word = _known(name, key, extras.POSTGRES, extras.POSTGRES_REFUSED, "a libpq keyword")
        text = _plain(name, key, value)
        if words.setdefault(word, text) != text:
            raise UnusableConnectionError(
                f"connection {name!r}: {word} is given in a field and, otherwise, in the extra"
            )
    if "host" not in words and "hostaddr" not in words and "service" not in words:
        raise UnusableConnectionError(f"connection {name!r}: no host")
    escaped = {key: value.replace("\\", "\\\\").replace("'", "\\'") for key, value in words.items()}
    return " ".join(f"{key}='{value}'" for key, value in escaped.items())


def spark_master(connection: Connection) -> str:
    """Return the URL of a master; all else about a session is said by `spark-defaults.conf` (SPARK_CONF_DIR).

    Raises:
        UnusableConnectionError: No host, or an extra that a session in the task's own process cannot honour.
    """
    name = _checked(connection, "spark")
    for key, value in connection.extra_dejson.items():
        inert = key in {"spark-binary", "spark-home"} or (key, value) == ("deploy-mode", "client")
        if value is not None and not inert:
            raise UnusableConnectionError(
                f"connection {name!r}: extra {key!r} cannot be honoured: it is spark-submit's"
            )
    host = (connection.host or "").strip()
    if not host:
        raise UnusableConnectionError(f"connection {name!r}: no host; give spark://host and a port, or local[2]")
    if not connection.port:
        return host
    # The URI form of a connection, spark://host:7077, leaves the scheme to the type.
    return f"{host if '://' in host else f'spark://{host}'}:{connection.port}"


def _checked(connection: Connection, *types: str) -> str:
    name = connection.conn_id or "?"
    # A hand-written AIRFLOW_CONN_ variable often has no type or `generic`; another type is a mistake.
    if (connection.conn_type or "generic") not in (*types, "generic"):
        raise UnusableConnectionError(f"connection {name!r} is of type {connection.conn_type!r}; wanted: {types[0]!r}")
    return name


def _servers(connection: Connection, default_port: int | None = None) -> str:
    host = (connection.host or "").strip()
    if not host:
        return ""
    if "://" in host or "/" in host or "@" in host:
        raise UnusableConnectionError(
            f"connection {connection.conn_id!r}: the host field holds an address with more than hosts; "
            "put login, schema and options into their own fields"
        )
    if host.count(":") > 1 and not host.startswith("[") and "," not in host:
        host = f"[{host}]"
    alone = "," not in host and (host.endswith("]") or ":" not in host)
    if connection.port and not alone:
        raise UnusableConnectionError(
            f"connection {connection.conn_id!r}: a port in the host field and in the port field"
        )
    port = connection.port or default_port
    return f"{host}:{port}" if alone and port else host


def _known(name: str, key: str, known: Mapping[str, str], refused: Mapping[str, str], what: str) -> str:
    option = known.get(key.lower())
    if option is not None:
        return option
    if (reason := refused.get(key.lower())) is not None:
        raise UnusableConnectionError(f"connection {name!r}: extra {key!r} cannot be honoured: {reason}")
    near = get_close_matches(key.lower(), known, n=1)
    hint = f"did you mean {known[near[0]]!r}?" if near else "remove it, or use a connection of its own"
    raise UnusableConnectionError(f"connection {name!r}: extra {key!r} is not {what} known here; {hint}")


def _plain(name: str, key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise UnusableConnectionError(f"connection {name!r}: extra {key!r} must be a string, a number or a boolean")


def _truth(name: str, key: str, value: object) -> bool:
    text = _plain(name, key, value).lower()
    if text not in ("true", "false"):
        raise UnusableConnectionError(f"connection {name!r}: extra {key!r} must be true or false")
    return text == "true"


def _mongo_value(name: str, key: str, value: object) -> str:
    if key.lower() in extras.MONGO_TRUTH:
        return "true" if _truth(name, key, value) else "false"
    if isinstance(value, list):
        return ",".join(_plain(name, key, one) for one in value)
    if isinstance(value, dict):
        return ",".join(f"{one}:{_plain(name, key, two)}" for one, two in value.items())
    return _plain(name, key, value)
