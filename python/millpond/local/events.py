"""What the generated events are: columns of intent, the same for the same parameters, byte for byte.

Owns the distributions and the random numbers. Neither renders an event (`render`) nor counts one (`truth`).
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRODUCTS = 5_000
DEVICES = 20_000
STORES = [
    "US",
    "GB",
    "DE",
    "FR",
    "IT",
    "ES",
    "NL",
    "BE",
    "AT",
    "CH",
    "SE",
    "NO",
    "DK",
    "FI",
    "PL",
    "CZ",
    "SK",
    "HU",
    "RO",
    "BG",
    "GR",
    "PT",
    "IE",
    "LU",
    "VN",
    "TH",
    "JP",
    "KR",
    "SG",
    "MY",
    "ID",
    "PH",
    "IN",
    "AU",
    "NZ",
    "CA",
    "MX",
    "BR",
    "AR",
    "CL",
]
_HOSTS = ("google.com/search", "www.bing.com/search", "facebook.com/", "shop.example/list", "duckduckgo.com/", "t.co/x")
REFERRERS = ("", *(f"https://{host}?q=word+{i}&page={i % 7}" for i in range(50) for host in _HOSTS))
CHUNK = 20_000
DAY_MS = 86_400_000
# Which of its shape's spellings an event has.
FLAVOURS = 20

# Malformed on purpose → the reason that PRODUCT_VIEWS gives; None: the oddity sits in what it drops, an ordinary event.
KINDS: tuple[tuple[str, str | None], ...] = (
    ("", None),
    ("empty", "empty"),
    ("invalid_utf8", "invalid_utf8"),
    ("invalid_json", "invalid_json"),
    ("truncated", "invalid_json"),
    ("bom", "invalid_json"),
    ("not_object", "not_object"),
    ("too_deep", "too_deep"),
    ("duplicate_key", "duplicate_key"),
    ("lone_surrogate", "lone_surrogate"),
    ("no_field", "no_field"),
    ("type", "type"),
    ("time_unit", "time_unit"),
    ("bad_time", "bad_time"),
    ("nul_in_key", None),
    ("field_conflict", None),
    ("number_inexact", None),
    ("tombstone", None),
)
TOMBSTONE = len(KINDS) - 1
DEAD = np.array([reason is not None for _, reason in KINDS])

Column = NDArray[np.int64]


@dataclass(frozen=True)
class Parameters:
    """What determines a batch of events."""

    seed: int
    count: int
    days: int
    malformed_share: float
    partitions: int
    end_date: str

    def to_dict(self) -> dict[str, Any]:
        """Return what a truth file keeps, to make the same batch again."""
        return asdict(self)

    @property
    def first_day(self) -> int:
        """Days from 1970-01-01 to the first date."""
        end = dt.date.fromisoformat(self.end_date)
        return (end - dt.date(1970, 1, 1)).days - self.days + 1


@dataclass(frozen=True)
class Chunk:
    """Up to `CHUNK` events; -1 stands for null or missing."""

    first: int
    kind: Column
    product: Column
    device: Column
    store: Column
    referrer: Column
    # Milliseconds since 1970, whole seconds where the shape cannot say more.
    millis: Column
    # When the message was sent: there also for an event without a time of its own.
    sent: Column
    shape: Column
    flavour: Column


def chunks(parameters: Parameters) -> Iterator[Chunk]:
    """Yield the batch's events in order; constant memory."""
    ranks = np.arange(1, PRODUCTS + 1, dtype=np.float64)
    popularity = np.cumsum(1.0 / ranks**1.1)
    popularity /= popularity[-1]
    for index, first in enumerate(range(0, parameters.count, CHUNK)):
        size = min(CHUNK, parameters.count - first)
        random = np.random.default_rng([parameters.seed, index])
        kind = np.zeros(size, dtype=np.int64)
        odd = random.random(size) < parameters.malformed_share
        kind[odd] = random.integers(1, len(KINDS), int(odd.sum()))
        shape = random.integers(0, 2, size)
        flavour = random.integers(0, FLAVOURS, size)
        millis = parameters.first_day * DAY_MS + random.integers(0, parameters.days * DAY_MS, size)
        whole = np.where(shape == 0, flavour % 4 != 1, flavour % 2 == 0)
        millis = np.where(whole, millis // 1_000 * 1_000, millis)
        sent = millis
        # Some events have no time of their own.
        millis = np.where(random.random(size) < 0.004, -1, millis)
        yield Chunk(
            first=first,
            kind=kind,
            product=_with_nulls(random, np.searchsorted(popularity, random.random(size)), 0.01),
            device=_with_nulls(random, (DEVICES * random.random(size) ** 2).astype(np.int64), 0.02),
            store=_with_nulls(random, (len(STORES) * random.random(size) ** 1.5).astype(np.int64), 0.01),
            referrer=_with_nulls(random, (len(REFERRERS) * random.random(size) ** 2).astype(np.int64), 0.1),
            millis=millis,
            sent=sent,
            shape=shape,
            flavour=flavour,
        )


def _with_nulls(random: np.random.Generator, values: Column, share: float) -> Column:
    return np.where(random.random(len(values)) < share, -1, values).astype(np.int64)
