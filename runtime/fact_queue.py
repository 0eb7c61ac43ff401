"""Facts that are not durable yet: which wait, which go into the next request, which are given up.

Pure: what the service answered goes in, what comes next comes out. Its rules:

1. **Bounds.** A fact, a batch and all that is kept are bounded in bytes as well as in number.
   Beyond what may be kept the newest are dropped; their numbers stay missing, and so the transcript
   does not call itself final before the writer counts as lost.
2. **One bad fact stops nobody.** What can never be delivered is given up alone: too large or not
   valid when it is written; or refused by the service. Of a batch that is refused the first half is
   tried, and so on down to one fact. In its place, under its number, goes a small fact that says so
   (``FactDropped``), its stand-in; the rest goes on.

What an answer does (:class:`Verdict`) to the facts of a request:

=========  ========================  ============================  ================================
answer     several                   one on its own                one on its own, a stand-in
=========  ========================  ============================  ================================
TAKEN      durable; twice as many    durable                       durable; what it stands for is
           in the next                                             given up
but for..  a stand-in first          a stand-in first              given up without a word
AWAY       again, after a pause      again, after a pause          again, after a pause
REFUSED    half as many, at once     its stand-in, at once         without a word if others were
                                                                   taken meanwhile; else the fact
                                                                   itself again, after all others
TOO_LARGE  as REFUSED                as REFUSED                    as REFUSED
UNCLEAR    half as many, soon        after all others; as REFUSED  as REFUSED
                                     from the fifth time on
=========  ========================  ============================  ================================
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from asheard.v1 import fact_pb2, ingest_service_pb2

MAX_FACT_BYTES = 256 * 1024
"""The largest fact. Everything that grows with what a peer sends is bounded or split before it is
written, far below this (see ``tests/runtime/test_fact_sizes.py``): a larger one is a fault of
ours."""

MAX_BATCH_FACTS = 1_000
"""In a request; some 130 KB as a rule."""

MAX_BATCH_BYTES = 1024 * 1024
"""Of a request: a quarter of what gRPC servers and proxies take when nobody says otherwise (4 MiB),
a sixteenth of what ours takes. Four of the largest facts."""

MAX_KEPT_FACTS = 200_000
"""While the service is away: an hour of a hundred calls."""

MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Of them: 335 for each of so many, twice the usual. Beside them each fact costs some 150 bytes of
bookkeeping: 95 MB in all, where a gateway's pod may have 512."""

MAX_UNCLEAR_REFUSALS = 5
"""How often a fact is refused on its own, for reasons that may be the service's, before it is given
up; and only if other facts were taken since the first time."""

DROP_REASONS = ("full", "too_large", "invalid", "rejected")
"""Why facts are given up: too many are kept; larger than any message may be; not to be serialised;
refused by the service for good."""


class Verdict(enum.Enum):
    """What the service made of a request that it did not take."""

    AWAY = enum.auto()
    """Nothing is said about the facts: try again after a pause."""
    REFUSED = enum.auto()
    """One of the facts is at fault."""
    TOO_LARGE = enum.auto()
    """The same: its size."""
    UNCLEAR = enum.auto()
    """Some fault of the service's, which one of the facts may cause."""


class Next(enum.Enum):
    """When the next request may be made."""

    AT_ONCE = enum.auto()
    SOON = enum.auto()
    """After the shortest pause: the search for one bad fact should not take long."""
    LATER = enum.auto()
    """After a pause, longer each time."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A fact that is given up, for the log and the metrics."""

    call_sid: str
    writer: str
    sequence: int
    body: str
    """Which field of ``Fact.body``."""
    size_bytes: int
    """0 when it could not be serialised."""
    reason: str | None
    """One of :data:`DROP_REASONS`. None: a stand-in, for which nothing stands in."""
    why: str
    """May quote the service."""


@dataclass(slots=True, eq=False)
class Kept:
    """A fact that is not durable yet."""

    data: bytes
    """An ``AppendFactsRequest`` with this fact and nothing else. Requests of protobuf that are put
    one after another are one request: a batch is made by joining, each fact is serialised once, and
    200,000 that wait take 56 MB instead of the 325 that messages would."""
    posted_at_s: float
    refusals: int = 0
    """How often it was refused on its own."""
    suspected_at: int = 0
    """How many requests had been taken when that first happened."""
    is_stand_in: bool = False
    """It stands in for a fact, and so is not replaced itself."""
    replaced: _Replaced | None = None
    """What it stands in for and has not been given up yet."""


