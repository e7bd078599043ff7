"""Credentials, right and wrong, as properties of `tests.secured_kafka`'s broker."""

import time

from tests.authority import openssl
from tests.secured_kafka import CLIENT_SECRET, KEY_PASSWORD, SECRET

import millpond

WRONG = "n0t-the-passw0rd"
SECRETS = (SECRET, CLIENT_SECRET, KEY_PASSWORD, WRONG)


def client_certificate(kafka, issued):
    certificate, key = issued
    return kafka.at("MUTUAL", ssl_certificate_location=certificate, ssl_key_location=key)


def keystore(kafka, tmp_path, password=KEY_PASSWORD):
    """The same as PKCS#12, under a password."""
    certificate, key = kafka.authority.issue("stored")
    store = tmp_path / "store.p12"
    openssl("pkcs12", "-export", "-in", certificate, "-inkey", key, "-passout", f"pass:{KEY_PASSWORD}", "-out", store)
    return kafka.at("MUTUAL", ssl_keystore_location=store, ssl_keystore_password=password)


def token_of(issuer, seconds=3_600.0, told=3_600.0, **claims):
    """An oauth_cb as confluent-kafka's users write it."""
    return lambda _config: (issuer.token(seconds, **claims), time.time() + told)


# What docs/security.md shows is tried by `test_documented`; here is the rest.
RIGHT = {
    "authority as text": lambda kafka, tmp: (
        {name: value for name, value in kafka.at("TLS").items() if name != "ssl.ca.location"}
        | {"ssl.ca.pem": kafka.authority.pem.read_text()}
    ),
    "pkcs12": keystore,
    "other name, unchecked": lambda kafka, tmp: kafka.at("OTHER", ssl_endpoint_identification_algorithm="none"),
    "nothing checked": lambda kafka, tmp: kafka.at("OTHER", enable_ssl_certificate_verification="false"),
}


def raising(error):
    def oauth_cb(_config):
        raise error

    return oauth_cb


def oauth(kafka, oauth_cb):
    return kafka.sasl("OAUTHBEARER") | {"oauth_cb": oauth_cb}


CONFIG, EXTERNAL = millpond.ConfigError, millpond.ExternalError
# Properties of a wrong side, the class, and words that the message and its hint hold.
REFUSED = {
    "unknown authority": (
        lambda k, f, tmp: k.at("TLS", ssl_ca_location=f[0].pem), CONFIG, "authority unknown", "ssl.ca.location",
    ),
    "another host's name": (lambda k, f, tmp: k.at("OTHER"), CONFIG, "other names", "127.0.0.1"),
    "no TLS there": (
        lambda k, f, tmp: k.at("TLS") | {"bootstrap.servers": f"127.0.0.1:{k.ports['INTERNAL']}"},
        EXTERNAL, "127.0.0.1", "security.protocol",
    ),
    "another protocol there": (
        lambda k, f, tmp: k.at("TLS") | {"bootstrap.servers": f"127.0.0.1:{k.web}"},
        CONFIG, "speaks no TLS", "security.protocol",
    ),
    "TLS there": (
        lambda k, f, tmp: {"bootstrap.servers": f"127.0.0.1:{k.ports['TLS']}"},
        EXTERNAL, "127.0.0.1", "security.protocol",
    ),
    "no client certificate": (
        lambda k, f, tmp: k.at("MUTUAL"), CONFIG, "client certificate", "ssl.certificate.location",
    ),
    "a foreign client certificate": (
        lambda k, f, tmp: client_certificate(k, f[0].issue("client")), CONFIG, "client certificate", "authority",
    ),
    "an expired client certificate": (
        lambda k, f, tmp: client_certificate(k, k.authority.issue("expired", days=-1)),
        CONFIG, "ssl.certificate.location", "expired",
    ),
    "another's key": (
        lambda k, f, tmp: client_certificate(k, (k.authority.issue("one")[0], k.authority.issue("two")[1])),
        CONFIG, "ssl.certificate.location", "key",
    ),
    "a missing file": (
        lambda k, f, tmp: k.at("TLS", ssl_ca_location=tmp / "absent.pem"), CONFIG, "ssl.ca.location", "path",
    ),
    "another keystore password": (
        lambda k, f, tmp: keystore(k, tmp, WRONG), CONFIG, "ssl.keystore.location", "password",
    ),
    "plain": (lambda k, f, tmp: k.user("PLAIN", WRONG), CONFIG, "credentials", "sasl.password"),
    "scram-sha-256": (lambda k, f, tmp: k.user("SCRAM-SHA-256", WRONG), CONFIG, "credentials", "sasl.password"),
    "scram-sha-512": (lambda k, f, tmp: k.user("SCRAM-SHA-512", WRONG), CONFIG, "credentials", "sasl.password"),
    "no mechanism": (lambda k, f, tmp: k.at("SASL", sasl_username="alice"), CONFIG, "sasl.mechanism", "SCRAM"),
    "no protocol for credentials": (
        lambda k, f, tmp: k.user("PLAIN") | {"security.protocol": "SSL"}, CONFIG, "sasl.", "security.protocol",
    ),
    "no source of tokens": (lambda k, f, tmp: k.sasl("OAUTHBEARER"), CONFIG, "OAUTHBEARER", "oauth_cb"),
    "an expired token": (
        lambda k, f, tmp: oauth(k, token_of(k.issuer, seconds=-300)), CONFIG, "credentials", "expiry",
    ),
    "a token told to have expired": (
        lambda k, f, tmp: oauth(k, token_of(k.issuer, told=-5)), CONFIG, "expired", "time.time()",
    ),
    "a foreign token": (lambda k, f, tmp: oauth(k, token_of(f[1])), CONFIG, "credentials", "issuer"),
    "a token for others": (
        lambda k, f, tmp: oauth(k, token_of(k.issuer, aud="others")), CONFIG, "credentials", "audience",
    ),
    "no token": (lambda k, f, tmp: oauth(k, lambda _: None), CONFIG, "oauth_cb", "expiry"),
    "a callback that fails": (lambda k, f, tmp: oauth(k, raising(KeyError(WRONG))), CONFIG, "oauth_cb", "KeyError"),
    "an issuer out of reach": (
        lambda k, f, tmp: oauth(k, raising(ConnectionResetError(WRONG))), EXTERNAL, "oauth_cb", "ConnectionResetError",
    ),
    "another client's secret": (
        lambda k, f, tmp: k.oidc(**{"sasl.oauthbearer.client.secret": WRONG}),
        CONFIG, "invalid_client", "sasl.oauthbearer.client.secret",
    ),
    "an endpoint of an unknown authority": (
        lambda k, f, tmp: k.oidc(**{"https.ca.location": str(f[0].pem)}), CONFIG, "certificate", "https.ca.location",
    ),
    "an endpoint that is not there": (
        lambda k, f, tmp: k.oidc(**{"sasl.oauthbearer.token.endpoint.url": "https://127.0.0.1:1/token"}),
        EXTERNAL, "127.0.0.1:1", "address",
    ),
}  # fmt: skip
