"""What the pipeline left behind against the truth: every row of every table, every document, every dead letter.

Owns the comparison, by readers that share nothing with the engine (psycopg, pymongo, confluent-kafka). Refuses to be
lenient: a row too many, too few or twice is a difference.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg
import pymongo
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

_COLUMNS = {
    "product_views_daily": ("product_id", "view_count", "unique_visitors", "last_view_time"),
    "country_views_daily": ("store_id", "view_count", "unique_visitors"),
    "referrer_views_daily": ("referrer_url", "view_count"),
}
_SHOWN = 5
DATABASE, COLLECTION = "kafka_data_db", "product_views_records"
DEAD_LETTERS = "processed_product_view_test.dead_letters"


def differences(status: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    """Return one line per difference found, at most a few per table and date; empty when all is equal."""
    found = _reports(status["postgres"]["dsn"], truth["dates"])
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(status["mongo"]["uri"])
    with client:
        database = client[DATABASE]
        for collection, expected in ((COLLECTION, truth["events"]), (f"{COLLECTION}_dead_letters", 0)):
            stored = database[collection].count_documents({})
            if stored != expected:
                found.append(f"{DATABASE}.{collection}: {stored:,} documents, the truth has {expected:,}")
    letters = Counter(_dead_letters(status["kafka"]["bootstrap"]))
    found += _difference(DEAD_LETTERS, letters, Counter(tuple(one) for one in truth["dead_letters"]["records"]))
    return found


def _reports(dsn: str, dates: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    with psycopg.connect(dsn) as connection:
        for table, columns in _COLUMNS.items():
            # Names come from the table above, never from outside.
            query = f"SELECT report_date::text, {', '.join(columns)} FROM {table}"
            reported: dict[str, Counter[Any]] = {}
            for date, *row in connection.execute(query):
                reported.setdefault(date, Counter())[tuple(row)] += 1
            for date in sorted(dates.keys() | reported.keys()):
                expected = Counter(_row(row) for row in dates.get(date, {}).get(table, []))
                found += _difference(f"{table} {date}", reported.get(date, Counter()), expected)
    return found


def _row(row: list[Any]) -> tuple[Any, ...]:
    # Only products have a fourth column, the instant of the last view.
    return (*row[:3], *(one and datetime.fromisoformat(one).replace(tzinfo=None) for one in row[3:]))


def _difference(name: str, there: "Counter[Any]", expected: "Counter[Any]") -> list[str]:
    lines = []
    for rows, what in ((expected - there, "missing"), (there - expected, "too many")):
        if rows:
            lines.append(f"{name}: {rows.total():,} {what}: {', '.join(str(row) for row in list(rows)[:_SHOWN])}")
    return lines


def _headers(message: Any) -> Iterable[tuple[str, str]]:
    for name, value in message.headers() or []:
        if name in ("__connect.errors.partition", "__connect.errors.offset", "millpond.reason"):
            yield name, value.decode()


def _dead_letters(bootstrap: str) -> Iterable[tuple[int, int, str]]:
    """Read the committed dead letters: partition and offset of the event, and the reason."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "millpond-demo",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    })  # fmt: skip
    try:
        topic = consumer.list_topics(timeout=15).topics.get(DEAD_LETTERS)
        open_partitions = set(topic.partitions) if topic is not None and topic.error is None else set()
        consumer.assign([TopicPartition(DEAD_LETTERS, partition, OFFSET_BEGINNING) for partition in open_partitions])
        while open_partitions:
            message = consumer.poll(30)
            if message is None:
                raise SystemExit(f"demo: {DEAD_LETTERS} cannot be read: nothing came in 30 s")
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own way
                    raise SystemExit(f"demo: {DEAD_LETTERS} cannot be read: {error}")
                open_partitions.discard(message.partition())
                continue
            headers = dict(_headers(message))
            yield (
                int(headers["__connect.errors.partition"]),
                int(headers["__connect.errors.offset"]),
                headers["millpond.reason"],
            )
    finally:
        consumer.close()
