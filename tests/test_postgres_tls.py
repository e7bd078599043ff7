"""Every `sslmode` against a server that speaks TLS, beside libpq itself: no connection that it would not have made."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.authority import Authority
from tests.report_tables import counts, store, views
from tests.secured_postgres import SecuredPostgres

import millpond
from millpond import _native

Words = dict[str, Any]
MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredPostgres]:
    server = SecuredPostgres()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of the test's own: libpq looks for certificates there."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def ours(dsn: str) -> str:
    """How we connect: "TLS", "plain" or "refused"; a retry would not help against a certificate."""
    (found,) = json.loads(_native.doctor(json.dumps({"postgres_dsn": dsn})))
    if found["ok"]:
        return "plain" if "no TLS" in found["detail"] else "TLS"
    assert found["hint"], found
    assert "password=" not in found["detail"]
    return "refused"


def refused(dsn: str, *words: str) -> None:
    (found,) = json.loads(_native.doctor(json.dumps({"postgres_dsn": dsn})))
    assert not found["ok"], found
    for word in words:
        assert word in f"{found['detail']} {found['hint']}", found


def libpq(dsn: str) -> str:
    """How libpq connects."""
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            return "TLS" if connection.pgconn.ssl_in_use else "plain"
    except psycopg.OperationalError:
        return "refused"


def test_every_mode_does_what_libpq_does(secured: SecuredPostgres) -> None:
    hosts: dict[str, Words] = {
        "name": {},
        "address": {"host": "127.0.0.1"},
        "another name": {"host": "db", "hostaddr": "127.0.0.1"},
    }
    roots: Words = {"none": None, "right": secured.authority.pem, "wrong": secured.stranger.pem}
    seen = set()
    for role in ("either", "secured", "plain"):
        for mode in MODES:
            for root, file in roots.items():
                for host, words in hosts.items():
                    dsn = secured.dsn(role, **{"sslmode": mode, "sslrootcert": file} | words)
                    wanted = libpq(dsn)
                    if (mode, root) == ("prefer", "wrong") and role != "secured":
                        # libpq goes on in the clear with a server whose certificate it has just refused.
                        assert wanted == "plain"
                        wanted = "refused"
                    assert ours(dsn) == wanted, (role, mode, root, host)
                    seen.add((mode, wanted))
    assert {("allow", "TLS"), ("allow", "plain"), ("prefer", "TLS"), ("prefer", "plain")} <= seen
    assert {mode for mode, wanted in seen if wanted == "TLS"} == set(MODES) - {"disable"}
    assert {mode for mode, wanted in seen if wanted == "plain"} == {"disable", "allow", "prefer"}


def test_a_certificate_that_is_not_the_servers_is_told(secured: SecuredPostgres) -> None:
    root = secured.authority.pem
    refused(
        secured.dsn("either", sslmode="verify-full", sslrootcert=secured.stranger.pem), "certificate", "sslrootcert"
    )
    words: Words = {"hostaddr": "127.0.0.1", "sslmode": "verify-full", "sslrootcert": root}
    refused(secured.dsn("either", host="db", **words), "hostname mismatch")
    refused(secured.dsn("either", sslmode="verify-full"), "sslrootcert=system")
    refused(secured.dsn("either", sslmode="verify-ca", sslrootcert="missing.pem"), "sslrootcert", "missing.pem")
    with pytest.raises(millpond.ConfigError, match="TLS"):
        millpond.runs(secured.dsn("either", sslmode="verify-full", sslrootcert=secured.stranger.pem))


def test_no_certificate_of_the_environment_is_trusted_beside_the_one_named(
    secured: SecuredPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SSL_CERT_FILE` is what `system` means, and nothing else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority.pem))
    monkeypatch.setenv("SSL_CERT_DIR", str(secured.directory / "nowhere"))
    assert ours(secured.dsn("either", sslmode="verify-full", sslrootcert=secured.stranger.pem)) == "refused"
    assert ours(secured.dsn("either", sslrootcert="system")) == "TLS"
    assert ours(secured.dsn("either", sslmode="verify-full", sslrootcert="system")) == "TLS"
    refused(secured.dsn("either", host="db", hostaddr="127.0.0.1", sslrootcert="system"), "mismatch")
    refused(secured.dsn("either", sslmode="require", sslrootcert="system"), "verify-full")
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.stranger.pem))
    assert ours(secured.dsn("either", sslrootcert="system")) == "refused"


def test_clients_certificates(secured: SecuredPostgres) -> None:
    root = secured.authority.pem
    certificate, key = secured.identity(secured.authority, "certified")
    words: Words = {"sslmode": "verify-full", "sslrootcert": root, "password": None}
    assert ours(secured.dsn("certified", sslcert=certificate, sslkey=key, **words)) == "TLS"
    refused(secured.dsn("certified", **words), "certificate")
    refused(secured.dsn("certified", sslcert=certificate, **words), "sslkey")
    refused(secured.dsn("certified", sslcert=certificate, sslkey=key, sslcertmode="disable", **words), "certificate")
    refused(secured.dsn("certified", sslcert=certificate, sslkey=key, sslcertmode="require", **words), "sslcertmode")
    another, another_key = secured.identity(secured.authority, "either")
    refused(secured.dsn("certified", sslcert=another, sslkey=another_key, **words), "certified")
    refused(secured.dsn("certified", sslcert=certificate, sslkey=another_key, **words), "sslkey")
    theirs, their_key = secured.identity(secured.stranger, "certified")
    # Under TLS 1.3 the server refuses after the handshake, and its word for it ("unknown ca") may go under with the
    # connection.
    refused(secured.dsn("certified", sslcert=theirs, sslkey=their_key, **words), "sslcert")
    key.chmod(0o644)
    refused(secured.dsn("certified", sslcert=certificate, sslkey=key, **words), "chmod 0600")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_that_breaks_in_the_handshake_may_be_tried_again(secured: SecuredPostgres, reset: bool) -> None:
    """A server that goes away there has refused nothing."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    # The question for TLS, eight bytes, and the client's greeting.
                    connection.recv(8, socket.MSG_WAITALL)
                    connection.send(b"S")
                    connection.recv(1 << 16)
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with pytest.raises(millpond.ExternalError, match="the TLS connection broke") as caught:
            millpond.runs(secured.dsn("either", "127.0.0.1", sslmode="require", port=listener.getsockname()[1]))
        listener.shutdown(socket.SHUT_RDWR)
    assert caught.value.retryable
    assert "sslcert" in caught.value.hint


