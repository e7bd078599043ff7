"""sink() against an oracle: the bytes of thousands of stored documents and dead letters, and what a rerun leaves alone.

`MILLPOND_SEED` repeats a run; a failure prints it.
"""

import datetime as dt
import json
import os
import random
import secrets
import struct
from collections import Counter
from typing import Any

import bson
from bson import CodecOptions, ObjectId
from bson.raw_bson import RawBSONDocument
from confluent_kafka import Producer
from tests import raw_records
from tests.oracle_bson import MAX_BYTES, stored
from tests.oracle_product_views import Refused, halved, parse
from tests.test_product_views import DROPPED, HALVES, RAW, TEXTS, dressed, mutated, send
from tests.test_product_views import message as event

import millpond

SEED = int(os.environ.get("MILLPOND_SEED") or secrets.randbits(32))
CHUNK = 15 * 1024 * 1024
NUMBERS = """
0 -0 0.0 -0.0 0e0 -0E+5 0.000 0e99999999999999999999 -0e-99999999999999999999 1 -1 10 1.0 1.10 1e0 1E5 1e+5 1e-5
100e-2 2147483647 2147483648 -2147483648 -2147483649 4294967296 9007199254740991 9007199254740992 9007199254740993
9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615
18446744073709551616 12345678901234567890123456789012345 1234567890123456789012345678901234
9999999999999999999999999999999999 99999999999999999999999999999999999 10000000000000000000000000000000000
100000000000000000000000000000000000 -1234567890123456789012345678901234000000 12345678901234567890123456789012340
123456789012345678901234567890123410 1329227995784915872903807060280344576 1329227995784915872903807060280344576.0
85070591730234615865843651857942052864e0 2147483647.0 2147483648e0 9223372036854775807.0 9223372036854775808.0
9007199254740993.0 9007199254740992.0 9007199254740993e0 0.1 0.10 0.1000000000000000 0.10000000000000000
0.10000000000000001 0.1000000000000000055511151231257827021181583404541015625
0.1000000000000000055511151231257827021181583404541015626
0.100000000000000005551115123125782702118158340454101562500000 0.30000000000000004 0.3000000000000000444 0.1e1 3.14159
3.1415926535897931 3.141592653589793 3.141592653589793115997963468544185161590576171875 1.7976931348623157e308
1.7976931348623158e308 1.7976931348623159e308 1.7976931348623157E+308 -1.7976931348623157e308 2e308 1e309
179769313486231570000e288 17976931348623157081e289 1e308 1e307 9.99999999999999999999e307 0.00017976931348623157e312
2.2250738585072014e-308 2.2250738585072011e-308 2.225073858507201e-308 4.9406564584124654e-324 4.9e-324 5e-324
5.0e-324 3e-324 2e-324 2.4703282292062327e-324 2.4703282292062328e-324 1e-323 1.5e-323 1e-324 1e-400 1e-6176 1e-6177
10e-6177 1.0e-6176 1.5e-6176 0.1e-6175 1234567890123456789012345678901234e-6176
12345678901234567890123456789012340e-6177 1234567890123456789012345678901234e6111 1e400 -1e400 1.0e400 1e6111 1e6112
1e6144 10e6144 1.5e6144 1e6145 0.1e6145 9.999999999999999999999999999999999e6144 1e7000 1e99999999999999999999
1e-99999999999999999999 -1e99999999999999999999 1125899906842624.25 1125899906842624.125 1125899906842624.375
4503599627370497.5 4503599627370496.5 2251799813685248.25 1e21 1e22 1e23 1e24 8.5e22 9007199254740993e3
123456789012345680000.0 5e-5 0.00001 123456789.123456789 0.1234567890123456789012345678901234
0.12345678901234567890123456789012345 1.00000000000000000000000000000000000001
1.0000000000000000000000000000000000000000 1.5000000000000000000000000000000000000000 0.5e-1 1.2345e-300 1e-279 1e-280
1e-300 1e279 1e280 1e290
"""
# Members, as they are spelled: names that MongoDB has ideas about, and both names of the source's own _id.
MEMBERS = r"""
"_id":1 "_id":"5f" "_id":{"_id":1} "_id":[1,2] "_source_id":2 "_source_id":null "\u005fid":3 "_source\u005fid":4
"_ID":5 "$set":{"a":1} "$oid":"5f0000000000000000000000" "$ref":"c" "$id":1 "$db":"d" "$where":"1" "a.b":1 ".":2 "":3
"a.$":4 "$":5 "$a.b":6 "x":{"$date":1} "x\u0000":1 "\u0000":1 "\ud800":1 "timestamp":[[1],{"a":[2]}]
"timestamp":{"$numberLong":"1"} "timestamp":null "timestamp":"\u0000" "😀":1 "source":1
"n":{"_id":1,"_source_id":2,"":{"":[{"":[]}]}} "__proto__":1 "schön":"\u00fc" "e\u0301":1 "\u00e9":2 "é":3 "0":1
"length":1
"""


