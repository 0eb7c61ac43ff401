"""What strangers can do to a gRPC port: connect, and no more than that."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime import rpc
from runtime.config import Address
from runtime.http import descriptor_bound
from runtime.rpc import GrpcServer

PATIENCE_S = 20.0


async def health_of(port: int) -> str:
    """What a new connection's first question gets: a serving status, or the error's."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        request = health_pb2.HealthCheckRequest()
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # untyped
            answer = await check(request, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_strangers_who_say_nothing_are_few_and_soon_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc, "max_connections", lambda: 5)
    monkeypatch.setattr(rpc, "HANDSHAKE_MS", 1_500)
    server = GrpcServer(Address("127.0.0.1", 0), [])
    await server.start()
    await server.set_serving(True)
    try:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        async with asyncio.timeout(PATIENCE_S):
            # Those beyond the bound get nothing at all, the others HTTP/2's first frame.
            firsts = [await reader.read(1) for reader, _ in silent]
            assert [len(first) for first in firsts] == [1] * 5 + [0] * 15
            for reader, _ in silent:
                await reader.read()  # to the end
            while await health_of(server.port) != "SERVING":
                await asyncio.sleep(0.05)
        for _, writer in silent:
            writer.close()
    finally:
        await server.stop(0)


async def test_a_port_has_a_share_of_what_the_process_may_open() -> None:
    assert 0 < 3 * rpc.max_connections() <= descriptor_bound()
