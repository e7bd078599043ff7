"""One real broker with a listener for each way to be secure, and a token endpoint beside it."""

import base64
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.authority import Authority, Issuer
from tests.local_servers import until

from millpond.local import kafka, ports, processes
from millpond.local.jars import kafka_jars
from millpond.local.layout import CONFIG

SECRET = "s3cret-of-alice"
CLIENT_SECRET = "s3cret/of:the+client"
KEY_PASSWORD = "s3cret-of-the-key"
LISTENERS = ("INTERNAL", "CONTROLLER", "TLS", "MUTUAL", "OTHER", "SASL")

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{CONTROLLER}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,OTHER:SSL,SASL:SASL_SSL
log.dirs={directory}/data
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=1
num.io.threads=2
ssl.keystore.type=PEM
ssl.keystore.location={directory}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.keystore.type=PEM
listener.name.mutual.ssl.keystore.location={directory}/broker.pem
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={ca}
listener.name.other.ssl.keystore.type=PEM
listener.name.other.ssl.keystore.location={directory}/other.pem
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
 user_alice="{secret}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.sasl.oauthbearer.connections.max.reauth.ms=3000
sasl.oauthbearer.jwks.endpoint.url={jwks}
sasl.oauthbearer.expected.audience={audience}
sasl.oauthbearer.expected.issuer={issuer}
"""


@dataclass
class Secured:
    """A running broker: addresses by listener, who signed what, and the endpoint."""

    directory: Path
    ports: dict[str, int]
    authority: Authority
    issuer: Issuer
    endpoint: str
    # A port where neither TLS nor Kafka is spoken.
    web: int
    pid: int

    def at(self, listener: str, **properties: Any) -> dict[str, Any]:
        """Properties for a listener; `_` stands for a dot."""
        protocol = {"INTERNAL": "PLAINTEXT", "SASL": "SASL_SSL"}.get(listener, "SSL")
        given = {"bootstrap.servers": f"127.0.0.1:{self.ports[listener]}", "security.protocol": protocol}
        if protocol != "PLAINTEXT":
            given["ssl.ca.location"] = str(self.authority.pem)
        return given | {name.replace("_", "."): str(value) for name, value in properties.items()}

    def sasl(self, mechanism: str, **properties: Any) -> dict[str, Any]:
        return self.at("SASL", sasl_mechanism=mechanism, **properties)

    def user(self, mechanism: str, password: str = SECRET) -> dict[str, Any]:
        return self.sasl(mechanism, sasl_username="alice", sasl_password=password)

    def oidc(self, **changes: Any) -> dict[str, Any]:
        return self.sasl("OAUTHBEARER") | {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "client",
            "sasl.oauthbearer.client.secret": CLIENT_SECRET,
            "sasl.oauthbearer.scope": "kafka",
            "sasl.oauthbearer.token.endpoint.url": self.endpoint,
            "https.ca.location": str(self.authority.pem),
        } | changes  # fmt: skip


@contextmanager
def token_endpoint(issuer: Issuer, certificate: Path, key: Path) -> Iterator[str]:
    """Serve RFC 6749's client credentials over TLS."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            basic = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            good = basic == f"client:{CLIENT_SECRET}" and form == {
                "grant_type": ["client_credentials"],
                "scope": ["kafka"],
            }
            answer = {"access_token": issuer.token(), "expires_in": 3_600} if good else {"error": "invalid_client"}
            body = json.dumps(answer).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web_server() -> Iterator[int]:
    """Serve HTTP in the clear, and nothing by it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def secured_kafka(directory: Path) -> Iterator[Secured]:
    """Start the broker; it is gone when the block is left."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, issuer = Authority(directory / "authority", "ours"), Issuer(directory / "issuer")
    for name, names in (("broker", "IP:127.0.0.1,DNS:localhost"), ("other", "DNS:other.example")):
        certificate, key = authority.issue(name, names)
        (directory / f"{name}.pem").write_text(key.read_text() + certificate.read_text())
    numbers = dict(zip(LISTENERS, ports.reserve(directory, len(LISTENERS)), strict=True))
    addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in numbers.items()}
    jwks = issuer.jwks.as_uri()
    properties = directory / "server.properties"
    properties.write_text(
        PROPERTIES.format(
            **numbers,
            listeners=",".join(addresses.values()),
            advertised=",".join(text for name, text in addresses.items() if name != "CONTROLLER"),
            directory=directory,
            ca=authority.pem,
            secret=SECRET,
            jwks=jwks,
            audience=issuer.audience,
            issuer=issuer.name,
        )
    )
    jars = f"{kafka_jars()}/*"
    scram = [f"{mechanism}=[name=alice,password={SECRET}]" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
    format_ = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", jars, "kafka.tools.StorageTool", "format"]
    users = [word for user in scram for word in ("--add-scram", user)]
    made = processes.prepare(
        [*format_, "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", str(properties), *users],
        stack=directory, server="secured", step="format",
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    allowed = [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.{what}={jwks}" for what in ("urls", "files")]
    log4j = f"-Dlog4j.configuration=file:{CONFIG / 'kafka' / 'log4j.properties'}"
    command = ["java", "-Xmx256m", "-XX:+UseSerialGC", *allowed, log4j, "-cp", jars, "kafka.Kafka", str(properties)]
    log = directory / "broker.log"
    certificate, key = authority.directory / "broker.pem", authority.directory / "broker.key"
    with token_endpoint(issuer, certificate, key) as endpoint, web_server() as web:
        broker = processes.spawn(command, stack=directory, server="secured", log=log)
        try:

            def started() -> bool:
                assert broker.poll() is None, log.read_text()[-3_000:]
                return kafka.ready(log, 0)

            until(started)
            yield Secured(directory, numbers, authority, issuer, endpoint, web, broker.pid)
        finally:
            broker.terminate()
            broker.wait(90)
