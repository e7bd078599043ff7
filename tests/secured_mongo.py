"""A MongoDB of a test's own that wants TLS and credentials: a replica set of one, and users with different rights."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pymongo
from pymongo.errors import PyMongoError
from tests.authority import Authority
from tests.local_servers import until

from millpond.local import mongo, ports

NAMES = "DNS:localhost,IP:127.0.0.1"
SECRET = "n0t-for-eyes/@:"


class SecuredMongo:
    """The server, its authority, and one that nobody here trusts."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="millpond-mongo-tls-"))
        self.authority = Authority(self.directory / "ours", "ours")
        self.stranger = Authority(self.directory / "theirs", "theirs")
        self.process: subprocess.Popen[bytes] | None = None
        # How long a client looks for the server: where it is to be found, as long as a busy machine takes.
        self.selection_ms = 30_000
        (self.port,) = ports.reserve(self.directory, 1)
        try:
            self._start()
            self._people()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        data, key = self.directory / "data", self.directory / "keyfile"
        data.mkdir()
        key.write_text("between members of a set of one")
        key.chmod(0o400)
        own = self.pair(self.authority.issue("localhost", NAMES))
        command = [
            mongo.binary(),
            "--dbpath",
            data,
            "--port",
            self.port,
            "--bind_ip",
            "127.0.0.1,127.0.0.2",
            "--replSet",
            "rs0",
        ]
        command += ["--auth", "--keyFile", key, "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", own]
        command += ["--tlsCAFile", self.authority.pem, "--tlsAllowConnectionsWithoutCertificates"]
        command += ["--wiredTigerCacheSizeGB", "0.25"]
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        with self._client() as client:
            until(lambda: self._answers(client))
            config = {"_id": "rs0", "members": [{"_id": 0, "host": f"localhost:{self.port}"}]}
            client.admin.command("replSetInitiate", config)
            until(lambda: client.admin.command("hello").get("isWritablePrimary"))

    def _answers(self, client: "pymongo.MongoClient[dict[str, Any]]") -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2_000:]
        with contextlib.suppress(PyMongoError):
            client.admin.command("ping")
            return True
        return False

    def _client(self, **words: Any) -> "pymongo.MongoClient[dict[str, Any]]":
        return pymongo.MongoClient(
            f"mongodb://localhost:{self.port}/?directConnection=true",
            tls=True, tlsCAFile=str(self.authority.pem), serverSelectionTimeoutMS=5_000, **words,
        )  # fmt: skip

    def root(self) -> "pymongo.MongoClient[dict[str, Any]]":
        return self._client(username="root", password=SECRET)

    def _people(self) -> None:
        def made() -> bool:
            # The first user closes the door behind it: an attempt whose answer was lost is told by its login.
            with contextlib.suppress(PyMongoError), self._client() as client:
                client.admin.command("createUser", "root", pwd=SECRET, roles=["root"])
            with contextlib.suppress(PyMongoError), self.root() as client:
                client.admin.command("ping")
                return True
            return False

        until(made)
        with self.root() as client:
            for name, roles in (
                ("writes", [{"role": "readWrite", "db": "tests"}]),
                ("reads", [{"role": "read", "db": "tests"}]),
                ("elsewhere", [{"role": "readWrite", "db": "others"}]),
            ):
                for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
                    user = f"{name}-{mechanism}"
                    client.admin.command("createUser", user, pwd=SECRET, roles=roles, mechanisms=[mechanism])
            client["$external"].command("createUser", "CN=certified", roles=[{"role": "readWrite", "db": "tests"}])

    def pair(self, issued: tuple[Path, Path]) -> Path:
        """Certificate and key in one file."""
        certificate, key = issued
        both = Path(f"{certificate}.both")
        both.write_text(certificate.read_text() + key.read_text())
        both.chmod(0o600)
        return both

    def uri(self, user: str | None = None, password: str = SECRET, host: str = "localhost", **options: Any) -> str:
        who = "" if user is None else f"{quote_plus(user)}:{quote_plus(password)}@"
        found = {
            "replicaSet": "rs0",
            "tls": "true",
            "tlsCAFile": self.authority.pem,
            "serverSelectionTimeoutMS": self.selection_ms,
        } | options
        told = "&".join(f"{name}={quote_plus(str(value))}" for name, value in found.items() if value is not None)
        return f"mongodb://{who}{host}:{self.port}/?{told}"

    def certified(self, issued: tuple[Path, Path], **options: Any) -> str:
        """A URI by certificate alone."""
        words: dict[str, Any] = {
            "tlsCertificateKeyFile": self.pair(issued),
            "authMechanism": "MONGODB-X509",
            "authSource": "$external",
        }
        return self.uri(**words | options)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def file(directory: Path, text: str = "nothing of that kind") -> Path:
    found = directory / f"{os.urandom(4).hex()}.pem"
    found.write_text(text)
    return found
