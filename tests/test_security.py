"""TLS and SASL against a real broker: each way with a right, a wrong, and an expired or foreign credential.

A right one copies a topic on that broker, as source and as target. A wrong one ends within 15 seconds with the right
class, the name of the thing and a hint; no secret is told anywhere (I6).
"""

import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from tests.authority import Authority, Issuer
from tests.credentials import EXTERNAL, REFUSED, RIGHT, SECRETS, WRONG, keystore, oauth, token_of
from tests.promptness import within
from tests.secured_kafka import CLIENT_SECRET, SECRET, Secured, secured_kafka
from tests.test_cli import call, toml

import millpond

EVENTS = [b"%d" % i for i in range(40)]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    with secured_kafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    directory = tmp_path_factory.mktemp("foreign")
    return Authority(directory / "authority", "theirs"), Issuer(directory / "issuer")


@pytest.fixture
def topic(kafka: Secured, name: str, servers_of_kafka) -> str:
    servers_of_kafka(name, EVENTS)
    return name


@pytest.fixture(scope="module")
def servers_of_kafka(kafka: Secured):
    """Make and fill a topic through the listener that asks for nothing."""
    from confluent_kafka import Producer

    plain = kafka.at("INTERNAL")

    def make(name: str, values: list[bytes]) -> None:
        admin = AdminClient(plain)
        admin.create_topics([NewTopic(name, 2, 1)])[name].result(timeout=60)
        producer = Producer(plain)
        for i, value in enumerate(values):
            producer.produce(name, value, partition=i % 2)
        assert producer.flush(120) == 0

    return make


def written(kafka: Secured, name: str) -> list[bytes]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(kafka.at("INTERNAL") | {"group.id": "test", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(2)])
    found: list[bytes] = []
    deadline = time.monotonic() + 120
    while len(found) < len(EVENTS) and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(message.value() or b"")
    consumer.close()
    return found


def copied(kafka, topic, properties, **words):
    """Copy with these properties on both sides, and look at the copy through another door."""
    result = millpond.bridge(properties, properties, source_topic=topic, target_topic=f"{topic}-out", **words)
    assert result.written == len(EVENTS)
    assert sorted(written(kafka, f"{topic}-out")) == sorted(EVENTS)
    return result


@pytest.mark.parametrize("way", RIGHT)
def test_right(kafka, topic, way, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    copied(kafka, topic, RIGHT[way](kafka, tmp_path))
    assert ("unchecked" in caplog.text) == ("checked" in way), caplog.text
    assert not [secret for secret in (*SECRETS, "eyJ") if secret in caplog.text]


@pytest.fixture(scope="module")
def refusals(kafka, foreign, tmp_path_factory):
    """What each of them says, in time, and all that was logged meanwhile. They wait, so they wait together."""
    logged: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record):
            logged.append(record.getMessage())

    def one(way):
        make, family, *_ = REFUSED[way]
        caught: Any = None

        def once() -> float:
            nonlocal caught
            properties = make(kafka, foreign, tmp_path_factory.mktemp("way"))
            began = time.monotonic()
            with pytest.raises(family) as caught:
                millpond.bridge(properties, kafka.at("INTERNAL"), source_topic="absent", target_topic="absent-out")
            return time.monotonic() - began

        within(15, once)
        return caught.value

    handler = Keep(logging.DEBUG)
    logging.getLogger("millpond").addHandler(handler)
    with ThreadPoolExecutor(6) as pool:
        # The slow ones first.
        ways = sorted(REFUSED, key=lambda way: REFUSED[way][1] is not EXTERNAL)
        told = {way: pool.submit(one, way) for way in ways}
    logging.getLogger("millpond").removeHandler(handler)
    return told, "\n".join(logged)


@pytest.mark.parametrize("way", REFUSED)
def test_refused(refusals, way):
    error = refusals[0][way].result()
    _, family, *words = REFUSED[way]
    told = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert type(error) is family
    assert error.hint
    assert not [word for word in ("source", *words) if word not in told], told
    assert not [secret for secret in (*SECRETS, "eyJ", "PRIVATE KEY") if secret in told + refusals[1]]


