"""Declarative transforms against an oracle: random definitions over random events, through the rules of a run.

`Transform.explain` runs what a run runs, without servers. `MILLPOND_SEED` repeats a run; a failure prints it.
"""

import json
import os
import random
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.oracle_product_views import Refused, stored
from tests.oracle_transforms import Filtered, keyed_blake3, mapped

import millpond
from millpond.transforms import explain

SEED = int(os.environ.get("MILLPOND_SEED") or secrets.randbits(32))
NAMES = ["a", "b", "c", "a.b", "é", "time", "ip", "who", 'q"', "back\\slash", "", "😀"]
STRINGS = [
    '""', '"x"', '"12"', '"-0"', '"1e3"', '"1.5"', '"007"', '" 1"', '"true"', '"False"', '"é😀"', r'"\u0041\n\u001f\/"',
    r'"\ud83d\ude00"', r'"\ud800"', r'"a\udc00"', '"bot/1.0"', '"a robot"', '"9223372036854775808"', '"NaN"', '"1e400"',
]  # fmt: skip
NUMBERS = [
    "0", "-0", "1", "1.0", "12e1", "1.5", "-7", "1e-3", "0.1", "1e400", "-1e400", "1e-400", "0e99999999999999999999",
    "1e99999999999999999999", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "5e18",
    "123456789012345680000", "0.1000000000000000055511151231257827", "9007199254740993", "4.9e-324", "2.5e-5", "1e16",
    "1.7976931348623157e308", "0.000001", "1234.50", "100", "1761881000", "1761881000.25",
]  # fmt: skip
TIMES = [
    '"2025-10-31T03:22:11Z"', '"2025-10-31 03:22:11+07:00"', '"2025-10-31 03:22:11"', '"2025-10-31"', '"2025-02-29"',
    '"2025-10-31T23:59:60Z"', '"1761881000"', '"1761881000123"', '"20251031"', "1761881000123", "1761881000",
    '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:59-00:01"', '"0000-01-01"', '"0001-01-01 00:00:00"',
    '"2025-10-31T03:22:11.1234567891"', '"2025-10-31t03:22:11.5000z"', '"2025-10-31T"', '"2025-10-31Z"',
    '"0000-12-31T23:59:59-00:01"', '"2024-02-29T23:59:59.999-23:59"', r'"2025-10-3\u0031"',
]  # fmt: skip
ADDRESSES = [
    '"192.168.1.77"', '"0.0.0.0"', '"255.255.255.255"', '"10.1.2"', '"10.1.2.300"', '"010.1.2.3"', '"10.1.2.3 "',
    '"2001:db8:1:2:3:4:5:6"', '"2001:DB8::1"', '"::1"', '"::"', '"::ffff:1.2.3.4"', '"::FFFF:102:304"', '"::1.2.3.4"',
    '"fe80::1%eth0"', '"[::1]"', '"1.2.3.4:80"', '"1::2::3"', '"64:ff9b::1.2.3.4"', '"1:0:0:2:3:4:5:6"',
    '"1:2:3:4:5:6:7"', '"localhost"', '"::ffff:0:1.2.3.4"', '"\u0661.2.3.4"', '"1:2:3:4:5:6:7:8:9"', '"12345::"',
]  # fmt: skip
OTHERS = ["null", "null", "true", "false", "[]", "{}", '[ 1 , "x" ]', '{"a" : 1 , "c":{"d":"e"}}', '[{"a":[1.50,{}]}]']
POOLS = [STRINGS, NUMBERS, TIMES, ADDRESSES, OTHERS]
PATHS = ["a", "b", "c", "a.a", "a.c.d", "b.c", r"a\.b", "é", "time", "ip", "who", 'q"', r"back\\slash", "😀", "nowhere"]
TYPES = ["string", "int", "float", "bool", "timestamp", "date", "json"]
DEFAULTS: dict[str, list[Any]] = {
    "string": ["", "none", 'é"\n', 5], "int": [0, -7, "12", 1e3], "float": [0, 1.5, "2", 1e22],
    "bool": [True, "false"], "timestamp": ["2025-10-31T00:00:00Z", 1_761_881_000], "date": ["2025-10-31"],
    "json": ["x", 1, [1, {"a": None}], {}],
}  # fmt: skip
PIECES = ["", "x", "bot", "é", "1", "0"]
LITERALS = ["", "x", "12", 1, 1.5, 0, 120, True, False, "bot/1.0", 0.1, -7, 5e18, "é😀"]
SECRET = "n0t-the-passw0rd"


