"""Declarative transforms stated a second time: a definition and bytes in, the new bytes, `Filtered` or `Refused` out.

Written from docs/transforms.md, not from the native code. It reads JSON with the strict reader of the other oracle and
leaves numbers to the standard library's decimals and fractions.
"""

import hashlib
import hmac
import ipaddress
import json
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.oracle_product_views import CLOCK, Number, Object, Refused, _epoch, _instant, _rfc3339, _wall, halved, parse

NUMERAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Filtered(Exception):  # noqa: N818 - no error
    """An event that a filter leaves out."""


def mapped(definition: dict[str, Any], key: bytes, raw: bytes) -> bytes:
    """Return the new event."""
    event = parse(raw)
    members = dict(event)
    if any(drops(test, members) for test in definition.get("drop_if", [])):
        raise Filtered
    written: list[tuple[str, str]] = []
    taken: set[str] = set()
    for name, rule in definition.get("fields", {}).items():
        sources = rule.get("from", name.replace("\\", "\\\\").replace(".", "\\."))
        paths = [steps(path) for path in ([sources] if isinstance(sources, str) else sources)]
        taken |= {path[0] for path in paths}
        found = next((value for value in (look(members, path) for path in paths) if value is not None), None)
        written.append((name, made(rule, key, found)))
    if definition.get("keep_unknown"):
        for name, value in event:
            if name not in taken:
                text(name)
                if name in definition.get("fields", {}):
                    raise Refused("field_conflict")
                written.append((name, dumped(value)))
    return ("{" + ",".join(f"{dumped(name)}:{value}" for name, value in written) + "}").encode()


def steps(path: str) -> list[str]:
    """Split at dots that no backslash stands before."""
    return [re.sub(r"\\(.)", r"\1", step) for step in re.findall(r"(?:[^.\\]|\\.)+", path)]


def look(members: dict[str, Any], path: list[str]) -> Any:
    value: Any = members.get(path[0])
    for step in path[1:]:
        value = dict(value).get(step) if isinstance(value, Object) else None
    return value


def made(rule: dict[str, Any], key: bytes, value: Any) -> str:
    """Return the JSON of one field."""
    special = "hash" in rule or "mask" in rule
    kind = "string" if special else rule.get("type", "json")
    if value is None:
        if rule.get("default") is not None:
            return converted(kind, dict(parse(json.dumps({"v": rule["default"]}).encode()))["v"])
        if rule.get("required"):
            raise Refused("required")
        return "null"
    if "hash" in rule:
        digest = {"hmac-sha256": hmac_sha256, "blake3": keyed_blake3}[rule["hash"]]
        return f'"{digest(key, text(value).encode()).hex()}"'
    if "mask" in rule:
        return f'"{network(text(value))}"'
    return converted(kind, value)


def text(value: Any) -> str:
    """Return a string, or the spelling of a number."""
    if not isinstance(value, str):
        raise Refused("type")
    if halved(value):
        raise Refused("lone_surrogate")
    return str(value)


def converted(kind: str, value: Any) -> str:
    if kind == "json":
        return dumped(value)
    if kind == "bool":
        if isinstance(value, bool):
            return dumped(value)
        if isinstance(value, Number) or text(value) not in {"true", "false"}:
            raise Refused("type")
        return str(value)
    if kind in {"int", "float"}:
        spelled = text(value)
        found = NUMERAL.fullmatch(spelled)
        if found is None:
            raise Refused("type")
        return whole(found) if kind == "int" else double(spelled)
    if kind == "timestamp":
        return f'"{_instant(value)}"'
    if kind == "date":
        return f'"{date(value)}"'
    return json.dumps(text(value), ensure_ascii=False)


def whole(found: re.Match[str]) -> str:
    sign, before, after, exponent = found[1], found[2], found[3] or "", int(found[4] or 0)
    digits = before + after
    if not digits.strip("0"):
        return "0"
    power = exponent - len(after)
    if abs(power) > 10_000:
        raise Refused("number_inexact")
    number = Fraction(int(digits)) * Fraction(10) ** power * (-1 if sign else 1)
    if number.denominator != 1 or not -(2**63) <= number < 2**63:
        raise Refused("number_inexact")
    return str(number.numerator)


