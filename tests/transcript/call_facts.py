"""Writes facts as a gateway and a session worker would, for tests."""

from __future__ import annotations

from typing import Any

from asheard.v1.fact_pb2 import (
    CallEnded,
    CallOutcome,
    CallStarted,
    Fact,
    GenerationStatus,
    ItemAdded,
    ItemGenerated,
    PlaybackStarted,
    PositionCause,
    PositionFixed,
    SessionAssigned,
    SessionEnded,
    SessionStarted,
)
from asheard.v1.transcript_pb2 import ItemPosition, PositionEvidence, PositionRule, Role

START_S = 1_795_428_000
"""2026-11-23T10:00:00Z"""


class Writer:
    """Numbers the facts of one writer; :attr:`facts` are all that were written."""

    def __init__(self, call_sid: str, name: str) -> None:
        self.call_sid = call_sid
        self.name = name
        self.facts: list[Fact] = []

    def write(self, **body: Any) -> Fact:
        """Write the next fact."""
        fact = Fact(call_sid=self.call_sid, writer=self.name, sequence=len(self.facts) + 1, **body)
        self.facts.append(fact)
        return fact


def short_call(
    call_sid: str = "CA1",
    *,
    start_s: int = START_S,
    from_number: str = "+15550100",
    text: str = "Hello there.",
    ended: bool = True,
    outcome: CallOutcome.ValueType = CallOutcome.CALL_OUTCOME_COMPLETED,
) -> list[Fact]:
    """A call in which the agent says one thing and is heard to the end."""
    gateway = Writer(call_sid, "gateway/MZ1")
    session = Writer(call_sid, "session/1")
    started = CallStarted(account_sid="AC1", stream_sid="MZ1", from_number=from_number)
    started.to_number = "+15550199"
    started.start_time.FromSeconds(start_s)
    gateway.write(call_started=started)
    gateway.write(session_assigned=SessionAssigned(session_writer="session/1"))
    session.write(session_started=SessionStarted(session_id="sess_1"))
    session.write(item_added=ItemAdded(item_id="item_1", role=Role.ROLE_AGENT))
    session.write(
        item_generated=ItemGenerated(
            item_id="item_1",
            text=text,
            audio_ms=1000,
            status=GenerationStatus.GENERATION_STATUS_COMPLETED,
        )
    )
    gateway.write(playback_started=PlaybackStarted(item_id="item_1", at_ms=200))
    gateway.write(
        position_fixed=PositionFixed(
            position=ItemPosition(
                item_id="item_1", low_ms=1000, best_ms=1000, high_ms=1000, sent_ms=1000,
                evidence=PositionEvidence(rule=PositionRule.POSITION_RULE_PLAYED_TO_END),
            ),
            cause=PositionCause.POSITION_CAUSE_PLAYED,
            at_ms=1200,
        )
    )  # fmt: skip
    if ended:
        session.write(session_ended=SessionEnded(reason="the caller hung up"))
        ending = CallEnded(outcome=outcome, at_ms=2000)
        ending.end_time.FromSeconds(start_s + 2)
        gateway.write(call_ended=ending)
    return gateway.facts + session.facts


def ends(fact: Fact) -> bool:
    """Whether it is the last of its writer."""
    return fact.WhichOneof("body") in ("call_ended", "session_ended")
