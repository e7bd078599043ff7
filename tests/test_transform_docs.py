"""docs/transforms.md holds what it says: every definition and every table in it is run. Nothing is copied here."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.transforms import explain

DOCS = (Path(__file__).resolve().parent.parent / "docs" / "transforms.md").read_text()
BLOCKS = re.findall(r"^```([a-z-]+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
WORDS = {"true", "false", "null"}
RULES = {"json-type": {"type": "json"}, "ip": {"mask": "ip"}}


def cases() -> list[tuple[dict[str, Any], str, str]]:
    """Each line of the page: a definition, an event, and what it says becomes of it."""
    found = []
    definition: dict[str, Any] = {}
    for kind, text in BLOCKS:
        if kind == "toml":
            definition = tomllib.loads(text)
        elif kind == "events":
            for line in text.splitlines():
                event, becomes = line.split(" → ")
                found.append((definition, event, becomes))
        elif kind not in {"python", "sh"}:
            rules = {"fields": {"v": RULES.get(kind, {"type": kind})}}
            for line in text.splitlines():
                value, becomes = line.split(" → ")
                reason = re.fullmatch(r"[a-z]+(_[a-z]+)*", becomes) and becomes not in WORDS
                found.append((rules, f'{{"v": {value}}}', becomes if reason else f'{{"v":{becomes}}}'))
    return found


@pytest.mark.parametrize(("definition", "event", "becomes"), cases())
def test_an_event_becomes_what_the_page_says(definition, event, becomes, monkeypatch):
    monkeypatch.setenv("DEVICE_KEY", "not random enough")
    told = explain(definition, event)
    assert becomes == {"written": told["output"], "dead_letter": told["reason"]}.get(told["outcome"], "filtered")


def test_the_page_has_its_tables():
    kinds = [kind for kind, _ in BLOCKS]
    types = ["string", "int", "float", "bool", "timestamp", "date", "json-type", "ip"]
    assert [kind for kind in kinds if kind not in {"toml", "events", "python", "sh"}] == types
    assert len(cases()) > 80


def test_python_and_toml_on_the_page_say_the_same(monkeypatch):
    monkeypatch.setenv("DEVICE_KEY", "not random enough")
    names: dict[str, Any] = {}
    exec(next(text for kind, text in BLOCKS if kind == "python"), names)
    rules = tomllib.loads(next(text for kind, text in BLOCKS if kind == "toml"))
    for event in ['{"pid":1,"device_id":"a","ip":"1.2.3.4","geo":{"country":"VN"}}', "{}", '{"kind":"ping"}']:
        assert names["transform"].explain(event) == explain(rules, event)
    assert isinstance(names["transform"], millpond.Transform)
    assert json.dumps(names["transform"].explain("{}")).count("not random") == 0
