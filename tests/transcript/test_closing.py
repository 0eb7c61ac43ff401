"""Which facts only time can tell, and when: a table of cases (unit)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from asheard.v1.fact_pb2 import (
    CallEnded,
    CallOutcome,
    CallStarted,
    Fact,
    SessionAssigned,
    SessionEnded,
    SessionLost,
    SessionStarted,
)
from tests.transcript.call_facts import Writer
from transcript.closing import MAX_CALL_S, Limits, Watched, due, may_be_due, standing, watch
from transcript.join.log import call_log
from transcript.store import WriterState, closes

LIMITS = Limits(grace_s=30, lost_s=90, away_s=15)
DROPPED = CallOutcome.CALL_OUTCOME_DROPPED
COMPLETED = CallOutcome.CALL_OUTCOME_COMPLETED


def stream(
    name: str = "MZ1",
    *,
    assigned: str | None = "1",
    lost: str | None = None,
    outcome: CallOutcome.ValueType | None = None,
    gap: bool = False,
) -> list[Fact]:
    """A gateway's facts of one media stream."""
    writer = Writer("CA1", f"gateway/{name}")
    writer.write(call_started=CallStarted(stream_sid=name, stream_number=int(name[2:])))
    if assigned is not None:
        writer.write(session_assigned=SessionAssigned(session_writer=f"session/{assigned}"))
    if lost is not None:
        writer.write(session_lost=SessionLost(session_writer=f"session/{lost}"))
    if gap:
        writer.write(session_lost=SessionLost(session_writer="session/x"))
    if outcome is not None:
        writer.write(call_ended=CallEnded(outcome=outcome))
    return [fact for fact in writer.facts if not (gap and fact.sequence == len(writer.facts) - 1)]


def session(name: str = "1", *, ended: bool = False) -> list[Fact]:
    """A worker's facts of one session."""
    writer = Writer("CA1", f"session/{name}")
    writer.write(session_started=SessionStarted())
    if ended:
        writer.write(session_ended=SessionEnded())
    return writer.facts


@dataclass(frozen=True)
class Case:
    name: str
    facts: list[Fact]
    quiet_s: float
    silent_s: dict[str, float]
    """For how long each process gave no sign of life."""
    due: list[str] = field(default_factory=list)
    """Writers of the facts that have to be added."""
    process: dict[str, str] = field(default_factory=lambda: {"gateway": "g", "session": "s"})
    """Of each kind of writer."""


CLOSED = "transcript/closed"
LOST_STREAM = "transcript/lost/gateway/MZ1"
LOST_SESSION = "transcript/lost/session/1"
ALIVE = {"g": 0.0, "s": 0.0}

CASES = [
    Case("under way", stream() + session(), 0, ALIVE),
    Case("both are silent for an hour", stream() + session(), 3600, ALIVE),
    Case("hung up", stream(outcome=COMPLETED) + session(ended=True), 29, ALIVE),
    Case("dropped just now", stream(outcome=DROPPED) + session(ended=True), 29, ALIVE),
    Case("dropped, no new stream", stream(outcome=DROPPED) + session(ended=True), 30, ALIVE,
         [CLOSED]),
    Case("dropped, the gateway died too", stream(outcome=DROPPED) + session(ended=True), 30,
         {"g": 500, "s": 0}, [CLOSED]),
    Case("dropped, and the next stream is open",
         stream(outcome=DROPPED) + session(ended=True) + stream("MZ2", assigned=None), 3600, ALIVE),
    Case("gateway killed, not yet lost", stream() + session(ended=True), 85, {"g": 89, "s": 0}),
    Case("gateway lost", stream() + session(ended=True), 85, {"g": 90, "s": 0}, [LOST_STREAM]),
    Case("gateway lost, the session goes on", stream() + session(), 0, {"g": 90, "s": 0},
         [LOST_STREAM]),
    Case("gateway lost, the session long quiet", stream() + session(), 90, {"g": 90, "s": 0},
         [LOST_STREAM, LOST_SESSION]),
    Case("worker lost, the gateway does not say so", stream() + session(), 0, {"g": 0, "s": 90},
         [LOST_SESSION]),
    Case("worker lost, the gateway says so", stream(lost="1") + session(), 500, {"g": 0, "s": 90}),
    Case("both lost", stream() + session(), 90, {"g": 90, "s": 95}, [LOST_STREAM, LOST_SESSION]),
    Case("stream ended, its session never wrote", stream(outcome=COMPLETED), 89, ALIVE),
    Case("stream ended, its session will not write", stream(outcome=COMPLETED), 90, ALIVE,
         [LOST_SESSION]),
    Case("stream ended, its living worker forgot the session", stream(outcome=COMPLETED) + session(),
         90, ALIVE, [LOST_SESSION]),
    Case("stream open, its session did not write yet", stream(), 3600, {"g": 0}),
    Case("gateway lost, its session never wrote", stream(), 89, {"g": 90}, [LOST_STREAM]),
    Case("a gap before the end may still be filled",
         stream(outcome=COMPLETED, gap=True) + session(ended=True), 89, ALIVE),
    Case("a gap before the end stays", stream(outcome=COMPLETED, gap=True) + session(ended=True),
         90, ALIVE, [LOST_STREAM]),
    Case("no stream is known, and nobody is lost", session(), 3600, {"s": 0}),
    Case("no stream is known, the worker is lost", session(), 90, {"s": 90}, [LOST_SESSION]),
    Case("no stream is known, the session ended", session(ended=True), 89, {"s": 0}),
    Case("no stream came in time", session(ended=True), 90, {"s": 0}, [CLOSED]),
    Case("writers without a process are not lost by the clock", stream() + session(), 80_000, {},
         process={}),
    Case("but after a day", stream() + session(), MAX_CALL_S, {},
         [LOST_STREAM, LOST_SESSION], process={}),
    Case("and so are living ones", stream() + session(), MAX_CALL_S, ALIVE,
         [LOST_STREAM, LOST_SESSION]),
]  # fmt: skip


