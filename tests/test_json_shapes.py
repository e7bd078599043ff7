"""Thousands of messages by shape, alone and inside an object, good ones between them (I1, I7).

Every outcome as it was made; every dead letter with its raw bytes at its position.
"""

from collections import Counter
from typing import Any

import bson
from bson import Decimal128, Int64, ObjectId
from tests.json_shapes import NO_JSON, RICH, STORED, accepted, broken, decided
from tests.oracle_bson import stored
from tests.test_exact_bson import Sunk, place

GOOD = b'{"good":true}'
# Spellings, and what they are stored as: doubles by repr, Decimal128 by its text, None for a dead letter.
NUMBERS: list[tuple[str, Any]] = [
    ("0.0", 0.0),
    ("-0.0", -0.0),
    ("-0", -0.0),
    ("-0e-7", -0.0),
    ("1.0", 1.0),
    ("-2.5E+0", -2.5),
    ("3e0", 3.0),
    ("1e23", 1e23),
    ("5e-324", 5e-324),
    ("2.2250738585072014e-308", 2.2250738585072014e-308),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("9007199254740992.0", 9007199254740992.0),
    ("1125899906842624.25", "1125899906842624.25"),
    ("0.1", 0.1),
    ("2147483647", 2**31 - 1),
    ("-2147483648", -(2**31)),
    ("2147483648", Int64(2**31)),
    ("9223372036854775807", Int64(2**63 - 1)),
    ("-9223372036854775808", Int64(-(2**63))),
    ("9223372036854775808", "9223372036854775808"),
    ("-9223372036854775809", "-9223372036854775809"),
    ("4611686018427387904.50", "4611686018427387904.50"),
    ("9" * 34, "9" * 34),
    ("-" + "8" * 34, "-" + "8" * 34),
    ("1" * 35, None),
    ("0." + "6" * 34, "0." + "6" * 34),
    ("0.00" + "6" * 34, "0.00" + "6" * 34),
    ("0." + "6" * 35, None),
    ("7." + "0" * 32 + "1", "7." + "0" * 32 + "1"),
    ("7." + "0" * 33 + "1", None),
    # Zeros that do not fit are dropped, and padded where the exponent is too large.
    ("1" + "0" * 34, "1." + "0" * 33 + "E+34"),
    ("2e6111", "2E+6111"),
    ("2e6112", "2.0E+6112"),
    ("2e6144", "2." + "0" * 33 + "E+6144"),
    ("20e6143", "2." + "0" * 33 + "E+6144"),
    ("2e6145", None),
    ("9." + "9" * 33 + "e6144", "9." + "9" * 33 + "E+6144"),
    ("3e-6176", "3E-6176"),
    ("3e-6177", None),
    ("30e-6177", "3E-6176"),
    ("3.0e-6176", "3E-6176"),
    ("0.3e-6175", "3E-6176"),
    ("1e309", "1E+309"),
    ("100e400", "1.00E+402"),
    ("-1.50e-400", "-1.50E-400"),
    ("12.50E+400", "1.250E+401"),
    ("0.10000000000000001", "0.10000000000000001"),
    ("1.7976931348623158e308", "1.7976931348623158E+308"),
    # The exact value of a double is that double, however long.
    ("0.1000000000000000055511151231257827021181583404541015625", 0.1),
    ("0.1000000000000000055511151231257827021181583404541015626", None),
]


def cases() -> list[tuple[bytes, set[str]]]:
    found: list[tuple[bytes, set[str]]] = []
    for value in (text.encode() for text in accepted()):
        found.append((value, {STORED} if value.strip().startswith(b"{") else {"not_object"}))
        found.append((b'{"in":' + value + b"}", {STORED}))
    for value in (text.encode() for text in broken()):
        found += [(value, {NO_JSON}), (b'{"in":' + value + b"}", {NO_JSON})]
    for value, outcome in decided():
        if not value.startswith(b"{"):
            # Alone it is no object; what is no JSON is none there either.
            found.append((value, {"not_object", outcome} - {STORED}))
        found.append((b'{"in":' + value + b"}", {outcome}))
    found += [(RICH.encode()[:end], {NO_JSON, "invalid_utf8"}) for end in range(1, len(RICH.encode()))]
    return [*found, (b"", {"empty"}), (b" \n", {NO_JSON})]


def test_every_shape_alone_and_inside_a_message(servers, name):
    messages = [part for case in cases() for part in ((GOOD, {STORED}), case)]
    assert len(messages) > 3_000
    servers.create(servers.kafka, name, 1)
    servers.send(servers.kafka, name, [(None, value, 0) for value, _ in messages])
    sunk = Sunk(servers, name, name)
    result = sunk.run()
    documents, letters, _ = sunk.state()
    tag, wrong, outcomes = sunk.tag(), [], Counter[str]()
    for record, (value, expected) in zip(servers.read(servers.kafka, name), messages, strict=True):
        identity = place(tag, record)
        document, refused = documents.pop(ObjectId(identity), None), letters.pop(ObjectId(identity), None)
        assert (document is None) != (refused is None)
        if refused is None:
            outcome = STORED
            assert document == stored(value, identity)
        else:
            told = bson.decode(refused)
            outcome = told["reason"]
            assert (told["value"], told["partition"], told["offset"]) == (value, 0, record.offset())
        outcomes[outcome] += 1
        if outcome not in expected:
            wrong.append((value[:80], expected, outcome))
    assert not wrong
    assert (documents, letters) == ({}, {})
    assert result.read == len(messages) == result.inserted + result.dead_lettered
    assert result.inserted == outcomes[STORED] > len(messages) // 2
    assert {
        NO_JSON,
        "invalid_utf8",
        "lone_surrogate",
        "too_deep",
        "duplicate_key",
        "nul_in_key",
        "number_inexact",
    } < set(outcomes)


def test_numbers_of_every_kind(servers, name):
    servers.create(servers.kafka, name, 1)
    values = [(b"%d" % index, b'{"a":%s}' % text.encode(), 0) for index, (text, _) in enumerate(NUMBERS)]
    servers.send(servers.kafka, name, values)
    Sunk(servers, name, name, id="key").run()
    with servers.mongo() as client:
        found = {int(one["_id"]): one["a"] for one in client["tests"][name].find()}
    for index, (text, expected) in enumerate(NUMBERS):
        stored_as = found.get(index)
        if isinstance(expected, str):
            assert isinstance(stored_as, Decimal128), text
            assert str(stored_as) == expected, text
        else:
            # repr tells -0.0 from 0.0.
            assert (type(stored_as), repr(stored_as)) == (type(expected), repr(expected)), text