def value(draw: random.Random, depth: int = 0) -> str:
    """A value as it may be spelled, now and then an object of the names that paths look for."""
    if depth < 3 and draw.random() < 0.15:
        return event(draw, depth + 1, draw.randint(0, 4))
    return draw.choice(draw.choice(POOLS))


def event(draw: random.Random, depth: int = 0, members: int = 7) -> str:
    """An object with blanks and escaped names in it."""
    shown = []
    for name in draw.sample([*NAMES, "d"], members):
        escaped = "".join(f"\\u{ord(letter):04x}" if ord(letter) < 0xFFFF else letter for letter in name)
        spelled = f'"{escaped}"' if draw.random() < 0.1 else json.dumps(name, ensure_ascii=draw.random() < 0.5)
        blank = draw.choice(["", "", " ", "\t\n"])
        shown.append(f"{blank}{spelled}{blank}:{blank}{value(draw, depth)}")
    return "{" + ",".join(shown) + "}"


def rule(draw: random.Random) -> dict[str, Any]:
    """The rule of one field."""
    told: dict[str, Any] = {}
    if draw.random() < 0.7:
        told["from"] = draw.choice([draw.choice(PATHS), draw.sample(PATHS, draw.randint(1, 3))])
    if (special := draw.random()) < 0.15:
        told["hash"] = draw.choice(["hmac-sha256", "blake3"])
    elif special < 0.3:
        told["mask"] = "ip"
    elif special < 0.9:
        told["type"] = draw.choice(TYPES)
    kind = "string" if special < 0.3 else told.get("type", "json")
    if draw.random() < 0.3:
        told["default"] = draw.choice(DEFAULTS[kind])
    if draw.random() < 0.2:
        told["required"] = True
    return told


def condition(draw: random.Random) -> dict[str, Any]:
    """A filter of one or two tests."""
    tests: list[tuple[str, Any]] = [
        ("equals", draw.choice(LITERALS)), ("not_equals", draw.choice(LITERALS)), ("missing", draw.random() < 0.5),
        ("one_of", draw.sample(LITERALS, 3)), ("not_one_of", draw.sample(LITERALS, 9)),
        ("starts_with", draw.choice(PIECES)), ("ends_with", draw.choice(PIECES)), ("contains", draw.choice(PIECES)),
    ]  # fmt: skip
    return {"field": draw.choice(PATHS), **dict(draw.sample(tests, draw.choice([1, 1, 2])))}


def definition(draw: random.Random) -> dict[str, Any]:
    """A transform that is sound."""
    fields = {name: rule(draw) for name in draw.sample([name for name in NAMES if name], draw.randint(1, 5))}
    told: dict[str, Any] = {"fields": fields}
    if draw.random() < 0.4:
        told["keep_unknown"] = True
    if draw.random() < 0.3:
        told["drop_if"] = [condition(draw) for _ in range(draw.randint(1, 2))]
    return told


def outcome(told: dict[str, Any]) -> Any:
    """What the native rules made of an event: bytes, None where a filter holds, or the reason."""
    if told["outcome"] == "written":
        return told["output"].encode()
    assert told["outcome"] in {"filtered", "dead_letter"}
    return None if told["outcome"] == "filtered" else told["reason"]


