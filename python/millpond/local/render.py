"""The bytes of generated events, in both raw shapes and every malformed kind.

Owns spellings only: what an event means was decided in `events`.
"""

import datetime as dt
from functools import lru_cache

from millpond.local.events import DAY_MS, KINDS, REFERRERS, STORES, TOMBSTONE, Chunk

Message = tuple[bytes | None, bytes | None, int]

_SHOP_OFFSET_MS = 7 * 3_600_000


@lru_cache(maxsize=4_096)
def _date(day: int) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()


def _clock(millis: int) -> tuple[str, str]:
    day, rest = divmod(millis, DAY_MS)
    seconds = rest // 1_000
    return _date(day), f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _stored_time(millis: int, flavour: int) -> str:
    if millis < 0:
        return "null"
    form = flavour % 4
    if form == 2:
        date, clock = _clock(millis + _SHOP_OFFSET_MS)
        return f'"{date}T{clock}+07:00"'
    date, clock = _clock(millis)
    if form == 1:
        return f'"{date}T{clock}.{millis % 1_000:03d}Z"'
    return f'"{date} {clock}z"' if form == 3 else f'"{date}T{clock}Z"'


def _tracker_time(millis: int, flavour: int) -> str:
    if millis < 0:
        return "" if flavour % 2 else '"time_stamp":null,'
    number = str(millis // 1_000 if flavour % 2 == 0 else millis)
    return f'"time_stamp":"{number}",' if flavour % 4 > 1 else f'"time_stamp":{number},'


def messages(chunk: Chunk) -> list[Message]:
    """Return key, value (None: a tombstone) and timestamp (-1: none) of each event of a chunk."""
    made: list[Message] = []
    columns = (
        chunk.kind,
        chunk.product,
        chunk.device,
        chunk.store,
        chunk.referrer,
        chunk.millis,
        chunk.shape,
        chunk.flavour,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for i, (kind, product, device, store, referrer, millis, shape, flavour) in enumerate(rows):
        key = None if device < 0 else b"device-%06d" % device
        if kind == TOMBSTONE:
            made.append((key or b"tombstone", None, millis))
            continue
        number = f"{10_000 + product}"
        product_text = "null" if product < 0 else number if flavour % 3 == 0 else f'"{number}"'
        fields = (
            product_text,
            "null" if device < 0 else f'"device-{device:06d}"',
            "null" if store < 0 else f'"{STORES[store]}"',
            "null" if referrer < 0 else f'"{REFERRERS[referrer]}"',
        )
        text = (
            _stored(chunk.first + i, fields, millis, flavour)
            if shape == 0
            else _tracker(chunk.first + i, fields, millis, flavour)
        )
        made.append((key, text.encode() if kind == 0 else _malformed(KINDS[kind][0], text, fields[0]), millis))
    return made


def _stored(number: int, fields: tuple[str, str, str, str], millis: int, flavour: int) -> str:
    product, device, store, referrer = fields
    date, clock = _clock(max(millis, 0) + _SHOP_OFFSET_MS)
    # A missing field is as good as a null one.
    store_part = "" if store == "null" and flavour % 2 else f'"store_id": {store}, '
    return (
        f'{{"product_id": {product}, "device_id": {device}, {store_part}"referrer_url": {referrer}, '
        f'"local_time": "{date} {clock}", "remote_ip": "10.{number % 250}.{flavour}.7", '
        f'"timestamp": {_stored_time(millis, flavour)}}}'
    )


def _tracker(number: int, fields: tuple[str, str, str, str], millis: int, flavour: int) -> str:
    product, device, store, referrer = fields
    date, clock = _clock(max(millis, 0) + _SHOP_OFFSET_MS)
    option = ('""', '[{"option_label":"alloy","option_id":"7"}]', '{"alloy":"gold"}')[flavour % 3]
    medium = "false" if flavour % 2 else '"cpc"'
    return (
        f'{{"_id":"{number:024x}","id":{number},{_tracker_time(millis, flavour)}"ip":"10.{number % 250}.{flavour}.7",'
        f'"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","resolution":"1920x1080","user_id_db":"",'
        f'"device_id":{device},"api_version":"1.0","store_id":{store},"local_time":"{date} {clock}",'
        f'"show_recommendation":"false","current_url":"https://shop.example/p/{number % 977}.html",'
        f'"referrer_url":{referrer},"email_address":"","recommendation":false,"utm_source":{medium},"utm_medium":{medium},'
        f'"collection":"view_product_detail","product_id":{product},"option":{option}}}'
    )


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
