"""The bytes of generated events, in both raw shapes and every malformed kind.

Owns spellings only: what an event means was decided in `events`. Texts come from tables by whole columns, and one
formatted string makes an event: most of the time of `produce` would otherwise be spent here.
"""

import datetime as dt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond.local.events import (
    DAY_MS,
    DEVICES,
    FLAVOURS,
    KINDS,
    PRODUCTS,
    REFERRERS,
    STORES,
    TOMBSTONE,
    Chunk,
    Column,
)

Message = tuple[bytes | None, bytes | None, int]
Texts = NDArray[np.object_]

_SHOP_OFFSET_MS = 7 * 3_600_000


def _table(texts: list[Any]) -> Texts:
    """Return texts to be taken by column; index -1 finds the last one: null."""
    table = np.empty(len(texts), dtype=np.object_)
    table[:] = texts
    return table


_DAY_S = 86_400
_NUMBERS = _table([*(f"{10_000 + product}" for product in range(PRODUCTS)), "null"])
_STRINGS = _table([*(f'"{10_000 + product}"' for product in range(PRODUCTS)), "null"])
_DEVICES = _table([*(f'"device-{device:06d}"' for device in range(DEVICES)), "null"])
_KEYS = _table([*(b"device-%06d" % device for device in range(DEVICES)), None])
_STORES = _table([*(f'"{store}"' for store in STORES), "null"])
_REFERRERS = _table([*(f'"{referrer}"' for referrer in REFERRERS), "null"])
# Whole members, for where a missing field stands for null: it is as good.
_DEVICE_MEMBERS = '"device_id":' + _DEVICES + ","
_STORE_MEMBERS = '"store_id": ' + _STORES + ", "
_REFERRER_MEMBERS = '"referrer_url": ' + _REFERRERS + ", "
_CLOCKS = _table([f"{s // 3_600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(_DAY_S)])
# The four forms of a stored time: what stands before the clock, and what stands behind it.
_LED_CLOCKS = _table([lead + clock for lead in "T " for clock in _CLOCKS])
_ENDS = _table([*(f'.{i:03d}Z"' for i in range(1_000)), 'Z"', '+07:00"', 'z"'])
_END_OF_FORM = np.array([1_000, 0, 1_001, 1_002])
_MEDIA = _table(["false" if flavour % 2 else '"cpc"' for flavour in range(FLAVOURS)])
_OPTIONS = _table(['""', '[{"option_label":"alloy","option_id":"7"}]', '{"alloy":"gold"}'])


def messages(chunk: Chunk) -> list[Message]:
    """Return key, value (None: a tombstone) and timestamp of each event of a chunk."""
    values = np.empty(len(chunk.kind), dtype=np.object_)
    products = np.where(chunk.flavour % 3 == 0, _NUMBERS[chunk.product], _STRINGS[chunk.product])
    for shape, render in ((0, _stored), (1, _tracker)):
        rows = np.flatnonzero(chunk.shape == shape)
        values[rows] = render(chunk, rows, products[rows])
    keys = _KEYS[chunk.device]
    for i in np.flatnonzero(chunk.kind).tolist():
        kind = int(chunk.kind[i])
        values[i] = None if kind == TOMBSTONE else _malformed(KINDS[kind][0], values[i].decode(), products[i])
        if kind == TOMBSTONE and keys[i] is None:
            keys[i] = b"tombstone"
    return list(zip(keys.tolist(), values.tolist(), chunk.sent.tolist(), strict=True))


def _stored(chunk: Chunk, rows: Column, products: Texts) -> list[bytes]:
    flavour, millis = chunk.flavour[rows], chunk.millis[rows]
    odd, none = flavour % 2 == 1, millis < 0
    stores, referrers = _STORE_MEMBERS[chunk.store[rows]], _REFERRER_MEMBERS[chunk.referrer[rows]]
    stores[odd & (chunk.store[rows] < 0)] = referrers[odd & (chunk.referrer[rows] < 0)] = ""
    form = flavour % 4
    dates, seconds = _clock(millis + np.where(form == 2, _SHOP_OFFSET_MS, 0), '"')
    clocks = _LED_CLOCKS[seconds + np.where(form == 3, _DAY_S, 0)]
    ends = _ENDS[np.where(form == 1, millis % 1_000, _END_OF_FORM[form])]
    dates[none], clocks[none], ends[none] = "null", "", ""
    shop_dates, shop_seconds = _clock(np.maximum(millis, 0) + _SHOP_OFFSET_MS)
    columns = (
        products,
        _DEVICES[chunk.device[rows]],
        stores,
        referrers,
        shop_dates,
        _CLOCKS[shop_seconds],
        (chunk.first + rows) % 250,
        flavour,
        dates,
        clocks,
        ends,
    )
    return [
        f'{{"product_id": {product}, "device_id": {device}, {store}{referrer}"local_time": "{shop_date} {shop_clock}", '
        f'"remote_ip": "10.{net}.{flavour}.7", "timestamp": {date}{clock}{end}}}'.encode()
        for product, device, store, referrer, shop_date, shop_clock, net, flavour, date, clock, end in _rows(columns)
    ]


def _tracker(chunk: Chunk, rows: Column, products: Texts) -> list[bytes]:
    flavour, millis, number = chunk.flavour[rows], chunk.millis[rows], chunk.first + rows
    odd, none = flavour % 2 == 1, millis < 0
    devices = _DEVICE_MEMBERS[chunk.device[rows]]
    devices[odd & (chunk.device[rows] < 0)] = ""
    quoted = (flavour % 4 > 1).astype(np.int64)
    leads, ends = _table(['"time_stamp":', '"time_stamp":"'])[quoted], _table([",", '",'])[quoted]
    epochs = np.where(odd, millis, millis // 1_000).astype(np.object_)
    leads[none & odd], leads[none & ~odd], epochs[none], ends[none] = "", '"time_stamp":null,', "", ""
    shop_dates, shop_seconds = _clock(np.maximum(millis, 0) + _SHOP_OFFSET_MS)
    columns = (
        products,
        devices,
        _STORES[chunk.store[rows]],
        _REFERRERS[chunk.referrer[rows]],
        shop_dates,
        _CLOCKS[shop_seconds],
        number,
        flavour,
        leads,
        epochs,
        ends,
        _MEDIA[flavour],
        _OPTIONS[flavour % 3],
    )
    return [
        f'{{"_id":"{number:024x}","id":{number},{lead}{epoch}{end}"ip":"10.{number % 250}.{flavour}.7",'
        f'"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","resolution":"1920x1080","user_id_db":"",'
        f'{device}"api_version":"1.0","store_id":{store},"local_time":"{date} {clock}",'
        f'"show_recommendation":"false","current_url":"https://shop.example/p/{number % 977}.html",'
        f'"referrer_url":{referrer},"email_address":"","recommendation":false,"utm_source":{medium},"utm_medium":{medium},'
        f'"collection":"view_product_detail","product_id":{product},"option":{option}}}'.encode()
        for product, device, store, referrer, date, clock, number, flavour, lead, epoch, end, medium, option in _rows(
            columns
        )
    ]


def _clock(millis: Column, lead: str = "") -> tuple[Texts, Column]:
    """Return the date of each instant, after `lead`, and its second of the day."""
    day, rest = np.divmod(millis, DAY_MS)
    days, place = np.unique(day, return_inverse=True)
    dates = _table([lead + (dt.date(1970, 1, 1) + dt.timedelta(days=one)).isoformat() for one in days.tolist()])
    return dates[place], rest // 1_000


def _rows(columns: tuple[NDArray[Any], ...]) -> Any:
    return zip(*(column.tolist() for column in columns), strict=True)


def _malformed(kind: str, text: str, product: str) -> bytes:
    inner = text[1:]
    field = f'"product_id": {product}' if f'"product_id": {product}' in text else f'"product_id":{product}'
    without_time = text.replace('"timestamp"', '"timestamp_"').replace('"time_stamp"', '"time_stamp_"')[1:]
    match kind:
        case "empty":
            return b""
        case "invalid_utf8":
            return b'{"utm_source":"\xff\xfe",' + inner.encode()
        case "invalid_json":
            return text.replace(":", "=", 1).encode()
        case "truncated":
            return text[: len(text) // 2].encode()
        case "bom":
            return b"\xef\xbb\xbf" + text.encode()
        case "not_object":
            return f"[{text}]".encode()
        case "too_deep":
            return ('{"option":' + "[" * 100 + "]" * 100 + "," + inner).encode()
        case "duplicate_key":
            return ('{"\\u0070roduct_id":null,' + inner).encode()
        case "lone_surrogate":
            return text.replace(field, '"product_id":"\\ud83d"').encode()
        case "no_field":
            return b'{"id":7,"user_agent":"none of ours","option":[]}'
        case "type":
            return text.replace(field, '"product_id":{"id":1}').encode()
        case "time_unit":
            return ('{"timestamp":176188,' + without_time).encode()
        case "bad_time":
            return ('{"timestamp":"2025-10-31T03:22:60Z",' + without_time).encode()
        case "nul_in_key":
            return ('{"a\\u0000b":1,' + inner).encode()
        case "field_conflict":
            return ('{"_source_id":1,' + ("" if '"_id"' in text else '"_id":2,') + inner).encode()
        case _:
            return ('{"price":0.1000000000000000055511151231257827021181583404541015626,' + inner).encode()
