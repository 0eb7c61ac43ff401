"""Who may read, through a real gRPC server and channel (integration)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from asheard.v1.transcript_service_pb2 import (
    DeleteTranscriptRequest,
    GetTranscriptRequest,
    ListCallsRequest,
)
from tests.transcript.call_facts import ends, short_call
from tests.transcript.running_server import (
    Client,
    delete,
    listed,
    refused,
    refused_watch,
    running,
    sids,
)


async def test_readers_need_a_token_and_writers_and_probes_do_not(tmp_path: Path) -> None:
    async with running(tmp_path / "facts.db", tokens=["first", "second"]) as client:
        await client.append(short_call())
        for authorization in (None, "first", "Bearer", "Bearer wrong", "Basic first"):
            metadata = (("authorization", authorization),) if authorization else ()
            request = GetTranscriptRequest(call_sid="CA1")
            status, details = await refused(
                client.transcripts.GetTranscript(request, metadata=metadata)
            )
            assert status is grpc.StatusCode.UNAUTHENTICATED
            assert "authorization" in details
            assert "wrong" not in details
        assert await refused_watch(client, "CA1") is grpc.StatusCode.UNAUTHENTICATED
        assert (await refused(listed(client)))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert (await refused(delete(client, "CA1")))[0] is grpc.StatusCode.UNAUTHENTICATED
        for token in ("first", "second"):
            page = await client.transcripts.ListCalls(
                ListCallsRequest(), metadata=(("authorization", f"Bearer {token}"),)
            )
            assert sids(page) == ["CA1"]
        await client.is_serving()
        url = f"http://127.0.0.1:{client.server.admin.port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            counted = 'asheard_unauthenticated_total{service="transcript"} 8.0'
            assert counted in await response.text()


async def test_a_token_does_what_its_scopes_say(tmp_path: Path) -> None:
    tokens = ["crm", "eraser:delete", "office:read+delete", "boss:admin"]
    may_delete = {"eraser", "office", "boss"}
    async with running(tmp_path / "facts.db", tokens=tokens) as client:
        for token in ("crm", "eraser", "office", "boss"):
            await client.append(short_call(f"CA-{token}"))
            bearing = (("authorization", f"Bearer {token}"),)
            reading = client.transcripts.ListCalls(ListCallsRequest(), metadata=bearing)
            if token == "eraser":
                status, details = await refused(reading)
                assert status is grpc.StatusCode.PERMISSION_DENIED
                assert "scope `read`" in details
            else:
                await reading
            deleting = client.transcripts.DeleteTranscript(
                DeleteTranscriptRequest(call_sid=f"CA-{token}"), metadata=bearing
            )
            if token in may_delete:
                await deleting
            else:
                status, details = await refused(deleting)
                assert status is grpc.StatusCode.PERMISSION_DENIED
                assert "scope `delete`" in details
        left = await client.transcripts.ListCalls(
            ListCallsRequest(), metadata=(("authorization", "Bearer crm"),)
        )
        assert sids(left) == ["CA-crm"]


async def test_reflection_alone_is_enough_to_read(client: Client) -> None:
    """As grpcurl does: nothing is known but the address."""
    facts = short_call()
    await client.append([fact for fact in facts if not ends(fact)])

    def read() -> dict[str, object]:
        with grpc.insecure_channel(f"127.0.0.1:{client.server.grpc.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = database.get_services()
            assert "asheard.v1.TranscriptService" in services
            assert "asheard.v1.IngestService" not in services
            pool = DescriptorPool(database)
            service = pool.FindServiceByName("asheard.v1.TranscriptService")
            method = service.FindMethodByName("GetTranscript")
            call: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            request = ParseDict({"call_sid": "CA1"}, GetMessageClass(method.input_type)())
            answer: dict[str, object] = MessageToDict(
                call(request, timeout=10), preserving_proto_field_name=True
            )
            return answer

    live = await asyncio.to_thread(read)
    assert isinstance(live["transcript"], dict)
    assert live["transcript"]["state"] == "CALL_STATE_ACTIVE"
    await client.append(facts)
    done = await asyncio.to_thread(read)
    assert isinstance(done["transcript"], dict)
    assert done["transcript"]["final"] is True
    assert done["transcript"]["turns"][0]["heard_text"] == "Hello there."
