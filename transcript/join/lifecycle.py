"""What is known of a call as a whole: its numbers, its state, and whether it can still change.

Rules:

1. The state is that of the newest media stream. A call that goes on in a new stream after a fault
   is active again.
2. A transcript is final when every stream is closed and complete (all its facts, 1 to CallEnded),
   and every session that was assigned or wrote anything is complete likewise (1 to SessionEnded)
   or was lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from asheard.v1.fact_pb2 import CallOutcome, Fact
from asheard.v1.transcript_pb2 import CallState, Transcript
from transcript.join.log import CallLog, call_ended, call_started

_GOOD_ENDS = (CallOutcome.CALL_OUTCOME_COMPLETED, CallOutcome.CALL_OUTCOME_ENDED_BY_AGENT)


def outline(log: CallLog) -> Transcript:
    """The transcript of a call without its turns."""
    transcript = Transcript(
        call_sid=log.call_sid,
        state=CallState.CALL_STATE_ACTIVE,
        revision=log.revision,
        final=is_final(log),
    )
    for facts in log.streams.values():
        started = call_started(facts)
        if started is None:
            continue
        # The first stream that knows a thing says it; later streams only fill what is missing.
        transcript.account_sid = transcript.account_sid or started.account_sid
        transcript.from_number = transcript.from_number or started.from_number
        transcript.to_number = transcript.to_number or started.to_number
        if started.HasField("start_time") and not transcript.HasField("start_time"):
            transcript.start_time.CopyFrom(started.start_time)
    newest = next(reversed(log.streams.values()), ())
    ended = call_ended(newest)
    if ended is not None:
        good = ended.outcome in _GOOD_ENDS
        transcript.state = CallState.CALL_STATE_COMPLETED if good else CallState.CALL_STATE_FAILED
        if ended.HasField("end_time"):
            transcript.end_time.CopyFrom(ended.end_time)
    return transcript


def is_final(log: CallLog) -> bool:
    """Whether no fact of this call is outstanding (rule 2)."""
    if not log.streams:
        return False
    lost = log.lost_sessions
    return all(_is_complete(facts, "call_ended") for facts in log.streams.values()) and all(
        writer in lost or _is_complete(facts, "session_ended")
        for writer, facts in log.sessions.items()
    )


def _is_complete(facts: Sequence[Fact], closing: str) -> bool:
    """Whether a writer's facts are all there, from the first to the closing one."""
    for number, fact in enumerate(facts, start=1):
        if fact.sequence != number:
            return False
        if fact.WhichOneof("body") == closing:
            return True
    return False
