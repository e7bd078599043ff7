"""What an `_id` may be under each strategy, whose a collection is, and how an `_id` is read back."""

import hashlib
import json
import random
import struct
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId
from confluent_kafka import Producer
from tests.oracle_bson import MAX_BYTES, stored
from tests.oracle_product_views import Refused
from tests.test_cli import call, configured, toml
from tests.test_exact_bson import SEED, Sunk, letter, message, place, tables
from tests.test_mutants import stopped
from tests.topics import recreate

import millpond

GOOD = b'{"a":1}'
# Nothing of this may be executed, or taken for a path.
HOSTILE = [
    b'{"$set":{"a":1}}', b'{"$unset":"a","b":"$$ROOT"}', b'{"a":"$$ROOT","b":"$_id","c":{"$literal":"$a"}}',
    b'{"$replaceWith":"$$NOW"}', b'{"a":{"$add":[1,2]},"b":[{"$cond":[true,1,2]}]}', b'{"":1,"a.b":{"c.d":2},"$":3}',
    b'{"_id":{"$gt":""},"x":1}', b'{"$$ROOT":1,"$$REMOVE":"$$REMOVE"}', b'{"a":"$$REMOVE"}', b"{}",
]  # fmt: skip


def sunk(servers: Any, topic: str, collection: str | None = None, **words: Any) -> Sunk:
    return Sunk(servers, topic, collection or topic, **words)


def identified(document: bytes, identity: Any, beside: dict[str, Any]) -> bytes:
    """The oracle's document with another `_id` in front and `_millpond` at the end."""
    head, tail = bson.encode({"_id": identity}), bson.encode({"_millpond": beside})
    elements = head[4:-1] + document[4 + 17 : -1] + tail[4:-1]
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def test_every_document_byte_for_byte_under_each_strategy(servers, name):
    draw = random.Random(SEED)
    values = [value for value in tables() if value is not None and len(value) < 100_000] + HOSTILE * 3
    values += [message(draw) for _ in range(500)]
    draw.shuffle(values)
    servers.create(servers.kafka, name, 2)
    servers.send(servers.kafka, name, [(b"key-%d" % i, value, i % 2) for i, value in enumerate(values)])
    sources = servers.read(servers.kafka, name)
    keyed = sunk(servers, name, id="key", batch_size=300)
    result = keyed.run()
    documents, letters, _ = keyed.state()
    tag, refused = keyed.tag(), 0
    for record in sources:
        key = record.key().decode()
        beside = {
            "v": {"offset": Int64(record.offset()), "partition": record.partition()}, "source": Int64(tag),
        }  # fmt: skip
        found = documents.pop(key, None)
        try:
            expected = identified(stored(record.value(), bytes(12)), key, beside)
        except Refused as why:
            refused += 1
            told = bson.decode(letters.pop(ObjectId(place(tag, record))))
            assert told.pop("detail")
            assert told == letter(record, place(tag, record), why.reason)
            assert found is None
        else:
            assert found == expected, f"seed {SEED}: {record.value()!r}"
    assert (documents, letters) == ({}, {})
    assert (result.read, result.dead_lettered) == (len(values), refused)
    # The same events by a field of theirs: a field that only some have.
    fielded = sunk(servers, name, f"{name}-field", id="field:k0", metadata="from")
    result = fielded.run()
    assert result.read == len(values) == result.inserted + result.replaced + result.superseded + result.dead_lettered
    assert result.dead_letters_by_reason["bad_id"] > 100
    with servers.mongo() as client:
        for document in client["tests"][fielded.collection].find():
            # Numbers of one value are one id, whatever their type.
            assert document["_id"] == document["k0"] or float(str(document["_id"])) == float(str(document["k0"]))
            assert list(document)[-2:] == ["from", "_millpond"]


