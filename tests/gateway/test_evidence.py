"""What the playhead says reaches facts and the link without loss."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from asheard.v1 import fact_pb2, transcript_pb2
from gateway import evidence
from gateway.playout.positions import (
    Cause,
    Evidence,
    ItemPosition,
    Part,
    PositionFixed,
    Rule,
    TraceEvent,
    TraceKind,
    never_sent,
)


@pytest.mark.parametrize(
    ("ours", "wire", "prefix"),
    [
        (Rule, transcript_pb2.PositionRule, "POSITION_RULE_"),
        (Cause, fact_pb2.PositionCause, "POSITION_CAUSE_"),
        (TraceKind, fact_pb2.PlayoutEventKind, "PLAYOUT_EVENT_KIND_"),
    ],
)
def test_our_enums_carry_the_numbers_of_the_wire(
    ours: type[enum.IntEnum], wire: Any, prefix: str
) -> None:
    on_the_wire = {name.removeprefix(prefix): number for name, number in wire.items() if number}
    assert {member.name: member.value for member in ours} == on_the_wire


def test_every_field_of_a_position_survives() -> None:
    position = ItemPosition(
        part=Part("item1", 2),
        low_ms=1,
        best_ms=2,
        high_ms=3,
        sent_ms=4,
        evidence=Evidence(Rule.MARK, "p1", 5, "p2", 6),
    )
    fact = evidence.position_fixed(PositionFixed(position, Cause.CLEARED, 7, 8))
    assert (fact.at_ms, fact.interrupt_id, fact.cause) == (7, 8, fact_pb2.POSITION_CAUSE_CLEARED)
    values = [value for _, value in fact.position.ListFields()]
    assert values[:-1] == ["item1", 2, 1, 2, 3, 4]
    assert [value for _, value in fact.position.evidence.ListFields()] == [6, "p1", 5, "p2", 6]


def test_a_timestamp_of_zero_is_not_an_absent_one() -> None:
    position = never_sent(Part("item1"))
    assert not evidence.position_fixed(PositionFixed(position, Cause.DROPPED, None, 0)).HasField(
        "at_ms"
    )
    assert evidence.position_fixed(PositionFixed(position, Cause.DROPPED, 0, 0)).HasField("at_ms")
    assert not evidence.item_position(position).evidence.HasField("stopped_at_ms")


def test_every_field_of_a_trace_survives() -> None:
    event = TraceEvent(TraceKind.SENT, 1, 2, 3, Part("item1", 4), 5, "p6", 7)
    ((traced,),) = [piece.events for piece in evidence.playout_traced([event])]
    assert {field.name: value for field, value in traced.ListFields()} == {
        "kind": 1,
        "now_us": 1,
        "media_ms": 2,
        "media_us": 3,
        "item_id": "item1",
        "content_index": 4,
        "audio_bytes": 5,
        "mark": "p6",
        "interrupt_id": 7,
    }
