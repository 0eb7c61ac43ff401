"""The log of one call: its facts in the one order that everything else relies on.

Facts arrive in any order and more than once. Here they are put into a canonical order, which
depends on the set of facts alone; whatever is folded over that order afterwards cannot depend on
arrival either. The order: gateway writers first, as their media streams followed each other; then
session writers, as they were assigned; the facts of each writer by sequence.

Streams follow each other by the number that the webhook gave them (``CallStarted.stream_number``):
wall clocks of two gateways need not agree. Streams of the same number go by start time, then by
name. A stream without a number (of an older writer) takes its place by its start time: before the
first numbered stream that started later. One that tells neither number nor time comes last.

The transcript service writes too: what only time can tell (a writer that was lost, a call that
ended for good). Those facts are of no stream and no session. Writers of any other kind, which a
newer version may bring, are counted by the revision and otherwise left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asheard.v1.fact_pb2 import CallEnded, CallStarted, Fact

GATEWAY = "gateway/"
SESSION = "session/"
TRANSCRIPT = "transcript/"
_LAST = 1 << 62
"""Sorts what has no known place after all that has one."""


@dataclass(frozen=True, slots=True)
class CallLog:
    """The distinct facts of one call in canonical order."""

    call_sid: str
    streams: dict[str, tuple[Fact, ...]]
    """Facts of each gateway writer by sequence; the writers in the order of their streams."""

    sessions: dict[str, tuple[Fact, ...]]
    """Facts of each session writer by sequence; the writers in the order of their assignment. A
    session that was assigned and wrote nothing yet is here with no facts."""

    stream_of_session: dict[str, int]
    """On which stream, as an index into ``streams``, a session's times count."""

    lost: frozenset[str]
    """Writers of which no more facts are to be expected: sessions whose link broke, as a gateway
    says, and any writer whose process is gone, as the transcript service says."""

    closed: bool
    """No new media stream is to be expected, as the transcript service says."""

    revision: int
    """How many distinct facts there are."""


def call_log(facts: Iterable[Fact]) -> CallLog:
    """Sort the facts of one call.

    Raises:
        ValueError: There are no facts, or facts of several calls.
    """
    distinct: dict[tuple[str, int], Fact] = {}
    call_sids: set[str] = set()
    for fact in facts:
        call_sids.add(fact.call_sid)
        key = (fact.writer, fact.sequence)
        known = distinct.get(key)
        # The store refuses a second body under one number. Should one be handed in all the same,
        # the choice must not depend on which came first.
        if known is None or (known != fact and _bytes(fact) < _bytes(known)):
            distinct[key] = fact
    if len(call_sids) != 1:
        raise ValueError(f"facts must be of one call, got facts of {len(call_sids)} calls")

    writers: dict[str, list[Fact]] = {}
    for (writer, _), fact in sorted(distinct.items(), key=lambda entry: entry[0]):
        writers.setdefault(writer, []).append(fact)
    streams = _in_order({w: tuple(f) for w, f in writers.items() if w.startswith(GATEWAY)})
    assignments = _assignments(streams)
    names = {writer for writer in (*writers, *assignments) if writer.startswith(SESSION)}
    unassigned = (max(len(streams) - 1, 0), _LAST)
    sessions = sorted(names, key=lambda name: (assignments.get(name, unassigned), name))
    spoken = [fact for w, facts in writers.items() if w.startswith(TRANSCRIPT) for fact in facts]
    return CallLog(
        call_sid=call_sids.pop(),
        streams=streams,
        sessions={name: tuple(writers.get(name, ())) for name in sessions},
        stream_of_session={name: assignments.get(name, unassigned)[0] for name in sessions},
        lost=frozenset(
            {fact.writer_lost.writer for fact in spoken if fact.HasField("writer_lost")}
            | _lost_sessions(streams)
        ),
        closed=any(fact.HasField("call_closed") for fact in spoken),
        revision=len(distinct),
    )


def call_started(facts: Iterable[Fact]) -> CallStarted | None:
    """The opening fact of a stream, if it arrived."""
    for fact in facts:
        if fact.WhichOneof("body") == "call_started":
            return fact.call_started
    return None


def call_ended(facts: Iterable[Fact]) -> CallEnded | None:
    """The closing fact of a stream, if it arrived."""
    for fact in facts:
        if fact.WhichOneof("body") == "call_ended":
            return fact.call_ended
    return None


def _in_order(streams: dict[str, tuple[Fact, ...]]) -> dict[str, tuple[Fact, ...]]:
    """Streams as they followed each other; see the rules above."""
    numbered: list[tuple[int, tuple[int, int], str]] = []
    unnumbered: list[tuple[tuple[int, int], str]] = []
    for writer, facts in streams.items():
        started = call_started(facts)
        time = (_LAST, 0)
        if started is not None and started.HasField("start_time"):
            time = (started.start_time.seconds, started.start_time.nanos)
        if started is not None and started.stream_number > 0:
            numbered.append((started.stream_number, time, writer))
        else:
            unnumbered.append((time, writer))
    order: list[str] = []
    waiting = sorted(unnumbered, reverse=True)
    for _, time, writer in sorted(numbered):
        while waiting and time[0] != _LAST and waiting[-1][0] < time:
            order.append(waiting.pop()[1])
        order.append(writer)
    order += [writer for _, writer in reversed(waiting)]
    return {writer: streams[writer] for writer in order}


def _assignments(streams: dict[str, tuple[Fact, ...]]) -> dict[str, tuple[int, int]]:
    """For each assigned session: the first stream that assigned it, and at which sequence."""
    places: dict[str, tuple[int, int]] = {}
    for index, facts in enumerate(streams.values()):
        for fact in facts:
            if fact.WhichOneof("body") == "session_assigned":
                places.setdefault(fact.session_assigned.session_writer, (index, fact.sequence))
    return places


def _lost_sessions(streams: dict[str, tuple[Fact, ...]]) -> set[str]:
    """Sessions of which a gateway says that no more is to be expected."""
    return {
        fact.session_lost.session_writer
        for facts in streams.values()
        for fact in facts
        if fact.WhichOneof("body") == "session_lost"
        and fact.session_lost.session_writer.startswith(SESSION)
    }


def _bytes(fact: Fact) -> bytes:
    return fact.SerializeToString(deterministic=True)