def tables() -> list[bytes | None]:
    found: list[bytes | None] = [None, *RAW, *(b'{"a":' + spelled + b"}" for spelled in DROPPED)]
    found += [f'{{"a":{spelled}}}'.encode() for spelled in [*NUMBERS.split(), *TEXTS, *HALVES]]
    members = MEMBERS.split()
    found += [f"{{{member}}}".encode() for member in members]
    found += [f'{{"before":1,{one},{other},"after":2}}'.encode() for one in members for other in members[::3]]
    # Precedence: of two reasons the one that is named first, wherever it stands in the text.
    ranked = ['"d":1,"d":2', '"s":"\\ud800"', '"\\u0000":1', '"_id":1,"_source_id":2', '"i":1e7000']
    found += [f"{{{one},{other}}}".encode() for one in ranked for other in ranked if one != other]
    found += [f"{{{one}".encode() for one in ranked] + [f"[{{{one}}}]".encode() for one in ranked]
    found += [f'{{{one},"deep":{"[" * 100}{"]" * 100}}}'.encode() for one in ranked]
    return found


def spelled_number(draw: random.Random) -> str:
    """A double in one of its spellings, or digits at random around the limits of what fits."""
    double = struct.unpack("<d", draw.randbytes(8))[0]
    if double - double != 0:
        double = draw.random()
    if draw.random() < 0.3:
        double = float(f"{draw.uniform(-1e6, 1e6):.{draw.randint(0, 9)}f}")
    digits = "".join(draw.choices("0123456789", k=draw.choice([1, 5, 15, 16, 17, 18, 19, 20, 33, 34, 35, 36])))
    zeros = "0" * draw.choice([0, 0, 1, 5, 20])
    exponent = draw.choice([0, 1, -1, 15, -20, 291, 308, -308, -324, -340, 6111, -6176, draw.randint(-6300, 6300)])
    number = draw.choice(
        [
            repr(double), f"{double:.17g}", f"{double:.16e}", f"{double:.20e}", f"{double:.60g}", f"{double:.15g}",
            digits.lstrip("0") + zeros or "0", f"{draw.randint(0, 9)}.{digits}{zeros}",
            f"{draw.randint(0, 9)}.{digits}{zeros}e{exponent}", f"{draw.randint(1, 9)}{digits}{zeros}E{exponent:+03}",
        ]
    )  # fmt: skip
    return number if number.startswith("-") or draw.random() < 0.7 else f"-{number}"


def message(draw: random.Random) -> bytes:
    """An object of numbers, texts and nested values."""

    def value(depth: int) -> str:
        kind = draw.random()
        if kind < 0.5 or depth > 4:
            return spelled_number(draw)
        if kind < 0.7:
            return draw.choice(TEXTS)
        if kind < 0.8:
            return draw.choice(["true", "false", "null", "[]", "{}"])
        inner = [value(depth + 1) for _ in range(draw.choice([0, 1, 3, 12]))]
        if kind < 0.9:
            return f"[{draw.choice([',', ' , ']).join(inner)}]"
        return "{" + ",".join(f'"{index}$.":{one}' for index, one in enumerate(inner)) + "}"

    members = [f'"k{index}" : {value(1)}' for index in range(draw.randint(0, 5))]
    return f"{{{','.join(members)}}}".encode()