def test_ids_of_keys(servers, name):
    servers.create(servers.kafka, name, 1)
    keys = [b"", b"text", "é\0".encode(), b"\xff\x00", b"12", b"5f0000000000000000000000", b"$a", b"x" * 20_000]
    servers.send(servers.kafka, name, [(key, GOOD, 0) for key in [*keys, None]] + [(None, None, 0), (b"\xfe", None, 0)])
    keyed = sunk(servers, name, id="key")
    result = keyed.run()
    assert (result.inserted, result.deleted, result.dead_letters_by_reason) == (len(keys), 1, {"no_key": 2})
    with servers.mongo() as client:
        found = [document["_id"] for document in client["tests"][name].find()]
        letters = list(client["tests"][keyed.letters].find({}, {"_id": 0, "offset": 1, "reason": 1, "value": 1}))
    assert sorted(map(repr, found)) == sorted(
        map(repr, ["", "text", "é\0", b"\xff\x00", "12", "5f0000000000000000000000", "$a", "x" * 20_000, b"\xfe"])
    )
    assert letters == [
        {"reason": "no_key", "offset": 8, "value": GOOD}, {"reason": "no_key", "offset": 9, "value": None},
    ]  # fmt: skip


def test_ids_of_fields(servers, name):
    good = {
        b'{"a":{"b":"x"}}': "x", b'{"a":{"b":""}}': "", b'{"a":{"b":false}}': False, b'{"a":{"b":1.5}}': 1.5,
        b'{"a":{"b":{}}}': {}, b'{"a":{"b":{"c":[1,null]}}}': {"c": [1, None]}, b'{"a":{"b":{"c.d":1}}}': {"c.d": 1},
        b'{"a":{"b":12345678901}}': 12345678901, b'{"_id":1,"a":{"\\u0062":2}}': 2,
    }  # fmt: skip
    bad = [
        b"{}", b'{"a":1}', b'{"a":{"b":null}}', b'{"a":{"b":[1]}}', b'{"a":[{"b":1}]}', b'{"a.b":1}',
        b'{"a":{"b":{"$c":1}}}', b'{"a":{"b":{"c":{"\\u0024d":1}}}}', None,
    ]  # fmt: skip
    conflict = b'{"a":{"b":3},"_millpond":1}'
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, value, 0) for value in [*good, *bad, conflict]])
    result = sunk(servers, name, id="field:a.b").run()
    assert (result.inserted, result.dead_letters_by_reason) == (len(good), {"bad_id": len(bad), "field_conflict": 1})
    with servers.mongo() as client:
        assert [document["_id"] for document in client["tests"][name].find().sort("_millpond.v", 1)] == [*good.values()]
        letters = list(client["tests"][f"{name}_dead_letters"].find().sort("offset", 1))
    assert [one["value"] for one in letters] == [*bad, conflict]
    # Numbers that are equal are one id; of 1.0 and 1e0, the same bytes, only the later one is sent.
    other = f"{name}-numbers"
    servers.create(servers.kafka, other, 1)
    values = [b'{"a":1}', b'{"a":1.0}', b'{"a":1e0,"last":true}', b'{"a":2}']
    servers.send(servers.kafka, other, [(None, value, 0) for value in values])
    result = sunk(servers, other, id="field:a").run()
    assert (result.read, result.inserted, result.replaced, result.superseded) == (4, 2, 1, 1)
    with servers.mongo() as client:
        assert [document.get("last") for document in client["tests"][other].find().sort("_id", 1)] == [True, None]


def test_a_key_of_two_partitions(servers, name):
    servers.create(servers.kafka, name, 2)
    servers.send(servers.kafka, name, [(b"a", b'{"p":0}', 0), (b"b", b'{"p":0}', 0)])
    keyed = sunk(servers, name, id="key")
    keyed.run()
    # Later, of higher offsets, and a tombstone: all of it belongs to nobody.
    servers.send(servers.kafka, name, [(b"x", GOOD, 1), (b"a", b'{"p":1}', 1), (b"a", None, 1), (b"a", b'{"p":2}', 1)])
    result = keyed.run()
    assert (result.read, result.inserted, result.dead_letters_by_reason) == (4, 1, {"key_moved": 3})
    with servers.mongo() as client:
        assert client["tests"][name].find_one({"_id": "a"})["p"] == 0
        letters = list(client["tests"][keyed.letters].find().sort("offset", 1))
        assert [(one["partition"], one["offset"], one["value"]) for one in letters] == [
            (1, 1, b'{"p":1}'), (1, 2, None), (1, 3, b'{"p":2}'),
        ]  # fmt: skip
        client["tests"]["millpond_positions"].delete_many({"_id.collection": name})
    again = keyed.run()
    assert (again.read, again.already_present, again.dead_letters_by_reason) == (6, 3, {"key_moved": 3})


