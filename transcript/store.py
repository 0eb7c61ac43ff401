"""What a store of facts owes the service.

Rules:

1. Facts are only ever added. A call's facts have positions 1, 2, 3 … in the order in which they
   were stored; the highest is the call's revision. So "what is new since revision r" is one read.
2. When :meth:`Store.append` returns, its facts are durable. A repeat of a stored fact adds nothing;
   another fact under the number of a stored one is a conflict and is not stored.
3. The index of calls is a cache of what the join says of them. It knows up to which revision it
   holds, so an old entry is known as such, after a crash too. Facts that change nothing in it (all
   but :data:`LISTED`) leave it as new as it was, or each list would join every call under way.
4. A call that was made final stays final: whatever comes after is thrown away, of known writers and
   of new ones. Whether it is made final or takes one more fact is decided by one row, which both
   have to hold; so there is no moment between, with several services either.
5. Nothing is left of a deleted call but a digest of its id, by which late facts are known and
   thrown away.
6. What one call may hold is bounded, in facts, bytes and writers. Beyond, facts are thrown away,
   but for those that close a writer, so that the call can end.
7. A fact that the database cannot take is refused alone; what was handed in beside it is stored.
8. Which process a writer belongs to is stored with its first fact, and a process's signs of life
   are stored within seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import Unavailable


class StoreOverloaded(Unavailable):
    """Too much waits to be stored already. The store works."""


class Outcome(enum.Enum):
    """What became of one fact."""

    STORED = "stored"
    REPEATED = "repeated"
    """It was there already."""
    CONFLICTING = "conflicting"
    """Another fact has its number: a bug of its writer. Not stored."""
    DISCARDED = "discarded"
    """Its call was deleted. Thrown away, as it should be."""
    LATE = "late"
    """Its call was final (rule 4). Thrown away, as it should be."""
    SURPLUS = "surplus"
    """Its call holds as much as a call may (rule 6). Thrown away."""
    UNSTORABLE = "unstorable"
    """The database cannot take it (rule 7). Not stored."""


MAX_CALL_FACTS = 100_000
"""Facts of one call. The busiest day there can be, 28 for every 20 seconds, has 121,000; a
call of four hours, beyond which Twilio ends it unless told otherwise, has 20,000."""

MAX_CALL_BYTES = 32 * 1024 * 1024
"""Bytes of one call's facts: 335 each, for as many as there may be."""

MAX_CALL_WRITERS = 200
"""Writers of one call: a media stream and a session for each time that it was continued."""

CLOSING = frozenset({"call_ended", "session_ended"})
"""Facts that close a writer. They are taken beyond the bounds, twice for each writer."""


LISTED = frozenset(
    {
        "call_started",
        "session_assigned",
        "session_lost",
        "session_ended",
        "call_ended",
        "fact_dropped",
        "writer_lost",
        "call_closed",
    }
)
"""Facts that change what the list of calls shows. Once all writers of a call have closed, any may:
it may be the one that was missing."""


def closes(fact: Fact) -> bool:
    """Whether a fact closes its writer, be it that it had to be given up."""
    body = fact.WhichOneof("body")
    return (fact.fact_dropped.body if body == "fact_dropped" else body) in CLOSING


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """Facts of one call after some position."""

    revision: int
    """Position of the last fact of the call."""
    indexed: int
    """Revision up to which the call's entry in the index holds."""
    facts: tuple[Fact, ...]
    final: bool = False
    """Whether the call was made final (rule 4)."""


@dataclass(frozen=True, slots=True)
class WriterState:
    """A writer of an open call."""

    process: str
    """"" when it did not say."""
    closed: bool
    """Whether its closing fact was stored; facts before it may still be missing."""


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that is not final."""

    call_sid: str
    revision: int
    writers: Mapping[str, WriterState]
    """Those of which anything was stored since stores know about it."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list of calls: right after this call."""

    start_us: int
    call_sid: str


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls to list, newest first. None, and "" for the number, mean any."""

    limit: int
    started_after_us: int | None = None
    """Calls that started at or after this, in microseconds since 1970. A call whose start is not
    known yet counts as the newest."""
    started_before_us: int | None = None
    number: str = ""
    """From or to exactly this number."""
    state: CallState.ValueType | None = None
    after: Cursor | None = None
    """Only calls that the list has after this."""


class Store(Protocol):
    """A durable store of facts. Every method raises ``Unavailable`` while it cannot be reached."""

    shared: bool
    """Whether other processes may append to it, so that a watcher has to look for itself."""

    async def append(self, facts: Sequence[Fact], process: str = "") -> list[Outcome]:
        """Store facts; what became of each, in their order. Durable on return.

        Args:
            facts: Of any number of calls.
            process: Which process writes them; "" when it does not say.
        """
        ...

    async def add(self, facts: Sequence[Fact], revision: int) -> bool:
        """Store facts of the service itself, of one call, about what is known at ``revision``.

        Returns:
            False, and nothing is written, when the call is at another revision by now, or final.
        """
        ...

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        """Read the facts of a call at positions after ``after``.

        Raises:
            NotFound: Nothing is stored about the call.
        """
        ...

    async def index(self, summary: CallSummary, revision: int) -> bool:
        """Write a call's entry in the index. ``summary.final`` makes the call final (rule 4).

        Returns:
            False, and nothing is written, when the call is at another revision by now, or is final
            and this entry does not say so.
        """
        ...

    async def open_calls(self) -> list[OpenCall]:
        """All calls that are not final."""
        ...

    async def processes(self) -> dict[str, int]:
        """When each process last gave a sign of life, in µs since 1970 by the database's clock.

        To be compared with what was read before, and with no other clock.
        """
        ...

    async def forget_processes(self, seen_us: Mapping[str, int]) -> None:
        """Forget these processes, unless one gave a sign of life since."""
        ...

    async def unindexed(self) -> list[str]:
        """Calls whose entry in the index does not hold any more."""
        ...

    async def calls(self, query: CallQuery) -> list[CallSummary]:
        """List calls as indexed, newest first."""
        ...

    async def delete(self, call_sid: str) -> None:
        """Forget everything about a call (rule 5).

        Raises:
            NotFound: Nothing is stored about the call.
        """
        ...

    async def check(self, alive: Collection[str] = ()) -> None:
        """Write and commit, then read; return when that worked.

        Args:
            alive: Processes that gave a sign of life: that is what is written.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked for, and let go of the database."""
        ...


UNKNOWN_START_US = 1 << 62
"""Sorts a call whose start is not known yet as the newest."""


def start_us(summary: CallSummary) -> int:
    """When a call started, in microseconds since 1970, as the index sorts it."""
    if not summary.HasField("start_time"):
        return UNKNOWN_START_US
    return summary.start_time.seconds * 1_000_000 + summary.start_time.nanos // 1_000
