"""Reads a JAAS file, as Kafka's own tools have it, into librdkafka properties."""

import re
from pathlib import Path

from millpond.errors import ConfigError

_SECTION = re.compile(r"(\w+)\s*\{(.*?)\}\s*;", re.DOTALL)
_OPTION = re.compile(r"([\w.]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\s;\"']+))")
_MODULES = {"PlainLoginModule": "PLAIN", "ScramLoginModule": "SCRAM-SHA-512"}


def kafka_from_jaas(
    path: str | Path,
    bootstrap_servers: str,
    *,
    security_protocol: str = "SASL_PLAINTEXT",
    user: str | None = None,
    mechanism: str | None = None,
) -> dict[str, str]:
    """Build librdkafka properties from a JAAS file such as ``config/kafka/kafka_server_jaas.conf``.

    Args:
        path: The file; section `KafkaClient` is preferred to `KafkaServer`.
        bootstrap_servers: "host:port,host:port".
        security_protocol: SASL_PLAINTEXT or SASL_SSL.
        user: One of the server section's `user_<name>` entries; default: the section's own username.
        mechanism: Default by the login module: PLAIN, or SCRAM-SHA-512.

    Raises:
        ConfigError: The file, the section, the user or a value is missing; no message shows a secret.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"JAAS file {path}: cannot be read ({type(error).__name__})", "check the path") from None
    text = _without_comments(text)
    sections: dict[str, str] = dict(_SECTION.findall(text))
    body = sections.get("KafkaClient", sections.get("KafkaServer"))
    if body is None:
        raise ConfigError(f"JAAS file {path}: no section KafkaClient or KafkaServer")
    options = {name: re.sub(r"\\(.)", r"\1", a or b or c) for name, a, b, c in _OPTION.findall(body)}
    if user is not None:
        password = options.get(f"user_{user}")
        if password is None and options.get("username") == user:
            password = options.get("password")
        username: str | None = user
    else:
        username, password = options.get("username"), options.get("password")
    if username is None or password is None:
        raise ConfigError(f"JAAS file {path}: no username and password" + (f" for user {user}" if user else ""))
    module = next((found for name, found in _MODULES.items() if name in body), None)
    if module is None and mechanism is None:
        raise ConfigError(f"JAAS file {path}: unknown login module", "give mechanism=")
    return {
        "bootstrap.servers": bootstrap_servers,
        "security.protocol": security_protocol,
        "sasl.mechanism": mechanism or module or "PLAIN",
        "sasl.username": username,
        "sasl.password": password,
    }


def _without_comments(text: str) -> str:
    pattern = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
    return pattern.sub(lambda match: match[0] if match[0][0] in "\"'" else " ", text)
