"""A certificate authority, and an issuer of signed tokens, of a test's own: made with openssl's command line."""

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*words: object, given: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Authority:
    """Signs certificates; everything lies in one directory as PEM."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.pem, self.key = directory / "ca.pem", directory / "ca.key"
        words = ["-x509", *KEY, "-days", 2, "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.pem]
        openssl("req", *words)

    def issue(self, name: str, names: str = "", days: int = 2) -> tuple[Path, Path]:
        """Return certificate and key; `names` are subject alternative names, -1 days has expired."""
        certificate, key, request = (self.directory / f"{name}.{end}" for end in ("pem", "key", "csr"))
        openssl("req", "-new", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        words = ["-in", request, "-CA", self.pem, "-CAkey", self.key, "-CAcreateserial", "-extfile", extensions]
        openssl("x509", "-req", *words, "-days", days, "-out", certificate)
        return certificate, key


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Signs JSON web tokens (RS256) that a broker checks by `jwks`."""

    name, audience = "https://issuer.test", "kafka"

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.key = directory / "token.key"
        openssl("genrsa", "-out", self.key, 2048)
        modulus = openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip().partition("=")[2]
        public = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k", "n": _encoded(bytes.fromhex(modulus))}
        self.jwks = directory / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [public | {"e": "AQAB"}]}))

    def token(self, seconds: float = 3_600, **claims: Any) -> str:
        now = time.time()
        said = {"sub": "someone", "iss": self.name, "aud": self.audience, "iat": int(now) - 60} | claims
        parts = ({"alg": "RS256", "kid": "k", "typ": "JWT"}, said | {"exp": int(now + seconds)})
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_encoded(openssl('dgst', '-sha256', '-sign', self.key, given=text.encode()))}"
