"""bridge() against an oracle: what PRODUCT_VIEWS makes of thousands of hostile messages, and what a plain copy keeps.

`MILLPOND_SEED` repeats a run; a failure prints it.
"""

import os
import random
import secrets
import time
from collections import Counter, defaultdict
from typing import Any

import pytest
from confluent_kafka import Producer
from tests import raw_records
from tests.oracle_product_views import SOURCES, Refused, stored

import millpond

SEED = int(os.environ.get("MILLPOND_SEED") or secrets.randbits(32))
NAMES = [name for names in SOURCES.values() for name in names]
OTHER_NAMES = ["id", "_id", "option", "user_id_db", "current_url", "Timestamp", "product-id", "timeStamp", "", "é"]
# Values of fields, as they are spelled in JSON.
TEXTS = [
    '""', '"12345"', r'"\u0041\u000a\u001f\/\"\\"', r'"\u0000"', '"\x7f é 😀 \u2028"', r'"\ud83d\ude00"',
    r'"\uD83D\uDE00x"', r'"\u00e9"', r'"\b\f\n\r\t"', '"https://google.com/?q=a%20b"', '"::ffff:1.2.3.4"', '"1e5"',
    '"null"', '" a "', r'"\u007f\u0080\uffff\u2029"', '"e\u0301"', '"\U0010ffff"', r'"\\u0041"', r'"\udbff\udfff"',
]  # fmt: skip
NUMBERS = [
    "0", "-0", "1", "1.0", "1E5", "1e-7", "-0.0", "12345678901234567890.0", "9" * 60, "1E+400",
    "0e999999999999999999999", "1e99999999999999999999", "-1.50e+00", "0.1000000000000000055511151231257827", "100",
    "123e-2",
]  # fmt: skip
WRONG_TYPES = ["true", "false", "[]", "{}", '["1"]', '[{"a":1}]', '{"$oid":"5f"}']
HALVES = [r'"\ud800"', r'"\udc00\ud800"', r'"a\ud83dx"', r'"\ud800\u0041"', r'"\uDBFF\ud83d\ude00"', r'"\ud83d\\ude00"']
# What may follow a clock.
ENDS = [
    "Z", "-00:00", ".500Z", ".000Z", ".000000001Z", ".123456789Z", ".1234567890Z", ".0000000000Z", "+24:00", "+07:60",
    "+7:00", "+0700", "+07", " +07:00", "\u221207:00", "", ".Z", ",5Z", "Z ", "ZZ", "+07:00Z", "\\u005a", "Z\\u0000",
]  # fmt: skip
TIMES = [
    f'"{text}"'
    for text in [
        *(f"2025-10-31T03:22:11{end}" for end in ENDS),
        "2025-10-31t03:22:11z", "2025-10-31 03:22:11Z", "2025-10-31 03:22:11+07:00",
        "2025-10-31T23:59:59.999999999-00:01", "2025-11-01T00:00:00+00:01", "2025-01-01T00:00:00+23:59",
        "2024-12-31T23:59:59-23:59", "2025-10-31", "2025-10-31T03:22Z", "2025-10-31T03:22:60Z", "2016-12-31T23:59:60Z",
        "2025-10-31T24:00:00Z", "2025-10-31T23:60:00Z", "N/A", "", " 2025-10-31T03:22:11Z", "2025-10-31_03:22:11Z",
        "20251031T032211Z", "\u0662025-10-31T03:22:11Z", "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z",
        "2000-02-29T12:00:00Z", "1900-02-29T12:00:00Z", "2025-04-31T00:00:00Z", "2025-00-10T00:00:00Z",
        "2025-13-10T00:00:00Z", "2025-10-00T00:00:00Z", "2025-10-32T00:00:00Z", "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01", "0000-12-31T23:59:59-00:01", "0000-12-31T23:59:59Z", "0000-02-29T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59+00:01",
        "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z", "1600-03-01T00:00:00Z", "1761881000",
        "1761881000123", "1000000000", "9999999999", "1000000000000", "9999999999999", "0000000001", "0999999999999",
        "176188100", "17618810001", "176188100012", "17618810001234", "0", "17618810\u06600",
    ]
] + [
    "1761881000", "1761881000123", "1000000000", "999999999", "9999999999", "10000000000", "999999999999",
    "1000000000000", "9999999999999", "10000000000000", "1e9", "1E+9", "9.99999999e8", "1.761881e9", "1761881000.0",
    "1761881000.5", "1761881000.123456789", "1761881000.1234567891", "1761881000.12300000000000",
    "9999999999.999999999", "0.1e10", "1761881000123.5", "1761881000123.456789", "1761881000123.4567891",
    "17618810001234e-1", "1761881000000e-3", "1e12", "999999999.9999999999", "0", "-0", "-1761881000", "1", "1e300",
    "1e99999999999999999999", "-1e99999999999999999999", "0e99999999999999999999", "1e-99999999999999999999",
    "1761881000e0", "176188100012300000000000000000e-17",
]  # fmt: skip
# Whole messages: the grammar, UTF-8, depth and what is no object.
RAW: list[bytes] = [
    b"", b" ", b"{}", b" { } \r\n\t", b"null", b"1", b'"a"', b"[]", b'[{"product_id":1}]', b"{", b"}", b"{]",
    b"\x00", b"{}\x00", b'\xef\xbb\xbf{"product_id":1}', b"\xff\xfe{\x00}\x00", b'{"product_id":1}x',
    b'{"product_id":1}{}', b'{"product_id":1,}', b'{,"product_id":1}', b'{"product_id" 1}', b'{"product_id"}',
    b'{"product_id":}', b"{'product_id':1}", b"{product_id:1}", b'{"product_id":1 "ip":2}', b'{"product_id":1/**/}',
    b'{"product_id":1}//', b'\x0b{"product_id":1}', b'\xc2\xa0{"ip":1}', b'{"product_id":"a\nb"}',
    b'{"product_id":"a\x00b"}', b'{"product_id":"\x1f"}', b'{"product_id":"\\x"}', b'{"product_id":"\\u12g4"}',
    b'{"product_id":"\\u123"}', b'{"product_id":"\\U0041"}', b'{"product_id":"\\\'"}', b'{"product_id":"\\"}',
    b'{"product_id":"a', b'{"product_id":1,"product_id":1}', b'{"product_id":1,"\\u0070roduct_id":2}',
    b'{"product_id":1,"product_id":2', b'{"\\u0070roduct_id":"escaped name","\\u0069p":1}',
    b'{"product_id\\u0000":1}', b'{"\\ud800":1}', b'{"\\ud800":1,"ip":2}',
    b'{"product_id":1,"\\ud800":1,"\\ud800":2}', b'{"ip":1,"\xf0\x9f\x98\x80":1,"\\ud83d\\ude00":2}',
    b'{"id":1,"option":[]}', b'{"product_id":null}', b'{"timestamp":null,"time_stamp":null}',
    b'{"timestamp":null,"time_stamp":1761881000}', b'{"time_stamp":1761881000,"timestamp":"N/A"}',
    b'{"timestamp":"","time_stamp":1761881000}', b'{"timestamp":false,"time_stamp":1761881000}',
    b'{"timestamp":1761881000,"time_stamp":"\\ud800"}', b'{"remote_ip":null,"ip":"1.2.3.4"}',
    b'{"ip":"2","remote_ip":""}', b'{"remote_ip":[],"ip":"1.2.3.4"}', b'{"remote_ip":"1","ip":[]}',
    b'{"Product_ID":1}', b'{"product_id ":1}',
]  # fmt: skip
# In a field that is dropped: only what concerns the whole message counts.
DROPPED: list[bytes] = [
    b'"\\ud800"', b"1e999", b"-0", b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b"-", b"1e",
    b"1e+", b"0x1", b"1_000", b"tru", b"True", b"nulll", b"undefined", b"[1,]", b"[1 2]", b"[,1]", b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":2}', b'[[{"":1,"":2}]]', b'{"a":{"a":{"a":1}}}', b'{"a":1,"A":2}', b'"\xff"', b'"\xc0\xaf"',
    b'"\xe0\x80\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xc3"', b'"\x80"',
    b'"\xef\xbf\xbe"', b'"\xf0\x9f\x98\x80"', b'"\t"',
    *(b"[" * depth + b"]" * depth for depth in (99, 100, 50_000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (99, 100)),
    b"[" * 50_000, b"]" * 9, b"[" * 100 + b'{"a":1,"a":2}' + b"]" * 100,
    *(b"{%b" % b",".join(b'"k%d":1' % i for i in range(40)) + end for end in [b"}", b',"k7":0}', b',"\\u006b7":0}']),
]  # fmt: skip
ZONED = [
    "2025-10-31 03:22:11", "2025-10-31T03:22:11.50", "2025-10-31t23:59:59.123456789", "1970-01-01 00:00:00",
    "1944-06-06 06:00:00", "1850-01-01 12:00:00", "1905-01-01 00:00:00.5", "2099-07-01 12:00:00",
    "9998-12-31 23:59:59", "9999-12-31 04:00:00", "0001-01-02 00:00:00", "0001-01-01 00:00:00",
    "2025-02-29 00:00:00", "2025-10-31 03:22:11Z", "2025-10-31 03:22:11+07:00", "2025-10-31", "yesterday", "",
    "2025-10-31 03:22:60", "2025-10-31 03:22:11.1234567890", "2025-07-01 12:00:00",
]  # fmt: skip


def tables() -> list[bytes | None]:
    """Every hand-made value in every field that could take it."""
    found: list[bytes | None] = [None, *RAW]
    for name in NAMES:
        for spelled in [*TEXTS, *NUMBERS, *WRONG_TYPES, *HALVES, "null"]:
            found.append(f'{{"{name}":{spelled}}}'.encode())
    for name in ("timestamp", "time_stamp"):
        found += [f'{{"store_id":"US", "{name}" : {spelled} }}'.encode() for spelled in TIMES]
    found += [b'{"product_id":"1","x":' + spelled + b"}" for spelled in DROPPED]
    found += [b'{"option":' + spelled + b',"device_id":"d"}' for spelled in DROPPED]
    return found


def message(draw: random.Random) -> bytes:
    """One of the two shapes, mostly sound, its members in any order, some of them hostile."""
    wild = draw.random() < 0.4
    members = []
    for name in draw.sample(NAMES + OTHER_NAMES, draw.randint(0, 14)):
        pools = [TEXTS, NUMBERS] if not wild or draw.random() < 0.8 else [WRONG_TYPES, HALVES, ["null"], TIMES]
        if name in {"timestamp", "time_stamp"} and draw.random() < 0.9:
            epochs = [f"{draw.randrange(10**9, 10**10)}", f'"{draw.randrange(10**12, 10**13)}"', "null"]
            pools = [TIMES if wild else epochs]
        spelled = draw.choice(draw.choice(pools))
        escaped = "".join(draw.choice([character, f"\\u{ord(character):04x}"]) for character in name)
        name_spelled = escaped if draw.random() < 0.1 else name
        blank = draw.choice(["", "", " ", "\n\t"])
        members.append(f'{blank}"{name_spelled}"{blank}:{blank}{spelled}{blank}')
    return f"{{{','.join(members)}}}".encode()


def mutated(draw: random.Random, raw: bytes) -> bytes:
    """A sound message with a few bytes changed: near misses of the grammar and of UTF-8."""
    spoiled = bytearray(raw)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(spoiled) + 1)
        piece = draw.choice([b"", *(bytes([byte]) for byte in b'"\\,:{}0e-. \x00\x80\xf0')])
        spoiled[at : at + draw.randint(0, 2)] = piece
    return bytes(spoiled)


