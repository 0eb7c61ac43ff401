"""The outbox that brings a call's facts to the transcript service.

A writer numbers its facts as it writes them and never waits: audio must not wait for a database.
The outbox sends what it has in batches across calls, one batch at a time and so in order, and
keeps everything until the service says that it is durable. Rules:

1. **Bounds.** A fact, a batch and all that is kept are bounded in bytes as well as in number. Beyond
   what may be kept the newest are dropped and counted; their numbers stay missing, and so the
   transcript does not call itself final before the writer counts as lost.
2. **One bad fact stops nobody.** What can never be delivered is given up alone: too large or not
   valid when it is written; or refused by the service. Of a batch that is refused the first half is
   tried, and so on down to one fact. In its place, under its number, goes a small fact that says so
   (``FactDropped``); the rest goes on.
3. **Whose fault.** A service that is away, behind, does not know us or is no ingest service refuses
   everybody: nothing is given up for that. A refusal that says that the request is wrong is the
   facts'. An error that may be either's is tried by experiment: such a fact is the guilty one when it
   was refused several times on its own while others were taken.
4. **The delivery never ends.** Whatever is raised in it counts as an error of rule 3.
5. **A sign of life.** Something is sent at least every ten seconds, if only an empty request: a
   process that is not heard of is taken for dead, and its calls' transcripts are closed without it.
"""

from __future__ import annotations

import asyncio
import enum
import random
import time
import uuid
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Gauge

from asheard.v1 import fact_pb2, ingest_service_pb2
from runtime.credentials import Credentials
from runtime.log import get_log
from runtime.rpc import Connection

log = get_log(__name__)

LINGER_S = 0.05
"""How long the first fact after a pause waits for company: one event of a call makes several."""

BUSY_S = 0.25
"""Requests are at least so far apart. Whoever watches a call reads no faster than that, and each
request costs the database a flush to its disk: at a hundred calls, 4 a second instead of 20."""

HEARTBEAT_S = 10.0
"""A request at least this often. The service takes a process for dead after nine of them."""

MAX_FACT_BYTES = 256 * 1024
"""The largest fact. Everything that grows with what a peer sends is bounded or split before it is
written, far below this (see ``tests/runtime/test_fact_sizes.py``): a larger one is a fault of ours."""

BATCH_FACTS = 1_000
"""The most facts in a request; some 130 KB as a rule."""

BATCH_BYTES = 1024 * 1024
"""The most bytes in a request: a quarter of what gRPC servers and proxies take when nobody says
otherwise (4 MiB), a sixteenth of what ours takes. Four of the largest facts."""

KEPT_FACTS = 200_000
"""The most facts kept while the service is away: an hour of a hundred calls."""

KEPT_BYTES = 64 * 1024 * 1024
"""The most bytes of them: 335 for each of so many, twice the usual. Beside them each fact costs some
150 bytes of bookkeeping: 95 MB in all, where a gateway's pod may have 512."""

ALMOST_FULL = 0.75
"""Share of what may be kept above which a process says that it wants no new calls. What is left is a
quarter of an hour for those that are under way."""

REFUSALS = 5
"""How often a fact is refused on its own, for reasons that may be the service's, before it is given
up; and only if other facts were taken since the first time."""

