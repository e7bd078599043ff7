"""The entry commands and health checks of docker-compose.yml, executed as they stand against native servers."""

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pymongo
import pytest
from tests.compose import environment, here, services
from tests.local_servers import until

from millpond.local import mongo, ports, postgres
from millpond.local.jars import kafka_jars
from millpond.local.layout import Layout

NOT_YET_INITIALIZED = 94


@contextmanager
def running(command: list[str], **words) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **words)
    try:
        yield server
    finally:
        server.terminate()
        server.communicate(timeout=120)


def passes(command: list[str], env: dict[str, str] | None = None) -> Callable[[], bool]:
    def check() -> bool:
        # As the engine does it: what does not end in time has failed. Here a JVM may share its core with many.
        try:
            return subprocess.run(command, env=env, capture_output=True, timeout=60, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    return check


def health(name: str) -> list[str]:
    kind, *words = services()[name]["healthcheck"]["test"]
    assert kind == "CMD"
    return here(words, services()[name])


def test_the_remote_broker(tmp_path):
    """Its start and its health check, which logs in; the other brokers run the same two scripts."""
    service = services()["kafka-remote"]
    port, controller = ports.reserve(tmp_path, 2)
    places = {"kafka-remote:9092": f"127.0.0.1:{port}", "kafka-remote:9093": f"127.0.0.1:{controller}"}
    places |= {"//:9092": f"//127.0.0.1:{port}", "//:9093": f"//127.0.0.1:{controller}"}
    env = dict(environment(service))
    for there, ours in places.items():
        env = {name: value.replace(there, ours) for name, value in env.items()}
    env = os.environ | env | {"KAFKA_LIBS": str(kafka_jars()), "DATA": str(tmp_path), "PROPERTIES": f"{tmp_path}/p"}
    for other in ("kafka-1", "kafka-2", "kafka-3"):
        assert services()[other]["entrypoint"] == service["entrypoint"]
        assert services()[other]["healthcheck"] == service["healthcheck"]
        assert environment(services()[other]).keys() == environment(service).keys() - {"JAAS"}
    check = health("kafka-remote")
    with running(here(service["entrypoint"], service), env=env) as broker:
        until(lambda: broker.poll() is not None or passes(check, env)())
        assert broker.poll() is None, broker.stdout and broker.stdout.read()
        wrong = tmp_path / "wrong.conf"
        wrong.write_text(Path(env["JAAS"]).read_text().replace('password="', 'password="not-'))
        assert not passes(check, env | {"JAAS": str(wrong)})()


def test_mongod_runs_by_its_command(tmp_path):
    service = services()["mongo"]
    (port,) = ports.reserve(tmp_path, 1)
    program, *words = here(service["command"], service)
    assert program == "mongod"
    words[words.index("/data/db")] = str(tmp_path)
    words[words.index("--bind_ip_all")] = "--bind_ip=127.0.0.1"
    with running([str(mongo.binary()), *words, f"--port={port}"]) as server:
        address = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        with pymongo.MongoClient[dict[str, object]](address, serverSelectionTimeoutMS=120_000) as client:
            # Told to be of a replica set, and not of one yet: what the health check puts right.
            with pytest.raises(pymongo.errors.OperationFailure) as caught:
                client.admin.command("replSetGetStatus")
            assert caught.value.code == NOT_YET_INITIALIZED
        assert server.poll() is None


def test_postgres_runs_by_its_command_with_airflows_database(tmp_path):
    service = services()["postgres"]
    layout = Layout(tmp_path, dict(zip(("postgres",), ports.reserve(tmp_path, 1), strict=True)))
    ours = postgres.command(layout)
    program = next(word for word in ours if word.endswith("/postgres"))
    owner, options = ours[: ours.index(program)], ours[ours.index(program) + 1 :]
    # A folder that the server's user can read, as it does in the image.
    data = Path(options[options.index("-D") + 1])
    settings = data / "mounted.conf"
    settings.write_bytes(Path(here(service["command"], service)[2].partition("=")[2]).read_bytes())
    words = [word.replace("/var/run/postgresql", str(data)) for word in service["command"][1:]]
    words = [f"config_file={settings}" if word.startswith("config_file=") else word for word in words]
    words = ["listen_addresses=127.0.0.1" if word.startswith("listen_addresses=") else word for word in words]
    settings.chmod(0o644)
    port = str(layout.ports["postgres"])
    check = [word.replace("5432", port) for word in health("postgres")]
    assert check[0] == "pg_isready"
    check[0] = str(Path(program).with_name("pg_isready"))
    env = os.environ | {name: "secret-of-a-test" for name, value in environment(service).items() if ":?" in value}
    env |= {"POSTGRES_USER": postgres.USER, "POSTGRES_DB": "postgres", "PGHOST": "127.0.0.1", "PGPORT": port}
    env |= {"PGPASSWORD": postgres.PASSWORD, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"}
    env["AIRFLOW_DATABASE_PASSWORD"] = "it's of a test"
    try:
        with running([*owner, program, *options, *words], cwd="/"):
            until(passes(check))
            script = next(word for word in service["volumes"] if "initdb.d" in word).split(":")[0]
            subprocess.run([script], env=env, timeout=120, check=True)
            airflow = f"host=127.0.0.1 port={port} user=airflow dbname=airflow password='it\\'s of a test'"
            with psycopg.connect(airflow) as connection:
                connection.execute("CREATE TABLE migrated ()")
        until(lambda: not passes(check)(), 10)
    finally:
        postgres.remove_data(layout)


@pytest.mark.parametrize("name", ["spark-master", "spark-worker-1"])
def test_spark_is_healthy_when_its_page_says_so(name):
    page = [b"nothing yet"]

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page[0])

        def log_message(self, *words: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        check = [word.replace("8081", port) for word in health(name)]
        assert not passes(check)()
        page[0] = b"<li>Status: ALIVE</li> Spark Worker at"
        assert passes(check)()
        server.shutdown()
    assert not passes(check)()