@dataclass(frozen=True, slots=True)
class _Replaced:
    """A fact that is given up as soon as its stand-in is taken."""

    kept: Kept
    reason: str
    why: str


class FactQueue:
    """The facts of a process that are not durable yet, in the order in which they go."""

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._kept_bytes = 0
        self._put_off: set[Kept] = set()
        """Suspects that let others go first; kept as well."""
        self._limit = MAX_BATCH_FACTS
        """For the next request: half as many after each refusal, twice as many after each success.
        So a guilty fact is found within twice ten requests, and many in a row within one or two
        each."""
        self._taken = 0
        """Requests with facts that were taken."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """Size of all that is kept."""
        return self._kept_bytes

    @property
    def fullness(self) -> float:
        """Share of what may be kept: 1 when the next fact is dropped."""
        return max(len(self._kept) / MAX_KEPT_FACTS, self._kept_bytes / MAX_KEPT_BYTES)

    def oldest_s(self, now_s: float) -> float:
        """Age of the oldest fact, in seconds; 0 when there is none."""
        if not self._kept:
            return 0.0
        return now_s - min(kept.posted_at_s for kept in (self._kept[0], *self._put_off))

    def post(
        self,
        call_sid: str,
        writer: str,
        sequence: int,
        body: Mapping[str, Any],
        *,
        recorded_ns: int,
        at_s: float,
    ) -> Loss | None:
        """Keep a fact; of one that can never be delivered, its stand-in.

        Args:
            call_sid: The call.
            writer: As in ``Fact.writer``.
            sequence: Its number.
            body: Exactly one field of ``Fact.body``.
            recorded_ns: Unix time, nanoseconds.
            at_s: On the clock of :meth:`oldest_s`.

        Returns:
            The fact when it is given up; None when it is kept.
        """
        kept, loss = _prepared(call_sid, writer, sequence, body, recorded_ns, at_s)
        if kept is None:
            return loss
        size = len(kept.data)
        if len(self._kept) >= MAX_KEPT_FACTS or self._kept_bytes + size > MAX_KEPT_BYTES:
            (name,) = body
            return Loss(call_sid, writer, sequence, name, size, "full", "too many wait")
        self._kept.append(kept)
        self._kept_bytes += size
        return loss

    def next_batch(self) -> list[Kept]:
        """What goes into the next request, from the oldest; suspects on their own."""
        batch: list[Kept] = []
        size = 0
        for kept in islice(self._kept, self._limit):
            size += len(kept.data)
            if batch and (kept.refusals or size > MAX_BATCH_BYTES):
                break
            batch.append(kept)
            if kept.refusals:
                break
        return batch

    def taken(self, batch: Sequence[Kept], rejected: Mapping[int, str]) -> list[Loss]:
        """The service took a batch, but for what it rejected.

        Args:
            batch: What :meth:`next_batch` gave.
            rejected: Why, by the place in the batch.

        Returns:
            What is given up by that.
        """
        self._limit = min(2 * self._limit, MAX_BATCH_FACTS)
        self._taken += bool(batch)
        for _ in batch:
            self._take_first()
        losses: list[Loss] = []
        for index in range(len(batch) - 1, -1, -1):  # so that stand-ins are in order, too
            kept = batch[index]
            if index not in rejected:
                losses += _losses(kept.replaced)
            elif kept.is_stand_in:
                losses += _unsaid(kept, rejected[index])
            else:
                self._put_first(_stand_in(kept, "rejected"))
                losses += _losses(_Replaced(kept, "rejected", rejected[index]))
        return losses

    def refused(
        self, batch: Sequence[Kept], verdict: Verdict, words: str
    ) -> tuple[Next, list[Loss]]:
        """The service did not take a batch.

        Args:
            batch: What :meth:`next_batch` gave; empty for a sign of life.
            verdict: What it made of it.
            words: The same in words, which do not quote the service.

        Returns:
            When to try again, and what is given up.
        """
        self._limit = max(1, len(batch) // 2)
        if verdict is Verdict.AWAY or not batch:
            return Next.LATER, []
        if len(batch) == 1:
            return self._refused_alone(verdict, words)
        return (Next.SOON if verdict is Verdict.UNCLEAR else Next.AT_ONCE), []

    def _refused_alone(self, verdict: Verdict, words: str) -> tuple[Next, list[Loss]]:
        """The oldest fact was refused on its own: try its stand-in, or all others first."""
        kept = self._take_first()
        if not kept.refusals:
            kept.suspected_at = self._taken
        kept.refusals += 1
        if kept.is_stand_in:
            # It says next to nothing, and is refused like what it stands for.
            if self._taken > kept.suspected_at:
                return Next.AT_ONCE, _unsaid(kept, f"refused: {words}")
            original = kept.replaced.kept if kept.replaced is not None else kept
            original.refusals, original.suspected_at = kept.refusals, kept.suspected_at
            self._put_last(original)
            return Next.LATER, []
        if verdict is Verdict.UNCLEAR and kept.refusals < MAX_UNCLEAR_REFUSALS:
            self._put_last(kept)
            return Next.LATER, []
        stand_in = _stand_in(kept, f"refused: {words}")
        reason = "too_large" if verdict is Verdict.TOO_LARGE else "rejected"
        stand_in.replaced = _Replaced(kept, reason, words)
        stand_in.refusals, stand_in.suspected_at = kept.refusals, kept.suspected_at
        self._put_first(stand_in)
        return Next.AT_ONCE, []

    def _take_first(self) -> Kept:
        kept = self._kept.popleft()
        self._kept_bytes -= len(kept.data)
        self._put_off.discard(kept)
        return kept

    def _put_first(self, kept: Kept) -> None:
        self._kept.appendleft(kept)
        self._kept_bytes += len(kept.data)

    def _put_last(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._kept_bytes += len(kept.data)
        self._put_off.add(kept)


def _prepared(
    call_sid: str,
    writer: str,
    sequence: int,
    body: Mapping[str, Any],
    recorded_ns: int,
    at_s: float,
) -> tuple[Kept | None, Loss | None]:
    """A fact, or the stand-in for one that cannot be delivered and what it stands for; no fact:
    nothing can be delivered under this name."""
    (name,) = body
    dropped = fact_pb2.FactDropped(body=name)
    try:
        data = _serialised(call_sid, writer, sequence, recorded_ns, body)
        if len(data) <= MAX_FACT_BYTES:
            return Kept(data, at_s), None
        reason, dropped.bytes = "too_large", len(data)
        dropped.reason = f"larger than {MAX_FACT_BYTES} bytes"
    except Exception as error:  # its text may quote the fact's
        reason, dropped.reason = "invalid", f"cannot be serialised: {type(error).__name__}"
    loss = Loss(call_sid, writer, sequence, name, dropped.bytes, reason, dropped.reason)
    try:
        data = _serialised(call_sid, writer, sequence, recorded_ns, {"fact_dropped": dropped})
    except Exception:
        return None, loss  # the call's own name is not valid
    return Kept(data, at_s, is_stand_in=True), loss


def _stand_in(kept: Kept, why: str) -> Kept:
    """What says under a fact's number that it was given up."""
    fact = _fact(kept.data)
    body = fact.WhichOneof("body") or ""
    dropped = fact_pb2.FactDropped(body=body, bytes=len(kept.data), reason=why)
    data = _serialised(
        fact.call_sid, fact.writer, fact.sequence, fact.recorded_time.ToNanoseconds(),
        {"fact_dropped": dropped},
    )  # fmt: skip
    return Kept(data, kept.posted_at_s, is_stand_in=True)


