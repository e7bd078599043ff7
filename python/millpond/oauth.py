"""Tokens for SASL/OAUTHBEARER: a callable as confluent-kafka takes it, or client credentials.

Owns what becomes of `oauth_cb` and of `sasl.oauthbearer.method=oidc` in a mapping of librdkafka properties: the native
part gets one callable for each side, and never these properties. Refuses to show a token or a secret: of an exception
that is not ours only the class is told. How a token endpoint is asked is [`client_credentials.py`]'s, which is loaded
for that alone: to import an HTTP client takes about half as long as a small run does.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from millpond.errors import ConfigError, Error, ExternalError

Answer = tuple[str, int, str, list[tuple[str, str]]]
OAUTH_CB = "oauth_cb"
_METHOD = "sasl.oauthbearer.method"
# Other names of properties that the method oidc reads.
ALIASES = {
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
}
# What the method oidc reads; none of it reaches librdkafka.
OIDC = {
    _METHOD, "sasl.oauthbearer.grant.type", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope", "sasl.oauthbearer.extensions", "sasl.oauthbearer.token.endpoint.url",
    "https.ca.location", "https.ca.pem", *ALIASES,
}  # fmt: skip


def plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that librdkafka reads."""
    ours = {OAUTH_CB, *(OIDC if _METHOD in properties else ())}
    return {name: value for name, value in properties.items() if name not in ours}


def callbacks(**sides: object) -> dict[str, Callable[[], Answer]]:
    """Return, by side, what the native part calls for a token.

    Raises:
        ConfigError: No callable, an unknown method, or client credentials that are not complete.
    """
    found: dict[str, Callable[[], Answer]] = {}
    for side, properties in sides.items():
        if not isinstance(properties, Mapping):
            continue
        method = str(properties.get(_METHOD, "default")).lower()
        if method not in ("default", "oidc"):
            raise ConfigError(f"{side}: {_METHOD}: no such method", "give oidc, or a callable as oauth_cb")
        given = properties.get(OAUTH_CB)
        if method == "oidc":
            if given is not None:
                raise ConfigError(f"{side}: oauth_cb and {_METHOD}=oidc are both given", "keep one of the two")
            from millpond.client_credentials import ClientCredentials

            given = ClientCredentials.of(side, properties)
        if given is not None:
            config = str(properties.get("sasl.oauthbearer.config", ""))
            found[side] = _checked(side, _callable(side, given), config)
    return found


def _callable(side: str, given: object) -> Callable[[str], object]:
    """Return a callable as it is, or the one that a name leads to: `package.module.function`, as a connection holds."""
    if isinstance(given, str):
        module, _, name = given.replace(":", ".").rpartition(".")
        try:
            given = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            told = f"{side}: oauth_cb: cannot import {module or 'it'} ({type(error).__name__})"
            raise ConfigError(told, "name it as package.module.function") from None
    if not callable(given):
        raise ConfigError(f"{side}: oauth_cb: no callable", "give a function that returns (token, expiry)")
    return given


def _checked(side: str, ask: Callable[[str], object], config: str) -> Callable[[], Answer]:
    def token() -> Answer:
        try:
            answer = ask(config)
        except Error:
            raise
        except OSError as error:
            told = f"{side}: oauth_cb failed: {type(error).__name__}"
            raise ExternalError(told, "is the token's issuer reachable? a retry asks again") from None
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises
            raise ConfigError(f"{side}: oauth_cb raised {type(error).__name__}", "call it alone to see why") from None
        return _read(side, answer)

    return token


def _read(side: str, answer: object) -> Answer:
    shape = ConfigError(
        f"{side}: oauth_cb returned no token",
        "return (token, expiry[, principal[, mapping of extensions]]); the expiry is in seconds since 1970",
    )
    if not isinstance(answer, tuple | list) or not 2 <= len(answer) <= 4:
        raise shape
    given: list[Any] = [*answer, None, None]
    token, expiry, principal, extensions = given[:4]
    sound = isinstance(token, str) and token and isinstance(expiry, int | float) and not isinstance(expiry, bool)
    if not sound or not isinstance(principal, str | None) or not isinstance(extensions, Mapping | None):
        raise shape
    pairs: list[tuple[str, str]] = [(name, value) for name, value in (extensions or {}).items()]
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        raise shape
    if not 0 < expiry < 1e11:
        raise ConfigError(f"{side}: oauth_cb: the expiry is not in seconds since 1970", "as time.time() + 3600")
    # librdkafka wants a principal; brokers read theirs from the token.
    return token, int(expiry * 1000), principal or "millpond", pairs
