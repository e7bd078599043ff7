"""Reports beyond `memory_limit` are exact, and a run's memory follows the limit, not the need."""

import json
import subprocess
import sys
from typing import Any

import pytest
from bson import ObjectId
from tests.report_tables import store

import millpond
from millpond import reports as r

VISITORS, EVENTS = 60_000, 120_000
RUN = """
import json, resource, sys, millpond
job = json.loads(sys.argv[1])
result = millpond.aggregate(job.pop("uri"), None, **job)
books = {name: getattr(result, name) for name in ("counted", "spilled", "excluded_keys")}
books["rows"] = {name: [list(map(str, row)) for row in table] for name, table in result.tables.items()}
books["peak_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(books))
"""


def run(**job: Any) -> dict[str, Any]:
    found = subprocess.run([sys.executable, "-c", RUN, json.dumps(job)], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(found.stdout)
    return told


def test_a_tenth_of_the_need_gives_the_same_rows(servers, name):
    documents = [
        {"_id": ObjectId(), "timestamp": f"2025-10-31T{i % 24:02}:00:00Z", "product_id": i % 300, "store_id": i % 3,
         "device_id": f"visitor-{i % VISITORS:030}", "referrer_url": f"https://r.example/{i % 900}"}
        for i in range(EVENTS)
    ]  # fmt: skip
    store(servers, name, documents)
    words = {"uri": servers.mongo_uri, "database": "tests", "collection": name, "dates": "2025-10-31"}
    free, tight = run(**words), run(**words, memory_limit=1 << 20)
    assert (free["spilled"], free["counted"]) == (0, EVENTS)
    assert tight["spilled"] > 5 << 20, "the limit was not a tenth of the need"
    assert tight["rows"] == free["rows"]
    assert {row[0]: row[2] for row in free["rows"]["country_views_daily"]} == dict.fromkeys("012", "20000")


def test_rows_that_alone_exceed_the_limit_end_the_run(servers, name, postgres):
    documents = [
        {"timestamp": "2025-10-31", "product_id": 1, "referrer_url": f"https://r.example/{i}?" + "x" * 2_000}
        for i in range(2_000)
    ]
    store(servers, name, documents[:10])
    words: dict[str, Any] = {"database": "tests", "collection": name, "dates": "2025-10-31"}
    assert millpond.aggregate(servers.mongo_uri, postgres, **words).rows["referrer_views_daily"] == 10
    store(servers, name, documents[10:])
    with pytest.raises(millpond.DataError, match="memory_limit") as refused:
        millpond.aggregate(servers.mongo_uri, postgres, **words, memory_limit=1 << 20)
    assert "memory_limit" in refused.value.hint
    standing = {told["table"]: told["rows"] for told in millpond.explain_report(postgres, date="2025-10-31")}
    assert standing["referrer_views_daily"] == 10, "the old report stays"
    short = r.Report("urls", {"url": "referrer_url"}, {"n": r.count()})
    result = millpond.aggregate(servers.mongo_uri, postgres, **words, reports=short, memory_limit=1 << 20)
    assert result.excluded_keys == {"urls": {"key_unfit": 2_000}}
    with pytest.raises(millpond.ConfigError, match="memory_limit"):
        millpond.aggregate(servers.mongo_uri, postgres, **words, memory_limit=1)