class Sunk:
    """A topic in a collection: runs, and what is stored."""

    def __init__(self, servers: Any, topic: str, collection: str, **words: Any) -> None:
        self.servers, self.topic, self.collection, self.words = servers, topic, collection, words
        self.letters = f"{collection}_dead_letters"

    def run(self) -> Any:
        words = {"topic": self.topic, "database": "tests", "collection": self.collection} | self.words
        return millpond.sink(self.servers.kafka, self.servers.mongo_uri, **words)

    def raw(self, collection: str) -> dict[Any, bytes]:
        options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
        with self.servers.mongo() as client:
            found = client["tests"].get_collection(collection, codec_options=options).find()
            # An _id that is no ObjectId is a document: its bytes name it.
            return {getattr(one["_id"], "raw", one["_id"]): bytes(one.raw) for one in found}

    def state(self) -> tuple[dict[Any, bytes], dict[Any, bytes], list[Any]]:
        with self.servers.mongo() as client:
            positions = list(client["tests"]["millpond_positions"].find({"_id.collection": self.collection}))
        return self.raw(self.collection), self.raw(self.letters), positions

    def tag(self) -> int:
        with self.servers.mongo() as client:
            (found,) = client["tests"]["millpond_sources"].find({"topic": self.topic})
        tag: int = found["_id"]
        return tag


def place(tag: int, record: Any) -> bytes:
    """The twelve bytes of an event's _id."""
    offset: int = record.offset()
    return struct.pack(">IH", tag, record.partition()) + offset.to_bytes(6, "big")


def date(record: Any) -> dt.datetime | None:
    at = record.timestamp()[1]
    return None if at < 0 else dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=at)


def headers(record: Any) -> list[dict[str, Any]]:
    return [{"key": name, "value": value} for name, value in record.headers() or []]


def metadata(record: Any, field: str | None) -> tuple[str, bytes] | None:
    if field is None:
        return None
    found = {"topic": record.topic(), "partition": record.partition(), "offset": bson.Int64(record.offset())}
    found |= {"timestamp": date(record), "key": record.key(), "headers": headers(record)}
    return field, bson.encode(found)


def letter(record: Any, identity: bytes, reason: str) -> dict[str, Any]:
    """A dead letter of one chunk, without the free text of its detail."""
    return {
        "_id": ObjectId(identity), "reason": reason, "topic": record.topic(), "partition": record.partition(),
        "offset": record.offset(), "chunk": 0, "timestamp": date(record), "key": record.key(), "value": record.value(),
        "headers": headers(record),
    }  # fmt: skip


def compare(sunk: Sunk, sources: list[Any], result: Any, field: str | None = None) -> Counter[str]:
    """Compare every document and dead letter with the oracle; return the reasons."""
    tag, (documents, letters, positions) = sunk.tag(), sunk.state()
    reasons: Counter[str] = Counter()
    wrong, tombstones = [], 0
    for record in sources:
        identity, value = place(tag, record), record.value()
        found = documents.pop(ObjectId(identity), None)
        refused = letters.pop(ObjectId(identity), None)
        expected: Any = None
        if value is None:
            tombstones += 1
        else:
            try:
                expected = stored(value, identity, metadata(record, field))
            except Refused as why:
                reasons[why.reason] += 1
                expected = letter(record, identity, why.reason)
        told = None
        if refused is not None:
            told = bson.decode(refused)
            assert list(told) == [
                *list(letter(record, identity, ""))[:2],
                "detail",
                *list(letter(record, identity, ""))[2:],
            ]
            assert told.pop("detail")
        if (found or told) != expected or (found and told):
            wrong.append((value, f"expected {expected!r}", f"found {found!r} {told!r}"))
    assert not wrong, f"seed {SEED}: {len(wrong)} records differ, the first: {wrong[:6]}"
    assert (documents, letters) == ({}, {})
    assert (result.read, result.deleted, result.dead_lettered) == (len(sources), tombstones, reasons.total())
    assert result.inserted + result.already_present == len(sources) - tombstones - reasons.total()
    assert result.dead_letters_by_reason == reasons
    ends = Counter(record.partition() for record in sources)
    assert {one["_id"]["partition"]: one["next"] for one in positions} == ends
    assert {(one["_id"]["collection"], one["_id"]["source"], one["id"]) for one in positions} == {
        (sunk.collection, tag, "kafka")
    }
    return reasons