def test_the_wrong_side_is_named(kafka, topic):
    with pytest.raises(millpond.ConfigError, match="target"):
        millpond.bridge(kafka.at("TLS"), kafka.user("PLAIN", WRONG), source_topic=topic, target_topic=f"{topic}-out")


def test_a_token_is_renewed_while_a_run_goes_on(kafka, topic):
    """The broker asks for a new one every three seconds, and ours are told to last four: a run of six goes through."""
    asked = []

    def oauth_cb(config):
        asked.append(config)
        return kafka.issuer.token(60), time.time() + 4, "someone", {"extra": "of the request"}

    properties = oauth(kafka, oauth_cb) | {"sasl.oauthbearer.config": "as given"}
    result = copied(kafka, topic, properties, max_events_per_second=len(EVENTS) / 6)
    assert 5 < result.seconds < 120
    # Two sides, each asked at the start and whenever four fifths of a token's time are over.
    assert 4 <= len(asked) <= 2 * (1 + result.seconds / 3.2)
    assert set(asked) == {"as given"}


def test_a_token_that_is_not_renewed_ends_the_run(kafka, topic):
    # As good as its time is told to be short: on a busy machine four seconds may be over before it is looked at.
    answers = iter([kafka.issuer.token(60)])
    properties = oauth(kafka, lambda _: (next(answers), time.time() + 2))
    words = {"source_topic": topic, "target_topic": f"{topic}-out", "max_events_per_second": 1}
    began = time.monotonic()
    with pytest.raises(millpond.ConfigError, match="source: oauth_cb raised StopIteration"):
        millpond.bridge(properties, kafka.at("INTERNAL"), **words)
    # Far from the forty that all of its events would take.
    assert time.monotonic() - began < 30
    # Nothing is lost: the next run, with tokens, copies what is left.
    rest = millpond.bridge(properties | {"oauth_cb": token_of(kafka.issuer)}, kafka.at("INTERNAL"), **words | {
        "max_events_per_second": None})  # fmt: skip
    assert rest.lag == 0
    assert sorted(written(kafka, f"{topic}-out")) == sorted(EVENTS)


def test_a_sink_reads_with_a_token(kafka, servers, topic):
    words = {"topic": topic, "database": "tests", "collection": topic}
    assert millpond.sink(kafka.oidc(), servers.mongo_uri, **words).read == len(EVENTS)
    with pytest.raises(millpond.ConfigError, match="source"):
        millpond.sink(oauth(kafka, token_of(kafka.issuer, seconds=-300)), servers.mongo_uri, **words)


JAAS = """
KafkaClient {{
  org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="{secret}";
  org.apache.kafka.common.security.scram.ScramLoginModule required
    username="alice"
    password='{secret}';  // for both SCRAM mechanisms
  org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required
    clientId="client" clientSecret="{client_secret}" scope="kafka" extension_logicalCluster="lkc-1" ;
}};
"""


def test_a_jaas_file_says_it_all(tmp_path):
    file = tmp_path / "jaas.conf"
    file.write_text(JAAS.format(secret=r"a}};\"b", client_secret="c;'d"))

    def read(**words):
        words = {"security_protocol": "SASL_SSL", "token_endpoint_url": "https://e/t"} | words
        return millpond.kafka_from_jaas(file, "b:1", **words)

    given = {"bootstrap.servers": "b:1", "security.protocol": "SASL_SSL"}
    user = {"sasl.username": "alice", "sasl.password": 'a}};"b'}
    assert read() == given | user | {"sasl.mechanism": "PLAIN"}
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        assert read(mechanism=mechanism) == given | user | {"sasl.mechanism": mechanism}
    assert read(mechanism="OAUTHBEARER") == given | {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "client",
        "sasl.oauthbearer.client.secret": "c;'d",
        "sasl.oauthbearer.scope": "kafka",
        "sasl.oauthbearer.token.endpoint.url": "https://e/t",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
    }
    for words, told in (
        ({"mechanism": "OAUTHBEARER", "token_endpoint_url": None}, "token_endpoint_url"),
        ({"mechanism": "GSSAPI"}, "no login module"),
        ({"user": "bob"}, "bob"),
    ):
        with pytest.raises(millpond.ConfigError, match=told) as refused:
            read(**words)
        assert "a}" not in str(refused.value)
        assert "c;" not in str(refused.value)


