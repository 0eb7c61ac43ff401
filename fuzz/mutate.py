"""Odd values, and odd versions of good ones. All by a ``random.Random`` that is handed in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

TEXTS = (
    "", " ", "\n", "\0", "0", "-1", "null", "true", "NaN", "1e309", "０１", "٣", "²", "½", '"', "\\",
    "\\u0000", "{}", "[]", "a" * 129, "x" * 5_000, "p" + "9" * 5_000, "p-1", "p1", "f1", "../../etc",
    "%00", "%s%n", "\u202e\u2066", "\ufeff", "\u2028", "e\u0301" * 50, "🤖🧑‍🍳", "İıſß", "ﬁ", "\U0010ffff",
    "東京です。", "שלום", "ก็", "­", "—", "…", "$9.05", "12,50 €", "1" * 400, "1,000,000.00", "½ cup",
    "a.b.c", "don't—stop", "\u200b", "<script>", "'; DROP TABLE facts; --", "CA1", "MZ1", "item_1",
)  # fmt: skip

MAX_CHARS = 300_000
"""Of an odd text: more than any bound, and not so much that making it is what takes the time."""

NUMBERS = (
    0, 1, -1, 2, 20, 159, 160, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1,
    2**63 - 1, 2**63, -(2**63), 2**64, 10**12, 10**15, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e18, 1e308,
)  # fmt: skip


def text(random: Random) -> str:
    """An odd text, now and then a long one."""
    match random.randrange(8):
        case 0:
            return "".join(chr(_character(random)) for _ in range(random.randrange(40)))
        case 1:
            return (random.choice(TEXTS) * random.choice((2, 10, 1_000)))[:MAX_CHARS]
        case 2:
            return random.choice(TEXTS) + random.choice(TEXTS)
        case _:
            return random.choice(TEXTS)


def _character(random: Random) -> int:
    code = random.choice(
        (random.randrange(128), random.randrange(0x3000), random.randrange(0x110000))
    )
    return 0x20 if 0xD800 <= code < 0xE000 else code


def value(random: Random, depth: int = 0) -> Any:
    """An odd JSON value."""
    match random.randrange(10 if depth < 3 else 6):
        case 0 | 1:
            return text(random)
        case 2 | 3:
            return random.choice(NUMBERS)
        case 4:
            return random.choice((None, True, False))
        case 5:
            return random.choice(("", [], {}, 0, None))
        case 6 | 7:
            return [value(random, depth + 1) for _ in range(random.randrange(4))]
        case _:
            return {text(random): value(random, depth + 1) for _ in range(random.randrange(4))}


def mutated(random: Random, good: Any) -> Any:
    """A good JSON value with one thing in it odd; the good one stays as it is."""
    if isinstance(good, dict) and good and random.random() < 0.9:
        changed = dict(good)
        key = random.choice(list(changed))
        match random.randrange(12):
            case 0:
                del changed[key]
            case 1:
                changed[text(random)] = value(random)
            case 2:
                changed[key], changed[random.choice(list(changed))] = value(random), changed[key]
            case _:
                changed[key] = mutated(random, changed[key])
        return changed
    if isinstance(good, list) and good and random.random() < 0.9:
        items = list(good)
        place = random.randrange(len(items))
        match random.randrange(6):
            case 0:
                del items[place]
            case 1:
                items *= random.choice((2, 50))
            case 2:
                random.shuffle(items)
            case _:
                items[place] = mutated(random, items[place])
        return items
    if isinstance(good, str) and good and random.random() < 0.5:
        return mutated_text(random, good)
    if isinstance(good, int | float) and not isinstance(good, bool) and random.random() < 0.5:
        half = good + 0.5 if abs(good) < 10**300 else 0.5
        return random.choice((str(good), -good, good + 1, good * 1_000, good - 1, half))
    return value(random)


def mutated_text(random: Random, good: str) -> str:
    """A good text, cut, doubled, or with something odd in it."""
    place = random.randrange(len(good) + 1)
    match random.randrange(6):
        case 0:
            return good[:place]
        case 1:
            return (good * random.choice((2, 20, 400)))[:MAX_CHARS]
        case 2:
            return good[place:] + good[:place]
        case 3:
            return good.swapcase()
        case _:
            return good[:place] + text(random) + good[place:]


def mutated_bytes(random: Random, good: bytes) -> bytes:
    """Good bytes, with some of them changed, cut out or put in."""
    data = bytearray(good)
    for _ in range(random.choice((1, 1, 2, 8))):
        place = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if place < len(data):
                data[place] ^= 1 << random.randrange(8)
            case 1:
                del data[place : place + random.choice((1, 2, 16, 1_000))]
            case 2:
                data[place:place] = random.randbytes(random.choice((1, 4, 64)))
            case 3:
                end = random.randrange(len(data) + 1)
                data[place:place] = data[min(place, end) : max(place, end)][:2_000]
            case _:
                data[place : place + 1] = random.choice((b"\0", b"\xff", b'"', b"\\", b"{", b"["))
    return bytes(data)


def as_json(random: Random, good: Any) -> bytes:
    """A JSON text of a value, as a rule a good one."""
    kind = random.randrange(16)
    data = json.dumps(
        good,
        ensure_ascii=random.random() < 0.5,
        separators=random.choice(((",", ":"), (", ", ": "), (" , ", "\n:\t"))),
    ).encode()
    match kind:
        case 0:
            return data[: random.randrange(len(data) + 1)]
        case 1:
            return mutated_bytes(random, data)
        case 2:
            depth = random.choice((10, 500, 2_000, 100_000))
            deep = b'{"a":' * depth if random.random() < 0.5 else b"[" * depth
            place = data.find(b":") + 1
            return data[:place] + deep + data[place:]
        case 3 if isinstance(good, dict) and good:  # a key twice
            key = random.choice(list(good))
            extra = json.dumps({key: value(random)})[1:-1].encode()
            return data[:-1] + b"," + extra + b"}"
        case 4:
            return data + random.choice((b" ", b"\n", b"{}", b"\0", b"garbage", data))
        case 5:
            return random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" " * 1_000)) + data
        case 6:
            return data.replace(b"e", b"\\u0065", 3)
        case 7:
            return data.decode().encode(random.choice(("utf-16", "latin-1", "utf-32")), "replace")
        case _:
            return data


def shuffled(random: Random, good: Sequence[Any], odd: Callable[[Any], Any]) -> list[Any]:
    """A good sequence, with some of it odd, left out, doubled, or out of its place."""
    changed = list(good)
    rate = random.choice((0.0, 0.01, 0.05, 0.3))
    found: list[Any] = []
    for one in changed:
        if random.random() >= rate:
            found.append(one)
            continue
        match random.randrange(5):
            case 0:
                pass
            case 1:
                found += [one, one]
            case 2:
                found.insert(random.randrange(len(found) + 1), one)
            case _:
                found.append(odd(one))
    if random.random() < 0.05:
        random.shuffle(found)
    if random.random() < 0.3:
        del found[random.randrange(len(found) + 1) :]
    return found