_SURELY_SMALL_BYTES = 64 * 1024
"""No limit of size is as low as this: a smaller fact is not refused for being large."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_HURRIED_RETRY_S = 0.25
"""The longest pause while somebody waits for the last facts before the process ends."""
_DEADLINE_S = 10.0
"""A request that takes longer is sent again: the service may have died with it."""

_SAID_AGAIN_S = 60.0
"""A trouble that lasts is logged this often."""

_APPEND = "/asheard.v1.IngestService/AppendFacts"

DROP_REASONS = ("full", "too_large", "invalid", "rejected")
"""Why facts are given up: too many are kept; larger than any message may be; not to be serialised;
refused by the service for good."""

_NOBODYS_FAULT = {
    grpc.StatusCode.UNAVAILABLE: "away",
    grpc.StatusCode.CANCELLED: "away",
    grpc.StatusCode.ABORTED: "away",
    grpc.StatusCode.DEADLINE_EXCEEDED: "behind",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "behind",
    grpc.StatusCode.UNAUTHENTICATED: "shut out",
    grpc.StatusCode.PERMISSION_DENIED: "shut out",
    grpc.StatusCode.UNIMPLEMENTED: "no ingest service",
}
"""Statuses that say nothing about the facts in the request."""

_FACTS_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
"""Statuses that do: sending the same again is useless."""

_TOO_LARGE = ("larger than max", "too large", "exceeds maximum", "exceeds the maximum")
"""How gRPC's implementations and proxies word a limit of size, which has no status of its own."""


class Append(Protocol):
    """Sends a serialised ``AppendFactsRequest``."""

    async def __call__(self, request: bytes) -> ingest_service_pb2.AppendFactsResponse: ...


class FactWriter:
    """Writes the facts of one writer in one call, numbered from 1."""

    def __init__(self, outbox: FactOutbox, call_sid: str, writer: str) -> None:
        self._outbox = outbox
        self._sequence = 0
        self.call_sid = call_sid
        self.writer = writer
        """Name of the writer, as in ``Fact.writer``."""
        self.closed = False
        """Whether its closing fact is written: without one, no transcript of the call is ever final."""

    @property
    def begun(self) -> bool:
        """Whether it has written anything."""
        return self._sequence > 0

    def write(self, **body: Any) -> None:
        """Number, date and post one fact: ``write(item_deleted=fact_pb2.ItemDeleted(...))``.

        Never waits, and never raises for a service that is away or a fact that cannot be delivered.

        Args:
            body: Exactly one field of ``Fact.body``.
        """
        if len(body) != 1:
            raise AssertionError("a fact has exactly one body")
        self._sequence += 1
        self._outbox.post(self.call_sid, self.writer, self._sequence, body)
        if "call_ended" in body or "session_ended" in body:
            self.closed = True


@dataclass(slots=True, eq=False)
class _Kept:
    """A fact that is not durable yet."""

    data: bytes
    """An ``AppendFactsRequest`` with this fact and nothing else. Requests of protobuf that are put
    behind one another are one request: a batch is made by joining, each fact is serialised once, and
    200,000 that wait take 56 MB instead of the 325 that messages would."""
    posted_at: float
    """On the monotonic clock."""
    refusals: int = 0
    """How often it was refused on its own."""
    suspected_at: int = 0
    """How many requests had been taken when that first happened."""
    instead_of: _GivenUp | None = None
    """It stands in for a fact that was refused."""
    stands_in: bool = False
    """It stands in for a fact, and so is not replaced itself."""


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """A fact that is given up as soon as what stands in for it is taken."""

    kept: _Kept
    reason: str
    """One of `DROP_REASONS`."""
    why: str
    """For the log; may quote the service."""


class _Verdict(enum.Enum):
    TAKEN = enum.auto()
    AWAY = enum.auto()
    """Nothing is said about the facts: try again after a pause."""
    REFUSED = enum.auto()
    """One of the facts is at fault."""
    TOO_LARGE = enum.auto()
    """The same: its size."""
    UNCLEAR = enum.auto()
    """Some fault of the service's, which one of the facts may cause."""