def oauth_cb(_config: str) -> tuple[str, float]:
    """What `tests.test_security.oauth_cb` names in a file or an Airflow connection."""
    return Path(TOKEN_FILE).read_text(), time.time() + 3_600


TOKEN_FILE = ""


def test_a_callback_is_found_by_its_name(kafka, topic, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(kafka.issuer.token())
    monkeypatch.setitem(globals(), "TOKEN_FILE", str(file))
    copied(kafka, topic, oauth(kafka, f"{__name__}.oauth_cb"))
    with pytest.raises(millpond.ConfigError, match="oauth_cb"):
        copied(kafka, topic, oauth(kafka, f"{__name__}.absent"))


def test_doctor_understands_them(kafka, topic, tmp_path):
    def examined(properties):
        file = tmp_path / "millpond.toml"
        tables = {"source": properties, "target": properties}
        file.write_text(toml(tables | {"bridge": {"source_topic": topic, "target_topic": f"{topic}-out"}}))
        done = call("doctor", "--config", file, "--json")
        assert not [secret for secret in (SECRET, CLIENT_SECRET, WRONG) if secret in done.stdout + done.stderr]
        return done.returncode, json.loads(done.stdout)

    for right in (kafka.oidc(), keystore(kafka, tmp_path)):
        code, findings = examined(right)
        assert code == 0, findings
    for wrong, word in (
        (kafka.at("OTHER"), "other names"),
        (kafka.oidc(**{"sasl.oauthbearer.client.secret": WRONG}), "invalid_client"),
    ):
        code, findings = examined(wrong)
        assert code == 2
        assert [(found["what"], found["ok"]) for found in findings] == [("source", False), ("target", False)]
        assert all(word in found["detail"] and found["hint"] for found in findings), findings


DOCUMENTED = (Path(__file__).resolve().parent.parent / "docs" / "security.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENTED, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_documented(kafka, topic, tmp_path, monkeypatch, block):
    """Each example as it stands, but for the names of servers and files."""
    certificate, key = kafka.authority.issue("client")
    jaas = tmp_path / "jaas.conf"
    jaas.write_text(JAAS.format(secret=SECRET, client_secret=CLIENT_SECRET))
    real = {
        "kafka.example.com:9093": f"127.0.0.1:{kafka.ports['TLS']}",
        "kafka.example.com:9094": f"127.0.0.1:{kafka.ports['MUTUAL']}",
        "kafka.example.com:9095": f"127.0.0.1:{kafka.ports['SASL']}",
        "https://issuer.example.com/token": kafka.endpoint,
        "/etc/kafka/ca.pem": str(kafka.authority.pem),
        "/etc/kafka/client.pem": str(certificate),
        "/etc/kafka/client.key": str(key),
        "/etc/kafka/jaas.conf": str(jaas),
    }
    for name, value in real.items():
        block = block.replace(f'"{name}"', repr(value))
    monkeypatch.setenv("KAFKA_PASSWORD", SECRET)
    monkeypatch.setenv("CLIENT_SECRET", CLIENT_SECRET)
    said: dict[str, Any] = {"fetch_token": kafka.issuer.token}
    exec(block, said)
    copied(kafka, topic, said["source"])


def test_every_way_is_documented():
    for word in ("SSL", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "oauth_cb", '"oidc"', "ssl.certificate.location"):
        assert any(word in block for block in BLOCKS), word
