"""What people look at, by the native part: jobs, dead letters, the top of a report; bounded, and changing nothing."""

import json
from typing import Any

import bson
import psycopg
import pytest
from tests.report_tables import store, views

import millpond
from millpond import _native

DAY = "2025-10-31"


def ask(name: str, **settings: Any) -> Any:
    return json.loads(getattr(_native, name)(json.dumps(settings), _native.CancelToken()))


def test_dead_letters_of_a_topic(servers, name):
    servers.create(servers.remote, name, 2)
    bad = [("k", b"\xff" * 20_000, 0), ("k", b'{"product_id": {}}', 1), (None, b"[", 0)]
    servers.send(servers.remote, name, bad)
    millpond.bridge(
        servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}_to", transform="product_views"
    )
    topic = f"{name}_to.dead_letters"
    # What another program wrote there.
    servers.send(servers.kafka, topic, [("x", b"not ours", 0)])
    assert f"{name}-to-{name}_to" in ask("jobs", target=servers.kafka)

    found = ask("letters", target=servers.kafka, topic=topic)
    assert (found["held"] >= 4, found["looked_at"]) == (True, 4)
    assert found["by_reason"] == {"invalid_utf8": 1, "invalid_json": 1, "type": 1, "of another program": 1}
    assert all(letter["value"] is None and letter["key"] is None for letter in found["letters"])
    one = next(letter for letter in found["letters"] if letter["reason"] == "invalid_utf8")
    assert (one["topic"], one["partition"], one["offset"], one["bytes"]) == (name, 0, 0, 20_000)

    whole = ask("letters", target=servers.kafka, topic=topic, one=one["id"])["letters"]
    assert [letter["id"] for letter in whole] == [one["id"]]
    value = whole[0]["value"]
    assert (value["bytes"], value["hexadecimal"], value["cut"]) == (20_000, True, True)
    assert value["text"].startswith("ff ff ff")
    assert whole[0]["key"]["text"] == "k"

    # Bounded, in number; nothing where there is nothing; told where it is no place.
    assert ask("letters", target=servers.kafka, topic=topic, most=1)["looked_at"] <= 3
    assert ask("letters", target=servers.kafka, topic=topic, one="0:99999")["letters"] == []
    assert ask("letters", target=servers.kafka, topic=f"{name}.nowhere")["letters"] == []
    with pytest.raises(millpond.ConfigError, match="one"):
        ask("letters", target=servers.kafka, topic=topic, one="x")


def test_dead_letters_of_a_collection(servers, name):
    servers.create(servers.kafka, name, 1)
    large = b'{"n": 1e7000, "x": "' + b"y" * 100_000 + b'"}'
    servers.send(servers.kafka, name, [("k", b'{"n": 1e7000}', 0), ("k", large, 0), ("k", b'{"ok": 1}', 0)])
    millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database=name, collection="c")
    place = {"mongo_uri": servers.mongo_uri, "database": name, "collection": "c"}
    with servers.mongo() as client:
        try:
            # A further piece of a letter is none of its own.
            client[name]["c_dead_letters"].insert_one({"_id": {"event": bson.ObjectId(), "chunk": 1}, "reason": "x"})
            before = list(client[name]["c_dead_letters"].find())
            assert ask("stored_collections", mongo_uri=servers.mongo_uri, database=name) == ["c"]
            found = ask("stored_letters", **place)
            assert (found["place"], found["looked_at"]) == (f"{name}.c_dead_letters", 2)
            assert found["by_reason"] == {"number_inexact": 2}
            assert [letter["offset"] for letter in found["letters"]] == [1, 0]
            assert [letter["bytes"] for letter in found["letters"]] == [len(large), 13]
            one = ask("stored_letters", **place, one=found["letters"][0]["id"])["letters"][0]
            assert (one["value"]["cut"], one["value"]["text"]) == (True, large[: 8 << 10].decode())
            assert ask("stored_letters", **place, one=str(bson.ObjectId()))["letters"] == []
            assert ask("stored_letters", **place, most=1)["looked_at"] == 1
            with pytest.raises(millpond.ConfigError, match="_id"):
                ask("stored_letters", **place, one="zz")
            assert ask("stored_letters", **place | {"collection": "other"})["letters"] == []
            assert list(client[name]["c_dead_letters"].find()) == before
        finally:
            client.drop_database(name)


def test_the_top_of_a_report(servers, name, postgres):
    for key, count in (("b", 2), ("a", 2), ("ö'\"", 5)):
        store(servers, name, views(DAY, count, key))
    with pytest.raises(millpond.ConfigError, match="nothing was published"):
        ask("report_top", postgres_dsn=postgres, table="product_views_daily")
    millpond.aggregate(servers.mongo_uri, postgres, database="tests", collection=name, dates=DAY)
    top = ask("report_top", postgres_dsn=postgres, table="product_views_daily", limit=2)
    assert (top["date"], top["key"], top["metric"], top["count"]) == (DAY, "product_id", "view_count", 3)
    assert [(row["product_id"], row["view_count"]) for row in top["rows"]] == [("ö'\"", 5), ("a", 2)]
    assert top["days"] == [[DAY, 9.0]]
    assert ask("report_top", postgres_dsn=postgres, table="product_views_daily", date="2020-01-01")["rows"] == []
    for table in ('x"; DROP TABLE product_views_daily; --', "nowhere", "pg_class"):
        with pytest.raises(millpond.ConfigError, match="no report"):
            ask("report_top", postgres_dsn=postgres, table=table)
    with pytest.raises(millpond.ConfigError, match="date"):
        ask("report_top", postgres_dsn=postgres, table="product_views_daily", date="1' OR 1=1")
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM product_views_daily").fetchone() == (3,)