def test_what_the_server_refuses_leaves_the_version_below(servers, name):
    servers.create(servers.kafka, name, 1)
    order = [
        (b"a", b'{"n":1}'), (b"a", b'{"n":2}'), (b"a", b'{"n":"no"}'), (b"a", b'{"n":"nor"}'), (b"b", b'{"u":1}'),
        (b"c", b'{"u":1}'),
    ]  # fmt: skip
    servers.send(servers.kafka, name, [(key, value, 0) for key, value in order])
    with servers.mongo() as client:
        client["tests"].create_collection(name, validator={"n": {"$not": {"$type": "string"}}})
        client["tests"][name].create_index("u", unique=True, sparse=True)
    keyed = sunk(servers, name, id="key")
    result = keyed.run()
    assert (result.inserted, result.superseded, result.dead_letters_by_reason) == (2, 1, {"refused_by_server": 3})
    with servers.mongo() as client:
        assert client["tests"][name].find_one({"_id": "a"})["n"] == 2
        details = [one["detail"] for one in client["tests"][keyed.letters].find().sort("offset", 1)]
    assert ["121" in detail for detail in details] == [True, True, False]
    assert "unique index" in details[2]


# Indexes, and documents that have no place in them.
INDEXED: list[tuple[list[tuple[str, Any]], list[bytes]]] = [
    ([("a", 1), ("b", 1)], [b'{"a":[1],"b":[2]}']),
    ([("c", "hashed")], [b'{"c":[1]}']),
    ([("d", "2dsphere")], [b'{"d":"x"}', b'{"d":{"type":"Point","coordinates":[1e3,0]}}']),
    ([("e", "2d")], [b'{"e":[1]}', b'{"e":[999,0]}', b'{"e":{"x":"y","z":1}}', b'{"e":["x",1]}']),
    ([("f", "text"), ("g", 1)], [b'{"f":"x","language":"zz"}', b'{"f":"x","language":5}', b'{"f":"x","g":[1]}']),
    ([("h.0", 1)], [b'{"h":[{"0":1}]}']),
]


