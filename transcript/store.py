"""What a store of facts owes the service.

Rules:

1. Facts are only ever added. A call's facts have positions 1, 2, 3 … in the order in which they
   were stored; the highest is the call's revision. So "what is new since revision r" is one read.
2. When :meth:`Store.append` returns, its facts are durable. A repeat of a stored fact adds nothing;
   another fact under the number of a stored one is a conflict and is not stored.
3. The index of calls is a cache of what the join says of them. It knows at which revision it was
   made, so whoever lists calls can bring it up to date first, after a crash too.
4. Once a call is final its writers are sealed: a straggler of theirs is thrown away, so that final
   stays true. A new media stream is a new writer and opens the call again.
5. A deleted call leaves nothing behind but a digest of its id, by which late facts are known and
   thrown away.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import CallSummary


class Outcome(enum.Enum):
    """What became of one fact."""

    STORED = "stored"
    REPEATED = "repeated"
    """It was there already."""
    CONFLICTING = "conflicting"
    """Another fact has its number: a bug of its writer. Not stored."""
    DISCARDED = "discarded"
    """Its call was deleted, or was final for its writer. Thrown away, as it should be."""


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """Facts of one call behind some position."""

    revision: int
    """Position of the last fact of the call."""
    indexed: int
    """Revision at which the call's entry in the index was made."""
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list of calls: right behind this call."""

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
    behind: Cursor | None = None


class Store(Protocol):
    """A durable store of facts. Every method raises ``Unavailable`` while it cannot be reached."""

    shared: bool
    """Whether other processes may append to it, so that a watcher has to look for itself."""

    async def append(self, facts: Sequence[Fact]) -> list[Outcome]:
        """Store facts; what became of each, in their order. Durable on return."""
        ...

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        """Read the facts of a call at positions behind ``after``.

        Raises:
            NotFound: Nothing is stored about the call.
        """
        ...

    async def index(self, summary: CallSummary, revision: int, sealed: Collection[str]) -> bool:
        """Write a call's entry in the index, and seal these writers (rule 4).

        Returns:
            False, and nothing is written, when the call is at another revision by now.
        """
        ...

    async def unindexed(self) -> list[str]:
        """Calls whose index entry is older than their facts."""
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

    async def check(self) -> None:
        """Return when the store can read and write."""
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