def send(cluster: dict[str, str], topic: str, records: list[dict[str, Any]]) -> None:
    """Write records that each have their own key, headers, timestamp and partition."""
    producer = Producer(cluster | {"enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"})
    for record in records:
        producer.produce(topic, **record)
        producer.poll(0)
    assert producer.flush(120) == 0


def dressed(draw: random.Random, value: bytes | None, partition: int) -> dict[str, Any]:
    """A record around a value."""
    headers = [("a", b"1"), ("a", None), ("b", b""), ("", b"\xff"), ("é", b"x"), ("millpond.reason", b"old")]
    return {
        "value": value,
        "key": draw.choice([None, None, b"", b"k%d" % draw.randrange(50), b"\xff\x00", draw.randbytes(9)]),
        "headers": draw.sample(headers, draw.randint(0, 4)),
        # -1 says none.
        "timestamp": draw.choice([-1, 1, 1_600_000_000_123, 1_761_881_000_000, int(time.time() * 1000)]),
        "partition": partition,
    }


def seen(record: Any) -> tuple[Any, ...]:
    return record.value(), record.key(), record.headers() or [], record.timestamp()


def letter(source: Any, topic: str, found: Any) -> str:
    """Compare a dead letter with its source, and return its reason."""
    assert (found.value(), found.key()) == (source.value(), source.key())
    own = [(name, value.decode()) for name, value in found.headers()[-6:]]
    assert found.headers()[:-6] == (source.headers() or [])
    places = {"topic": topic, "partition": source.partition(), "offset": source.offset()}
    assert own[:3] == [(f"__connect.errors.{place}", str(value)) for place, value in places.items()]
    names, (told, reason, at) = zip(*own[3:], strict=True)
    assert names == ("__connect.errors.exception.message", "millpond.reason", "millpond.timestamp")
    assert told
    assert at == str(source.timestamp()[1])
    assert abs(found.timestamp()[1] - time.time() * 1000) < 600_000
    return str(reason)


