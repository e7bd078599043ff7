"""Tokens for SASL/OAUTHBEARER by client credentials: a token endpoint is asked over HTTP (RFC 6749, section 4.4).

Owns the question and what its answers mean. Refuses to show the secret, or what an answer holds but for RFC 6749's own
words.
"""

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from millpond.errors import ConfigError, Error, ExternalError
from millpond.oauth import ALIASES, OIDC

_TIMEOUT_S = 8.0


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
        properties = {ALIASES.get(name, name): str(value) for name, value in given.items() if name in OIDC}
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
