"""Writes facts as a gateway and a session worker would, for tests."""

from __future__ import annotations

from typing import Any

from asheard.v1.fact_pb2 import (
    CallEnded,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerTranscribed,
    CallOutcome,
    CallStarted,
    DeadAir,
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
from asheard.v1.transcript_pb2 import (
    DeadAirReason,
    ItemPosition,
    PositionEvidence,
    PositionRule,
    Role,
)

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
    gateway.write(position_fixed=_played("item_1", 1200))
    if ended:
        session.write(session_ended=SessionEnded(reason="the caller hung up"))
        ending = CallEnded(outcome=outcome, at_ms=2000)
        ending.end_time.FromSeconds(start_s + 2)
        gateway.write(call_ended=ending)
    return gateway.facts + session.facts


def troubled_call(call_sid: str = "CA1") -> list[Fact]:
    """A call in which not all goes well: a noise, a silence, a notice, an answer that a filter cut
    short, words that could not be transcribed."""
    gateway = Writer(call_sid, "gateway/MZ1")
    session = Writer(call_sid, "session/1")
    gateway.write(call_started=CallStarted(account_sid="AC1", stream_sid="MZ1"))
    gateway.write(session_assigned=SessionAssigned(session_writer="session/1"))
    session.write(session_started=SessionStarted(session_id="sess_1"))
    _caller(session, "noise", 100, CallerTranscribed(complete=True, nobody_spoke=True))
    _caller(session, "question", 1000, CallerTranscribed(text="Are you open?", complete=True))
    session.write(item_added=ItemAdded(item_id="hold", role=Role.ROLE_AGENT, notice=True))
    _said(gateway, session, "hold", 7000, "One moment, please.")
    session.write(
        dead_air=DeadAir(
            reason=DeadAirReason.DEAD_AIR_REASON_REFUSED, start_ms=2000, end_ms=7000, lasted_ms=5000
        )
    )
    session.write(item_added=ItemAdded(item_id="answer", role=Role.ROLE_AGENT))
    _said(gateway, session, "answer", 9000, "We are", reason="content_filter")
    _caller(session, "unclear", 11000, CallerTranscribed(complete=True, failed=True))
    session.write(session_ended=SessionEnded(reason="the caller hung up"))
    gateway.write(call_ended=CallEnded(outcome=CallOutcome.CALL_OUTCOME_COMPLETED, at_ms=14000))
    return gateway.facts + session.facts


def _caller(session: Writer, item_id: str, at_ms: int, transcribed: CallerTranscribed) -> None:
    """A second of the caller's."""
    transcribed.item_id = item_id
    session.write(caller_speech_started=CallerSpeechStarted(item_id=item_id, at_ms=at_ms))
    session.write(caller_speech_stopped=CallerSpeechStopped(item_id=item_id, at_ms=at_ms + 1000))
    session.write(item_added=ItemAdded(item_id=item_id, role=Role.ROLE_CALLER))
    session.write(caller_transcribed=transcribed)


def _said(
    gateway: Writer, session: Writer, item_id: str, at_ms: int, text: str, *, reason: str = ""
) -> None:
    """A second of the agent's that was played to its end; complete where there is no reason."""
    complete = GenerationStatus.GENERATION_STATUS_COMPLETED
    short = GenerationStatus.GENERATION_STATUS_INCOMPLETE
    session.write(
        item_generated=ItemGenerated(
            item_id=item_id,
            text=text,
            audio_ms=1000,
            status=short if reason else complete,
            reason=reason,
        )
    )
    gateway.write(playback_started=PlaybackStarted(item_id=item_id, at_ms=at_ms))
    gateway.write(position_fixed=_played(item_id, at_ms + 1000))


def _played(item_id: str, at_ms: int) -> PositionFixed:
    """A second was played to its end."""
    return PositionFixed(
        position=ItemPosition(
            item_id=item_id, low_ms=1000, best_ms=1000, high_ms=1000, sent_ms=1000,
            evidence=PositionEvidence(rule=PositionRule.POSITION_RULE_PLAYED_TO_END),
        ),
        cause=PositionCause.POSITION_CAUSE_PLAYED,
        at_ms=at_ms,
    )  # fmt: skip


def ends(fact: Fact) -> bool:
    """Whether it is the last of its writer."""
    return fact.WhichOneof("body") in ("call_ended", "session_ended")
