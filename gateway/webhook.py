"""What the voice webhook answers. Pure.

Twilio asks twice: when a call comes in, and, as the ``<Connect>`` verb's action, when the media
stream is over. The second question bears ``attempt=N`` in its URL, the number of the stream that
ended. A stream that was lost is replaced, so that the caller can go on, but not for ever.
"""

from __future__ import annotations

import enum

from asheard.v1 import fact_pb2

ATTEMPT_PARAMETER = "attempt"

STREAM_PARAMETER = "stream"
"""Custom parameter of a media stream: its number within the call, from 1."""

OVER_STATUSES = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""Twilio's ``CallStatus`` of a call that is over, for good."""

ERROR_EVENT = "stream-error"
"""Twilio's ``StreamEvent`` of a media stream that had an error: as a rule it is over."""

OVER_EVENTS = frozenset({"stream-stopped", ERROR_EVENT})
"""Twilio's ``StreamEvent`` of a media stream that is over."""

MAX_STREAMS = 5
"""Streams of one call before we give up: each one lost is a second or two of silence."""

LINES_BUSY = "All our lines are busy at the moment. Please call again in a few minutes."
OUT_OF_ORDER = "We are sorry, we cannot continue this call. Please call again later."


class Answer(enum.Enum):
    """What is to be done with the call."""

    STREAM = "stream"
    """Connect it to a media socket."""
    NOTHING = "nothing"
    """The call is over already."""
    HANG_UP = "hang_up"
    """We ended it on purpose."""
    LINES_BUSY = "lines_busy"
    OUT_OF_ORDER = "out_of_order"


_OUTCOME_ANSWERS = {
    # Whatever Twilio's status says: it may be older than the hang-up, and the transcript is final.
    fact_pb2.CALL_OUTCOME_COMPLETED: Answer.NOTHING,
    fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT: Answer.HANG_UP,
    fact_pb2.CALL_OUTCOME_REFUSED: Answer.LINES_BUSY,
    # The worker has tried again already; one more stream would meet the same fault.
    fact_pb2.CALL_OUTCOME_MODEL_FAILED: Answer.OUT_OF_ORDER,
}


def answer_new_call(*, has_room: bool) -> Answer:
    """The answer to an incoming call.

    Args:
        has_room: Whether the gateway takes calls and some session worker has room.
    """
    return Answer.STREAM if has_room else Answer.LINES_BUSY


def answer_after_stream(
    call_status: str,
    outcome: fact_pb2.CallOutcome.ValueType | None,
    attempt: int,
    *,
    told: bool = False,
) -> Answer:
    """The answer when a media stream is over.

    Args:
        call_status: Twilio's ``CallStatus``; empty when it did not say.
        outcome: How the stream ended; None when this process does not know.
        attempt: The number of the stream that ended, from 1.
        told: The caller heard from us in words that the call ends; once is enough.
    """
    if call_status not in ("", "in-progress"):
        return Answer.NOTHING
    answer = _OUTCOME_ANSWERS.get(outcome) if outcome is not None else None
    if answer is not None:
        return Answer.HANG_UP if told and answer is Answer.OUT_OF_ORDER else answer
    return Answer.STREAM if attempt < MAX_STREAMS else Answer.OUT_OF_ORDER


def attempt_of(text: str) -> int:
    """The attempt that an action URL names; the last one when the text makes no sense."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else MAX_STREAMS


def stream_number_of(text: str) -> int:
    """The number of a media stream, as the TwiML gave it; 0 when it makes no sense: anybody may
    have written that TwiML."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
