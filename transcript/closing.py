"""What only time can tell of a call (pure): which writers are lost, and when it is over.

Rules:

1. A process is lost when its signs of life stood still for ``lost_s``. Only this service's own
   monotonic clock is asked, and only for as long as it has watched without a break: what a process
   wrote is compared with what was there before, never with a clock. So clocks may differ and jump,
   and nobody is lost sooner than ``lost_s`` after this service began to look, or after the store
   was back.
2. An open writer is lost

   a. with its process;
   b. when it wrote its closing fact, facts before it are missing, and nothing was stored for the
      call for ``lost_s``: facts come in order, so the gap stays;
   c. a session also when no media stream is open any more, and nothing was stored for the call for
      ``lost_s``: it serves nobody, and may never have written anything;
   d. in any case when nothing was stored for the call for a day: Twilio ends a call before that.

   A writer that named no process cannot be lost by (a).
3. A call whose writers are all complete or lost is closed when nothing was stored for it for
   ``grace_s``, the time in which Twilio may still ask for a new stream; ``lost_s`` where no stream
   is known yet. Not while a stream that was lost by its process lives again: the call may go on.
   And not within ``lost_s`` of when this service began to look, unless the store was new: the next
   stream's facts may be among those that other processes kept meanwhile and deliver only now. A
   service looks before its ports open, so that what is new is not a matter of who is quicker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asheard.v1.fact_pb2 import CallClosed, Fact, WriterLost
from transcript.join.lifecycle import is_complete, outstanding
from transcript.join.log import GATEWAY, TRANSCRIPT, CallLog
from transcript.store import WriterState, closes

MAX_CALL_S = 86_400.0
"""Twilio ends a call after 24 hours at most, after four unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait."""

    grace_s: float
    """For a new media stream after one that ended otherwise than by a hang-up."""
    lost_s: float
    """For a sign of life."""
    away_s: float
    """Whoever did not look for longer than this has not watched."""


@dataclass(frozen=True, slots=True)
class Still:
    """A value, and since when it was seen to be the same."""

    value: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Watched:
    """What one service has seen of the store, by its monotonic clock."""

    at_s: float
    calls: Mapping[str, Still]
    """Revisions of open calls."""
    processes: Mapping[str, Still]
    """Signs of life."""
    closes_from_s: float
    """Nothing is closed before this."""

    def quiet_s(self, call_sid: str) -> float:
        """For how long nothing was stored for a call."""
        return self.at_s - self.calls[call_sid].since_s

    def silent_s(self, process: str) -> float:
        """For how long a process gave no sign of life; 0 for one that is not known."""
        still = self.processes.get(process)
        return self.at_s - still.since_s if still is not None else 0.0


def watch(
    before: Watched | None,
    now_s: float,
    calls: Mapping[str, int],
    processes: Mapping[str, int],
    limits: Limits,
) -> Watched:
    """Look again.

    Args:
        before: What was seen before; None at the start.
        now_s: The monotonic clock.
        calls: The revision of each open call.
        processes: The last sign of life of each process.
        limits: How long to wait.
    """
    if before is None or now_s - before.at_s > limits.away_s:
        wrote_before = any(not process.startswith(TRANSCRIPT) for process in processes)
        before = Watched(now_s, {}, {}, now_s + (limits.lost_s if wrote_before else 0.0))
    return Watched(
        now_s,
        _still(before.calls, calls, now_s),
        _still(before.processes, processes, now_s),
        before.closes_from_s,
    )


def _still(
    before: Mapping[str, Still], values: Mapping[str, int], now_s: float
) -> dict[str, Still]:
    seen: dict[str, Still] = {}
    for name, value in values.items():
        known = before.get(name)
        seen[name] = known if known and known.value == value else Still(value, now_s)
    return seen


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands by its facts."""

    open_streams: tuple[str, ...]
    """Media streams neither complete nor lost."""
    open_sessions: tuple[str, ...]
    """Likewise; they may never have written anything."""
    gapped: frozenset[str]
    """Of both, those that wrote their closing fact."""
    unfinished_streams: tuple[str, ...]
    """Not complete, lost or not."""
    awaits_stream: bool
    awaits_close: bool

    @property
    def is_final(self) -> bool:
        """Nothing is missing."""
        return not (self.open_streams or self.open_sessions or self.awaits_close)


