"""Kafka brokers: formatting, command lines, and how to see that one is ready."""

import base64
import hashlib
import re
from pathlib import Path

from millpond.local import processes
from millpond.local.errors import LocalError
from millpond.local.jars import kafka_jars
from millpond.local.layout import BROKERS, CONFIG, Layout

READY = b"Kafka Server started"
HEAP = "-Xmx384m"


def command(layout: Layout, name: str) -> list[str]:
    """Return the command line of broker `name`, having written its properties and formatted its directory."""
    home = layout.directory / name
    home.mkdir(exist_ok=True)
    jars = kafka_jars()
    properties = home / "server.properties"
    remote = name == "remote"
    base = CONFIG / "kafka" / ("remote.properties" if remote else "broker.properties")
    properties.write_text(base.read_text() + "\n" + "\n".join(_overrides(layout, name)) + "\n")
    if not (home / "data" / "meta.properties").exists():
        cluster_id = _cluster_id(f"{layout.directory}/{'remote' if remote else 'kafka'}")
        java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        format_ = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
        done = processes.prepare([*java, *format_], stack=layout.directory, server=name, step="format")
        if done.returncode != 0:
            raise LocalError(f"{name}: formatting {home / 'data'} failed:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    java = ["java", HEAP, "-XX:+UseSerialGC", f"-Dlog4j.configuration=file:{CONFIG / 'kafka' / 'log4j.properties'}"]
    if remote:
        java.append(f"-Djava.security.auth.login.config={layout.jaas}")
    return [*java, "-cp", f"{jars}/*", "kafka.Kafka", str(properties)]


def _cluster_id(name: str) -> str:
    text = base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:16]).decode().rstrip("=")
    # One in 64 begins with a dash, which the tool takes for an option.
    return f"A{text[1:]}" if text.startswith("-") else text


def _overrides(layout: Layout, name: str) -> list[str]:
    port, controller = layout.ports[name], layout.ports[f"{name}-controller"]
    if name == "remote":
        node, voters, protocol = 1, f"1@127.0.0.1:{controller}", "SASL_PLAINTEXT"
    else:
        node, protocol = BROKERS.index(name) + 1, "PLAINTEXT"
        voters = ",".join(f"{i}@127.0.0.1:{layout.ports[f'{b}-controller']}" for i, b in enumerate(BROKERS, 1))
    return [
        f"node.id={node}",
        f"listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        f"advertised.listeners={protocol}://127.0.0.1:{port}",
        f"controller.quorum.voters={voters}",
        f"log.dirs={layout.directory / name / 'data'}",
    ]


def ready(log: Path, start: int) -> bool:
    """Whether the broker said that it is up, in what it logged since offset `start`."""
    with log.open("rb") as file:
        file.seek(start)
        return READY in file.read()


def credentials(jaas: Path) -> tuple[str, str]:
    """Return user and password of the `KafkaServer` section."""
    text = jaas.read_text()
    user = re.search(r'^\s*username="([^"]*)"', text, re.MULTILINE)
    password = re.search(r'^\s*password="([^"]*)"', text, re.MULTILINE)
    if not user or not password:
        raise LocalError(f"{jaas}: no username and password in section KafkaServer")
    return user[1], password[1]
