"""The outbox: numbered, in order, at least once, whatever becomes of the transcript service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, ingest_service_pb2, ingest_service_pb2_grpc
from runtime import facts
from runtime.config import Address
from runtime.facts import FactOutbox
from runtime.rpc import GrpcServer


class Ingest(ingest_service_pb2_grpc.IngestServiceServicer):
    """Stores what it is given; fails as often as it is told to."""

    def __init__(self) -> None:
        self.stored: list[fact_pb2.Fact] = []
        self.requests = 0
        self.failures = 0
        self.answer_lost = False
        self.reject: set[int] = set()

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[
            ingest_service_pb2.AppendFactsRequest, ingest_service_pb2.AppendFactsResponse
        ],
    ) -> ingest_service_pb2.AppendFactsResponse:
        self.requests += 1
        if self.failures:
            self.failures -= 1
            if self.answer_lost:
                self.stored.extend(request.facts)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.stored.extend(request.facts)
        return ingest_service_pb2.AppendFactsResponse(
            rejected=[
                ingest_service_pb2.RejectedFact(index=i, reason="writer: bad")
                for i, fact in enumerate(request.facts)
                if fact.sequence in self.reject
            ]
        )


@asynccontextmanager
async def serving(ingest: Ingest, port: int = 0) -> AsyncIterator[int]:
    server = GrpcServer(Address("127.0.0.1", port), ["asheard.v1.IngestService"])
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server.server)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop(0)


@asynccontextmanager
async def outbox_to(port: int, registry: CollectorRegistry) -> AsyncIterator[FactOutbox]:
    outbox = FactOutbox(f"127.0.0.1:{port}", registry)
    await outbox.start()
    try:
        yield outbox
    finally:
        await outbox.close()


async def test_facts_arrive_numbered_and_in_order_across_calls_in_few_requests() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writers = [outbox.writer(f"CA{i}", "gateway/MZ1") for i in range(3)]
        for _ in range(100):
            for writer in writers:
                writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=7))
        assert await outbox.flush(10)
    for i in range(3):
        numbers = [f.sequence for f in ingest.stored if f.call_sid == f"CA{i}"]
        assert numbers == list(range(1, 101))
    assert all(f.recorded_time.seconds > 0 for f in ingest.stored)
    assert ingest.requests <= 2
    assert registry.get_sample_value("asheard_facts_delivered_total") == 300


@pytest.mark.parametrize("answer_lost", [False, True])
async def test_a_failing_service_gets_every_fact_in_the_end(
    answer_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_FIRST_RETRY_S", 0.01)
    ingest = Ingest()
    ingest.failures, ingest.answer_lost = 3, answer_lost
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(5):
            writer.write(item_deleted=fact_pb2.ItemDeleted(item_id="i"))
        assert await outbox.flush(20)
    assert {f.sequence for f in ingest.stored} == {1, 2, 3, 4, 5}


async def test_facts_wait_for_a_service_that_starts_later() -> None:
    ingest = Ingest()
    async with serving(ingest) as port:
        pass
    registry = CollectorRegistry()
    async with outbox_to(port, registry) as outbox:
        outbox.writer("CA1", "session/1").write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert not await outbox.flush(0.3)
        assert registry.get_sample_value("asheard_facts_pending") == 1
        async with serving(ingest, port):
            assert await outbox.flush(20)
    assert len(ingest.stored) == 1


async def test_a_rejected_fact_is_counted_and_does_not_dam_up_the_others() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    ingest.reject = {2}
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(3):
            writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
    rejected = {"reason": "rejected"}
    assert registry.get_sample_value("asheard_facts_dropped_total", rejected) == 1
    assert registry.get_sample_value("asheard_facts_delivered_total") == 2


async def test_beyond_the_bound_facts_are_dropped_and_their_numbers_stay_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts, "KEPT_FACTS", 2)
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(3):
            writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
        writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
    assert [f.sequence for f in ingest.stored] == [1, 2, 4]
    assert registry.get_sample_value("asheard_facts_dropped_total", {"reason": "full"}) == 1


async def test_a_fact_has_exactly_one_body() -> None:
    outbox = FactOutbox("127.0.0.1:1", CollectorRegistry())
    with pytest.raises(AssertionError):
        outbox.writer("CA1", "session/1").write()
    await asyncio.sleep(0)