def standing(log: CallLog) -> Standing:
    """How a call stands."""
    missing = outstanding(log)
    facts_of = {**log.streams, **log.sessions}
    return Standing(
        open_streams=tuple(w for w in missing.open_writers if w in log.streams),
        open_sessions=tuple(w for w in missing.open_writers if w in log.sessions),
        gapped=frozenset(
            writer for writer in missing.open_writers if any(map(closes, facts_of[writer]))
        ),
        unfinished_streams=tuple(
            writer for writer, facts in log.streams.items() if not is_complete(facts, "call_ended")
        ),
        awaits_stream=missing.awaits_stream,
        awaits_close=missing.awaits_close,
    )


def may_be_due(
    writers: Mapping[str, WriterState], quiet_s: float, watched: Watched, limits: Limits
) -> bool:
    """Whether it is worth reading a call's facts, by what the store says of its writers."""
    if quiet_s >= MAX_CALL_S:
        return True
    if any(not state.closed and _is_lost(state, watched, limits) for state in writers.values()):
        return True
    stream_is_open = any(
        writer.startswith(GATEWAY) and not state.closed for writer, state in writers.items()
    )
    return not stream_is_open and quiet_s >= min(limits.grace_s, limits.lost_s)


def due(
    call_sid: str,
    call: Standing,
    writers: Mapping[str, WriterState],
    watched: Watched,
    limits: Limits,
) -> list[Fact]:
    """The facts that the transcript service has to add now, by the rules above.

    Args:
        call_sid: The call, one that was watched.
        call: How it stands.
        writers: What the store says of its writers.
        watched: What was seen, up to now.
        limits: How long to wait.
    """
    quiet_s = watched.quiet_s(call_sid)
    if call.awaits_close:
        wait_s = limits.lost_s if call.awaits_stream else limits.grace_s
        if any(_lives(writers.get(writer), watched, limits) for writer in call.unfinished_streams):
            wait_s = MAX_CALL_S
        is_due = quiet_s >= wait_s and watched.at_s >= watched.closes_from_s
        return [_closed(call_sid)] if is_due else []
    if quiet_s >= MAX_CALL_S:
        lost = [*call.open_streams, *call.open_sessions]
    else:
        long_quiet = quiet_s >= limits.lost_s

        def is_lost(writer: str) -> bool:
            return _is_lost(writers.get(writer), watched, limits) or (
                long_quiet and writer in call.gapped
            )

        lost = [writer for writer in call.open_streams if is_lost(writer)]
        nobody_left = len(lost) == len(call.open_streams) and not call.awaits_stream
        lost += [
            writer
            for writer in call.open_sessions
            if is_lost(writer) or (long_quiet and nobody_left)
        ]
    return [_lost(call_sid, writer) for writer in lost]


def _is_lost(state: WriterState | None, watched: Watched, limits: Limits) -> bool:
    """Whether a writer's process is known and lost (rule 1)."""
    return (
        state is not None
        and bool(state.process)
        and watched.silent_s(state.process) >= limits.lost_s
    )


def _lives(state: WriterState | None, watched: Watched, limits: Limits) -> bool:
    """Whether a writer may go on: its process is known and lives, and it has not closed."""
    return (
        state is not None
        and bool(state.process)
        and not state.closed
        and not _is_lost(state, watched, limits)
    )


def _lost(call_sid: str, writer: str) -> Fact:
    # No time of recording: the same fact, whichever service says it.
    name = f"{TRANSCRIPT}lost/{writer}"
    return Fact(call_sid=call_sid, writer=name, sequence=1, writer_lost=WriterLost(writer=writer))


def _closed(call_sid: str) -> Fact:
    return Fact(
        call_sid=call_sid, writer=f"{TRANSCRIPT}closed", sequence=1, call_closed=CallClosed()
    )
