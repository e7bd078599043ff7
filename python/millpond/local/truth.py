"""What the reports must be, counted from the generator's own intent: no event is parsed, nothing of the engine is used.

Memory is constant: counts are arrays of fixed size, and pairs for distinct visitors go to temporary files by product.
"""

import datetime as dt
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from millpond.local.events import DAY_MS, DEAD, DEVICES, KINDS, PRODUCTS, REFERRERS, STORES, TOMBSTONE, Chunk, Column

_FILES = 32
_NEVER = np.iinfo(np.int64).min


class Truth:
    """Counts chunks; `reports()` gives the three expected reports for each date."""

    def __init__(self, first_day: int, days: int) -> None:
        """Count the dates from `first_day` on."""
        self.first_day, self.days = first_day, days
        self.products = np.zeros((days, PRODUCTS), dtype=np.int64)
        self.last = np.full((days, PRODUCTS), _NEVER, dtype=np.int64)
        self.stores = np.zeros((days, len(STORES)), dtype=np.int64)
        self.store_visitors = np.zeros((days, len(STORES), DEVICES), dtype=np.bool_)
        self.referrers = np.zeros((days, len(REFERRERS)), dtype=np.int64)
        self.nulls = np.zeros((days, 3), dtype=np.int64)
        self.events = self.missing_time = self.tombstones = self.produced = 0
        self.reasons: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="millpond-truth-")
        self._pairs: list[IO[bytes]] = [(Path(self._folder.name) / str(i)).open("w+b") for i in range(_FILES)]

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.produced += len(chunk.kind)
        for kind, count in zip(*np.unique(chunk.kind[DEAD[chunk.kind]], return_counts=True), strict=True):
            reason = str(KINDS[kind][1])
            self.reasons[reason] = self.reasons.get(reason, 0) + int(count)
        self.tombstones += int((chunk.kind == TOMBSTONE).sum())
        good = ~DEAD[chunk.kind] & (chunk.kind != TOMBSTONE)
        self.events += int(good.sum())
        self.missing_time += int((good & (chunk.millis < 0)).sum())
        good &= chunk.millis >= 0
        millis, device = chunk.millis[good], chunk.device[good]
        day = millis // DAY_MS - self.first_day
        product, store, referrer = chunk.product[good], chunk.store[good], chunk.referrer[good]
        for column, values in enumerate((product, store, referrer)):
            np.add.at(self.nulls[:, column], day[values < 0], 1)
        has = product >= 0
        np.add.at(self.products, (day[has], product[has]), 1)
        np.maximum.at(self.last, (day[has], product[has]), millis[has])
        has = store >= 0
        np.add.at(self.stores, (day[has], store[has]), 1)
        both = has & (device >= 0)
        self.store_visitors[day[both], store[both], device[both]] = True
        has = referrer >= 0
        np.add.at(self.referrers, (day[has], referrer[has]), 1)
        both = (product >= 0) & (device >= 0)
        self._spill((day[both] * PRODUCTS + product[both]) * DEVICES + device[both], product[both])

    def _spill(self, pairs: Column, product: Column) -> None:
        place = product % _FILES
        order = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[order], np.arange(_FILES + 1))
        for i, file in enumerate(self._pairs):
            file.write(pairs[order[bounds[i] : bounds[i + 1]]].tobytes())

    def reports(self) -> dict[str, Any]:
        """Return the expected rows of each date, ordered by key."""
        visitors = np.zeros(self.days * PRODUCTS, dtype=np.int64)
        for file in self._pairs:
            file.flush()
            file.seek(0)
            distinct = np.unique(np.frombuffer(file.read(), dtype=np.int64))
            np.add.at(visitors, distinct // DEVICES, 1)
        dates: dict[str, Any] = {}
        for day in range(self.days):
            date = (dt.date(1970, 1, 1) + dt.timedelta(days=self.first_day + day)).isoformat()
            products = [
                [
                    str(10_000 + i),
                    int(self.products[day, i]),
                    int(visitors[day * PRODUCTS + i]),
                    _iso(int(self.last[day, i])),
                ]
                for i in np.flatnonzero(self.products[day]).tolist()
            ]
            stores = [
                [STORES[i], int(self.stores[day, i]), int(self.store_visitors[day, i].sum())]
                for i in np.flatnonzero(self.stores[day]).tolist()
            ]
            referrers = [
                [REFERRERS[i], int(self.referrers[day, i])] for i in np.flatnonzero(self.referrers[day]).tolist()
            ]
            names = ("product_views_daily", "country_views_daily", "referrer_views_daily")
            dates[date] = {
                **dict(zip(names, (sorted(products), sorted(stores), sorted(referrers)), strict=True)),
                "excluded": dict(zip(names, self.nulls[day].tolist(), strict=True)),
            }
        return dates

    def close(self) -> None:
        """Remove the temporary files."""
        for file in self._pairs:
            file.close()
        self._folder.cleanup()


def _iso(millis: int) -> str:
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=millis)
    return moment.isoformat(timespec="microseconds")