def expected(decide: Any) -> Any:
    try:
        return decide()
    except Filtered:
        return None
    except Refused as why:
        return why.reason


def test_random_rules_over_random_events():
    draw = random.Random(SEED)
    seen: Counter[str] = Counter()
    wrong = []
    for _ in range(1_500):
        rules = definition(draw)
        key = draw.randbytes(draw.choice([1, 16, 32, 32, 64, 200]))
        hashed = any("hash" in told for told in rules["fields"].values())
        transform = millpond.Transform(**rules, hash_key=key if hashed else None)
        for _ in range(4):
            raw = event(draw, members=draw.randint(1, 10)).encode()
            told = transform.explain(raw)
            wanted = expected(lambda rules=rules, key=key, raw=raw: mapped(rules, key, raw))
            seen[wanted if isinstance(wanted, str) else type(wanted).__name__] += 1
            if outcome(told) != wanted:
                wrong.append((rules, raw, f"expected {wanted!r}", f"found {outcome(told)!r}"))
            # What the fields show is what is written.
            if told["outcome"] == "written":
                shown = [f"{json.dumps(one['field'], ensure_ascii=False)}:{one['value']}" for one in told["fields"]]
                assert told["output"].startswith("{" + ",".join(shown)), (SEED, rules, raw)
    assert not wrong, f"seed {SEED}: {len(wrong)} differ, the first: {wrong[:3]}"
    assert seen["bytes"] > 500
    assert seen["NoneType"] > 100
    assert seen.keys() >= {
        "type", "required", "number_inexact", "bad_time", "time_unit", "bad_ip", "lone_surrogate", "field_conflict",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [*TYPES, "hmac-sha256", "blake3", "ip"])
def test_every_value_under_every_rule(kind):
    special = {"hmac-sha256": "hash", "blake3": "hash", "ip": "mask"}.get(kind, "type")
    rules: dict[str, Any] = {"fields": {"v": {special: kind}}}
    transform = millpond.Transform(**rules, hash_key=SECRET if special == "hash" else None)
    for pool in POOLS:
        for spelled in pool:
            raw = f'{{"v": {spelled} }}'.encode()
            wanted = expected(lambda raw=raw: mapped(rules, SECRET.encode(), raw))
            assert outcome(transform.explain(raw)) == wanted, spelled


def test_the_built_in_transform_is_what_its_rules_say():
    draw = random.Random(SEED)
    names = ["product_id", "device_id", "store_id", "referrer_url", "local_time", "remote_ip", "ip", "timestamp"]
    for _ in range(500):
        members = draw.sample([*names, "time_stamp", "x"], draw.randint(0, 6))
        raw = ("{" + ",".join(f'"{name}":{draw.choice(draw.choice(POOLS))}' for name in members) + "}").encode()
        wanted = expected(lambda raw=raw: stored(raw))
        assert outcome(millpond.PRODUCT_VIEWS.explain(raw)) == wanted, (SEED, raw)


def test_options_of_the_built_in_transform():
    views = millpond.PRODUCT_VIEWS(keep_unknown=True, drop_if=[millpond.DropIf("user_agent", contains="bot")])
    kept = views.explain('{"option": [ 1.50 ], "product_id": 7, "id": "\\u0041", "ip": null}')
    nulls = '"device_id":null,"store_id":null,"referrer_url":null,"local_time":null,"remote_ip":null,"timestamp":null'
    assert kept["output"] == f'{{"product_id":"7",{nulls},"option":[1.50],"id":"A"}}'
    assert views.explain('{"product_id": 7, "user_agent": "robot"}')["outcome"] == "filtered"
    # The message is judged before the filter, the filter before the fields.
    assert views.explain('{"product_id": 7, "user_agent": "robot",}')["reason"] == "invalid_json"
    assert views.explain('{"product_id": [], "user_agent": "robot"}')["outcome"] == "filtered"
    assert views.explain('{"user_agent": "human"}')["reason"] == "no_field"
    assert views.explain('{"product_id": 7, "x": "\\ud800"}')["reason"] == "lone_surrogate"
    assert millpond.PRODUCT_VIEWS.explain('{"product_id": 7, "x": "\\ud800"}')["outcome"] == "written"


