"""docs/reports.md holds what it says: its examples are run. Nothing is copied here."""

import re
import tomllib
from pathlib import Path
from typing import Any

from tests.report_tables import store

import millpond
from millpond import functions, reports

DOCS = (Path(__file__).resolve().parent.parent / "docs" / "reports.md").read_text()
BLOCKS = re.findall(r"^```([a-z]+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def test_the_examples_run_and_python_and_toml_say_the_same(servers, name, postgres, monkeypatch):
    monkeypatch.setattr(functions, "_REGISTRY", {})
    names: dict[str, Any] = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, names)
    (toml,) = (tomllib.loads(text) for kind, text in BLOCKS if kind == "toml")
    event = {
        "timestamp": "2025-10-31T10:30:00Z", "referrer_url": "https://Google.com/q", "store_id": "US", "device_id": "d",
        "product_id": "p", "price": "12.50",
    }  # fmt: skip
    store(servers, name, [dict(event), event | {"store_id": "VN"}])
    words: dict[str, Any] = {"database": "tests", "collection": name}
    told = [*names["reports"], names["regions"]]
    one = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=told)
    rows = [tuple(map(str, row)) for row in one.tables["domain_views_daily"]]
    assert rows == [("google.com", "10", "1", "1", "12.5", "2025-10-31 10:30:00", "2025-10-31")]
    assert [row[:2] for row in one.tables["region_views_daily"]] == [("America", 1), ("elsewhere", 1)]
    assert one.rows["product_views_daily"] == 1
    two = [
        millpond.aggregate(servers.mongo_uri, None, **words, reports=form).definition
        for form in (names["domains"], toml["reports"])
    ]
    assert two[0] == two[1]


def test_the_page_names_every_function_and_metric():
    public = {name for name, made in vars(reports).items() if callable(made) and made.__module__ == reports.__name__}
    public -= {"Key", "Report", "Where", "definitions"} | {name for name in public if name.startswith("_")}
    assert len(public) == 19
    assert [name for name in sorted(public) if f"`{name}(" not in DOCS] == []
