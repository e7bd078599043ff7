"""Connection → settings: each field and extra is honoured, or refused by its name, and no secret is told (I6)."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from millpond.airflow.connections import (
    UnusableConnectionError,
    kafka_properties,
    mongo_uri,
    postgres_dsn,
    spark_master,
)

READERS = {"kafka": kafka_properties, "mongo": mongo_uri, "postgres": postgres_dsn, "spark": spark_master}


@dataclass
class Given:
    conn_type: str | None
    extra_dejson: dict[str, Any] = field(default_factory=dict)
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    schema: str | None = None
    conn_id: str | None = "some_id"


SERVERS = {"bootstrap.servers": "b:1"}
HONOURED = [
    (Given("kafka", SERVERS), SERVERS),
    (Given("kafka", host="b", port=9093), {"bootstrap.servers": "b:9093"}),
    (Given("kafka", host="b"), {"bootstrap.servers": "b:9092"}),
    (Given("kafka", host="b:1,c:2"), {"bootstrap.servers": "b:1,c:2"}),
    (
        Given("kafka", SERVERS, login="u", password="p"),
        {**SERVERS, "sasl.username": "u", "sasl.password": "p"},
    ),
    (
        Given("kafka", {**SERVERS, "fetch.min.bytes": 7, "enable.ssl.certificate.verification": True, "debug": None}),
        {**SERVERS, "fetch.min.bytes": "7", "enable.ssl.certificate.verification": "true"},
    ),
    (Given(None, SERVERS), SERVERS),
    (Given("generic", SERVERS), SERVERS),
    (Given("mongo", host="m"), "mongodb://m/"),
    (Given("mongo", host="m", port=7), "mongodb://m:7/"),
    (Given("mongo", host="::1", port=7), "mongodb://[::1]:7/"),
    (Given("mongo", {"replicaSet": "rs0"}, host="a:1,b:2"), "mongodb://a:1,b:2/?replicaSet=rs0"),
    (
        Given("mongo", {"authSource": "admin"}, host="m", login="u@x", password="p/:%", schema="db"),
        "mongodb://u%40x:p%2F%3A%25@m/db?authSource=admin",
    ),
    (Given("mongo", {"srv": True}, host="m.example"), "mongodb+srv://m.example/"),
    (Given("mongo", {"srv": "true", "tls": False}, host="m.example"), "mongodb+srv://m.example/?tls=false"),
    (
        Given("mongo", {"ssl": "True", "allow_insecure": "false", "connecttimeoutms": 500}, host="m"),
        "mongodb://m/?tls=true&tlsAllowInvalidCertificates=false&connectTimeoutMS=500",
    ),
    # What the web form of 2.10 saves where nobody ticked a box.
    (Given("mongo", {"srv": False, "ssl": False, "allow_insecure": False}, host="m"), "mongodb://m/?tls=false"),
    # As Airflow's own hook: without ssl it has no bearing.
    (Given("mongo", {"allow_insecure": True}, host="m"), "mongodb://m/"),
    (
        Given("mongo", {"tls": True, "allow_insecure": True}, host="m"),
        "mongodb://m/?tls=true&tlsAllowInvalidCertificates=true",
    ),
    (
        Given("mongo", {"compressors": ["zstd", "snappy"], "tlsCAFile": "/ca path.pem"}, host="m"),
        "mongodb://m/?compressors=zstd,snappy&tlsCAFile=%2Fca%20path.pem",
    ),
    (
        Given("mongo", {"authMechanismProperties": {"SERVICE_NAME": "x"}}, host="m"),
        "mongodb://m/?authMechanismProperties=SERVICE_NAME:x",
    ),
    (Given("postgres", host="p"), "host='p'"),
    (
        Given("postgres", {"sslmode": "verify-full", "connect_timeout": 3}, "p", 5, "u", r"it's \ one", "d"),
        r"host='p' port='5' dbname='d' user='u' password='it\'s \\ one' sslmode='verify-full' connect_timeout='3'",
    ),
    (Given("postgres", {"cursor": "dictcursor"}, host="p"), "host='p'"),
    (Given("postgres", {"sqlalchemy_scheme": "postgresql+psycopg"}, host="p"), "host='p'"),
    (Given("postgres", {"service": "reports"}), "service='reports'"),
    (Given("spark", host="spark://m", port=7077), "spark://m:7077"),
    (Given("spark", {"deploy-mode": "client", "spark-binary": "x"}, host="m", port=7077), "spark://m:7077"),
    (Given("spark", host="local[2]"), "local[2]"),
]

SECRET = "hunter2-never-told"
REFUSED = [
    ("kafka", Given("kafka"), "bootstrap.servers"),
    ("kafka", Given("postgres", SERVERS), "postgres"),
    ("kafka", Given("kafka", SERVERS, schema="x"), "schema"),
    ("kafka", Given("kafka", SERVERS, host="other"), "bootstrap.servers"),
    ("kafka", Given("kafka", {**SERVERS, "sasl.password": SECRET}, password="other"), "sasl.password"),
    ("kafka", Given("kafka", {**SERVERS, "sasl.password": [SECRET]}), "sasl.password"),
    ("mongo", Given("mongo"), "no host"),
    ("mongo", Given("mongo", host=f"mongodb://u:{SECRET}@m/"), "host field"),
    ("mongo", Given("mongo", {"srv": True}, host="m", port=1), "srv"),
    ("mongo", Given("mongo", {"srv": "maybe"}, host="m"), "srv"),
    ("mongo", Given("mongo", {"tls": SECRET}, host="m"), "tls"),
    ("mongo", Given("mongo", {"replicaSets": SECRET}, host="m"), "replicaSet'"),
    ("mongo", Given("mongo", {"tz_aware": True}, host="m"), "PyMongo"),
    ("mongo", Given("mongo", {"ssl_cert_reqs": "CERT_NONE"}, host="m"), "tlsAllowInvalidCertificates"),
    ("mongo", Given("mongo", {"ssl": True, "tls": False}, host="m"), "two values"),
    ("mongo", Given("mongo", host="a:1", port=2), "port"),
    ("postgres", Given("postgres"), "no host"),
    ("postgres", Given("mysql", host="p"), "mysql"),
    ("postgres", Given("postgres", {"iam": True}, host="p"), "AWS"),
    ("postgres", Given("postgres", {"azure_conn_id": "a"}, host="p"), "Azure"),
    ("postgres", Given("postgres", {"sqlalchemy_query": {"sslmode": "require"}}, host="p"), "SQLAlchemy"),
    ("postgres", Given("postgres", {"sslmod": "require"}, host="p"), "sslmode"),
    ("postgres", Given("postgres", {"password": SECRET}, host="p", password="other"), "password"),
    ("postgres", Given("postgres", {"sslmode": {"a": SECRET}}, host="p"), "sslmode"),
    ("spark", Given("spark"), "no host"),
    ("spark", Given("spark", {"deploy-mode": "cluster"}, host="m"), "deploy-mode"),
    ("spark", Given("spark", {"keytab": SECRET}, host="m"), "keytab"),
]


@pytest.mark.parametrize(("given", "wanted"), HONOURED)
def test_honoured(given, wanted):
    kind = given.conn_type if given.conn_type in READERS else "kafka"
    assert READERS[kind](given) == wanted


@pytest.mark.parametrize(("kind", "given", "named"), REFUSED)
def test_refused_by_name(kind, given, named):
    with pytest.raises(UnusableConnectionError) as caught:
        READERS[kind](given)
    message = str(caught.value)
    assert named in message
    assert "some_id" in message
    assert SECRET not in message


def test_a_dsn_is_what_libpq_reads():
    from psycopg.conninfo import conninfo_to_dict

    given = Given("postgres", {"sslmode": "prefer", "options": "-csearch_path=a b"}, "p", 5, "u", r"it's \ one", "d")
    assert conninfo_to_dict(postgres_dsn(given)) == {
        "host": "p", "port": "5", "user": "u", "password": r"it's \ one", "dbname": "d", "sslmode": "prefer",
        "options": "-csearch_path=a b",
    }  # fmt: skip


def test_a_uri_is_what_pymongo_reads():
    import pymongo.uri_parser

    given = Given("mongo", {"replicaSet": "rs0", "authSource": "admin"}, "a:1,b:2", None, "u@x", "p/:%", "db")
    read = pymongo.uri_parser.parse_uri(mongo_uri(given))
    assert read["nodelist"] == [("a", 1), ("b", 2)]
    assert (read["username"], read["password"], read["database"]) == ("u@x", "p/:%", "db")
    assert dict(read["options"]) == {"replicaSet": "rs0", "authSource": "admin"}
