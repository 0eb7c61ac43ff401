"""The outbox that brings a call's facts to the transcript service.

A writer numbers its facts as it writes them and never waits: audio must not wait for a database.
The outbox sends what it has in batches across calls, one batch at a time and so in order, and
keeps everything until the service says that it is durable. What waits, what goes next and what is
given up is decided by :mod:`runtime.fact_queue` (rules 1 and 2); here stands how it is sent:

3. **Whose fault.** A service that is away, overloaded, does not know us or is no ingest service
   refuses everybody: nothing is given up for that. A refusal that says that the request is wrong is
   the facts'. An error that may be either's is tried by experiment: such a fact is the guilty one
   when it was refused several times on its own while others were taken.
4. **The delivery never ends.** Whatever is raised in it counts as an error of rule 3.
5. **A sign of life.** Something is sent at least every ten seconds, if only an empty request: a
   process that is not heard of is taken for dead, and its calls' transcripts are closed without it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Gauge

from asheard.v1 import ingest_service_pb2
from runtime.backoff import Backoff
from runtime.credentials import Credentials
from runtime.fact_queue import DROP_REASONS, FactQueue, Kept, Loss, Next, Verdict
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

ALMOST_FULL = 0.75
"""Share of what may be kept above which a process says that it wants no new calls. What is left is
a quarter of an hour for those that are under way."""

FIRST_RETRY_S = 0.1
MAX_RETRY_S = 5.0
MAX_HURRIED_RETRY_S = 0.25
"""While somebody waits for the last facts before the process ends."""

_SURELY_SMALL_BYTES = 64 * 1024
"""No limit of size is as low as this: a smaller fact is not refused for being large."""

_DEADLINE_S = 10.0
"""A request that takes longer is sent again: the service may have died with it."""

_SAID_AGAIN_S = 60.0
"""A trouble that lasts is logged this often."""

_APPEND = "/asheard.v1.IngestService/AppendFacts"

_NOBODYS_FAULT = {
    grpc.StatusCode.UNAVAILABLE: "away",
    grpc.StatusCode.CANCELLED: "away",
    grpc.StatusCode.ABORTED: "away",
    grpc.StatusCode.DEADLINE_EXCEEDED: "overloaded",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
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
        """Whether its closing fact is written: without one, no transcript of the call is ever
        final."""

    @property
    def begun(self) -> bool:
        """Whether it has written anything."""
        return self._sequence > 0

    def write(self, **body: Any) -> None:
        """Number, timestamp and post one fact: ``write(item_deleted=fact_pb2.ItemDeleted(...))``.

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


