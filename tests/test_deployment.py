"""docker-compose.yml: valid, closed, complete, and of the very files and commands that the local servers run with."""

import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from tests import compose
from tests.compose import ROOT, mounts, services, volumes, whole

from millpond.local.layout import CONFIG

ONE_SHOT = {"airflow-init"}


def judged(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_specification_accepts_it(tmp_path):
    said = judged(compose.FILE)
    assert said.returncode == 0, said.stdout + said.stderr
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(compose.FILE.read_text().replace("healthcheck:", "healthchecks:"))
    assert judged(broken).returncode == 1


def test_the_reference_deployment_is_whole():
    images = {name: service["image"].partition("@")[0] for name, service in services().items()}
    assert {name: image for name, image in images.items() if not name.startswith("airflow")} == {
        "kafka-remote": "apache/kafka:3.9.2", "kafka-1": "apache/kafka:3.9.2", "kafka-2": "apache/kafka:3.9.2",
        "kafka-3": "apache/kafka:3.9.2", "mongo": "mongo:7.0", "postgres": "postgres:16.3",
        **dict.fromkeys(
            ("spark-master", "spark-worker-1", "spark-worker-2"), "spark:3.5.6-scala2.12-java17-python3-ubuntu"
        ),
    }  # fmt: skip
    airflow = {name for name in images if name.startswith("airflow")}
    assert airflow == {"airflow-init", "airflow-webserver", "airflow-scheduler", "airflow-triggerer"}
    assert services()["spark-worker-1"]["command"][2:6] == ["--cores", "4", "--memory", "1G"]
    wanted = re.search(r"apache-airflow==(\S+)", (ROOT / "requirements" / "airflow-2.10.in").read_text())
    assert wanted is not None
    assert {images[name] for name in airflow} == {f"millpond-airflow:{wanted[1]}"}
    dockerfile = (ROOT / services()["airflow-init"]["build"]["dockerfile"]).read_text()
    assert f"AIRFLOW_VERSION={wanted[1]}" in dockerfile
    assert "!dist/*.whl" in (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize("name", services())
def test_a_service_is_limited_watched_and_keeps_its_data(name):
    service = services()[name]
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["restart"]
    assert ("healthcheck" in service) == (name not in ONE_SHOT)
    assert volumes(service) <= whole()["volumes"].keys()
    if name.split("-")[0] in ("kafka", "mongo", "postgres"):
        assert len(volumes(service)) == 1
    for place in mounts(service).values():
        assert place.exists(), place


def test_settings_are_those_of_the_local_servers():
    mounted = {place for service in services().values() for place in mounts(service).values()}
    config = {place.relative_to(ROOT / "config") for place in mounted if place.is_relative_to(ROOT / "config")}
    assert config == {path.relative_to(ROOT / "config") for path in (ROOT / "config").rglob("*") if path.is_file()}
    for path in config:
        # What `millpond local` reads, in the wheel as well.
        assert (CONFIG / path).read_bytes() == (ROOT / "config" / path).read_bytes()
    for script in [
        *(ROOT / "deploy" / "kafka").iterdir(),
        ROOT / "deploy/spark-healthy",
        ROOT / "deploy/airflow/initialise",
    ]:
        assert script.stat().st_mode & 0o111, script


def test_servers_start_in_order_and_nothing_waits_for_the_demo():
    needs = {name: service.get("depends_on", {}) for name, service in services().items()}
    order = list(TopologicalSorter(needs).static_order())
    assert order.index("postgres") < order.index("airflow-init") < order.index("airflow-scheduler")
    assert order.index("spark-master") < order.index("spark-worker-1")
    for waits in needs.values():
        for name, how in waits.items():
            assert not services()[name].get("profiles")
            done = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert how["condition"] == done
    assert {"kafka-1", "kafka-2", "kafka-3", "mongo", "postgres"} <= needs["airflow-scheduler"].keys()


def test_ports_are_open_to_this_machine_alone():
    published = {port for service in services().values() for port in service.get("ports", [])}
    assert published == {f"127.0.0.1:{port}:{port}" for port in (8080, 8081, 27017, 5432)}


def variables(file: str) -> dict[str, str]:
    lines = (line for line in (ROOT / "deploy" / file).read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def test_no_password_is_a_default_but_in_the_demo():
    text = compose.FILE.read_text()
    assert "local-only" not in text
    asked = dict(re.findall(r"\$\{(\w+)(:[?-])", text))
    assert {name for name, how in asked.items() if how != ":?"} == {"AIRFLOW_ADMIN_USER"}
    secrets = {name for name, how in asked.items() if how == ":?"}
    assert variables("demo.env").keys() == variables("example.env").keys() == secrets
    assert set(variables("example.env").values()) == {""}
    for secret in re.findall(r'password"?: *"([^"]*)"', text, re.IGNORECASE):
        assert secret.startswith("${"), secret
    jaas = ROOT / "config" / "kafka" / "kafka_server_jaas.conf"
    holders = {name for name, service in services().items() if jaas in mounts(service).values()}
    assert holders == {"kafka-remote"}
    assert services()["kafka-remote"]["profiles"] == ["demo"]
    assert [name for name, service in services().items() if service.get("profiles")] == ["kafka-remote"]