@pytest.mark.parametrize("strategy", ["kafka", "key"])
def test_documents_that_no_index_takes(servers, name, strategy):
    bad = [value for _, values in INDEXED for value in values]
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(b"%d" % i, (bad[i // 2], GOOD)[i % 2], 0) for i in range(2 * len(bad))])
    with servers.mongo() as client:
        for keys, _ in INDEXED:
            client["tests"][name].create_index(keys)
    found = sunk(servers, name, id=strategy, max_dead_letters=len(bad))
    result = found.run()
    assert result.dead_letters_by_reason == {"refused_by_server": len(bad)}
    assert result.inserted == len(bad)
    with servers.mongo() as client:
        letters = client["tests"][found.letters].find().sort("offset", 1)
        assert [(one["value"], one["offset"] % 2) for one in letters] == [(value, 0) for value in bad]


def test_documents_of_the_largest_size(servers, name):
    beside = {"v": {"offset": Int64(0), "partition": 0}, "source": Int64(0)}
    around = len(bson.encode({"_id": "key", "s": "", "_millpond": beside}))

    def document(size: int) -> bytes:
        return b'{"s":"' + b"x" * (size - around) + b'"}'

    values = {b"key": document(MAX_BYTES), b"kez": document(MAX_BYTES + 1), b"k" * 300_000: b'{"s":"x"}'}
    servers.create(servers.kafka, name, 1, **{"max.message.bytes": "40000000"})
    producer = Producer(servers.kafka | {"message.max.bytes": 40_000_000, "compression.type": "lz4"})
    for key, value in values.items():
        producer.produce(name, value, key, 0)
    producer.produce(name, document(MAX_BYTES - 400_000), b"l" * 400_000, 0)
    assert producer.flush(120) == 0
    result = sunk(servers, name, id="key").run()
    assert (result.inserted, result.dead_letters_by_reason) == (2, {"too_large": 2})
    with servers.mongo() as client:
        assert len(client["tests"][name].find_one({"_id": "key"})["s"]) == MAX_BYTES - around


@pytest.mark.parametrize(("mutant", "exact"), [(None, True), ("last_writer_wins", False)])
def test_a_zombie_of_older_events_overwrites_nothing(servers, name, mutant, exact):
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(b"%d" % i, b'{"n":1}', 0) for i in range(300)])
    words = {"topic": name, "database": "tests", "collection": name, "id": "key", "batch_size": 100}
    with stopped(f"millpond.sink({servers.kafka!r}, {servers.mongo_uri!r}, **{words!r})", mutant, "sink.before_write"):
        servers.send(servers.kafka, name, [(b"%d" % i, b'{"n":2}' if i % 2 else None, 0) for i in range(300)])
        millpond.sink(servers.kafka, servers.mongo_uri, **words)
    with servers.mongo() as client:
        old = client["tests"][name].count_documents({"n": 1})
        deleted = client["tests"][name].count_documents({"_millpond.deleted": {"$exists": True}})
    assert ((old, deleted) == (0, 150)) is exact


def test_a_collection_belongs_to_one_strategy_and_one_topic(servers, name):
    for topic in (name, f"{name}-other"):
        servers.create(servers.kafka, topic, 1)
        servers.send(servers.kafka, topic, [(b"k", GOOD, 0)])
    sunk(servers, name, id="key").run()
    for strategy in ("kafka", "field:a"):
        with pytest.raises(millpond.PositionError, match=r"by id=.key., not by id=") as caught:
            sunk(servers, name, id=strategy).run()
        assert "another collection" in caught.value.hint
        with pytest.raises(millpond.PositionError, match="not by id="):
            sunk(servers, f"{name}-other", name, id=strategy).run()
    with pytest.raises(millpond.PositionError, match="versions of two topics"):
        sunk(servers, f"{name}-other", name, id="key").run()
    # By their place in Kafka, two topics live in one collection, and one topic in two.
    both = f"{name}-both"
    assert sunk(servers, name, both).run().inserted == sunk(servers, f"{name}-other", both).run().inserted == 1
    assert sunk(servers, name, f"{name}-field", id="field:a").run().inserted == 1
    with servers.mongo() as client:
        assert client["tests"][both].count_documents({}) == 2
        assert [document["_id"] for document in client["tests"][name].find()] == ["k"]


def test_a_collection_dropped_and_made_again(servers, name):
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(b"k", GOOD, 0)])
    for strategy in ("kafka", "key"):
        store = sunk(servers, name, f"{name}-{strategy}", id=strategy)
        store.run()
        with servers.mongo() as client:
            client["tests"].drop_collection(store.collection)
            with pytest.raises(millpond.PositionError, match="was recreated"):
                store.run()
            assert client["tests"][store.collection].count_documents({}) == 0
            client["tests"]["millpond_positions"].delete_many({"_id.collection": store.collection})
        assert store.run().inserted == 1


def test_a_topic_made_again_begins_anew(servers, name):
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(b"k", b'{"n":%d}' % i, 0) for i in range(5)])
    keyed = sunk(servers, name, id="key")
    keyed.run()
    recreate(servers, servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(b"k", b'{"new":true}', 0)])
    with pytest.raises(millpond.PositionError, match="recreated"):
        keyed.run()
    with servers.mongo() as client:
        client["tests"]["millpond_positions"].delete_many({"_id.collection": name})
        # Offsets are lower than those stored, and yet later.
        assert keyed.run().replaced == 1
        assert client["tests"][name].find_one({"_id": "k"})["new"]


