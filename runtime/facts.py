"""The outbox that brings a call's facts to the transcript service.

A writer numbers its facts as it writes them and never waits: audio must not wait for a database.
The outbox sends what it has in batches across calls, one batch at a time and so in order, and
keeps everything until the service says that it is durable. While the service is away it keeps on
trying, and keeps facts up to a bound; beyond the bound the newest are dropped and counted, their
numbers stay missing, and so the transcript never calls itself final on a false ground.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, Counter, Gauge

from asheard.v1 import fact_pb2, ingest_service_pb2, ingest_service_pb2_grpc
from runtime.log import get_log
from runtime.rpc import channel

log = get_log(__name__)

LINGER_S = 0.05
"""How long the first fact after a pause waits for company: one event of a call makes several."""

BUSY_S = 0.25
"""Requests are at least so far apart. Whoever watches a call reads no faster than that, and each
request costs the database a flush to its disk: at a hundred calls, 4 a second instead of 20."""

BATCH_FACTS = 1_000
"""The most facts in a request; some 200 KB."""

KEPT_FACTS = 200_000
"""The most facts kept while the service is away: about 40 MB, an hour of a hundred calls."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_DEADLINE_S = 10.0
"""A request that takes longer is sent again: the service may have died with it."""


class FactWriter:
    """Writes the facts of one writer in one call, numbered from 1."""

    def __init__(self, outbox: FactOutbox, call_sid: str, writer: str) -> None:
        self._outbox = outbox
        self._sequence = 0
        self.call_sid = call_sid
        self.writer = writer
        """Name of the writer, as in ``Fact.writer``."""

    def write(self, **body: Any) -> None:
        """Number, date and post one fact: ``write(item_deleted=fact_pb2.ItemDeleted(...))``.

        Never waits and never raises for a service that is away.

        Args:
            body: Exactly one field of ``Fact.body``.
        """
        if len(body) != 1:
            raise AssertionError("a fact has exactly one body")
        self._sequence += 1
        fact = fact_pb2.Fact(
            call_sid=self.call_sid, writer=self.writer, sequence=self._sequence, **body
        )
        fact.recorded_time.FromNanoseconds(time.time_ns())
        self._outbox.post(fact)


class FactOutbox:
    """Delivers facts to the transcript service, at least once and in order per writer."""

    def __init__(self, target: str, registry: CollectorRegistry) -> None:
        self._target = target
        self._kept: deque[fact_pb2.Fact] = deque()
        self._posted = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._flushing = 0
        self._hurry = asyncio.Event()
        """Somebody waits for everything to be durable."""
        self._channel: grpc.aio.Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._delivered = Counter(
            "asheard_facts_delivered_total", "Facts the transcript service made durable.",
            registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "asheard_facts_dropped_total",
            "Facts given up: rejected, or too many while the transcript service was away.",
            ["reason"],
            registry=registry,
        )
        pending = Gauge("asheard_facts_pending", "Facts not yet durable.", registry=registry)
        pending.set_function(lambda: len(self._kept))

    async def start(self) -> None:
        """Begin to deliver. The transcript service need not be there yet."""
        self._channel = channel(self._target)
        self._task = asyncio.create_task(self._deliver(), name="facts outbox")

    def writer(self, call_sid: str, writer: str) -> FactWriter:
        """A writer for one stream or session of a call; ``writer`` is unique within the call."""
        return FactWriter(self, call_sid, writer)

    def post(self, fact: fact_pb2.Fact) -> None:
        """Keep a numbered fact for delivery."""
        if len(self._kept) >= KEPT_FACTS:
            self._dropped.labels("full").inc()
            return
        self._kept.append(fact)
        self._empty.clear()
        self._posted.set()

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
        if self._channel is not None:
            await self._channel.close()
        if self._kept:
            log.error("facts lost", count=len(self._kept))

    async def _deliver(self) -> None:
        if self._channel is None:
            raise AssertionError("start() makes the channel before the task")
        stub = ingest_service_pb2_grpc.IngestServiceStub(self._channel)
        retry_s = _FIRST_RETRY_S
        sent_at = -BUSY_S
        while True:
            await self._posted.wait()
            await self._linger(max(LINGER_S, sent_at + BUSY_S - time.monotonic()))
            self._posted.clear()
            sent_at = time.monotonic()
            while self._kept:
                batch = [self._kept[i] for i in range(min(BATCH_FACTS, len(self._kept)))]
                if await self._send(stub, batch):
                    retry_s = _FIRST_RETRY_S
                    for _ in batch:
                        self._kept.popleft()
                else:
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, _LAST_RETRY_S)
            self._empty.set()

    async def _linger(self, seconds: float) -> None:
        """Let facts gather, unless somebody is in a hurry."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _send(
        self,
        stub: ingest_service_pb2_grpc.IngestServiceAsyncStub,
        batch: list[fact_pb2.Fact],
    ) -> bool:
        """Send a batch; whether its facts are settled, durably stored or given up."""
        try:
            response = await stub.AppendFacts(
                ingest_service_pb2.AppendFactsRequest(facts=batch), timeout=_DEADLINE_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                # Sending it again cannot help, and would dam up all other facts behind it.
                log.error("facts rejected", count=len(batch), reason=error.details())
                self._dropped.labels("rejected").inc(len(batch))
                return True
            log.warning("transcript service unreachable", status=error.code().name,
                        pending=len(self._kept))  # fmt: skip
            return False
        for rejected in response.rejected:
            log.error("fact rejected", call=batch[rejected.index].call_sid, reason=rejected.reason)
            self._dropped.labels("rejected").inc()
        self._delivered.inc(len(batch) - len(response.rejected))
        return True
