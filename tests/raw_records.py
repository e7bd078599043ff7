"""Record batches made by hand and handed to a broker as they are: what no client library writes.

Owns KIP-98's format and one Produce request, in plain Python.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Any

from confluent_kafka.admin import AdminClient
from tests.local_servers import until


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _varint(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _sized(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def batch(
    records: list[tuple[int, bytes | None, bytes | None]], headers: Sequence[list[tuple[bytes, bytes]]] = ()
) -> bytes:
    """A batch of (timestamp, key, value), created at those times; `headers` are those of each record."""
    base = records[0][0]
    body = b""
    for delta, (timestamp, key, value) in enumerate(records):
        own = headers[delta] if headers else []
        record = b"\0" + _varint(timestamp - base) + _varint(delta) + _sized(key) + _sized(value) + _varint(len(own))
        record += b"".join(_sized(part) for header in own for part in header)
        body += _varint(len(record)) + record
    last, latest = len(records) - 1, max(timestamp for timestamp, *_ in records)
    checked = struct.pack(">hiqqqhii", 0, last, base, latest, -1, -1, -1, len(records)) + body
    rest = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def produce(cluster: dict[str, str], topic: str, partition: int, records: bytes) -> None:
    """Append a batch, at the partition's leader, without any authentication."""
    admin = AdminClient(dict(cluster))

    def led() -> Any:
        metadata = admin.list_topics(topic, timeout=60)
        found = metadata.topics[topic].partitions.get(partition)
        return found and metadata.brokers.get(found.leader)

    # A topic just made is not known to every broker at once.
    leader = until(led)
    name = topic.encode()
    request = struct.pack(">hhih", 0, 3, 7, -1) + struct.pack(">hhii", -1, -1, 20_000, 1)
    request += struct.pack(">h", len(name)) + name + struct.pack(">iii", 1, partition, len(records)) + records

    def answered() -> int | None:
        with socket.create_connection((leader.host, leader.port), timeout=60) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = _received(connection, struct.unpack(">i", _received(connection, 4))[0])
        # Correlation, one topic, its name, one partition: then its number and its error.
        _, error = struct.unpack_from(">ih", answer, 4 + 4 + 2 + len(name) + 4)
        # The leader itself may be the last to hear of its topic (3), or of its task (6).
        return None if error in {3, 6} else int(error) + 1

    error = until(answered) - 1
    assert error == 0, f"the broker says error {error}"


def _received(connection: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, "the broker hung up"
        data += piece
    return data


def produce_named(cluster: dict[str, str], topic: str, records: list[tuple[int, bytes, bytes]]) -> None:
    """Append a batch of (timestamp, header name, value) to partition 0."""
    headers = [[(name, b"v")] for _, name, _ in records]
    produce(cluster, topic, 0, batch([(at, b"k", value) for at, _, value in records], headers))
