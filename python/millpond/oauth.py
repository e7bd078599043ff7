"""Tokens for SASL/OAUTHBEARER: a callable as confluent-kafka takes it, or client credentials.

Owns what becomes of `oauth_cb` and of `sasl.oauthbearer.method=oidc` in a mapping of librdkafka properties: the native
part gets one callable for each side, and never these properties. Refuses to show a token or a secret: of an exception
that is not ours only the class is told.
"""

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from millpond.errors import ConfigError, Error, ExternalError

Answer = tuple[str, int, str, list[tuple[str, str]]]
OAUTH_CB = "oauth_cb"
_METHOD = "sasl.oauthbearer.method"
_ALIASES = {
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
}
# What the method oidc reads; none of it reaches librdkafka.
_OIDC = {
    _METHOD, "sasl.oauthbearer.grant.type", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope", "sasl.oauthbearer.extensions", "sasl.oauthbearer.token.endpoint.url",
    "https.ca.location", "https.ca.pem", *_ALIASES,
}  # fmt: skip
_TIMEOUT_S = 8.0


def plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that librdkafka reads."""
    ours = {OAUTH_CB, *(_OIDC if _METHOD in properties else ())}
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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the secret to another place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


@dataclass(frozen=True)
class ClientCredentials:
    """Asks a token endpoint for tokens, by client id and secret (RFC 6749, section 4.4).

    Attributes:
        side: The argument's name in messages.
        url: The token endpoint.
        client_id: The client's id.
        client_secret: The client's secret.
        scope: Scopes, with blanks between.
        extensions: SASL extensions that go with each token.
        ca_file: The authorities that the endpoint's certificate is checked by, as a PEM file. Default: the system's.
        ca_pem: The same as text.
    """

    side: str
    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    extensions: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    ca_pem: str | None = None

    @classmethod
    def of(cls, side: str, given: Mapping[str, Any]) -> "ClientCredentials":
        """Read them from librdkafka properties.

        Raises:
            ConfigError: One is missing, or asks for what is not supported; named, never shown.
        """
        properties = {_ALIASES.get(name, name): str(value) for name, value in given.items() if name in _OIDC}
        if properties.get("sasl.oauthbearer.grant.type", "client_credentials") != "client_credentials":
            raise ConfigError(
                f"{side}: sasl.oauthbearer.grant.type: only client_credentials is supported", "or give oauth_cb"
            )
        for name in ("client.id", "client.secret", "token.endpoint.url"):
            if not properties.get(f"sasl.oauthbearer.{name}"):
                raise ConfigError(
                    f"{side}: sasl.oauthbearer.{name} is missing", "the method oidc needs id, secret and URL"
                )
        url = properties["sasl.oauthbearer.token.endpoint.url"]
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            told = f"{side}: sasl.oauthbearer.token.endpoint.url is no plain HTTP address"
            raise ConfigError(told, "give https://host/path, without user and password")
        text = properties.get("sasl.oauthbearer.extensions", "")
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        return cls(
            side,
            url,
            properties["sasl.oauthbearer.client.id"],
            properties["sasl.oauthbearer.client.secret"],
            properties.get("sasl.oauthbearer.scope", ""),
            tuple((name.strip(), value) for name, _, value in pairs),
            properties.get("https.ca.location"),
            properties.get("https.ca.pem"),
        )

    def __call__(self, _config: str) -> tuple[str, float, str, dict[str, str]]:
        """Ask for a token.

        Raises:
            ConfigError: The credentials, or the endpoint's certificate, are refused.
            ExternalError: The endpoint does not answer, or not with a token.
        """
        asked_at = time.time()
        answer = self._ask()
        token = answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise ExternalError(f"{self._what}: the answer holds no access_token", "is it a token endpoint?")
        claims = _claims(token)
        lasts, expiry = answer.get("expires_in"), claims.get("exp")
        if isinstance(lasts, int | float):
            expiry = asked_at + lasts
        if not isinstance(expiry, int | float):
            raise ConfigError(f"{self._what}: neither the answer nor the token says when it expires", "use oauth_cb")
        subject = claims.get("sub")
        principal = subject if isinstance(subject, str) else self.client_id
        return token, float(expiry), principal, dict(self.extensions)

    @property
    def _what(self) -> str:
        return f"{self.side}: token endpoint {urllib.parse.urlsplit(self.url)._replace(query='', fragment='').geturl()}"

    def _ask(self) -> dict[str, Any]:
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        basic = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Accept": "application/json"}
        request = urllib.request.Request(self.url, urllib.parse.urlencode(form).encode(), headers)  # noqa: S310 - checked
        try:
            context = ssl.create_default_context(cafile=self.ca_file, cadata=self.ca_pem)
        except (OSError, ValueError) as error:
            told = f"{self.side}: https.ca.location: cannot be read ({type(error).__name__})"
            raise ConfigError(told, "give a PEM file") from None
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects)
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                answer = json.loads(response.read(1 << 20))
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                told = f"{self._what}: its certificate is refused ({reason.verify_message})"
                raise ConfigError(told, "give its authority as https.ca.location") from None
            told = f"{self._what}: no answer ({type(reason).__name__})"
            raise ExternalError(told, "check the address and that it runs") from None
        except ValueError:
            raise ExternalError(f"{self._what}: the answer is no JSON", "is it a token endpoint?") from None
        if not isinstance(answer, dict):
            raise ExternalError(f"{self._what}: the answer is no JSON object", "is it a token endpoint?")
        return answer

    def _refused(self, error: urllib.error.HTTPError) -> Error:
        told = f"{self._what}: HTTP {error.code}{_reason(error)}"
        if error.code == 429 or error.code >= 500:
            return ExternalError(told, "a retry asks again")
        if error.code in (400, 401, 403):
            hint = "check sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and sasl.oauthbearer.scope"
            return ConfigError(told, hint)
        return ConfigError(told, "check sasl.oauthbearer.token.endpoint.url; redirects are not followed")


# RFC 6749, section 5.2: nothing else of an answer is told.
_REASONS = (
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
    "invalid_scope",
)  # fmt: skip


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        word = json.loads(error.read(1 << 16)).get("error")
    except (OSError, ValueError, AttributeError):
        return ""
    return f" ({word})" if word in _REASONS else ""


def _claims(token: str) -> dict[str, Any]:
    """Read what a JWT says, unverified: the broker's judgement counts, not ours."""
    parts: Iterable[str] = token.split(".")
    try:
        _, payload, _ = parts
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
