"""An ingest service that does what it is told, and outboxes that write to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, ingest_service_pb2, ingest_service_pb2_grpc
from runtime.config import Address
from runtime.facts import FactOutbox
from runtime.rpc import GrpcServer

Refusal = tuple[grpc.StatusCode, str]
Code = grpc.StatusCode


class Ingest(ingest_service_pb2_grpc.IngestServiceServicer):
    """Stores what it is given; fails as often as it is told to."""

    def __init__(self) -> None:
        self.stored: list[fact_pb2.Fact] = []
        self.requests = 0
        self.failures = 0
        self.answer_lost = False
        self.reject: set[int] = set()
        self.refuse: Callable[[ingest_service_pb2.AppendFactsRequest], Refusal | None] = (
            lambda _request: None
        )
        self.processes: list[str] = []
        self.largest = 0

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[
            ingest_service_pb2.AppendFactsRequest, ingest_service_pb2.AppendFactsResponse
        ],
    ) -> ingest_service_pb2.AppendFactsResponse:
        self.processes.append(request.process)
        self.largest = max(self.largest, request.ByteSize())
        self.requests += bool(request.facts)
        if (refusal := self.refuse(request)) is not None:
            await context.abort(*refusal)
        if self.failures and request.facts:
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


def numbers(ingest: Ingest) -> list[int]:
    return sorted(fact.sequence for fact in ingest.stored)


def stand_ins(ingest: Ingest) -> dict[int, fact_pb2.FactDropped]:
    return {
        fact.sequence: fact.fact_dropped
        for fact in ingest.stored
        if fact.WhichOneof("body") == "fact_dropped"
    }


def dropped(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("asheard_facts_dropped_total", {"reason": reason})


def text(length: int, text: str = "x") -> dict[str, fact_pb2.ItemGenerated]:
    return {"item_generated": fact_pb2.ItemGenerated(item_id="i", text=text * length)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
