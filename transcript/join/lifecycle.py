"""What is known of a call as a whole: its numbers, its state, and whether it can still change.

Rules:

1. A writer is open until all its facts are there, from 1 to its closing one (CallEnded of a stream,
   SessionEnded of a session), or it is lost: a gateway says so of a session whose link broke, the
   transcript service of a writer whose process was not heard of for a stated time. What a writer
   that is complete said stands, also if it is called lost afterwards.
2. The state is that of the newest media stream: as it ended, FAILED when its writer was lost before
   it said how, ACTIVE while it is open. A call that goes on in a new stream after a fault is active
   again. A call of which no stream is known is ACTIVE until it is closed, and then FAILED.
3. A call is over when the caller hung up in its newest stream (COMPLETED). After any other end
   Twilio may still ask for a new stream; the call is over when the transcript service says that
   nobody did for a stated time (CallClosed).
4. A transcript is final when the call is over and no writer is open.
5. The call's end is the newest stream's, by its gateway; of a stream whose writer was lost, the
   last timestamp that it told on the call's clock. Clocks of several gateways need not agree: the
   end is never earlier than any start or end that the streams before it told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from asheard.v1.fact_pb2 import CallOutcome, Fact
from asheard.v1.transcript_pb2 import CallState, Transcript
from transcript.join.log import CallLog, call_ended, call_started

_GOOD_ENDS = (CallOutcome.CALL_OUTCOME_COMPLETED, CallOutcome.CALL_OUTCOME_ENDED_BY_AGENT)
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where times of protobuf end."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What a transcript waits for before it is final. Nothing of it: it is final."""

    open_writers: tuple[str, ...]
    """Streams and sessions that are neither complete nor lost, in canonical order. A session may
    be among them that was assigned and never wrote anything."""

    awaits_stream: bool
    """No media stream is known, only sessions: the gateway's facts are late, or lost with it. Who
    closes such a call waits as long as for a writer that may be lost."""

    awaits_close: bool
    """Every writer is complete or lost, and only CallClosed is missing (rule 3)."""

    @property
    def nothing(self) -> bool:
        """The transcript is final."""
        return not (self.open_writers or self.awaits_close)


def outstanding(log: CallLog) -> Outstanding:
    """What a call's transcript still waits for (rules 1, 3 and 4)."""
    still_open = tuple(
        writer
        for writers, closing in ((log.streams, "call_ended"), (log.sessions, "session_ended"))
        for writer, facts in writers.items()
        if writer not in log.lost and not is_complete(facts, closing)
    )
    is_over = log.closed or _is_hung_up(log)
    return Outstanding(
        open_writers=still_open,
        awaits_stream=not log.streams and not is_over,
        awaits_close=not still_open and not is_over,
    )


def outline(log: CallLog) -> Transcript:
    """The transcript of a call without its turns."""
    transcript = Transcript(
        call_sid=log.call_sid,
        state=_state(log),
        revision=log.revision,
        final=outstanding(log).nothing,
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
    if transcript.state != CallState.CALL_STATE_ACTIVE:
        end_ns = max(_times_ns(log), default=None)
        if end_ns is not None:
            transcript.end_time.CopyFrom(_timestamp(end_ns))
    return transcript


def is_complete(facts: Sequence[Fact], closing: str) -> bool:
    """Whether a writer's facts are all there, from the first to the closing one.

    Args:
        facts: By sequence.
        closing: Which body closes them. One that had to be given up (FactDropped) closes as well.
    """
    for number, fact in enumerate(facts, start=1):
        if fact.sequence != number:
            return False
        body = fact.WhichOneof("body")
        if body == closing or (body == "fact_dropped" and fact.fact_dropped.body == closing):
            return True
    return False


def is_over(log: CallLog, stream: str) -> bool:
    """Whether nothing more can be known of a stream: its gateway's facts are all there, or lost."""
    return stream in log.lost or is_complete(log.streams[stream], "call_ended")


def _state(log: CallLog) -> CallState.ValueType:
    """Rule 2."""
    newest = next(reversed(log.streams), None)
    if newest is None:
        return CallState.CALL_STATE_FAILED if log.closed else CallState.CALL_STATE_ACTIVE
    ended = call_ended(log.streams[newest])
    if ended is not None:
        good = ended.outcome in _GOOD_ENDS
        return CallState.CALL_STATE_COMPLETED if good else CallState.CALL_STATE_FAILED
    return CallState.CALL_STATE_FAILED if is_over(log, newest) else CallState.CALL_STATE_ACTIVE


def _is_hung_up(log: CallLog) -> bool:
    """Whether the newest stream says that the caller hung up."""
    newest = next(reversed(log.streams.values()), ())
    ended = call_ended(newest)
    return ended is not None and ended.outcome == CallOutcome.CALL_OUTCOME_COMPLETED


def _times_ns(log: CallLog) -> Iterator[int]:
    """Starts and ends of all streams in nanoseconds since 1970, as far as they are known."""
    for facts in log.streams.values():
        started, ended = call_started(facts), call_ended(facts)
        start_ns = None
        if started is not None and started.HasField("start_time"):
            start_ns = _ns(started.start_time)
            yield start_ns
        if ended is not None and ended.HasField("end_time"):
            yield _ns(ended.end_time)
        elif start_ns is not None:
            yield start_ns + max(0, *map(_at_ms, facts)) * 1_000_000


def _at_ms(fact: Fact) -> int:
    """The timestamp on the call's clock that a gateway's fact tells; 0 when it tells none."""
    match fact.WhichOneof("body"):
        case "playback_started":
            return fact.playback_started.at_ms
        case "playback_progressed":
            return fact.playback_progressed.at_ms
        case "position_fixed":
            return fact.position_fixed.at_ms
        case "barged_in":
            return fact.barged_in.flushed_at_ms
        case "key_pressed":
            return fact.key_pressed.at_ms
        case "call_ended":
            return fact.call_ended.at_ms
        case _:
            return 0


def _ns(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos


def _timestamp(ns: int) -> Timestamp:
    seconds, nanos = divmod(ns, 1_000_000_000)
    if seconds > _LAST_SECOND:
        return Timestamp(seconds=_LAST_SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)