def by_partition(records: list[Any]) -> dict[int, list[Any]]:
    found = defaultdict(list)
    for record in records:
        found[record.partition()].append(record)
    return found


def compare(servers: Any, name: str, result: Any, decide: Any) -> Counter[str]:
    """Compare every record of a run with what `decide` makes of its source; return the dead letters by reason."""
    topics = (result.target_topic, f"{result.target_topic}.dead_letters")
    written, letters = (by_partition(servers.read(servers.kafka, topic)) for topic in topics)
    reasons: Counter[str] = Counter()
    wrong = []
    sources = servers.read(servers.remote, name)
    for partition, records in by_partition(sources).items():
        ours, refused = iter(written[partition]), iter(letters[partition])
        places = {int(dict(record.headers())["__connect.errors.offset"]) for record in letters[partition]}
        for source in records:
            expected: Any
            try:
                expected = (decide(source), *seen(source)[1:])
            except Refused as why:
                expected = why.reason
                reasons[expected] += 1
            # What the run did is asked first, so that one wrong verdict does not shift all that follow.
            found = letter(source, name, next(refused)) if source.offset() in places else seen(next(ours))
            if found != expected:
                wrong.append((source.value(), f"expected {expected}", f"found {found}"))
        assert not list(ours)
        assert not list(refused)
    assert not wrong, f"seed {SEED}: {len(wrong)} records differ, the first: {wrong[:8]}"
    assert result.read == len(sources) == result.written + result.filtered + result.dead_lettered
    assert (result.dead_lettered, result.filtered, result.lag) == (reasons.total(), 0, 0)
    assert result.dead_letters_by_reason == reasons
    return reasons


