"""The command line: settings by precedence, exit codes by who must act, `doctor` within five seconds."""

import json
import subprocess
import sys
import time

SECRET = "n0t-the-passw0rd"


def call(*words, **env):
    import os

    code = "from millpond.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | env)


def toml(tables):
    return "\n".join(
        f"[{name}]\n" + "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in table.items())
        for name, table in tables.items()
    )


def configured(servers, name, **changes):
    return {
        "source": servers.remote,
        "target": servers.kafka,
        "mongo": {"uri": servers.mongo_uri},
        "postgres": {"dsn": changes.get("dsn", servers.dsn)},
        "bridge": {"source_topic": name, "target_topic": f"{name}-out", "transform": "product_views"},
        "sink": {"topic": f"{name}-out", "database": "tests", "collection": name},
        "aggregate": {"database": "tests", "collection": name},
    }


def test_run_carries_all_three_and_top_shows_them(servers, name, postgres, tmp_path):
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, [(None, b'{"product_id":7,"time_stamp":1761881000}', 0)] * 5)
    file = tmp_path / "millpond.toml"
    file.write_text(toml(configured(servers, name, dsn=postgres)))
    done = call("run", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    books = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(book)) for book in books] == ["bridge", "sink", "aggregate"]
    assert books[2]["aggregate"]["counted"] == 5
    best = json.loads(call("top", "--config", file, "--json").stdout)
    assert best["product_views_daily"][0]["product_id"] == "7"
    # Flags win over the environment, which wins over the file.
    assert call("sink", "--config", file, MILLPOND_COLLECTION=f"{name}-env", MILLPOND_TOPIC="missing").returncode == 2
    assert call("sink", "--config", file, "--topic", f"{name}-out", MILLPOND_TOPIC="missing").returncode == 0


def test_doctor_names_what_is_wrong_and_no_secret(servers, name, tmp_path):
    servers.create(servers.remote, name, 1)
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(toml(configured(servers, name)))
    done = call("doctor", "--config", good, "--json")
    assert done.returncode == 0, done.stdout
    tables = configured(servers, name, dsn=servers.dsn.replace("millpond-local-only", SECRET))
    tables["source"] = servers.remote | {"sasl.password": SECRET}
    tables["target"] = {"bootstrap.servers": "127.0.0.1:1"}
    tables["mongo"] = {"uri": f"mongodb://u:{SECRET}@127.0.0.1:1/"}
    bad.write_text(toml(tables))
    began = time.monotonic()
    done = call("doctor", "--config", bad, "--json")
    assert time.monotonic() - began < 6
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    findings = json.loads(done.stdout)
    assert [(found["what"], found["ok"]) for found in findings] == [
        ("source", False),
        ("target", False),
        ("mongo", False),
        ("postgres", False),
    ]
    assert all(found["hint"] for found in findings)


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path):
    file = tmp_path / "millpond.toml"
    file.write_text("[sink]\ntopik = 'x'\n")
    done = call("sink", "--config", file)
    assert done.returncode == 2
    assert "topik" in done.stderr
    assert "topic" in done.stderr