def test_thousands_of_documents_byte_for_byte(servers, name):
    draw = random.Random(SEED)
    values: list[bytes | None] = tables() + [message(draw) for _ in range(2_000)]
    values += [event(draw) for _ in range(300)] + [mutated(draw, message(draw)) for _ in range(300)]
    draw.shuffle(values)
    servers.create(servers.kafka, name, 3)
    send(servers.kafka, name, [dressed(draw, value, i % 3) for i, value in enumerate(values)])
    sources = servers.read(servers.kafka, name)
    sunk = Sunk(servers, name, name)
    result = sunk.run()
    reasons = compare(sunk, sources, result)
    assert reasons.keys() == {
        "empty", "invalid_utf8", "invalid_json", "not_object", "too_deep", "duplicate_key", "lone_surrogate",
        "nul_in_key", "field_conflict", "number_inexact",
    }  # fmt: skip
    assert result.inserted > 1_500
    kept = sunk.state()
    # A rerun reads nothing; one whose positions are gone finds every document and dead letter decided.
    assert sunk.run().read == 0
    assert sunk.state() == kept
    with servers.mongo() as client:
        assert client["tests"]["millpond_positions"].delete_many({"_id.collection": name}).deleted_count == 3
    again = sunk.run()
    assert (again.inserted, again.already_present) == (0, result.inserted)
    compare(sunk, sources, again)
    assert sunk.state()[:2] == kept[:2]
    # The same topic in another collection, with where each event came from beside it.
    other = Sunk(servers, name, f"{name}-from", metadata="source", batch_size=77)
    assert compare(other, sources, other.run(), "source")["field_conflict"] > reasons["field_conflict"]


def test_documents_of_the_largest_size_and_one_byte_more(servers, name):
    def document(size: int) -> bytes:
        # Length, _id and its name, the name and length of one string, and two end marks take 30 bytes.
        return b'{"s":"' + b"x" * (size - 30) + b'"}'

    values = [
        document(MAX_BYTES), document(MAX_BYTES + 1), document(MAX_BYTES - 1), b'{"a":[' + b"1," * 1_500_000 + b"1]}",
        b"1" * CHUNK, b"1" * (CHUNK + 1), b"{" + b" " * (2 * CHUNK), b'{"small":1}',
    ]  # fmt: skip
    servers.create(servers.kafka, name, 1, **{"max.message.bytes": "40000000"})
    producer = Producer(servers.kafka | {"message.max.bytes": 40_000_000, "compression.type": "lz4"})
    for value in values:
        producer.produce(name, value, b"key", headers=[("a", None)])
        assert producer.flush(120) == 0
    sunk = Sunk(servers, name, name)
    result = sunk.run()
    assert (result.read, result.inserted) == (len(values), 3)
    assert result.dead_letters_by_reason == {"too_large": 2, "not_object": 2, "invalid_json": 1}
    documents, letters, _ = sunk.state()
    tag, found = sunk.tag(), dict.fromkeys(range(len(values)), b"")
    for offset in (0, 2, 7):
        identity = struct.pack(">IH", tag, 0) + offset.to_bytes(6, "big")
        assert documents.pop(ObjectId(identity)) == stored(values[offset], identity)
    assert not documents
    told = sorted((bson.decode(raw) for raw in letters.values()), key=lambda one: (one["offset"], one["chunk"]))
    for one in told:
        assert one["value"] == values[one["offset"]][one["chunk"] * CHUNK : (one["chunk"] + 1) * CHUNK]
        assert (one["key"], one["headers"]) == (b"key", [{"key": "a", "value": None}])
        found[one["offset"]] += one["value"]
    assert [(one["offset"], one["chunk"]) for one in told] == [
        (1, 0),
        (1, 1),
        (3, 0),
        (4, 0),
        (5, 0),
        (5, 1),
        (6, 0),
        (6, 1),
        (6, 2),
    ]
    assert all(found[offset] == values[offset] for offset in (1, 3, 4, 5, 6))
    assert sunk.run().read == 0