class FactOutbox:
    """Delivers facts to the transcript service, at least once and in order per writer.

    Args:
        target: gRPC target of the ingest service.
        registry: Where its metrics go.
        credentials: What this writer proves itself with; None: nothing.
        append: Sends a request. None: gRPC to ``target``.
        queue: Keeps what is not durable; an empty one.
    """

    def __init__(
        self,
        target: str,
        registry: CollectorRegistry,
        credentials: Credentials | None = None,
        *,
        append: Append | None = None,
        queue: FactQueue | None = None,
    ) -> None:
        self._target = target
        self._credentials = credentials or Credentials()
        self._append = append
        self.process = uuid.uuid4().hex
        """Names this outbox for as long as it lives, as in ``AppendFactsRequest.process``."""
        self._sign_of_life = ingest_service_pb2.AppendFactsRequest(
            process=self.process
        ).SerializeToString()
        self._queue = FactQueue() if queue is None else queue
        self._full = False
        """Facts are being dropped, and it was said."""
        self._answered = False
        """Whether any request was ever taken."""
        self._sent_at = float("-inf")
        self._retry = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
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
        pending.set_function(lambda: len(self._queue))
        pending_bytes = Gauge(
            "asheard_facts_pending_bytes", "Size of the facts not yet durable.", registry=registry
        )
        pending_bytes.set_function(lambda: self._queue.size_bytes)
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
        loss = self._queue.post(
            call_sid, writer, sequence, body,
            recorded_ns=time.time_ns(), at_s=time.monotonic(),
        )  # fmt: skip
        if loss is not None:
            self._report([loss])
        if len(self._queue):
            self._empty.clear()
            self._posted.set()

    def oldest_s(self) -> float:
        """Age of the oldest fact that is not durable, in seconds; 0 when all are."""
        return self._queue.oldest_s(time.monotonic())

    def trouble(self) -> str | None:
        """Why facts do not get through at the moment, in words; None when they do."""
        if self._trouble is None:
            return None
        return (
            f"the transcript service does not take facts ({self._trouble[1]}); "
            f"{len(self._queue)} wait, the oldest for {self.oldest_s():.0f} s"
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
        return self.trouble() if self._queue.fullness >= ALMOST_FULL else None

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
        if len(self._queue):
            log.error("facts lost", count=len(self._queue))

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
        pause_s = self._retry.next_s()
        if self._hurry.is_set():
            await asyncio.sleep(min(pause_s, MAX_HURRIED_RETRY_S))
        else:
            await self._linger(pause_s)

    async def _send_all(self, append: Append) -> None:
        """Send until nothing is kept, and at least a sign of life."""
        while True:
            batch = self._queue.next_batch()
            self._sent_at = time.monotonic()
            if (refusal := await self._send(append, batch)) is None:
                self._retry.reset()
                if not len(self._queue):
                    self._empty.set()
                    return
                continue
            next_, losses = self._queue.refused(batch, *refusal)
            self._report(losses)
            if next_ is Next.SOON:
                self._retry.reset()
            if next_ is not Next.AT_ONCE:
                await self._pause()

    async def _send(self, append: Append, batch: Sequence[Kept]) -> tuple[Verdict, str] | None:
        """Send facts, and none as a sign of life; why they were not taken, and in words; None: they
        were."""
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
            return Verdict.AWAY, ""
        except Exception as error:
            self._in_trouble("failed", type(error).__name__, error)
            return Verdict.UNCLEAR, type(error).__name__
        self._well()
        self._report(self._queue.taken(batch, rejected))
        self._delivered.inc(sum(index not in rejected for index in range(len(batch))))
        return None

    def _judge(self, error: grpc.aio.AioRpcError, batch: Sequence[Kept]) -> tuple[Verdict, str]:
        """Rule 3."""
        status = error.code()
        details = error.details() or ""
        words = status.name
        kind = _NOBODYS_FAULT.get(status, "failed")
        self._in_trouble(kind, f"{words}: {details[:200]}" if details else words)
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            if batch and any(phrase in details for phrase in _TOO_LARGE):
                return Verdict.TOO_LARGE, words
            if len(batch) == 1 and len(batch[0].data) > _SURELY_SMALL_BYTES:
                return Verdict.UNCLEAR, words
        if not batch or kind != "failed":
            return Verdict.AWAY, words
        return (Verdict.REFUSED if status in _FACTS_FAULT else Verdict.UNCLEAR), words

    def _report(self, losses: Iterable[Loss]) -> None:
        """Count and log what is given up; of facts dropped for want of room, the first."""
        for loss in losses:
            if loss.reason is None:
                log.error("fact given up without a word in its place", call=loss.call_sid,
                          writer=loss.writer, sequence=loss.sequence, why=loss.why)  # fmt: skip
                continue
            self._dropped.labels(loss.reason).inc()
            if loss.reason != "full":
                log.error("fact given up", call=loss.call_sid, writer=loss.writer,
                          sequence=loss.sequence, body=loss.body, bytes=loss.size_bytes,
                          reason=loss.reason, why=loss.why)  # fmt: skip
            elif not self._full:
                self._full = True
                log.error("facts are lost: too many wait", pending=len(self._queue))

    def _in_trouble(self, kind: str, words: str, error: Exception | None = None) -> None:
        """Remember why nothing gets through, and say so: when it changes, and now and then."""
        now = time.monotonic()
        changed = self._trouble is None or self._trouble[0] != kind
        self._trouble = (kind, words)
        if changed or now >= self._said_at + _SAID_AGAIN_S:
            self._said_at = now
            log.warning("transcript service does not take facts", why=kind, said=words,
                        pending=len(self._queue), exc_info=error)  # fmt: skip

    def _well(self) -> None:
        self._answered = True
        self._full = False
        if self._trouble is not None:
            self._trouble = None
            log.info("transcript service takes facts again", pending=len(self._queue))


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
