"""Messages by shape, each with the outcome that follows from how it was made.

What every reader of RFC 8259 accepts, what every one refuses, and what each decides for itself: there ours stands.

The kinds are those that public JSON suites are made of; every message is made here.
"""

from collections.abc import Iterator
from itertools import product

STORED, NO_JSON, NO_UTF8 = "stored", "invalid_json", "invalid_utf8"

WORDS = ["true", "false", "null"]
TEXTS = [
    '""',
    '"t"',
    '"t t"',
    '"é"',
    '"\U0001f40e"',
    '"\\u00e9"',
    '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    '"/* no */ // #"',
    '"\x7f"',
    '"\u2028"',
    '"\\u2029"',
    '"\\uFFFE"',
    '"\\ud83d\\udC0e"',
    '"\\u0000"',
    '"null"',
    '"\\\\u0041"',
    '"\ufdd0"',
    '"\U0010ffff"',
    '"[{,:}]"',
]
BLANKS = ["", " ", "\t", "\n", "\r\n", "  \n\t"]
ESCAPED = set('"\\/bfnrtu')
RICH = '{"a":[1,-2.5e+3,true,null,"x\\u00e9\\n"],"b":{"c":{},"d":[[],[0]]},"e":"é"}'


def numbers() -> Iterator[tuple[str, bool]]:
    """Spellings put together part by part, and whether the grammar knows them."""
    signs, wholes, fractions, exponents = (
        ["", "-", "+", "--"],
        ["0", "7", "12", "", "00", "01"],
        ["", ".5", ".", ".0"],
        [
            "",
            "e1",
            "E+2",
            "e-3",
            "e",
            "e+",
            "E+-1",
            "e1.5",
            "ee1",
        ],
    )
    for parts in product(signs, wholes, fractions, exponents):
        sign, whole, fraction, exponent = parts
        good = sign in {"", "-"} and whole in {"0", "7", "12"} and fraction != "." and exponent in exponents[:4]
        if text := "".join(parts):
            yield text, good
    for word in (
        "NaN",
        "Infinity",
        "-Infinity",
        "Inf",
        "0x1F",
        "1_000",
        "1 000",
        "1,5e",
        "½",
        "\uff11",
        "- 1",
        "1f",
        "0b1",
        "0o7",
    ):
        yield word, False


def accepted() -> Iterator[str]:
    """Values that every reader takes."""
    simple = WORDS + TEXTS + [text for text, good in numbers() if good]
    yield from simple
    for blank in BLANKS:
        yield f"[{blank}]"
        yield f"{{{blank}}}"
        yield f'[{blank}1{blank},{blank}{{{blank}"a"{blank}:{blank}[]{blank}}}{blank}]'
    yield f"[{','.join(simple)}]"
    yield "{" + ",".join(f'"k{index}":{value}' for index, value in enumerate(simple)) + "}"
    yield from (f"{{{text}:{value}}}" for text in TEXTS if "0000" not in text for value in ("1", "[]"))
    yield "[" * 60 + "]" * 60
    yield RICH


def broken() -> Iterator[str]:
    """Values that no reader takes, alone or inside an object."""
    yield from (text for text, good in numbers() if not good)
    # Commas, colons and brackets too many, too few, or of the other kind.
    for value in ("1", '"x"', "[]", "null"):
        yield from (
            shape.replace("V", value)
            for shape in (
                "[V",
                "V]",
                "[V}",
                "[V,]",
                "[,V]",
                "[V,,V]",
                "[V V]",
                "[V:V]",
                "[V]]",
                "[[V]",
                "[,]",
                "[:]",
                "[V;V]",
                "(V)",
                "<V>",
                '{"a":V',
                '{"a":V]',
                '{"a":V,}',
                '{,"a":V}',
                '{"a":V,,"b":V}',
                '{"a":V "b":V}',
                '{"a"V}',
                '{"a"::V}',
                '{"a":}',
                '{"a"}',
                '{"a",V}',
                "{:V}",
                '{"a":V}}',
                '{{"a":V}',
                '{"a":V;"b":V}',
                '{"a"=V}',
                "{a:V}",
                "{'a':V}",
                "{1:V}",
                "{null:V}",
                "{[]:V}",
                '{"a":V:V}',
                '{"a" "b":V}',
                "[V]x",
                '[V]"',
                "[V],",
                "[V]1",
                '{"a":V}#',
                '{"a":V}//',
                "[V/**/]",
                "[V]/**/",
                "//\n[V]",
                "[V # no\n]",
                "[V]\0",
                "\0[V]",
                "[V]{}",
                "[V][V]",
                "[V] V",
                "[...V]",
                "[V\\n]",
                "[\\u0020V]",
            )
        )
    # Words cut short, with more behind, or of other letters.
    for word in WORDS:
        yield from (word[:end] for end in range(1, len(word)))
        yield from (
            word + "x",
            word.upper(),
            word.capitalize(),
            word + "1",
            f"[{word} {word}]",
            f'{{"a":{word},{word}}}',
        )
    yield from ("undefined", "None", "yes", "*", "?", "@", "$", "abc", "'x'", "`x`", "“x”", "\\n", "\\u0041")
    # Strings: raw control characters, escapes that are none, ends that are missing.
    yield from (f'"a{chr(code)}b"' for code in range(0x20))
    yield from (f'"\\{chr(code)}"' for code in range(0x20, 0x7F) if chr(code) not in ESCAPED)
    yield from (
        f'"\\{letter}"'
        for letter in (
            "é",
            "\U0001f40e",
            "\0",
            "\t",
            "\n",
            "U0041",
            "x41",
            "u",
            "u0",
            "u00",
            "u004",
            "uG041",
            "u00G1",
            "u 041",
            "u+041",
            "u-041",
            "u{41}",
            "ud83d\\",
            "ud83d\\u",
            "ud83d\\udc",
        )
    )
    yield from ('"', '"a', '"a\\', '"a\\"', '"\\u0041', '["a]', '{"a', '{"a":"', '"a"b"', '\\"a\\"', "'a\"")
    # Blanks of other kinds.
    for blank in ("\v", "\f", "\u00a0", "\u2028", "\u3000", "\ufeff", "\u2060", "\x1f", "\x7f", "\u200b"):
        yield from (f"[{blank}]", f"[1{blank}]", f"[1,{blank}2]")
    yield "[" * 5_000
    yield '[{"":' * 2_000