def double(spelled: str) -> str:
    number = float(spelled)
    if number in {float("inf"), float("-inf")}:
        raise Refused("number_inexact")
    sign, digits, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int)
    shown = "".join(map(str, digits))
    first = exponent + len(shown) - 1
    shown = shown.rstrip("0") or "0"
    if number == 0:
        plain = "0.0"
    elif 0 <= first <= 15:
        padded = shown.ljust(first + 1, "0")
        plain = f"{padded[: first + 1]}.{padded[first + 1 :] or '0'}"
    elif -5 <= first < 0:
        plain = f"0.{'0' * (-first - 1)}{shown}"
    else:
        plain = f"{shown[0]}{'.' if shown[1:] else ''}{shown[1:]}e{'+' if first > 0 else '-'}{abs(first)}"
    return ("-" if sign else "") + plain


def date(value: Any) -> str:
    told = text(value)
    clock = CLOCK.fullmatch(f"{told}T00:00:00" if DATE.fullmatch(told) else told)
    if isinstance(value, Number):
        return _epoch(value)[:10]
    if clock is not None and not clock[8]:
        seconds, fraction, _ = _wall(clock)
        return _rfc3339(seconds, fraction)[:10]
    return _instant(value)[:10]


def network(told: str) -> str:
    try:
        address = ipaddress.ip_address(told.replace("%", "no zone"))
    except ValueError:
        raise Refused("bad_ip") from None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False).network_address)


def dumped(value: Any) -> str:
    """Write any value again."""
    if isinstance(value, Object):
        return "{" + ",".join(f"{dumped(name)}:{dumped(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json.dumps(text(value), ensure_ascii=False)
    return json.dumps(value)


def drops(test: dict[str, Any], members: dict[str, Any]) -> bool:
    value = look(members, steps(test["field"]))
    plain = value if isinstance(value, str) and not isinstance(value, Number) and not halved(value) else None
    verdicts = {
        "equals": lambda wanted: same(value, wanted),
        "not_equals": lambda wanted: not same(value, wanted),
        "one_of": lambda wanted: any(same(value, one) for one in wanted),
        "not_one_of": lambda wanted: not any(same(value, one) for one in wanted),
        "starts_with": lambda piece: plain is not None and plain.startswith(piece),
        "ends_with": lambda piece: plain is not None and plain.endswith(piece),
        "contains": lambda piece: plain is not None and piece in plain,
        "missing": lambda wanted: (value is None) == wanted,
    }
    return all(verdicts[name](wanted) for name, wanted in test.items() if name != "field")


def same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(value, Number):
        found = NUMERAL.fullmatch(value)
        assert found is not None
        if isinstance(wanted, str) or abs(int(found[4] or 0)) > 5_000:
            # No number of a definition is that far from 1; zero is zero with any exponent.
            return not isinstance(wanted, str) and wanted == 0 and not re.search("[1-9]", value.lower().split("e")[0])
        return Fraction(value) == Fraction(repr(wanted))
    return isinstance(value, str) and isinstance(wanted, str) and value == wanted


def hmac_sha256(key: bytes, told: bytes) -> bytes:
    return hmac.new(key, told, hashlib.sha256).digest()


IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, ROOT, KEYED = 1, 2, 8, 16


def keyed_blake3(key: bytes, told: bytes) -> bytes:
    """BLAKE3's keyed hash of up to one chunk (1,024 bytes), from its paper."""
    if len(key) != 32:
        key = blake3_chunk(IV, 0, key)
    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
    return blake3_chunk(words, KEYED, told)


def blake3_chunk(words: list[int], flags: int, told: bytes) -> bytes:
    assert len(told) <= 1_024
    blocks = [told[i : i + 64] for i in range(0, len(told), 64)] or [b""]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        edge = (CHUNK_START if number == 0 else 0) | (CHUNK_END | ROOT if last else 0)
        words = compress(words, block, flags | edge)
    return b"".join(word.to_bytes(4, "little") for word in words)


def compress(chaining: list[int], block: bytes, flags: int) -> list[int]:
    padded = block.ljust(64, b"\0")
    message = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, 64, 4)]
    state = [*chaining, *IV[:4], 0, 0, len(block), flags]

    def turn(word: int, bits: int) -> int:
        return (word >> bits | word << (32 - bits)) & 0xFFFFFFFF

    def mix(a: int, b: int, c: int, d: int, x: int, y: int) -> None:
        for more, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = (state[a] + state[b] + more) & 0xFFFFFFFF
            state[d] = turn(state[d] ^ state[a], first)
            state[c] = (state[c] + state[d]) & 0xFFFFFFFF
            state[b] = turn(state[b] ^ state[c], second)

    for _ in range(7):
        for i in range(4):
            mix(i, i + 4, i + 8, i + 12, message[2 * i], message[2 * i + 1])
        for i in range(4):
            mix(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, message[8 + 2 * i], message[9 + 2 * i])
        message = [message[i] for i in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)]
