"""No fact of our writers can be larger than the outbox delivers and the transcript service stores.

What grows with what a peer sends is bounded where it comes in. Here each kind of fact is filled to
those bounds; a new field has to be given its bound here before this passes.
"""

from __future__ import annotations

from typing import Any

import pytest

from asheard.v1 import fact_pb2
from gateway import evidence
from gateway.playout.positions import Part, TraceEvent, TraceKind
from gateway.twilio.messages import MAX_PARAMETER_CHARS
from runtime import fact_queue
from session.outbox import MAX_DETAIL_CHARS
from session.realtime.bounds import (
    MAX_ARGUMENTS_CHARS,
    MAX_CALLER_TEXT_CHARS,
    MAX_ID_CHARS,
    MAX_TEXT_CHARS,
)
from session.words import MAX_TIMED_WORDS
from transcript import facts as stored

WIDE = "\U0001f9d1"
"""Four bytes in UTF-8, as no character has more."""

CHARS: dict[str, int] = {
    "ItemProgressed.text": MAX_TEXT_CHARS,
    "ItemGenerated.text": MAX_TEXT_CHARS,
    "CallerTranscribed.text": MAX_CALLER_TEXT_CHARS,
    "ToolCalled.arguments": MAX_ARGUMENTS_CHARS,
    "CallStarted.from_number": MAX_PARAMETER_CHARS,
    "CallStarted.to_number": MAX_PARAMETER_CHARS,
    "SessionLost.reason": MAX_DETAIL_CHARS,
    "SessionEnded.reason": stored.MAX_REASON,
    "FactDropped.reason": stored.MAX_REASON,
}
"""Everything else is an id or a name."""

REPEATED = {"WordsTimed.words": MAX_TIMED_WORDS}


def fill(message: Any) -> None:
    """Make it as large as it can be."""
    for field in message.DESCRIPTOR.fields:
        name = f"{message.DESCRIPTOR.name}.{field.name}"
        if field.is_repeated:
            if name == "PlayoutTraced.events":
                continue  # is split: see below
            for _ in range(REPEATED[name]):
                fill(getattr(message, field.name).add())
        elif field.message_type is not None:
            fill(getattr(message, field.name))
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, WIDE * CHARS.get(name, MAX_ID_CHARS))
        elif field.type == field.TYPE_INT64:
            # Times in words are within ten days; all others may cost as much as a number can.
            word = message.DESCRIPTOR.name == "TimedWord"
            setattr(message, field.name, stored.MAX_MS if word else -1)
        elif field.type == field.TYPE_INT32:
            word = message.DESCRIPTOR.name == "TimedWord"
            setattr(message, field.name, MAX_TEXT_CHARS if word else -1)
        elif field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
            setattr(message, field.name, 0.5)
        elif field.type == field.TYPE_BOOL:
            setattr(message, field.name, True)


@pytest.mark.parametrize("body", [f.name for f in fact_pb2.Fact.DESCRIPTOR.oneofs[0].fields])
def test_the_largest_fact_of_each_kind_can_be_delivered_and_stored(body: str) -> None:
    fact = fact_pb2.Fact(call_sid="C" * 128, writer="session/" + "w" * 128, sequence=2**62)
    fact.recorded_time.FromSeconds(2**37)
    getattr(fact, body).SetInParent()
    fill(getattr(fact, body))
    assert fact.ByteSize() + 8 < fact_queue.MAX_FACT_BYTES <= stored.MAX_FACT_BYTES


def test_a_trace_of_any_length_is_split_into_such_facts() -> None:
    trace = [
        TraceEvent(TraceKind.ECHOED, 2**60, 2**60, 2**60, part=Part(WIDE * 300), mark=WIDE * 500)
        for _ in range(2_000)
    ]
    pieces = list(evidence.playout_traced(trace))
    assert sum(len(piece.events) for piece in pieces) == 2_000
    assert max(piece.ByteSize() for piece in pieces) < fact_queue.MAX_FACT_BYTES - 1_000


def test_a_request_takes_several_of_the_largest_facts_and_every_server_takes_it() -> None:
    assert 2 * fact_queue.MAX_FACT_BYTES <= fact_queue.MAX_BATCH_BYTES <= 2 * 1024 * 1024
