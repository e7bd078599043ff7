"""Declarative transforms in whole runs: the books, the position, the change between two runs, and rotten topics."""

import json
import logging

import pytest
from tests.oracle_transforms import hmac_sha256

import millpond

SECRET = "n0t-the-passw0rd"


def words(name, **more):
    return {"source_topic": name, "target_topic": f"{name}-out", **more}


def test_every_event_ends_in_one_place_and_a_change_is_told(servers, name, caplog):
    servers.create(servers.remote, name, 3)
    kinds = ["view", "ping", "view", "broken", "view"]
    events: list[tuple[bytes | None, bytes | None, int]] = []
    for i in range(600):
        kind = kinds[i % 5]
        product = [i] if kind == "broken" else i
        event = {"kind": kind, "pid": product, "ip": f"203.0.113.{i % 256}", "user": {"id": i % 7}}
        events.append((b"%d" % i, json.dumps(event).encode(), i % 3))
    events += [(b"gone", None, i % 3) for i in range(9)]
    servers.send(servers.remote, name, events)
    transform = millpond.Transform(
        fields={
            "product": millpond.Field(["product_id", "pid"], "int", required=True),
            "net": millpond.Field("ip", mask="ip"),
            "who": millpond.Field("user.id", hash="hmac-sha256"),
        },
        drop_if=[millpond.DropIf("kind", equals="ping")],
        hash_key=SECRET,
    )
    result = millpond.bridge(servers.remote, servers.kafka, **words(name), transform=transform)
    books = (result.read, result.written, result.filtered, result.dead_lettered)
    assert books == (609, 369, 120, 120)
    assert result.dead_letters_by_reason == {"type": 120}
    assert result.lag == 0
    written = servers.read(servers.kafka, f"{name}-out")
    for record in written:
        i = record.key().decode()
        if i == "gone":
            assert record.value() is None
            continue
        who = hmac_sha256(SECRET.encode(), b"%d" % (int(i) % 7)).hex()
        wanted = {"product": int(i), "net": "203.0.113.0", "who": who}
        assert record.value() == json.dumps(wanted, separators=(",", ":")).encode()
        assert record.partition() == int(i) % 3
    # Dead letters hold the raw event, unmasked; the position holds no key.
    letters = servers.read(servers.kafka, f"{name}-out.dead_letters")
    assert all(b"203.0.113." in letter.value() for letter in letters)
    kept = servers.read(servers.kafka, f"millpond.positions.{name}-to-{name}-out")
    values = [json.loads(position.value()) for position in kept]
    assert sum(value["filtered"] for value in values) == 120
    assert all(value["transform"].startswith("fields:") for value in values)
    assert not any(SECRET.encode() in position.value() for position in kept)

    # The same definition changes nothing; another one, or another key, is told and allowed.
    with caplog.at_level(logging.WARNING, "millpond"):
        millpond.bridge(servers.remote, servers.kafka, **words(name), transform=transform)
        assert "transform changed" not in caplog.text
        servers.send(servers.remote, name, [(None, b'{"pid":1}', 0)])
        other = millpond.Transform(transform.fields, drop_if=transform.drop_if, hash_key="another")
        rerun = millpond.bridge(servers.remote, servers.kafka, **words(name), transform=other)
    assert (rerun.read, rerun.written) == (1, 1)
    assert "transform changed from fields:" in caplog.text
    assert SECRET not in caplog.text


def test_events_that_are_all_filtered_still_move_the_position(servers, name):
    servers.create(servers.remote, name, 2)
    servers.send(servers.remote, name, [(None, b'{"kind":"ping"}', i % 2) for i in range(50)])
    transform = {"keep_unknown": True, "drop_if": [{"field": "kind", "equals": "ping"}]}
    result = millpond.bridge(servers.remote, servers.kafka, **words(name), transform=transform)
    assert (result.read, result.filtered, result.written, result.lag) == (50, 50, 0, 0)
    assert millpond.bridge(servers.remote, servers.kafka, **words(name), transform=transform).read == 0


def test_a_rotten_topic_stops_with_a_sample_of_reasons(servers, name):
    servers.create(servers.remote, name, 1)
    rotten = [b"{", b"", b'{"product_id":[]}', b"{"] * 50
    servers.send(servers.remote, name, [(None, value, 0) for value in rotten])
    run = lambda: millpond.bridge(
        servers.remote, servers.kafka, **words(name), transform="product_views", max_dead_letters=100
    )
    with pytest.raises(millpond.DataError) as caught:
        run()
    told = str(caught.value)
    assert "more than 100 dead letters, and no event so far was anything else" in told
    assert f"51 invalid_json (first: topic {name} partition 0 offset 0: " in told
    assert f"25 empty (first: topic {name} partition 0 offset 1: zero bytes)" in told
    assert "25 type (first: " in told
    # Nothing was committed.
    assert servers.read(servers.kafka, f"{name}-out.dead_letters") == []


def test_a_transform_that_refuses_everything_says_so(servers, name, caplog):
    servers.create(servers.remote, name, 2)
    servers.send(servers.remote, name, [(None, b'{"product_id":%d}' % i, i % 2) for i in range(40)])
    transform = millpond.Transform({"product": millpond.Field(required=True)})
    with caplog.at_level(logging.WARNING, "millpond"):
        result = millpond.bridge(servers.remote, servers.kafka, **words(name), transform=transform)
    assert (result.read, result.dead_lettered) == (40, 40)
    [warning] = result.warnings
    assert warning.startswith("bridge: every one of 40 events is a dead letter: 40 required (first: topic ")
    assert "product: missing or null" in warning
    assert warning in caplog.text