def test_thousands_of_hostile_messages(servers, name):
    draw = random.Random(SEED)
    values = tables() + [message(draw) for _ in range(2_500)]
    values += [mutated(draw, message(draw)) for _ in range(1_500)]
    draw.shuffle(values)
    servers.create(servers.remote, name, 4)
    send(servers.remote, name, [dressed(draw, value, i % 4) for i, value in enumerate(values)])
    words = {"source_topic": name, "target_topic": f"{name}-out", "transform": millpond.PRODUCT_VIEWS}
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    reasons = compare(servers, name, result, lambda source: stored(source.value()))
    assert result.written > 1_500
    assert reasons.keys() == {
        "empty", "invalid_utf8", "invalid_json", "not_object", "too_deep", "duplicate_key", "no_field", "type",
        "lone_surrogate", "time_unit", "bad_time",
    }  # fmt: skip


@pytest.mark.parametrize("zone", ["Asia/Ho_Chi_Minh", "America/New_York", "UTC"])
def test_a_missing_time_comes_from_the_wall_clock_of_a_zone(servers, name, zone):
    values: list[bytes | None] = [f'{{"local_time":"{clock}"}}'.encode() for clock in ZONED]
    values += [f'{{"local_time":"{clock}","timestamp":null,"time_stamp":1761881000}}'.encode() for clock in ZONED]
    values += [b'{"local_time":20251031}', b'{"store_id":"US"}', b'{"local_time":null}', b'{"local_time":[]}', None]
    values += [b'{"local_time":"2025-10-31 03:22:1\\u0031"}', b'{"local_time":"2025-10-31 03:22:11","timestamp":""}']
    servers.create(servers.remote, name, 1)
    servers.send(servers.remote, name, [(None, value, 0) for value in values])
    views = millpond.PRODUCT_VIEWS(local_time_zone=zone)
    words = {"source_topic": name, "target_topic": f"{name}-out", "transform": views}
    result = millpond.bridge(servers.remote, servers.kafka, **words)
    compare(servers, name, result, lambda source: stored(source.value(), zone))


def test_a_plain_copy_keeps_all_but_times_that_the_target_cannot_hold(servers, name):
    draw = random.Random(SEED)
    now = int(time.time() * 1000)
    hour, year = 3_600_000, 366 * 86_400_000
    unlimited = {f"message.timestamp.{side}.max.ms": str(2**63 - 1) for side in ("before", "after")}
    limited = {"message.timestamp.before.max.ms": str(20 * year), "message.timestamp.after.max.ms": str(hour)}
    servers.create(servers.remote, name, 3, **unlimited)
    servers.create(servers.kafka, f"{name}-out", 3, **limited)
    records = [dressed(draw, draw.choice([None, b"", draw.randbytes(40), b"{"]), i % 3) for i in range(600)]
    for record, ahead in zip(records, [hour - 300_000, hour + 300_000, year, -year, 9 * year] * 20, strict=False):
        record["timestamp"] = now + ahead
    send(servers.remote, name, records)
    result = millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out")

    def kept(source: Any) -> bytes | None:
        at = source.timestamp()[1]
        if at != -1 and not now - 20 * year <= at <= now + hour:
            raise Refused("timestamp")
        return bytes(source.value()) if source.value() is not None else None

    reasons = compare(servers, name, result, kept)
    assert reasons.keys() == {"timestamp"}
    assert reasons["timestamp"] > 60


