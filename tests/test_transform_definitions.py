"""Bad definitions are refused before anything is read: the message names the place and the nearest known name."""

import json
import subprocess
import sys
from typing import Any

import pytest

import millpond
from millpond.transforms import explain

SECRET = "n0t-the-passw0rd"
KEY = {"hash_key": millpond.Secret(SECRET)}
NO_FIELDS = "there are none"

BAD: list[tuple[Any, list[str]]] = [
    # Typos, with the nearest known name.
    ({"feilds": {}}, ["transform: feilds", "did you mean fields?"]),
    ({"fields": {"product_id": {"tpye": "int"}}}, ["transform: fields.product_id.tpye", "did you mean type?"]),
    ({"fields": {"a": {"type": "itn"}}}, ["transform: fields.a.type", "did you mean int?"]),
    ({"fields": {"a": {"type": "timestmap"}}}, ["fields.a.type", "did you mean timestamp?"]),
    ({"fields": {"a": {"form": "b"}}}, ["fields.a.form", "did you mean from?"]),
    ({"fields": {"a": {"hash": "hmac-sha265"}}, **KEY}, ["fields.a.hash", "did you mean hmac-sha256?"]),
    ({"fields": {"a": {"mask": "ipv4"}}}, ["fields.a.mask", "did you mean ip?"]),
    ({"fields": {}, "keep_unknwon": True}, ["transform: keep_unknwon", "did you mean keep_unknown?"]),
    ({"keep_unknown": True, "drop_if": [{"feild": "a", "equals": 1}]}, ["drop_if[0].feild", "did you mean field?"]),
    ({"keep_unknown": True, "drop_if": [{"field": "a", "equal": 1}]}, ["drop_if[0].equal", "did you mean equals?"]),
    ({"name": "product_view"}, ["transform: name", "did you mean product_views?"]),
    ({"name": "product_views", "local_timezone": "UTC"}, ["local_timezone", "did you mean local_time_zone?"]),
    ("product_veiws", ["product_veiws", "did you mean product_views?"]),
    # Types of settings.
    ({"fields": ["a"]}, ["transform: fields", "a table"]),
    ({"fields": {"a": "int"}}, ["transform: fields.a", "a table"]),
    ({"fields": {"a": {"required": "yes"}}}, ["fields.a.required", "true or false"]),
    ({"fields": {"a": {"type": 1}}}, ["fields.a.type", "a text"]),
    ({"fields": {"a": {"from": 1}}}, ["fields.a.from", "a path or a list of paths"]),
    ({"fields": {"a": {"from": []}}}, ["fields.a.from", "a path or a list of paths"]),
    ({"fields": {"a": {"from": ["b", 1]}}}, ["fields.a.from", "a path or a list of paths"]),
    ({"fields": {"a": {}}, "keep_unknown": 1}, ["transform: keep_unknown", "true or false"]),
    ({"fields": {"a": {}}, "drop_if": {"field": "a"}}, ["transform: drop_if", "a list"]),
    ({"fields": {"a": {}}, "drop_if": [{"field": "a", "one_of": 1}]}, ["drop_if[0].one_of", "a list"]),
    ({"fields": {"a": {}}, "drop_if": [{"field": "a", "equals": []}]}, ["drop_if[0].equals", "a text, a number"]),
    ({"fields": {"a": {}}, "drop_if": [{"field": "a", "missing": "no"}]}, ["drop_if[0].missing", "true or false"]),
    ({"fields": {"a": {}}, "drop_if": [{"field": "a", "contains": 1}]}, ["drop_if[0].contains", "a text"]),
    (5, ["transform", "int"]),
    # What could mean nothing, or too much.
    ({}, ["transform: fields", NO_FIELDS]),
    ({"fields": {}}, ["transform: fields", NO_FIELDS]),
    ({"fields": {"a": {}}, "drop_if": [{"field": "a"}]}, ["drop_if[0]", "no test"]),
    ({"fields": {"a": {}}, "drop_if": [{"equals": 1}]}, ["drop_if[0]", "field is missing"]),
    ({"fields": {"a": {"hash": "blake3"}}}, ["fields.a.hash", "no key", "hash_key"]),
    ({"fields": {"a": {}}, **KEY}, ["transform: hash_key", "no field"]),
    ({"fields": {"a": {"hash": "blake3", "mask": "ip"}}, **KEY}, ["fields.a", "hash and mask"]),
    ({"fields": {"a": {"hash": "blake3", "type": "int"}}, **KEY}, ["fields.a.type", "hash and mask"]),
    ({"fields": {"": {}}}, ["transform: fields", "name"]),
    ({"fields": {"a\0": {}}}, ["fields.a\\0", "NUL"]),
    *(({"fields": {"x": {"from": path}}}, ["fields.x.from"]) for path in ["", ".", "a.", ".a", "a..b", "a\\b", "a\\"]),
    ({"name": "product_views", "local_time_zone": "Asia/Nowhere"}, ["Asia/Nowhere", "IANA"]),
    # Defaults that the field itself would refuse.
    ({"fields": {"a": {"type": "int", "default": "many"}}}, ["fields.a.default", "type"]),
    ({"fields": {"a": {"type": "int", "default": 1.5}}}, ["fields.a.default", "number_inexact"]),
    ({"fields": {"a": {"type": "timestamp", "default": "today"}}}, ["fields.a.default", "bad_time"]),
    ({"fields": {"a": {"hash": "blake3", "default": True}}, **KEY}, ["fields.a.default", "type"]),
    ({"fields": {"a": {"default": 10**30}}}, ["transform: fields.a.default", "64 bits"]),
    ({"fields": {"a": {"default": float("nan")}}}, ["transform: fields.a.default", "float"]),
    ({"fields": {"a": {"default": {1, 2}}}}, ["transform: fields.a.default", "set"]),
    # Keys.
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": SECRET}, ["transform: hash_key", "Secret"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": {"hex": SECRET}}, ["hash_key.hex", "env and file"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": {"value": SECRET}}, ["hash_key.value", "env and file"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": {}}, ["transform: hash_key", "one of env and file"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": {"env": "MILLPOND_NO_SUCH"}}, ["MILLPOND_NO_SUCH", "set it"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": {"file": "/nowhere/key"}}, ["/nowhere/key"]),
    ({"fields": {"a": {"hash": "blake3"}}, "hash_key": millpond.Secret("")}, ["transform: hash_key", "empty"]),
    ("nowhere.toml", ["nowhere.toml", "cannot be read"]),
]