def decided() -> Iterator[tuple[bytes, str]]:
    """Values that readers differ about, and our outcome inside an object."""
    # Halves of surrogate pairs: only a high one with a low one behind it is a character.
    units = {"high": "\\ud83d", "low": "\\uDC0E", "text": "x", "escape": "\\n", "other": "\\u1234", "none": ""}
    for first, second, third in product(units, repeat=3):
        text, kinds = (
            units[first] + units[second] + units[third],
            [one for one in (first, second, third) if one != "none"],
        )
        whole = " ".join(kinds).replace("high low", "")
        good = "high" not in whole and "low" not in whole
        yield f'"{text}"'.encode(), STORED if good else "lone_surrogate"
        yield f'{{"k{text}":1}}'.encode(), STORED if good else "lone_surrogate"
    # Bytes that are no UTF-8: overlong, half a pair, beyond the last character, cut short, of nothing.
    bad = [bytes([0xC0 | code >> 6, 0x80 | code & 0x3F]) for code in (0, 0x22, 0x2F, 0x7F)]
    bad += [bytes([0xE0, 0x80 | code >> 6, 0x80 | code & 0x3F]) for code in (0, 0x2F, 0xE9, 0x7FF)]
    bad += [
        bytes([0xF0, 0x80 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F])
        for code in (0, 0x2F, 0xE9, 0xFFFF)
    ]
    bad += [chr(code).encode("utf-8", "surrogatepass") for code in (0xD800, 0xDBFF, 0xDC00, 0xDFFF)]
    bad += [
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
    ]
    bad += ["é€\U0001f40e".encode()[:end] for end in (1, 3, 4, 6, 7, 8)] + [
        bytes([code]) for code in range(0x80, 0xC0, 9)
    ]
    bad += ["é".encode("latin-1"), "日本".encode("shift-jis"), "日".encode()[1:]]
    for piece in bad:
        yield b'"a' + piece + b'"', NO_UTF8
        yield b'{"' + piece + b'":1}', NO_UTF8
        yield b"[" + piece + b"]", NO_UTF8
    yield from ((RICH.encode(encoding), NO_UTF8) for encoding in ("utf-16", "utf-32"))
    yield from (
        (RICH[:20].encode(encoding), NO_JSON) for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    )
    yield b"\xef\xbb\xbf{}", NO_JSON
    # The object around is one level.
    yield from (
        (b"[" * depth + b"]" * depth, STORED if depth < 100 else "too_deep") for depth in (98, 99, 100, 101, 500, 3_000)
    )
    yield from (
        (b'{"a":' * depth + b"1" + b"}" * depth, STORED if depth < 100 else "too_deep") for depth in (99, 100, 101)
    )
    yield from (
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'[{"":1,"":2}]', "duplicate_key"),
        (b'{"a":1,"\\u0061":2}', "duplicate_key"),
        (b'{"\\ud83d":1,"\\ud83d":2}', "duplicate_key"),
        (b'{"a":{"a":{"a":1}}}', STORED),
        (b'{"a":1,"A":1}', STORED),
        (b'{"e\xcc\x81":1,"\xc3\xa9":1}', STORED),
        (b'{"\\u0000":1}', "nul_in_key"),
        (b'[{"a\\u0000b":1}]', "nul_in_key"),
    )
    # Exponents and digits without end: kept exactly, or not at all.
    for text, outcome in (
        ("1e400", STORED),
        ("-1e400", STORED),
        ("1e6144", STORED),
        ("1e6145", "number_inexact"),
        ("1e99999999999999999999", "number_inexact"),
        ("-1e-99999999999999999999", "number_inexact"),
        ("0e99999999999999999999", STORED),
        ("1e-400", STORED),
        ("9" * 34, STORED),
        ("9" * 35, "number_inexact"),
        ("9" * 5_000, "number_inexact"),
        ("1" + "0" * 5_000, STORED),
        ("1" + "0" * 6_200, "number_inexact"),
        ("0." + "0" * 5_000 + "1", STORED),
        ("0." + "0" * 6_200 + "1", "number_inexact"),
        ("0." + "3" * 700, "number_inexact"),
        ("1" * 20, STORED),
    ):
        yield text.encode(), outcome
