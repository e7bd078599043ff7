"""A PostgreSQL of a test's own that speaks TLS: the programs of `millpond local` are built without OpenSSL.

Its roles differ in what `pg_hba.conf` asks of them: `either` comes as it likes, `secured` with TLS, `plain` without it,
and `certified` with a certificate of its name; all but the last with their name as password.
"""

import lzma
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import psycopg
from tests.authority import Authority, openssl
from tests.report_tables import until

from millpond.local import ports
from millpond.local.jars import jars

VERSION = "16.4.0"
NAMES = "DNS:localhost,IP:127.0.0.1"
HBA = """
local all all trust
hostssl all secured all scram-sha-256
hostnossl all plain all scram-sha-256
hostssl all certified all cert
host all either all scram-sha-256
"""


def jar() -> Path:
    """The programs for this machine, fetched by Maven when absent."""
    folder = jars(
        Path(__file__).with_name("postgres-tls-pom.xml"), f"postgres-tls-{VERSION}", "embedded-postgres-*.jar"
    )
    word = "arm64v8" if platform.machine() == "aarch64" else "amd64"
    return folder / f"embedded-postgres-binaries-linux-{word}-{VERSION}.jar"


class SecuredPostgres:
    """The server, its authority, and one that nobody here trusts."""

    def __init__(self) -> None:
        # Not under a test's own folder: root's server runs as nobody, who cannot go there.
        self.directory = Path(tempfile.mkdtemp(prefix="millpond-postgres-tls-"))
        self.directory.chmod(0o755)
        self.authority = Authority(self.directory / "ours", "ours")
        self.stranger = Authority(self.directory / "theirs", "theirs")
        self.certificate, self.key = self.authority.issue("localhost", NAMES)
        self.data, self.programs = self.directory / "data", self.directory / "programs"
        self.process: subprocess.Popen[bytes] | None = None
        (self.port,) = ports.reserve(self.directory, 1)
        try:
            self._unpack()
            self._start()
        except BaseException:
            self.close()
            raise

    def _unpack(self) -> None:
        with zipfile.ZipFile(jar()) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".txz"))
            with archive.open(name) as packed, tarfile.open(fileobj=lzma.open(packed)) as files:
                files.extractall(self.programs, filter="tar")

    def _command(self, *words: object) -> list[str]:
        owner = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        return [*owner, *map(str, words)]

    def _start(self) -> None:
        self.data.mkdir(mode=0o700)
        settings = {
            "ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl_ca_file": "ca.pem",
            "fsync": "off", "shared_buffers": "16MB", "listen_addresses": "127.0.0.1", "port": self.port,
            "unix_socket_directories": self.data,
        }  # fmt: skip
        if os.geteuid() == 0:
            shutil.chown(self.data, "nobody", "nogroup")
        initdb = self._command(self.programs / "bin/initdb", "-D", self.data, "-U", "owner", "-E", "UTF8", "-N")
        subprocess.run([*initdb, "--locale=C"], cwd="/", check=True, capture_output=True)
        files = {"server.pem": self.certificate, "server.key": self.key, "ca.pem": self.authority.pem}
        for name, source in files.items():
            self._put(name, source.read_text())
        self._put("pg_hba.conf", HBA)
        self._put("postgresql.auto.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        log = (self.directory / "log").open("w")
        self.process = subprocess.Popen(
            self._command(self.programs / "bin/postgres", "-D", self.data), cwd="/", stdout=log, stderr=log
        )
        until(self._answers)
        with psycopg.connect(self.local, autocommit=True) as connection:
            for role in ("either", "secured", "plain", "certified"):
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
                connection.execute(f"CREATE DATABASE {role} OWNER {role}")

    def _put(self, name: str, text: str) -> None:
        path = self.data / name
        path.write_text(text)
        path.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(path, "nobody", "nogroup")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            psycopg.connect(self.local, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def local(self) -> str:
        """The owner's DSN, over the Unix socket."""
        return f"host={self.data} port={self.port} user=owner dbname=postgres"

    def dsn(self, role: str, host: str = "localhost", **words: object) -> str:
        """A role's DSN of pairs."""
        found = {"host": host, "port": self.port, "user": role, "dbname": role, "password": role} | words
        return " ".join(f"{name}='{value}'" for name, value in found.items() if value is not None)

    def identity(self, authority: Authority, name: str, password: str = "") -> tuple[Path, Path]:
        """A client's certificate and its key, which nobody else may read; encrypted with a password."""
        certificate, key = authority.issue(name)
        if password:
            openssl("pkcs8", "-topk8", "-in", key, "-out", f"{key}.enc", "-passout", f"pass:{password}")
            key = Path(f"{key}.enc")
        key.chmod(0o600)
        return certificate, key

    def revoked(self, certificate: Path) -> Path:
        """A revocation list of the authority with this certificate in it."""
        folder = self.authority.directory
        (folder / "index.txt").touch()
        settings = folder / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index.txt\ndefault_md=sha256\ndefault_crl_days=2\n"
        )
        words = ["-config", settings, "-keyfile", self.authority.key, "-cert", self.authority.pem]
        openssl("ca", *words, "-revoke", certificate)
        openssl("ca", *words, "-gencrl", "-out", folder / "crl.pem")
        return folder / "crl.pem"

    def close(self) -> None:
        """Stop it and remove what it left."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
