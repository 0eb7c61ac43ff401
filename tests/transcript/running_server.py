"""A transcript service on ports of its own, with a client, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from asheard.config import api_tokens
from asheard.v1.fact_pb2 import CallOutcome, Fact
from asheard.v1.ingest_service_pb2 import AppendFactsRequest, AppendFactsResponse
from asheard.v1.ingest_service_pb2_grpc import IngestServiceStub
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import (
    DeleteTranscriptRequest,
    GetTranscriptRequest,
    ListCallsRequest,
    ListCallsResponse,
    WatchTranscriptRequest,
)
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub
from runtime.config import Address
from tests.transcript.call_facts import START_S, short_call
from transcript.config import TranscriptConfig
from transcript.service import TranscriptServer
from transcript.store import Store

if TYPE_CHECKING:  # these exist for the type checker alone
    from asheard.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub
    from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceAsyncStub

ANY_PORT = Address("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Client:
    """A running service, and both of its gRPC interfaces."""

    server: TranscriptServer
    channel: grpc.aio.Channel
    """To the port for readers."""
    ingest: IngestServiceAsyncStub
    transcripts: TranscriptServiceAsyncStub

    async def append(self, facts: Iterable[Fact], process: str = "") -> AppendFactsResponse:
        """Hand in facts."""
        return await self.ingest.AppendFacts(AppendFactsRequest(facts=facts, process=process))

    async def ready(self) -> tuple[int, str]:
        """What ``/readyz`` answers."""
        url = f"http://127.0.0.1:{self.server.admin.port}/readyz"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status, await response.text()

    async def until_ready_is(self, status: int) -> str:
        """Wait until ``/readyz`` has this status; what it says."""
        while True:
            now, text = await self.ready()
            if now == status:
                return text
            await asyncio.sleep(0.05)

    async def metrics(self) -> str:
        """What ``/metrics`` answers."""
        url = f"http://127.0.0.1:{self.server.admin.port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return await response.text()

    async def get(self, call_sid: str) -> Transcript:
        """Read a transcript."""
        request = GetTranscriptRequest(call_sid=call_sid)
        return (await self.transcripts.GetTranscript(request)).transcript

    async def is_serving(self) -> bool:
        """Ask the health service."""
        check: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer = await check(HealthCheckRequest())
        return answer.status == HealthCheckResponse.SERVING

    async def watch(self, call_sid: str) -> AsyncIterator[Transcript]:
        """Follow a transcript."""
        request = WatchTranscriptRequest(call_sid=call_sid)
        async for response in self.transcripts.WatchTranscript(request):
            yield response.transcript


def config(
    path: Path, tokens: Sequence[str] = (), *, grace_s: float = 30.0, lost_s: float = 90.0
) -> TranscriptConfig:
    """A configuration with a SQLite file and free ports."""
    return TranscriptConfig(
        stream_grace_s=grace_s,
        writer_lost_s=lost_s,
        listen=ANY_PORT,
        ingest=ANY_PORT,
        admin=ANY_PORT,
        viewer=ANY_PORT,
        store=f"sqlite:///{path}",
        api_tokens=api_tokens({"ASHEARD_API_TOKENS": ",".join(tokens)}),
    )


@asynccontextmanager
async def running(
    path: Path,
    tokens: Sequence[str] = (),
    *,
    grace_s: float = 30.0,
    lost_s: float = 90.0,
    store: Store | None = None,
) -> AsyncIterator[Client]:
    """Run a service on this file, or on a store that has it open, and wait until it is ready."""
    settings = config(path, tokens, grace_s=grace_s, lost_s=lost_s)
    async with running_with(settings, store) as client:
        yield client


@asynccontextmanager
async def running_with(
    settings: TranscriptConfig, store: Store | None = None
) -> AsyncIterator[Client]:
    """Run a service with these settings, and wait until it is ready."""
    server = TranscriptServer(settings, store)
    await server.start()
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc.port}") as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.ingest.port}") as to_ingest,
        ):
            client = Client(
                server, channel, IngestServiceStub(to_ingest), TranscriptServiceStub(channel)
            )
            while not await client.is_serving():
                await asyncio.sleep(0.01)
            yield client
    finally:
        await server.close()


async def refused(answer: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """Status and details of an RPC that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value.code(), caught.value.details() or ""


async def refused_watch(client: Client, call_sid: str) -> grpc.StatusCode:
    """Status with which following a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in client.watch(call_sid):
            pass
    return caught.value.code()


async def delete(client: Client, call_sid: str) -> None:
    """Delete a call."""
    await client.transcripts.DeleteTranscript(DeleteTranscriptRequest(call_sid=call_sid))


async def listed(client: Client, **fields: object) -> ListCallsResponse:
    """A page of calls."""
    return await client.transcripts.ListCalls(ListCallsRequest(**fields))  # type: ignore[arg-type]


def sids(response: ListCallsResponse) -> list[str]:
    """Which calls are on a page, in its order."""
    return [call.call_sid for call in response.calls]


async def three_calls(client: Client) -> None:
    """One that ended, one under way, one that failed."""
    await client.append(short_call("CA1", start_s=START_S, from_number="+1"))
    await client.append(short_call("CA2", start_s=START_S + 10, from_number="+2", ended=False))
    failed = CallOutcome.CALL_OUTCOME_MODEL_FAILED
    await client.append(short_call("CA3", start_s=START_S + 20, from_number="+1", outcome=failed))
