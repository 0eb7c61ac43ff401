"""The log of one call: its facts in the one order that everything else relies on.

Facts arrive in any order and more than once. Here they are put into a canonical order, which
depends on the set of facts alone; whatever is folded over that order afterwards cannot depend on
arrival either. The order: gateway writers first, as their media streams started; then session
writers, as they were assigned; the facts of each writer by sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asheard.v1.fact_pb2 import CallEnded, CallStarted, Fact

GATEWAY = "gateway/"
SESSION = "session/"
_LAST = 1 << 62
"""Sorts what has no known place behind all that has one."""


@dataclass(frozen=True, slots=True)
class CallLog:
    """The distinct facts of one call in canonical order."""

    call_sid: str
    streams: dict[str, tuple[Fact, ...]]
    """Facts of each gateway writer by sequence; the writers in the order their streams started."""

    sessions: dict[str, tuple[Fact, ...]]
    """Facts of each session writer by sequence; the writers in the order of their assignment. A
    session that was assigned and wrote nothing yet is here with no facts."""

    stream_of_session: dict[str, int]
    """On which stream, as an index into ``streams``, a session's times count."""

    revision: int
    """How many distinct facts there are."""

    @property
    def facts(self) -> Iterator[Fact]:
        """All facts in canonical order."""
        for writers in (self.streams, self.sessions):
            for facts in writers.values():
                yield from facts

    @property
    def lost_sessions(self) -> set[str]:
        """Session writers of which a gateway says that no more is to be expected."""
        return {
            fact.session_lost.session_writer
            for facts in self.streams.values()
            for fact in facts
            if fact.WhichOneof("body") == "session_lost"
        }


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
    streams = {
        writer: tuple(facts)
        for writer, facts in sorted(writers.items(), key=_stream_order)
        if writer.startswith(GATEWAY)
    }
    assignments = _assignments(streams)
    names = {writer for writer in writers if not writer.startswith(GATEWAY)} | set(assignments)
    last_stream = max(len(streams) - 1, 0)
    unassigned = (last_stream, _LAST)
    sessions = sorted(names, key=lambda name: (assignments.get(name, unassigned), name))
    return CallLog(
        call_sid=call_sids.pop(),
        streams=streams,
        sessions={name: tuple(writers.get(name, ())) for name in sessions},
        stream_of_session={name: assignments.get(name, unassigned)[0] for name in sessions},
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


def _stream_order(entry: tuple[str, list[Fact]]) -> tuple[int, int, str]:
    writer, facts = entry
    started = call_started(facts)
    if started is None or not started.HasField("start_time"):
        return _LAST, 0, writer
    return started.start_time.seconds, started.start_time.nanos, writer


def _assignments(streams: dict[str, tuple[Fact, ...]]) -> dict[str, tuple[int, int]]:
    """For each assigned session: the first stream that assigned it, and at which sequence."""
    places: dict[str, tuple[int, int]] = {}
    for index, facts in enumerate(streams.values()):
        for fact in facts:
            if fact.WhichOneof("body") == "session_assigned":
                places.setdefault(fact.session_assigned.session_writer, (index, fact.sequence))
    return places


def _bytes(fact: Fact) -> bytes:
    return fact.SerializeToString(deterministic=True)