def test_a_field_that_is_masked_or_hashed_leaks_nowhere():
    address, device = "203.0.113.77", "device-4711"
    fields = {"ip": millpond.Field("user.ip", mask="ip"), "device": millpond.Field("user.device", hash="blake3")}
    transform = millpond.Transform(fields, keep_unknown=True, hash_key=SECRET)
    raw = json.dumps({"user": {"ip": address, "device": device, "name": "x"}, "kept": 1})
    output = transform.explain(raw)["output"]
    digest = keyed_blake3(SECRET.encode(), device.encode()).hex()
    assert output == f'{{"ip":"203.0.113.0","device":"{digest}","kept":1}}'


def test_keys_show_nowhere(tmp_path, monkeypatch):
    fields = {"a": millpond.Field(hash="hmac-sha256")}
    (tmp_path / "key").write_text(f"{SECRET}\n")
    monkeypatch.setenv("MILLPOND_TEST_KEY", SECRET)
    file = tmp_path / "rules.toml"
    file.write_text(f'[fields.a]\nhash = "hmac-sha256"\n[hash_key]\nfile = "{tmp_path / "key"}"\n')
    forms: list[Any] = [
        millpond.Transform(fields, hash_key=SECRET),
        millpond.Transform(fields, hash_key=SECRET.encode()),
        millpond.Transform(fields, hash_key=millpond.Secret.from_env("MILLPOND_TEST_KEY")),
        {"fields": fields, "hash_key": millpond.Secret(SECRET)},
        {"fields": {"a": {"hash": "hmac-sha256"}}, "hash_key": {"env": "MILLPOND_TEST_KEY"}},
        file,
        str(file),
    ]
    answers = [explain(form, '{"a":1}') for form in forms]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["output"] == f'{{"a":"{hmac_hex("1")}"}}'
    for told in [*map(repr, forms), json.dumps(answers)]:
        assert SECRET not in told
        assert SECRET.encode().hex() not in told


def hmac_hex(told: str) -> str:
    import hmac

    return hmac.new(SECRET.encode(), told.encode(), "sha256").hexdigest()


def test_no_transform_keeps_every_byte():
    told = explain(None, b"{ not even JSON")
    assert (told["outcome"], told["output"], told["fields"]) == ("written", "{ not even JSON", [])


def test_toml_and_python_say_the_same(tmp_path: Path):
    file = tmp_path / "rules.toml"
    file.write_text(
        "keep_unknown = true\n"
        "[[drop_if]]\nfield = 'kind'\none_of = ['click', 3]\n"
        "[fields.product]\nfrom = ['product_id', 'pid']\ntype = 'int'\nrequired = true\n"
        "[fields.day]\ntype = 'date'\ndefault = 2025-10-31\n"
        "[fields.seen]\ntype = 'timestamp'\ndefault = 2025-10-31T07:00:00+07:00\n"
    )
    transform = millpond.Transform(
        fields={
            "product": millpond.Field(["product_id", "pid"], "int", required=True),
            "day": millpond.Field(type="date", default="2025-10-31"),
            "seen": millpond.Field(type="timestamp", default="2025-10-31T00:00:00Z"),
        },
        keep_unknown=True,
        drop_if=[millpond.DropIf("kind", one_of=["click", 3])],
    )
    for raw in ('{"pid":"7","x":1}', '{"kind":3.0}', '{"kind":4}', '{"pid":1,"day":"N/A"}'):
        ours, theirs = transform.explain(raw), explain(file, raw)
        assert (ours["outcome"], ours["output"]) == (theirs["outcome"], theirs["output"])