def test_an_encrypted_key_needs_its_password(secured: SecuredPostgres) -> None:
    certificate, key = secured.identity(secured.authority, "certified", password="s3cret")
    words: Words = {"sslmode": "require", "sslcert": certificate, "sslkey": key, "password": None}
    assert ours(secured.dsn("certified", sslpassword="s3cret", **words)) == "TLS"
    for password in (None, "s3cre"):
        refused(secured.dsn("certified", sslpassword=password, **words), "sslpassword")


def test_a_revoked_certificate_is_refused(secured: SecuredPostgres, home: Path, tmp_path: Path) -> None:
    words: Words = {"sslmode": "verify-full", "sslrootcert": secured.authority.pem}
    other, _ = secured.authority.issue("other")
    of_another = secured.revoked(other).read_bytes()
    list_of_another, list_of_servers = tmp_path / "other.crl", tmp_path / "crl.pem"
    list_of_another.write_bytes(of_another)
    assert ours(secured.dsn("either", sslcrl=list_of_another, **words)) == "TLS"
    list_of_servers.write_bytes(secured.revoked(secured.certificate).read_bytes())
    refused(secured.dsn("either", sslcrl=list_of_servers, **words), "revoked")
    refused(secured.dsn("either", sslcrl=tmp_path / "missing", **words), "sslcrl")
    refused(secured.dsn("either", sslcrl=secured.authority.pem, **words), "sslcrl")
    folder = home / ".postgresql"
    folder.mkdir()
    (folder / "root.crl").write_bytes(list_of_servers.read_bytes())
    refused(secured.dsn("either", **words), "revoked")


def test_files_in_the_home_directory_are_used_as_libpq_does(secured: SecuredPostgres, home: Path) -> None:
    folder = home / ".postgresql"
    folder.mkdir()
    certificate, key = secured.identity(secured.authority, "certified")
    for source, name in ((secured.authority.pem, "root.crt"), (certificate, "postgresql.crt"), (key, "postgresql.key")):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
    for mode in MODES:
        dsn = secured.dsn("certified", sslmode=mode, password=None)
        assert ours(dsn) == libpq(dsn) == ("refused" if mode == "disable" else "TLS"), mode
    # With an authority at hand, `require` checks the certificate too.
    (folder / "root.crt").write_bytes(secured.stranger.pem.read_bytes())
    dsn = secured.dsn("either", sslmode="require")
    assert ours(dsn) == libpq(dsn) == "refused"


def test_versions_of_tls_and_channel_binding(secured: SecuredPostgres) -> None:
    cases: list[tuple[Words, str]] = [
        ({"ssl_max_protocol_version": "TLSv1.2"}, "TLS"), ({"ssl_min_protocol_version": "TLSv1.3"}, "TLS"),
        ({"ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "TLSv1.2"}, "refused"),
        ({"channel_binding": "require"}, "TLS"), ({"channel_binding": "disable"}, "TLS"), ({"sslsni": "0"}, "TLS"),
    ]  # fmt: skip
    for words, wanted in cases:
        dsn = secured.dsn("secured", sslmode="require", **words)
        assert ours(dsn) == libpq(dsn) == wanted, words
    assert ours(secured.dsn("plain", channel_binding="require")) == "refused"


def test_a_socket_has_no_tls_and_needs_none(secured: SecuredPostgres) -> None:
    for mode in MODES:
        dsn = f"{secured.local} sslmode={mode} sslrootcert={secured.authority.pem}"
        assert ours(dsn) == libpq(dsn) == "plain"


def test_a_report_is_published_over_tls(secured: SecuredPostgres, servers, name) -> None:
    store(servers, name, views("2025-10-31", 3))
    dsn = secured.dsn("secured", sslmode="verify-full", sslrootcert=secured.authority.pem)
    words: Words = {"database": "tests", "collection": name, "dates": "2025-10-31"}
    assert millpond.aggregate(servers.mongo_uri, dsn, **words).published
    assert counts(dsn) == {("p", "2025-10-31"): 3}
    wrong = secured.dsn("secured", sslmode="verify-full", sslrootcert=secured.stranger.pem)
    store(servers, name, views("2025-10-31", 1))
    with pytest.raises(millpond.ConfigError, match="TLS"):
        millpond.aggregate(servers.mongo_uri, wrong, **words)
    assert counts(dsn) == {("p", "2025-10-31"): 3}


def test_another_authority_of_the_same_name_is_not_trusted(secured: SecuredPostgres, tmp_path: Path) -> None:
    unrelated = Authority(tmp_path / "unrelated", "ours")
    assert ours(secured.dsn("either", sslmode="verify-ca", sslrootcert=unrelated.pem)) == "refused"