def _losses(replaced: _Replaced | None) -> list[Loss]:
    """What a fact stood in for, which is given up now."""
    if replaced is None:
        return []
    return [_loss(replaced.kept, replaced.reason, replaced.why)]


def _unsaid(kept: Kept, why: str) -> list[Loss]:
    """Not even a stand-in can be stored."""
    return [*_losses(kept.replaced), _loss(kept, None, why)]


def _loss(kept: Kept, reason: str | None, why: str) -> Loss:
    fact = _fact(kept.data)
    body = fact.WhichOneof("body") or ""
    return Loss(fact.call_sid, fact.writer, fact.sequence, body, len(kept.data), reason, why)


def _serialised(
    call_sid: str, writer: str, sequence: int, recorded_ns: int, body: Mapping[str, Any]
) -> bytes:
    """A request with one fact in it.

    Raises:
        Exception: Something in it is not what its field takes.
    """
    request = ingest_service_pb2.AppendFactsRequest()
    fact = request.facts.add(call_sid=call_sid, writer=writer, sequence=sequence, **body)
    fact.recorded_time.FromNanoseconds(recorded_ns)
    return request.SerializeToString()


def _fact(data: bytes) -> fact_pb2.Fact:
    """The fact in a request that has one."""
    return ingest_service_pb2.AppendFactsRequest.FromString(data).facts[0]
