"""TLS, SCRAM and X.509 by URI against a real MongoDB, right and wrong; and users with too few rights, told before
anything is read. No secret is ever shown (I6).
"""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.local_servers import until
from tests.promptness import within
from tests.secured_mongo import SECRET, SecuredMongo, file

import millpond

WRONG = "wr0ng-passw0rd"


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredMongo]:
    server = SecuredMongo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def topic(servers):
    """One for all: each test has a collection of its own."""
    name = f"t{secrets.token_hex(5)}"
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, b'{"n":1}', 0), (None, b"[]", 0)])
    return name


@pytest.fixture
def sink(servers, name, topic):
    words = {"topic": topic, "database": "tests", "collection": name}
    return lambda uri, **more: millpond.sink(servers.kafka, uri, **words | more)


RIGHT = {
    "scram-sha-1": lambda s: s.uri("writes-SCRAM-SHA-1"),
    "scram-sha-256": lambda s: s.uri("writes-SCRAM-SHA-256", authMechanism="SCRAM-SHA-256"),
    "x509": lambda s: s.certified(s.authority.issue("certified")),
    "another name, unchecked": lambda s: s.uri(
        "writes-SCRAM-SHA-1",
        host="127.0.0.2",
        tlsAllowInvalidHostnames="true",
        directConnection="true",
        replicaSet=None,
    ),
    "nothing checked": lambda s: s.uri("writes-SCRAM-SHA-1", tlsCAFile=None, tlsInsecure="true"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_right_ones(secured, sink, kind):
    result = sink(RIGHT[kind](secured))
    assert (result.inserted, result.dead_lettered) == (1, 1)


CONFIG, EXTERNAL = millpond.ConfigError, millpond.ExternalError
REFUSED = {
    "wrong password": (lambda s: s.uri("writes-SCRAM-SHA-256", WRONG), CONFIG, "credentials", "authSource"),
    "unknown user": (lambda s: s.uri("nobody", WRONG), CONFIG, "credentials", "authSource"),
    "no credentials": (lambda s: s.uri(), CONFIG, "", ""),
    "an unknown subject": (lambda s: s.certified(s.authority.issue("stranger")), CONFIG, "credentials", "authSource"),
    "a foreign client certificate": (
        lambda s: s.certified(s.stranger.issue("certified")), CONFIG, "client certificate", "tlsCertificateKeyFile",
    ),
    "an expired client certificate": (
        lambda s: s.certified(s.authority.issue("certified", days=-1)), CONFIG, "tlsCertificateKeyFile", "expired",
    ),
    "another's key": (
        lambda s: s.certified((s.authority.issue("certified")[0], s.authority.issue("other")[1])),
        CONFIG, "tlsCertificateKeyFile", "key",
    ),
    "no key": (
        lambda s: s.uri(tlsCertificateKeyFile=s.authority.issue("certified")[0]),
        CONFIG, "tlsCertificateKeyFile", "key",
    ),
    "a missing certificate": (
        lambda s: s.uri(tlsCertificateKeyFile=s.directory / "absent.pem"), CONFIG, "tlsCertificateKeyFile", "path",
    ),
    "an unknown authority": (
        lambda s: s.uri("writes-SCRAM-SHA-1", tlsCAFile=s.stranger.pem), CONFIG, "authority unknown", "tlsCAFile",
    ),
    "no authority": (
        lambda s: s.uri("writes-SCRAM-SHA-1", tlsCAFile=file(s.directory)), CONFIG, "tlsCAFile", "PEM",
    ),
    "another name": (
        lambda s: s.uri("writes-SCRAM-SHA-1", host="127.0.0.2", directConnection="true", replicaSet=None),
        CONFIG, "other names", "tlsAllowInvalidHostnames",
    ),
    "no TLS": (lambda s: s.uri("writes-SCRAM-SHA-1", tls="false", tlsCAFile=None), EXTERNAL, "mongodb", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_the_wrong_ones(secured, sink, kind, monkeypatch):
    monkeypatch.setattr(secured, "selection_ms", 1_500)
    uri, family, *words = REFUSED[kind]
    caught: Any = None

    def once() -> float:
        nonlocal caught
        began = time.monotonic()
        with pytest.raises(family) as caught:
            sink(uri(secured))
        return time.monotonic() - began

    within(15, once)
    told = f"{caught.value} {caught.value.hint}"
    assert caught.value.hint
    assert all(word in told for word in words), told
    for secret in (SECRET, WRONG, "n0t-for-eyes%2F"):
        assert secret not in f"{told} {caught.value!r}"


@pytest.mark.parametrize("user", ["reads", "elsewhere"])
def test_a_user_with_too_few_rights(secured, sink, name, user):
    with pytest.raises(millpond.ConfigError) as caught:
        sink(secured.uri(f"{user}-SCRAM-SHA-256"))
    told = str(caught.value)
    assert "readWrite" in caught.value.hint, caught.value.hint
    assert "tests" in told + caught.value.hint
    if user == "reads":
        assert f"insert, update, createIndex on tests.{name}" in told
    with secured.root() as client:
        # Refused before anything was read or made.
        assert name not in client["tests"].list_collection_names()
        assert client["tests"]["millpond_positions"].count_documents({"_id.collection": name}) == 0


def test_a_role_by_collections(secured, sink, name):
    """The least that a sink needs, and each piece of it missed by name."""
    actions = ["find", "insert", "update"]
    places = [name, f"{name}_dead_letters", "millpond_positions", "millpond_sources"]
    with secured.root() as client:
        database = client["tests"]
        database.create_collection(name)

        def grant(left_out: str | None) -> None:
            kept = [place for place in places if place != left_out]
            privileges = [{"resource": {"db": "tests", "collection": ""}, "actions": ["listCollections"]}]
            privileges += [{"resource": {"db": "tests", "collection": place}, "actions": actions} for place in kept]
            verb = "updateRole" if left_out is None else "createRole"
            database.command(verb, f"least-{name}", privileges=privileges, roles=[])

        grant(f"{name}_dead_letters")
        database.command("createUser", name, pwd=SECRET, roles=[f"least-{name}"])
        uri = secured.uri(name, authSource="tests")
        with pytest.raises(millpond.ConfigError, match=f"lacks find, insert, update on tests.{name}_dead_letters"):
            sink(uri, ensure_indexes=False)
        grant(None)

        def done():
            try:
                return sink(uri, ensure_indexes=False)
            except millpond.ConfigError:
                # The server's cache of users notices a moment later.
                return None

        assert until(done).inserted == 1


def test_rights_that_are_taken_away_in_the_middle(secured, servers, sink, name):
    """Told as what it is, nothing is lost, and the rerun completes once they are given back."""
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, b'{"n":%d}' % n, 0) for n in range(1_000)])
    with secured.root() as client:
        database = client["tests"]
        database.command("createUser", name, pwd=SECRET, roles=["readWrite"])
        uri = secured.uri(name, authSource="tests")
        sink(uri, max_events=100, topic=name)
        database.command("updateUser", name, roles=["read"])
        with pytest.raises(millpond.ConfigError, match="lacks insert"):
            until(lambda: not sink(uri, max_events=1, topic=name))
        database.command("updateUser", name, roles=["readWrite"])

        def done():
            try:
                return sink(uri, topic=name).read == 0
            except millpond.ConfigError:
                return False

        until(done)
        assert client["tests"][name].count_documents({}) == 1_000


def test_doctor_says_the_same(secured, tmp_path):
    from tests.test_cli import call, toml

    config = tmp_path / "m.toml"
    uri = secured.uri("writes-SCRAM-SHA-1", tlsCAFile=secured.stranger.pem, serverSelectionTimeoutMS=1_500)
    config.write_text(toml({"mongo": {"uri": uri}}))
    done = call("doctor", "--config", config)
    assert done.returncode == 2
    assert SECRET not in done.stdout
