"""Facts at random, of every body and with every number that a field holds.

They are worse than ingest lets in; an older version may have stored them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from asheard.v1.fact_pb2 import Fact

WRITERS = ("gateway/MZ1", "gateway/MZ2", "session/1", "session/2", "session/3",
           "transcript/closed", "transcript/lost/gateway/MZ1", "transcript/lost/session/2",
           "webhook/1")  # fmt: skip
STRINGS = (*WRITERS, "a", "a", "a", "b", "", "Hi.", "One two three.", " lead and trail ",
           "8,50 € – bitte 👋🏽!", "東京です", "aligned", "provider", "call_ended", "\u202e\x00")  # fmt: skip

_BODIES = [field.name for field in Fact.DESCRIPTOR.oneofs_by_name["body"].fields]


def hostile_facts(chance: random.Random, count: int, bodies: list[str] | None = None) -> list[Fact]:
    """So many facts of one call; writers number theirs from 1, some leave numbers out."""
    written: dict[str, int] = {}
    facts: list[Fact] = []
    for _ in range(count):
        fact = Fact(call_sid="CA1", writer=chance.choice(WRITERS))
        written[fact.writer] = written.get(fact.writer, 0) + chance.choice((1, 1, 1, 1, 1, 2))
        fact.sequence = written[fact.writer]
        body = getattr(fact, chance.choice(bodies or _BODIES))
        body.SetInParent()
        _fill(body, chance)
        facts.append(fact)
    return facts


def _number(chance: random.Random, lowest: int, highest: int) -> int:
    near = chance.randint(-3, 20) * chance.choice((1, 1, 10, 250))
    return max(lowest, min(highest, chance.choice((0, near, near, near, near, lowest, highest))))


def _fill(message: Message, chance: random.Random) -> None:
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Timestamp":
        # No version ever stored what no clock shows.
        message.seconds = chance.choice((0, 1_795_428_000, 253_402_300_799))  # type: ignore[attr-defined]
        message.nanos = chance.choice((0, 999_999_999))  # type: ignore[attr-defined]
        return
    for field in descriptor.fields:
        if chance.random() < 0.1:
            continue
        if field.is_repeated:
            for _ in range(chance.randint(0, 4)):
                _fill(getattr(message, field.name).add(), chance)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            _fill(getattr(message, field.name), chance)
        else:
            setattr(message, field.name, _VALUES[field.type](chance))


_VALUES: dict[int, Callable[[random.Random], object]] = {
    FieldDescriptor.TYPE_STRING: lambda chance: chance.choice(STRINGS),
    FieldDescriptor.TYPE_BOOL: lambda chance: chance.random() < 0.5,
    FieldDescriptor.TYPE_ENUM: lambda chance: chance.choice((0, 1, 1, 2, 3, 4, 99)),
    FieldDescriptor.TYPE_FLOAT: lambda chance: chance.choice((0.0, -1.0, float("nan"), 1e38)),
    FieldDescriptor.TYPE_INT32: lambda chance: _number(chance, -(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: lambda chance: _number(chance, 0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: lambda chance: _number(chance, -(1 << 63), (1 << 63) - 1),
}