class FactOutbox:
    """Delivers facts to the transcript service, at least once and in order per writer.

    Args:
        target: gRPC target of the ingest service.
        registry: Where its metrics go.
        credentials: What this writer proves itself with; None: nothing.
        append: Sends a request. None: gRPC to ``target``.
    """

    def __init__(
        self,
        target: str,
        registry: CollectorRegistry,
        credentials: Credentials | None = None,
        *,
        append: Append | None = None,
    ) -> None:
        self._target = target
        self._credentials = credentials or Credentials()
        self._append = append
        self.process = uuid.uuid4().hex
        """Names this outbox for as long as it lives, as in ``AppendFactsRequest.process``."""
        self._sign_of_life = ingest_service_pb2.AppendFactsRequest(
            process=self.process
        ).SerializeToString()
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._full = False
        """Facts are being dropped, and it was said."""
        self._put_off: set[_Kept] = set()
        """Suspects that let others go first; kept as well."""
        self._limit = BATCH_FACTS
        """The most facts in the next request: half as many after each refusal, twice as many after
        each success. So a guilty fact is found within twice ten requests, and many one behind another
        within one or two each."""
        self._taken = 0
        """Requests with facts that were taken."""
        self._answered = False
        """Whether any request was ever taken."""
        self._sent_at = float("-inf")
        self._retry_s = _FIRST_RETRY_S
        self._trouble: tuple[str, str] | None = None
        """Why the last request was not taken: what kind of reason, and in words."""
        self._said_at = float("-inf")
        self._posted = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._flushing = 0
        self._hurry = asyncio.Event()
        """Somebody waits for everything to be durable."""
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._delivered = Counter(
            "asheard_facts_delivered_total", "Facts the transcript service made durable.",
            registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "asheard_facts_dropped_total",
            "Facts given up: refused for good, too large, not valid, or too many while the "
            "transcript service was away.",
            ["reason"],
            registry=registry,
        )
        for reason in DROP_REASONS:
            self._dropped.labels(reason)
        pending = Gauge("asheard_facts_pending", "Facts not yet durable.", registry=registry)
        pending.set_function(lambda: len(self._kept))
        pending_bytes = Gauge(
            "asheard_facts_pending_bytes", "Size of the facts not yet durable.", registry=registry
        )
        pending_bytes.set_function(lambda: self._kept_bytes)
        oldest = Gauge(
            "asheard_facts_oldest_seconds",
            "Age of the oldest fact that is not yet durable; 0 when all are.",
            registry=registry,
        )
        oldest.set_function(self.oldest_s)

    async def start(self) -> None:
        """Begin to deliver. The transcript service need not be there yet."""
        if self._append is None:
            self._connection = Connection(self._target, self._credentials)
            self._append = _appending(self._connection, self._credentials)
        self._task = asyncio.create_task(self._deliver(self._append), name="facts outbox")

    def writer(self, call_sid: str, writer: str) -> FactWriter:
        """A writer for one stream or session of a call; ``writer`` is unique within the call."""
        return FactWriter(self, call_sid, writer)

    def post(self, call_sid: str, writer: str, sequence: int, body: dict[str, Any]) -> None:
        """Keep a numbered fact for delivery; one that can never be delivered is replaced here.

        Args:
            call_sid: The call.
            writer: As in ``Fact.writer``.
            sequence: Its number.
            body: Exactly one field of ``Fact.body``.
        """
        kept = self._prepared(call_sid, writer, sequence, body)
        if kept is None:
            return
        if len(self._kept) >= KEPT_FACTS or self._kept_bytes + len(kept.data) > KEPT_BYTES:
            self._dropped.labels("full").inc()
            if not self._full:
                self._full = True
                log.error("facts are lost: too many wait", pending=len(self._kept))
            return
        self._kept.append(kept)
        self._kept_bytes += len(kept.data)
        self._empty.clear()
        self._posted.set()

    def _prepared(
        self, call_sid: str, writer: str, sequence: int, body: dict[str, Any]
    ) -> _Kept | None:
        """A fact, or what stands in for one that cannot be delivered; None: nothing can."""
        (name,) = body
        now_ns = time.time_ns()
        dropped = fact_pb2.FactDropped(body=name)
        try:
            data = _serialised(call_sid, writer, sequence, now_ns, body)
            if len(data) <= MAX_FACT_BYTES:
                return _Kept(data, time.monotonic())
            reason, dropped.bytes = "too_large", len(data)
            dropped.reason = f"larger than {MAX_FACT_BYTES} bytes"
        except Exception as error:  # its text may quote the fact's
            reason, dropped.reason = "invalid", f"cannot be serialised: {type(error).__name__}"
        self._count_drop(reason, call_sid, writer, sequence, name, dropped.bytes, dropped.reason)
        try:
            data = _serialised(call_sid, writer, sequence, now_ns, {"fact_dropped": dropped})
        except Exception:
            return None  # the call's own name is not valid
        return _Kept(data, time.monotonic(), stands_in=True)

    def oldest_s(self) -> float:
        """Age of the oldest fact that is not durable, in seconds; 0 when all are."""
        if not self._kept:
            return 0.0
        oldest = min(kept.posted_at for kept in (self._kept[0], *self._put_off))
        return time.monotonic() - oldest

    def trouble(self) -> str | None:
        """Why facts do not get through at the moment, in words; None when they do."""
        if self._trouble is None:
            return None
        return (
            f"the transcript service does not take facts ({self._trouble[1]}); "
            f"{len(self._kept)} wait, the oldest for {self.oldest_s():.0f} s"
        )

    def unhealthy(self) -> str | None:
        """Why this process should get no new calls; None when it may.

        A transcript service that is away is no reason as such: calls do not need it, their facts
        wait, and it is away for all processes at once. There are two. This process was never let in
        (a wrong secret, a wrong address): then it is wrongly configured, others may not be, and a
        roll-out should stop at it. Or so much waits already that facts of new calls would be lost.
        """
        if self._trouble is None:
            return None
        kind, _ = self._trouble
        if kind in ("shut out", "no ingest service") and not self._answered:
            return self.trouble()
        full = max(len(self._kept) / KEPT_FACTS, self._kept_bytes / KEPT_BYTES)
        return self.trouble() if full >= ALMOST_FULL else None

    async def flush(self, deadline_s: float) -> bool:
        """Wait until everything is durable; False when ``deadline_s`` passed before."""
        self._flushing += 1
        self._hurry.set()
        try:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        finally:
            self._flushing -= 1
            if not self._flushing:
                self._hurry.clear()
        return True

    async def close(self) -> None:
        """Stop delivering. What is not delivered is lost: flush before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()
        if self._kept:
            log.error("facts lost", count=len(self._kept))

    # -- delivery ------------------------------------------------------------------------------

    async def _deliver(self, append: Append) -> None:
        while True:
            try:
                if await self._anything_to_send():
                    await self._linger(max(LINGER_S, self._sent_at + BUSY_S - time.monotonic()))
                self._posted.clear()
                await self._send_all(append)
            except Exception as error:  # rule 4
                log.error("delivery of facts stumbled", exc_info=error)
                await self._pause()

    async def _anything_to_send(self) -> bool:
        """Wait for facts; False when a sign of life is due first."""
        try:
            async with asyncio.timeout(self._sent_at + HEARTBEAT_S - time.monotonic()):
                await self._posted.wait()
        except TimeoutError:
            return False
        return True

    async def _linger(self, seconds: float) -> None:
        """Let facts gather, unless somebody is in a hurry."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _pause(self) -> None:
        """Wait before the next try: longer each time, and not all processes at the same moment."""
        seconds = self._retry_s * random.uniform(0.5, 1)
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)
        if self._hurry.is_set():
            await asyncio.sleep(min(seconds, _HURRIED_RETRY_S))
        else:
            await self._linger(seconds)

    async def _send_all(self, append: Append) -> None:
        """Send until nothing is kept, and at least a sign of life."""
        while True:
            batch = self._batch()
            self._sent_at = time.monotonic()
            verdict, words = await self._send(append, batch)
            if verdict is _Verdict.TAKEN:
                self._retry_s = _FIRST_RETRY_S
                self._limit = min(2 * self._limit, BATCH_FACTS)
                if not self._kept:
                    self._empty.set()
                    return
                continue
            self._limit = max(1, len(batch) // 2)
            if verdict is _Verdict.AWAY or not batch:
                await self._pause()
            elif len(batch) == 1:
                if not self._give_up(verdict, words):
                    await self._pause()
            elif verdict is _Verdict.UNCLEAR:
                self._retry_s = _FIRST_RETRY_S  # the search should not take long
                await self._pause()

    def _batch(self) -> list[_Kept]:
        """What goes into the next request, from the oldest; suspects on their own."""
        batch: list[_Kept] = []
        size = 0
        for kept in islice(self._kept, self._limit):
            size += len(kept.data)
            if batch and (kept.refusals or size > BATCH_BYTES):
                break
            batch.append(kept)
            if kept.refusals:
                break
        return batch

    async def _send(self, append: Append, batch: list[_Kept]) -> tuple[_Verdict, str]:
        """Send facts, and none as a sign of life; what became of them, and in words."""
        request = b"".join([self._sign_of_life, *(kept.data for kept in batch)])
        try:
            response = await append(request)
            # A response that cannot be read is no answer; so it is read before anything is let go.
            rejected = {entry.index: entry.reason for entry in response.rejected}
        except grpc.aio.AioRpcError as error:
            return self._judge(error, batch)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # by close()
            self._in_trouble("away", "the request was cancelled")  # by gRPC
            return _Verdict.AWAY, ""
        except Exception as error:
            self._in_trouble("failed", type(error).__name__, error)
            return _Verdict.UNCLEAR, type(error).__name__
        self._well()
        self._taken += bool(batch)
        for _ in batch:
            self._take_first()
        for index in range(len(batch) - 1, -1, -1):
            if index in rejected:
                self._rejected(batch[index], rejected[index])
            elif (given_up := batch[index].instead_of) is not None:
                self._count_given_up(given_up)
        self._delivered.inc(sum(index not in rejected for index in range(len(batch))))
        return _Verdict.TAKEN, ""

    def _judge(self, error: grpc.aio.AioRpcError, batch: list[_Kept]) -> tuple[_Verdict, str]:
        """Rule 3."""
        status = error.code()
        details = error.details() or ""
        words = status.name
        kind = _NOBODYS_FAULT.get(status, "failed")
        self._in_trouble(kind, f"{words}: {details[:200]}" if details else words)
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if batch and any(phrase in details for phrase in _TOO_LARGE):
                return _Verdict.TOO_LARGE, words
            if len(batch) == 1 and len(batch[0].data) > _SURELY_SMALL_BYTES:
                return _Verdict.UNCLEAR, words
        if not batch or kind != "failed":
            return _Verdict.AWAY, words
        return (_Verdict.REFUSED if status in _FACTS_FAULT else _Verdict.UNCLEAR), words

    def _give_up(self, verdict: _Verdict, words: str) -> bool:
        """The oldest fact was refused on its own: try what would stand in for it, or the others first.

        Returns:
            False: a pause is due before the next request.
        """
        kept = self._take_first()
        if not kept.refusals:
            kept.suspected_at = self._taken
        kept.refusals += 1
        if kept.stands_in:
            # It says next to nothing, and is refused like what it stands for.
            if self._taken > kept.suspected_at:
                self._count_without_word(kept, f"refused: {words}")
                return True
            original = kept.instead_of.kept if kept.instead_of is not None else kept
            original.refusals, original.suspected_at = kept.refusals, kept.suspected_at
            self._put_last(original)
            return False
        if verdict is _Verdict.UNCLEAR and kept.refusals < REFUSALS:
            self._put_last(kept)
            return False
        reason = "too_large" if verdict is _Verdict.TOO_LARGE else "rejected"
        stand_in = self._stand_in(kept, f"refused: {words}")
        stand_in.instead_of = _GivenUp(kept, reason, words)
        stand_in.refusals, stand_in.suspected_at = kept.refusals, kept.suspected_at
        self._put_first(stand_in)
        return True

    def _rejected(self, kept: _Kept, said: str) -> None:
        """The service took a request but for this fact of it."""
        if kept.stands_in:
            self._count_without_word(kept, said)
            return
        self._put_first(self._stand_in(kept, "rejected"))
        self._count_given_up(_GivenUp(kept, "rejected", said))

    def _stand_in(self, kept: _Kept, why: str) -> _Kept:
        """What says under a fact's number that it was given up."""
        fact = _fact(kept.data)
        body = fact.WhichOneof("body") or ""
        dropped = fact_pb2.FactDropped(body=body, bytes=len(kept.data), reason=why)
        data = _serialised(
            fact.call_sid, fact.writer, fact.sequence, fact.recorded_time.ToNanoseconds(),
            {"fact_dropped": dropped},
        )  # fmt: skip
        return _Kept(data, kept.posted_at, stands_in=True)

    def _count_without_word(self, kept: _Kept, why: str) -> None:
        """Not even what stands in for a fact can be stored."""
        if kept.instead_of is not None:
            self._count_given_up(kept.instead_of)
        fact = _fact(kept.data)
        log.error("fact given up without a word in its place", call=fact.call_sid,
                  writer=fact.writer, sequence=fact.sequence, why=why)  # fmt: skip

    def _count_given_up(self, given_up: _GivenUp) -> None:
        fact = _fact(given_up.kept.data)
        self._count_drop(
            given_up.reason, fact.call_sid, fact.writer, fact.sequence,
            fact.WhichOneof("body") or "", len(given_up.kept.data), given_up.why,
        )  # fmt: skip

    def _count_drop(
        self, reason: str, call_sid: str, writer: str, sequence: int, body: str, size: int, why: str
    ) -> None:
        self._dropped.labels(reason).inc()
        log.error("fact given up", call=call_sid, writer=writer, sequence=sequence, body=body,
                  bytes=size, reason=reason, why=why)  # fmt: skip

    def _take_first(self) -> _Kept:
        kept = self._kept.popleft()
        self._kept_bytes -= len(kept.data)
        self._put_off.discard(kept)
        return kept

    def _put_first(self, kept: _Kept) -> None:
        self._kept.appendleft(kept)
        self._kept_bytes += len(kept.data)

    def _put_last(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._kept_bytes += len(kept.data)
        self._put_off.add(kept)

    def _in_trouble(self, kind: str, words: str, error: Exception | None = None) -> None:
        """Remember why nothing gets through, and say so: when it changes, and now and then."""
        now = time.monotonic()
        changed = self._trouble is None or self._trouble[0] != kind
        self._trouble = (kind, words)
        if changed or now >= self._said_at + _SAID_AGAIN_S:
            self._said_at = now
            log.warning("transcript service does not take facts", why=kind, said=words,
                        pending=len(self._kept), exc_info=error)  # fmt: skip

    def _well(self) -> None:
        self._answered = True
        self._full = False
        if self._trouble is not None:
            self._trouble = None
            log.info("transcript service takes facts again", pending=len(self._kept))


def _serialised(
    call_sid: str, writer: str, sequence: int, recorded_ns: int, body: dict[str, Any]
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


def _appending(to: Connection, credentials: Credentials) -> Append:
    """Sends requests that are serialised already, one at a time."""

    async def append(request: bytes) -> ingest_service_pb2.AppendFactsResponse:
        channel = await to.current()
        call: Any = channel.unary_unary(
            _APPEND, response_deserializer=ingest_service_pb2.AppendFactsResponse.FromString
        )
        response: ingest_service_pb2.AppendFactsResponse = await call(
            request, timeout=_DEADLINE_S, metadata=credentials.metadata
        )
        return response

    return append