def test_what_the_server_refuses_singly_is_a_dead_letter(servers, name):
    servers.create(servers.kafka, name, 1)
    values = [b'{"a":%d,"b":%d}' % (i, i % 5) for i in range(20)]
    servers.send(servers.kafka, name, [(None, value, 0) for value in values])
    with servers.mongo() as client:
        client["tests"].create_collection(name, validator={"a": {"$ne": 3}}).create_index("b", unique=True)
    sunk = Sunk(servers, name, name)
    first = sunk.run()
    assert (first.inserted, first.dead_letters_by_reason) == (5, {"refused_by_server": 15})
    kept = sunk.state()
    with servers.mongo() as client:
        client["tests"][name].drop_index("b_1")
        client["tests"]["millpond_positions"].delete_many({"_id.collection": name})
    # Decided offsets stay decided, though the index that refused them is gone.
    again = sunk.run()
    assert (again.inserted, again.already_present, again.dead_lettered) == (0, 5, 15)
    assert sunk.state() == kept


def test_metadata_under_the_name_of_the_sources_own_id(servers, name):
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, b'{"_id":1}', 0), (None, b'{"a":1}', 0)])
    sunk = Sunk(servers, name, name, metadata="_source_id")
    try:
        result = sunk.run()
    except millpond.ConfigError:
        assert sunk.state()[0] == {}
        return
    # No document may hold a name twice.
    assert result.dead_letters_by_reason == {"field_conflict": 1}


def test_a_long_key_leaves_room_for_the_dead_letter(servers, name):
    servers.create(servers.kafka, name, 1, **{"max.message.bytes": "40000000"})
    producer = Producer(servers.kafka | {"message.max.bytes": 40_000_000, "compression.type": "lz4"})
    key, value = b"k" * 1_200_000, b"x" * CHUNK
    producer.produce(name, value, key)
    assert producer.flush(120) == 0
    sunk = Sunk(servers, name, name)
    assert sunk.run().dead_letters_by_reason == {"invalid_json": 1}
    letters = sorted((bson.decode(raw) for raw in sunk.raw(sunk.letters).values()), key=lambda one: one["chunk"])
    assert b"".join(one["value"] for one in letters) == value
    assert letters[0]["key"] == key


def test_a_header_name_that_is_no_text_blocks_nothing(servers, name):
    servers.create(servers.kafka, name, 1)
    raw_records.produce_named(servers.kafka, name, [(1, b"\xff\xfe", b'{"a":1}'), (2, b"\xff", b"{"), (3, b"a", b"{}")])
    sunk = Sunk(servers, name, name)
    result = sunk.run()
    assert (result.inserted, result.dead_letters_by_reason) == (2, {"invalid_json": 1})
    assert [bson.decode(raw)["value"] for raw in sunk.raw(sunk.letters).values()] == [b"{"]


def test_the_oracles_reader_agrees_with_pythons():
    draw = random.Random(SEED)

    def constant(text: str) -> None:
        raise ValueError(text)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {"names": [name for name, _ in pairs], "values": [value for _, value in pairs]}

    agreed = Counter[str]()
    for raw in [*tables(), *(mutated(draw, event(draw)) for _ in range(3_000))]:
        if raw is None or raw.count(b"[") > 500:
            continue
        try:
            text = raw.decode()
            theirs = json.loads(
                text, parse_constant=constant, object_pairs_hook=members, parse_int=str, parse_float=str
            )
        except ValueError:
            theirs = ValueError
        try:
            ours = dict(parse(raw))
            assert theirs is not ValueError
            assert theirs["names"] == list(ours), raw
            agreed["read"] += 1
        except Refused as why:
            assert (theirs is ValueError) == (why.reason in {"empty", "invalid_utf8", "invalid_json"}), (
                raw,
                why.reason,
            )
            agreed["refused"] += 1
    assert min(agreed.values()) > 500
    assert halved("\ud800")
    assert not halved("😀")