def test_a_tag_of_another_topic_is_refused(servers, name):
    servers.create(servers.kafka, name, 1)
    sunk(servers, name).run()
    with servers.mongo() as client:
        (mine,) = client["tests"]["millpond_sources"].find({"topic": name})
        identity = f"{mine['cluster']}\nid:{mine['topic_id']}".encode()
        assert mine["_id"] == int.from_bytes(hashlib.sha256(identity).digest()[:4], "big")
        other = client[name]
        other["millpond_sources"].insert_one(mine | {"topic": "another", "topic_id": "x"})
        try:
            with pytest.raises(millpond.ConfigError, match=f"another topic has the tag {mine['_id']:08x}"):
                millpond.sink(servers.kafka, servers.mongo_uri, topic=name, database=name, collection=name)
            assert other.list_collection_names(filter={"name": "millpond_positions"}) == []
        finally:
            client.drop_database(name)


def test_settings_that_no_server_needs_to_judge(servers, name):
    for wrong in ("keys", "field:", "field:a..b", "field", 1):
        with pytest.raises(millpond.ConfigError, match="id"):
            sunk(servers, name, id=wrong).run()
    with pytest.raises(millpond.ConfigError, match="_millpond"):
        sunk(servers, name, id="key", metadata="_millpond").run()
    servers.create(servers.kafka, name, 1)
    with servers.mongo() as client:
        client["tests"].create_collection(name, collation={"locale": "en", "strength": 2})
    with pytest.raises(millpond.ConfigError, match="collation"):
        sunk(servers, name, id="key").run()


def test_reports_count_documents_and_no_markers(servers, name):
    event = b'{"product_id":"p%d","device_id":"d","store_id":"s","referrer_url":"r","timestamp":"2025-10-31T01:00:00Z"}'
    servers.create(servers.kafka, name, 2)
    order: list[tuple[Any, Any, int]] = [(b"%d" % i, event % (i % 3), i % 2) for i in range(30)]
    order += [(b"%d" % i, None, i % 2) for i in range(10)] + [(b"%d" % i, event % 0, i % 2) for i in range(25, 30)]
    servers.send(servers.kafka, name, order)
    sunk(servers, name, id="key").run()
    for dates in ("all", "latest"):
        result = millpond.aggregate(servers.mongo_uri, None, database="tests", collection=name, dates=dates)
        assert (result.scanned, result.counted, result.excluded) == (20, 20, {})
        assert not result.repeatable
        assert (result.snapshot, result.warnings) == (True, [])
        views = {row["product_id"]: row["view_count"] for row in result.tables["product_views_daily"].to_dicts()}
        assert sum(views.values()) == 20
        assert result.unplaced in (None, 0)


def test_an_id_is_read_back(servers, name, tmp_path):
    servers.create(servers.kafka, name, 3)
    servers.send(servers.kafka, name, [(None, GOOD, 2), (None, b"no", 2)])
    stored_in = sunk(servers, name)
    stored_in.run()
    with servers.mongo() as client:
        cluster = client["tests"]["millpond_sources"].find_one({"topic": name})["cluster"]
        for collection, offset in ((name, 0), (stored_in.letters, 1)):
            identity = client["tests"][collection].find_one()["_id"]
            words = ["--mongo-uri", servers.mongo_uri, "--database", "tests", "--json"]
            told = json.loads(call("explain", "id", f'ObjectId("{identity}")', *words).stdout)
            assert (told["cluster"], told["topic"], told["partition"], told["offset"]) == (cluster, name, 2, offset)
            # Without a server the tag stays a tag.
            alone = json.loads(call("explain", "id", str(identity), "--json").stdout)
            assert alone == told | {"cluster": None, "topic": None, "topic_id": None}
            assert alone["source"] == f"{stored_in.tag():08x}"
    shown = call("explain", "id", "0102030400050000000007d0").stdout
    assert shown.split() == ["source", "01020304", "partition", "5", "offset", "2000"]
    for wrong, said in (("nonsense", "no ObjectId"), ("0" * 24, "no source has the tag 00000000")):
        failed = call("explain", "id", wrong, *words[:4])
        assert failed.returncode == 2
        assert said in failed.stderr
    file = tmp_path / "millpond.toml"
    file.write_text(toml(configured(servers, name)))
    assert f"topic     {name}" in call("explain", "id", str(identity), "--config", file).stdout
