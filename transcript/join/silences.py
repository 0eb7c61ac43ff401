"""Stretches of silence in which the agent owed an answer, as the session workers tell them.

A worker tells of one when it is over. Nothing is decided here but what a reader may rely on: none
lasts less than no time, and none ends before it began.
"""

from __future__ import annotations

from dataclasses import dataclass

from asheard.v1.fact_pb2 import DeadAir
from asheard.v1.transcript_pb2 import CallEvent
from asheard.v1.transcript_pb2 import Silence as SilenceEvent
from transcript.join.items import StreamTime
from transcript.join.log import CallLog


@dataclass(frozen=True, slots=True)
class Silence:
    """One stretch."""

    writer: str
    sequence: int
    """Its place in its writer's order: where it ended."""
    started: StreamTime | None
    """When the line fell silent. None: not known."""
    told: DeadAir

    def event(self, after_item_id: str) -> CallEvent:
        """What a reader is told of it, with the turn that it comes after."""
        told = self.told
        event = CallEvent(
            after_item_id=after_item_id,
            silence=SilenceEvent(reason=told.reason, lasted_ms=max(0, told.lasted_ms)),
        )
        if told.HasField("start_ms"):
            event.start_ms = told.start_ms
        if told.HasField("end_ms"):
            event.end_ms = max(told.end_ms, told.start_ms) if self.started else told.end_ms
        return event


def silences(log: CallLog) -> list[Silence]:
    """All that any session told of."""
    found: list[Silence] = []
    for writer, facts in log.sessions.items():
        stream = log.stream_of_session[writer]
        for fact in facts:
            if fact.HasField("dead_air"):
                told = fact.dead_air
                started = StreamTime(stream, told.start_ms) if told.HasField("start_ms") else None
                found.append(Silence(writer, fact.sequence, started, told))
    return found