@pytest.mark.parametrize(("definition", "words"), BAD, ids=[words[0] for _, words in BAD])
def test_a_bad_definition_is_refused_before_any_server_is_asked(definition, words):
    nowhere = {"bootstrap.servers": "127.0.0.1:1"}
    run = lambda: millpond.bridge(nowhere, nowhere, source_topic="a", target_topic="b", transform=definition)
    for call in (run, lambda: explain(definition, "{}")):
        with pytest.raises(millpond.ConfigError) as caught:
            call()
        told = f"{caught.value} {caught.value!r}"
        for word in words:
            assert word in told
        assert SECRET not in told
        assert SECRET.encode().hex() not in told


def test_a_file_that_is_no_toml_is_refused_with_the_line(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text("[fields.a\n")
    with pytest.raises(millpond.ConfigError, match=r"rules\.toml is no valid TOML: .*line 1"):
        explain(file, "{}")


def call(*words: Any, text: str | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-c", "from millpond.cli import main; main(prog_name='millpond')", *map(str, words)]
    environment = os.environ | (env or {})
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, input=text, env=environment
    )


def test_explain_shows_a_pasted_event_field_by_field(tmp_path):
    file = tmp_path / "millpond.toml"
    file.write_text(
        "[bridge.transform]\nkeep_unknown = false\n"
        "[[bridge.transform.drop_if]]\nfield = 'kind'\nequals = 'ping'\n"
        "[bridge.transform.fields.product]\nfrom = ['product_id', 'pid']\ntype = 'int'\nrequired = true\n"
        "[bridge.transform.fields.who]\nfrom = 'user.id'\nhash = 'hmac-sha256'\n"
        "[bridge.transform.hash_key]\nenv = 'MILLPOND_TEST_KEY'\n"
    )
    env = {"MILLPOND_TEST_KEY": SECRET}
    done = call("explain", "transform", '{"pid": "7", "user": {"id": 4711}, "x": 1}', "--config", file, env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "product  (from product_id or pid, int, required)"
    assert lines[1] == '    pid = "7"  →  7'
    assert lines[2] == "who  (from user.id, hmac-sha256 hash)"
    assert lines[4] == "taken by no field, not kept: x"
    assert lines[5].startswith('written: {"product":7,"who":"')
    assert SECRET not in done.stdout
    done = call("explain", "transform", "-", "--config", file, "--json", text='{"product_id": 7.5}\n', env=env)
    told = json.loads(done.stdout)
    assert (told["outcome"], told["reason"]) == ("dead_letter", "number_inexact")
    assert [field["reason"] for field in told["fields"]] == ["number_inexact", None]
    done = call("explain", "transform", '{"kind": "ping"}', "--config", file, env=env)
    assert done.stdout.splitlines()[-1] == 'filtered: kind is "ping"'
    done = call("explain", "transform", "[]", "--config", file, env=env)
    assert done.stdout.splitlines() == ["dead letter: not_object: the top value is no object"]
    done = call("explain", "transform", "{}", "--config", file)
    assert (done.returncode, "MILLPOND_TEST_KEY" in done.stderr) == (2, True)
    # The flag goes before the file.
    done = call("explain", "transform", "{}", "--config", file, "--transform", "product_views", "--json")
    assert json.loads(done.stdout)["reason"] == "no_field"
    done = call("explain", "transform", "{}", "--transform", "product_veiws")
    assert (done.returncode, "did you mean product_views?" in done.stderr) == (2, True)
