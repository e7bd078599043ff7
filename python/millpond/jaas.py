"""Reads a JAAS file, as Kafka's own tools have it, into librdkafka properties."""

import re
from pathlib import Path

from millpond.errors import ConfigError

# Quoted values may hold braces and semicolons.
_VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s;\"'{}]+)"
_MODULE = rf"([\w.$]+)\s+(?:required|requisite|sufficient|optional)((?:\s+[\w.]+\s*=\s*{_VALUE})*)\s*;"
_SECTION = re.compile(rf"(\w+)\s*\{{((?:\s*{_MODULE})*)\s*\}}\s*;")
_OPTION = re.compile(rf"([\w.]+)\s*=\s*({_VALUE})")
_MECHANISMS = {
    "PlainLoginModule": ("PLAIN",),
    "ScramLoginModule": ("SCRAM-SHA-512", "SCRAM-SHA-256"),
    "OAuthBearerLoginModule": ("OAUTHBEARER",),
}
# By librdkafka's word: what Kafka's own module calls it, and what Strimzi's does.
_OAUTH = {
    "sasl.oauthbearer.client.id": ("clientId", "oauth.client.id"),
    "sasl.oauthbearer.client.secret": ("clientSecret", "oauth.client.secret"),
    "sasl.oauthbearer.scope": ("scope", "oauth.scope"),
    "sasl.oauthbearer.token.endpoint.url": ("oauth.token.endpoint.uri",),
}


def kafka_from_jaas(
    path: str | Path,
    bootstrap_servers: str,
    *,
    security_protocol: str = "SASL_PLAINTEXT",
    user: str | None = None,
    mechanism: str | None = None,
    token_endpoint_url: str | None = None,
) -> dict[str, str]:
    """Build librdkafka properties from a JAAS file such as ``config/kafka/kafka_server_jaas.conf``.

    Args:
        path: The file; section `KafkaClient` is preferred to `KafkaServer`.
        bootstrap_servers: "host:port,host:port".
        security_protocol: SASL_PLAINTEXT or SASL_SSL.
        user: One of the server section's `user_<name>` entries; default: the section's own username.
        mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER: also chooses among several login modules.
            Default: by the first of them; SCRAM-SHA-512 for `ScramLoginModule`.
        token_endpoint_url: Where an `OAuthBearerLoginModule` gets its tokens, unless the file says so.

    Raises:
        ConfigError: The file, the section, the user or a value is missing; no message shows a secret.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"JAAS file {path}: cannot be read ({type(error).__name__})", "check the path") from None
    sections = {found[1]: found[2] for found in _SECTION.finditer(_without_comments(text))}
    body = sections.get("KafkaClient", sections.get("KafkaServer"))
    if body is None:
        raise ConfigError(f"JAAS file {path}: no section KafkaClient or KafkaServer", "check the file's syntax")
    found, options = _module(path, body, mechanism)
    properties = {
        "bootstrap.servers": bootstrap_servers,
        "security.protocol": security_protocol,
        "sasl.mechanism": found,
    }
    if found == "OAUTHBEARER":
        return properties | _client_credentials(path, options, token_endpoint_url)
    username, password = options.get("username"), options.get("password")
    if user is not None and user != username:
        username, password = user, options.get(f"user_{user}")
    elif user is not None:
        password = options.get(f"user_{user}", password)
    if username is None or password is None:
        raise ConfigError(f"JAAS file {path}: no username and password" + (f" for user {user}" if user else ""))
    return properties | {"sasl.username": username, "sasl.password": password}


def _module(path: str | Path, body: str, mechanism: str | None) -> tuple[str, dict[str, str]]:
    """Return the mechanism and the options of the section's first login module that serves it."""
    wanted = mechanism.upper() if mechanism else None
    modules = re.findall(_MODULE, body)
    for name, text in modules:
        serves = _MECHANISMS.get(name.rpartition(".")[2], ())
        if wanted in serves or (wanted is None and serves) or (len(modules) == 1 and wanted and not serves):
            return wanted or serves[0], {option: _bare(value) for option, value in _OPTION.findall(text)}
    if wanted and modules:
        raise ConfigError(f"JAAS file {path}: no login module for that mechanism", "leave mechanism= out to see which")
    raise ConfigError(f"JAAS file {path}: unknown login module", "give mechanism=")


def _client_credentials(path: str | Path, options: dict[str, str], url: str | None) -> dict[str, str]:
    properties = {"sasl.oauthbearer.method": "oidc"}
    for name, words in _OAUTH.items():
        value = next((options[word] for word in words if word in options), None)
        if name.endswith(".url"):
            value = value or url
        if value:
            properties[name] = value
    extensions = {
        name.removeprefix("extension_"): value for name, value in options.items() if name.startswith("extension_")
    }
    if extensions:
        properties["sasl.oauthbearer.extensions"] = ",".join(f"{name}={value}" for name, value in extensions.items())
    for word in ("client.id", "client.secret"):
        if f"sasl.oauthbearer.{word}" not in properties:
            raise ConfigError(
                f"JAAS file {path}: OAuthBearerLoginModule without {word}", "or give oauth_cb in the mapping"
            )
    if "sasl.oauthbearer.token.endpoint.url" not in properties:
        raise ConfigError(f"JAAS file {path}: it names no token endpoint", "give token_endpoint_url=")
    return properties


def _bare(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] in "\"'" else value


def _without_comments(text: str) -> str:
    pattern = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
    return pattern.sub(lambda match: match[0] if match[0][0] in "\"'" else " ", text)
