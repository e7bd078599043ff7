"""JSON to BSON stated a second time: the exact bytes of the stored document, or why there is none.

Written from the rules, not from the native code: numbers by `decimal` and `repr(float)` (the shortest form that comes
back, ties to even), Decimal128 by PyMongo, everything else by `struct`.
"""

import decimal
import re
import struct
from collections.abc import Iterator
from typing import Any

from bson import Decimal128
from bson.decimal128 import create_decimal128_context
from tests.oracle_product_views import Number, Object, Refused, halved, parse

MAX_BYTES = 16_777_216
MAX_INT32, MAX_INT64 = 2**31, 2**63
# No message is so long that its digits could make up for an exponent beyond this.
FAR_EXPONENT = 10**9
DOUBLE, STRING, DOCUMENT, ARRAY, OBJECT_ID, BOOLEAN, NULL, INT32, INT64, DECIMAL128 = (
    b"\x01", b"\x02", b"\x03", b"\x04", b"\x07", b"\x08", b"\x0a", b"\x10", b"\x12", b"\x13",
)  # fmt: skip


def stored(raw: bytes, identity: bytes, extra: tuple[str, bytes] | None = None) -> bytes:
    """Return the document of a message: `_id`, its members, and `extra` (a name and a whole BSON document) at the end.

    The reasons go in a fixed order over the whole message, whatever comes first in its text.
    """
    event = parse(raw)
    texts, names = [], []
    for kind, text in _strings(event):
        texts.append(text)
        if kind == "name":
            names.append(text)
    if any(halved(text) for text in texts):
        raise Refused("lone_surrogate")
    if any("\0" in name for name in names):
        raise Refused("nul_in_key")
    members = dict(event)
    if {"_id", "_source_id"} <= members.keys() or (extra and extra[0] in members):
        raise Refused("field_conflict")
    elements = OBJECT_ID + b"_id\0" + identity
    elements += _elements(Object(("_source_id" if name == "_id" else name, value) for name, value in event))
    if extra:
        elements += DOCUMENT + extra[0].encode() + b"\0" + extra[1]
    document = _whole(elements)
    if len(document) > MAX_BYTES:
        raise Refused("too_large")
    return document


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Object):
        for name, inner in value:
            yield "name", name
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str) and not isinstance(value, Number):
        yield "value", value


def _whole(elements: bytes) -> bytes:
    return struct.pack("<i", len(elements) + 5) + elements + b"\0"


def _elements(members: Object) -> bytes:
    found = []
    for name, value in members:
        kind, content = _value(value)
        found.append(kind + name.encode() + b"\0" + content)
    return b"".join(found)


def _value(value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, Object):
        return DOCUMENT, _whole(_elements(value))
    if isinstance(value, list):
        return ARRAY, _whole(_elements(Object((str(index), inner) for index, inner in enumerate(value))))
    if isinstance(value, Number):
        return number(value)
    if isinstance(value, str):
        text = value.encode()
        return STRING, struct.pack("<i", len(text) + 1) + text + b"\0"
    if value is None:
        return NULL, b""
    return BOOLEAN, b"\1" if value else b"\0"


def number(spelled: str) -> tuple[bytes, bytes]:
    """Return the BSON type and bytes of a number as it is spelled."""
    mantissa, _, exponent = spelled.lower().partition("e")
    if not exponent and "." not in mantissa:
        return _integer(spelled)
    nearest = float(spelled)
    double = DOUBLE, struct.pack("<d", nearest)
    if not re.search("[1-9]", mantissa):
        return double
    if exponent and abs(decimal.Decimal(exponent)) > FAR_EXPONENT:
        raise Refused("number_inexact")
    exact = decimal.Decimal(spelled)
    finite = nearest not in {float("inf"), float("-inf")}
    if finite and decimal.Decimal(repr(nearest)) == exact:
        return double
    if (found := _decimal128(exact)) is not None:
        return DECIMAL128, found
    if finite and decimal.Decimal(nearest) == exact:
        return double
    raise Refused("number_inexact")


def _integer(spelled: str) -> tuple[bytes, bytes]:
    if spelled == "-0":
        return DOUBLE, struct.pack("<d", -0.0)
    exact = decimal.Decimal(spelled)
    if -MAX_INT32 <= exact < MAX_INT32:
        return INT32, struct.pack("<i", int(exact))
    if -MAX_INT64 <= exact < MAX_INT64:
        return INT64, struct.pack("<q", int(exact))
    found = _decimal128(exact)
    if found is None:
        raise Refused("number_inexact")
    return DECIMAL128, found


def _decimal128(exact: decimal.Decimal) -> bytes | None:
    """Coefficient and exponent as spelled, zeros padded or dropped where they must be; None when digits would go."""
    context = create_decimal128_context()
    context.traps[decimal.Inexact] = True
    context.traps[decimal.Overflow] = True
    try:
        return Decimal128(context.create_decimal(exact)).bid
    except (decimal.Inexact, decimal.Overflow):
        return None