@pytest.mark.parametrize("partitions", [5, 11])
def test_other_partition_counts_go_by_key_as_in_java(servers, name, partitions):
    draw = random.Random(SEED)
    target, reference = f"{name}-out", f"{name}-reference"
    servers.create(servers.remote, name, 7)
    servers.create(servers.kafka, target, partitions)
    servers.create(servers.kafka, reference, partitions)
    keys = [None, *(draw.randbytes(size) for size in range(1, 40)), *(b"k%d" % i for i in range(100))]
    servers.send(servers.remote, name, [(key, b"%d" % i, i % 7) for i, key in enumerate(keys * 7)])
    producer = Producer(servers.kafka | {"partitioner": "murmur2_random"})
    for key in keys[1:]:
        producer.produce(reference, key, key)
    assert producer.flush(120) == 0
    wanted = {record.key(): record.partition() for record in servers.read(servers.kafka, reference)}
    assert set(wanted.values()) == set(range(partitions))
    result = millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=target)
    assert result.written == len(keys) * 7
    for record in servers.read(servers.kafka, target):
        expected = wanted[record.key()] if record.key() is not None else int(record.value()) % 7 % partitions
        assert record.partition() == expected, (SEED, record.key())


def test_times_and_header_names_that_no_client_sends(servers, name):
    servers.create(servers.kafka, name, 1)
    send(servers.kafka, name, [{"value": b"{}", "partition": 0}])
    records = [
        (0, b"a", b"zero"),
        (-1, b"", b"none"),
        (-2, b"a", b"before"),
        (1, b"\xff\xfe", b"a name that is no text"),
    ]
    raw_records.produce_named(servers.kafka, name, records)
    result = millpond.bridge(servers.kafka, servers.kafka, source_topic=name, target_topic=f"{name}-out")
    # A producer takes 0 for "now": the target cannot hold it.
    assert (result.written, result.dead_letters_by_reason) == (4, {"timestamp": 1})
    assert [record.value() for record in servers.read(servers.kafka, f"{name}-out.dead_letters")] == [b"zero"]


def test_what_the_source_took_fits_under_the_same_limit(servers, name):
    for cluster, topic in ((servers.remote, name), (servers.kafka, f"{name}-out")):
        servers.create(cluster, topic, 1, **{"max.message.bytes": "100000"})
    taken: list[Any] = []
    producer = Producer(servers.remote | {"message.max.bytes": 200_000, "linger.ms": 0})

    def told(error: Any, record: Any) -> None:
        if error is None:
            taken.append(record.value())

    for size in range(99_870, 99_950, 4):
        producer.produce(name, random.Random(size).randbytes(size), on_delivery=told)
        assert producer.flush(120) == 0
    assert 0 < len(taken) < 20
    result = millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out")
    assert (result.written, result.dead_letters_by_reason) == (len(taken), {})
    assert [record.value() for record in servers.read(servers.kafka, f"{name}-out")] == taken


def test_a_record_that_only_its_compression_made_small_blocks_nothing(servers, name):
    servers.create(servers.remote, name, 1, **{"max.message.bytes": "100000"})
    producer = Producer(servers.remote | {"message.max.bytes": 9_000_000, "compression.type": "lz4"})
    values = [b"before", b"x" * 4_000_000, b"after"]
    for value in values:
        producer.produce(name, value)
        assert producer.flush(120) == 0
    result = millpond.bridge(servers.remote, servers.kafka, source_topic=name, target_topic=f"{name}-out")
    assert result.written + result.dead_lettered == 3
    assert [record.value() for record in servers.read(servers.kafka, f"{name}-out")] == [b"before", b"after"]
    # Its letter, uncompressed, is more than its topic takes as well: it says how much was left out, and where it is.
    (letter,) = servers.read(servers.kafka, f"{name}-out.dead_letters")
    headers = dict(letter.headers())
    assert (letter.value(), headers["millpond.value_bytes"]) == (None, b"4000000")
    assert headers["__connect.errors.offset"] == b"1"