def watched(case: Case) -> Watched:
    """As if everything had stood still for so long."""
    now = 1_000_000.0
    seen = watch(None, 0.0, {}, {}, LIMITS)  # a new store
    for age_s in sorted({case.quiet_s, *case.silent_s.values(), 0.0}, reverse=True):
        calls = {"CA1": 1 if case.quiet_s >= age_s else 0}
        processes = {name: 1 if silent >= age_s else 0 for name, silent in case.silent_s.items()}
        seen = watch(seen, now - age_s, calls, processes, Limits(30, 90, away_s=1e9))
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_due(case: Case) -> None:
    seen = watched(case)
    assert seen.quiet_s("CA1") == case.quiet_s
    writers: dict[str, WriterState] = {}
    for fact in case.facts:
        process = case.process.get(fact.writer.partition("/")[0], "")
        closed = closes(fact) or (fact.writer in writers and writers[fact.writer].closed)
        writers[fact.writer] = WriterState(process, closed)
    call = standing(call_log(case.facts))
    facts = due("CA1", call, writers, seen, LIMITS)
    assert [fact.writer for fact in facts] == case.due
    if facts:
        # Nothing is due of a call that would not be looked at.
        assert may_be_due(writers, case.quiet_s, seen, LIMITS)
        # And once it is said, it is not said again: only the end of the call may be left.
        rest = due("CA1", standing(call_log(case.facts + facts)), writers, seen, LIMITS)
        assert {fact.writer for fact in rest} <= {CLOSED} - set(case.due)


def test_a_stream_that_was_lost_and_lives_again_is_not_closed_over() -> None:
    facts = stream() + session(ended=True)
    writers = {
        "gateway/MZ1": WriterState("g", closed=False),
        "session/1": WriterState("s", closed=True),
    }
    gone = watched(Case("", facts, 90, {"g": 90, "s": 0}))
    (lost,) = due("CA1", standing(call_log(facts)), writers, gone, LIMITS)
    call = standing(call_log([*facts, lost]))
    back = watched(Case("", facts, 40, {"g": 5, "s": 0}))
    assert due("CA1", call, writers, back, LIMITS) == []
    still_gone = watched(Case("", facts, 40, {"g": 130, "s": 0}))
    assert [fact.writer for fact in due("CA1", call, writers, still_gone, LIMITS)] == [CLOSED]


def test_nobody_is_silent_longer_than_one_has_watched() -> None:
    seen = watch(None, 5_000.0, {"CA1": 7}, {"g": 123}, LIMITS)
    assert (seen.quiet_s("CA1"), seen.silent_s("g")) == (0, 0)
    for now in (5_010.0, 5_020.0, 5_030.0):
        seen = watch(seen, now, {"CA1": 7}, {"g": 123}, LIMITS)
    assert (seen.quiet_s("CA1"), seen.silent_s("g")) == (30, 30)
    # Away for a minute (stopped, or without its store): whatever happened meanwhile was not seen.
    seen = watch(seen, 5_090.0, {"CA1": 7}, {"g": 123}, LIMITS)
    assert (seen.quiet_s("CA1"), seen.silent_s("g")) == (0, 0)


def test_nothing_is_closed_before_those_that_kept_facts_had_time_to_deliver_them() -> None:
    facts = stream(outcome=DROPPED) + session(ended=True)
    call = standing(call_log(facts))
    for processes, closed_at in (({}, 30), ({"transcript/own": 1}, 30), ({"g": 1}, 90)):
        seen = None
        for now in range(0, 100, 10):
            seen = watch(seen, now, {"CA1": 5}, processes, LIMITS)
            assert bool(due("CA1", call, {}, seen, LIMITS)) == (now >= closed_at)


def test_clocks_may_jump() -> None:
    """Signs of life are compared with nothing but the one before, whichever way they go."""
    seen = watch(None, 0.0, {}, {"g": 1_000_000}, LIMITS)
    seen = watch(seen, 10.0, {}, {"g": 5}, LIMITS)  # the database's clock was set back
    assert seen.silent_s("g") == 0
    seen = watch(seen, 20.0, {}, {"g": 5}, LIMITS)
    assert seen.silent_s("g") == 10
    assert seen.silent_s("unknown") == 0
