"""The service through a real gRPC server and channel (integration)."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from asheard.v1.fact_pb2 import (
    CallEnded,
    CallerTranscribed,
    CallOutcome,
    CallStarted,
    Fact,
    PositionCause,
    SessionAssigned,
    SessionLost,
)
from asheard.v1.ingest_service_pb2 import AppendFactsRequest
from asheard.v1.ingest_service_pb2_grpc import IngestServiceStub
from asheard.v1.transcript_pb2 import CallState, Transcript
from asheard.v1.transcript_service_pb2 import (
    CheckHeardRequest,
    CheckHeardResponse,
    DeleteTranscriptRequest,
    GetTranscriptRequest,
    ListCallsRequest,
    ListCallsResponse,
    PassageResult,
)
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub
from runtime.config import Address
from runtime.errors import ConfigurationError
from runtime.process import Stop
from tests.transcript.call_facts import START_S, Writer, short_call
from tests.transcript.running_server import ANY_PORT, Client, config, running
from transcript.service import TranscriptServer, serve
from transcript.store_sqlite import open_sqlite


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path / "facts.db") as client:
        yield client


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
    await client.transcripts.DeleteTranscript(DeleteTranscriptRequest(call_sid=call_sid))


async def listed(client: Client, **fields: object) -> ListCallsResponse:
    return await client.transcripts.ListCalls(ListCallsRequest(**fields))  # type: ignore[arg-type]


# Ingest


async def test_a_call_is_read_while_it_runs_and_after(client: Client) -> None:
    facts = short_call(text="Hello there.")
    await client.append([fact for fact in facts if not _ends(fact)])
    live = await client.get("CA1")
    assert live.state == CallState.CALL_STATE_ACTIVE
    assert not live.final
    assert live.turns[0].heard_text == "Hello there."

    response = await client.append([fact for fact in facts if _ends(fact)])
    assert not response.rejected
    done = await client.get("CA1")
    assert done.state == CallState.CALL_STATE_COMPLETED
    assert done.final
    assert done.revision == len(facts)
    assert done.from_number == "+15550100"


async def test_handing_in_again_changes_nothing(client: Client) -> None:
    await client.append(short_call())
    before = await client.get("CA1")
    assert not (await client.append(short_call())).rejected
    assert await client.get("CA1") == before


async def test_facts_that_cannot_be_stored_are_named_and_the_rest_is_stored(
    client: Client,
) -> None:
    good = short_call()
    speech = CallerTranscribed(item_id="i", text="x")
    bad = [
        Fact(writer="session/1", sequence=1, caller_transcribed=speech),
        Fact(call_sid="CA1", writer="nobody", sequence=1, caller_transcribed=speech),
        Fact(call_sid="CA1", writer="session/1", caller_transcribed=speech),
        Fact(call_sid="CA1", writer="session/9", sequence=1),
        Fact(call_sid="CA1", writer="session/1", sequence=1, caller_transcribed=speech),
        Fact(
            call_sid="CA1",
            writer="gateway/MZ9",
            sequence=1,
            call_started=CallStarted(start_time=Timestamp(seconds=-1)),
        ),
    ]
    response = await client.append([bad[0], *good, *bad[1:]])
    first = len(good) + 1
    assert [rejected.index for rejected in response.rejected] == [0, *range(first, first + 5)]
    named = [rejected.reason.partition(":")[0] for rejected in response.rejected]
    assert named == [
        "call_sid",
        "writer",
        "sequence",
        "body",
        "sequence",
        "call_started.start_time",
    ]
    assert (await client.get("CA1")).revision == len(good)


async def test_too_many_facts_are_refused(client: Client) -> None:
    fact = short_call()[0]
    status, details = await refused(client.append([fact] * 10_001))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("facts:")


async def test_stragglers_of_a_lost_session_do_not_change_a_final_transcript(
    client: Client,
) -> None:
    gateway, session = Writer("CA1", "gateway/MZ1"), Writer("CA1", "session/1")
    session.write(caller_transcribed=CallerTranscribed(item_id="i", text="Hi", complete=True))
    gateway.write(call_started=CallStarted())
    gateway.write(session_assigned=SessionAssigned(session_writer="session/1"))
    gateway.write(session_lost=SessionLost(session_writer="session/1"))
    gateway.write(call_ended=CallEnded(outcome=CallOutcome.CALL_OUTCOME_COMPLETED))
    await client.append([*gateway.facts, *session.facts])
    final = await client.get("CA1")
    assert final.final

    late = session.write(caller_transcribed=CallerTranscribed(item_id="j", text="Late"))
    assert not (await client.append([late])).rejected
    assert await client.get("CA1") == final


async def test_a_call_goes_on_in_a_new_stream(client: Client) -> None:
    await client.append(short_call(outcome=CallOutcome.CALL_OUTCOME_DROPPED))
    assert not (await client.get("CA1")).final
    gateway = Writer("CA1", "gateway/MZ2")
    started = CallStarted(stream_sid="MZ2")
    started.start_time.FromSeconds(START_S + 60)
    await client.append([gateway.write(call_started=started)])
    again = await client.get("CA1")
    assert (again.state, again.final) == (CallState.CALL_STATE_ACTIVE, False)
    assert (await listed(client)).calls[0].state == CallState.CALL_STATE_ACTIVE


# Reading


async def test_unknown_calls_and_missing_fields_are_said(client: Client) -> None:
    assert (await refused(client.get("CA404")))[0] is grpc.StatusCode.NOT_FOUND
    assert (await refused(delete(client, "CA404")))[0] is grpc.StatusCode.NOT_FOUND
    assert await refused_watch(client, "CA404") is grpc.StatusCode.NOT_FOUND
    for answer in (client.get(""), delete(client, "")):
        status, details = await refused(answer)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("call_sid:")
    assert await refused_watch(client, "") is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_watch_has_the_present_state_each_change_and_an_end(client: Client) -> None:
    facts = short_call()
    await client.append(facts[:3])
    states = client.watch("CA1")
    assert (await anext(states)).revision == 3
    await client.append(facts[3:5])
    assert (await anext(states)).revision == 5
    await client.append(facts[5:])
    last = await anext(states)
    assert last.final
    assert last == await client.get("CA1")
    with pytest.raises(StopAsyncIteration):
        await anext(states)


async def test_a_watch_merges_changes_that_come_fast(client: Client) -> None:
    session = Writer("CA1", "session/1")
    for n in range(100):
        session.write(caller_transcribed=CallerTranscribed(item_id=f"i{n}", text="x"))
    await client.append(session.facts[:1])
    seen: list[Transcript] = []

    async def follow() -> None:
        async for state in client.watch("CA1"):
            seen.append(state)
            if state.revision == 100:
                return

    following = asyncio.create_task(follow())
    for fact in session.facts[1:]:
        await client.append([fact])
    await asyncio.wait_for(following, 20)
    revisions = [state.revision for state in seen]
    assert revisions == sorted(set(revisions))
    assert len(revisions) < 50  # ten states a second, and a hundred changes within few of them
    assert len(seen[-1].turns) == 100


async def test_a_watch_of_a_deleted_call_ends(client: Client) -> None:
    await client.append(short_call(ended=False))
    states = client.watch("CA1")
    await anext(states)
    await delete(client, "CA1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(states)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_deleted_call_stays_away(client: Client) -> None:
    await client.append(short_call())
    await client.get("CA1")
    await delete(client, "CA1")
    assert not (await client.append(short_call())).rejected
    assert (await refused(client.get("CA1")))[0] is grpc.StatusCode.NOT_FOUND
    assert not (await listed(client)).calls


async def test_a_passage_is_checked(client: Client) -> None:
    facts = short_call(text="That will be $9.05. We also have a store discount.")
    for fact in facts:
        if fact.HasField("item_generated"):
            fact.item_generated.audio_ms = 10_000
        if fact.HasField("position_fixed"):  # cut off well behind the price
            fact.position_fixed.cause = PositionCause.POSITION_CAUSE_CLEARED
            fact.position_fixed.position.low_ms = 6_200
            fact.position_fixed.position.best_ms = 6_200
    await client.append(facts)

    async def check(passage: str) -> CheckHeardResponse:
        request = CheckHeardRequest(call_sid="CA1", passage=passage)
        return await client.transcripts.CheckHeard(request)

    heard = await check("nine dollars and five cents")
    assert heard.result == PassageResult.PASSAGE_RESULT_HEARD
    assert list(heard.turns) == ["item_1"]
    assert heard.share == 1.0
    unheard = await check("a store discount!")
    assert unheard.result == PassageResult.PASSAGE_RESULT_UNHEARD
    partly = await check("that will be $9.05, we also have a store discount")
    assert partly.result == PassageResult.PASSAGE_RESULT_PARTLY_HEARD
    assert 0 < partly.share < 1
    not_said = await check("a refund")
    assert (not_said.result, list(not_said.turns)) == (PassageResult.PASSAGE_RESULT_NOT_SAID, [])
    for passage in ("", " ?! ", "word " * 1000):
        status, details = await refused(check(passage))
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("passage:")
    assert (
        await refused(
            client.transcripts.CheckHeard(CheckHeardRequest(call_sid="CA404", passage="word"))
        )
    )[0] is grpc.StatusCode.NOT_FOUND


# The two ports


async def test_facts_are_not_taken_where_readers_are_nor_transcripts_given_where_writers_are(
    client: Client,
) -> None:
    readers = IngestServiceStub(client.channel)
    status, _ = await refused(readers.AppendFacts(AppendFactsRequest(facts=short_call())))
    assert status is grpc.StatusCode.UNIMPLEMENTED
    async with grpc.aio.insecure_channel(f"127.0.0.1:{client.server.ingest.port}") as channel:
        writers = TranscriptServiceStub(channel)
        status, _ = await refused(writers.GetTranscript(GetTranscriptRequest(call_sid="CA1")))
        assert status is grpc.StatusCode.UNIMPLEMENTED
    assert list((await listed(client)).calls) == []


# The list of calls


async def _three_calls(client: Client) -> None:
    await client.append(short_call("CA1", start_s=START_S, from_number="+1"))
    await client.append(short_call("CA2", start_s=START_S + 10, from_number="+2", ended=False))
    failed = CallOutcome.CALL_OUTCOME_MODEL_FAILED
    await client.append(short_call("CA3", start_s=START_S + 20, from_number="+1", outcome=failed))


def _sids(response: ListCallsResponse) -> list[str]:
    return [call.call_sid for call in response.calls]


async def test_calls_are_listed_newest_first_in_pages(client: Client) -> None:
    await _three_calls(client)
    first = await listed(client, page_size=2)
    assert _sids(first) == ["CA3", "CA2"]
    second = await listed(client, page_size=2, page_token=first.next_page_token)
    assert _sids(second) == ["CA1"]
    assert second.next_page_token == ""
    newest = first.calls[0]
    assert newest.from_number == "+1"
    assert newest.start_time.seconds == START_S + 20
    assert newest.end_time.seconds == START_S + 22
    assert newest.state == CallState.CALL_STATE_FAILED
    assert not newest.final  # Twilio may still ask for a new stream
    assert second.calls[0].final
    assert not first.calls[1].HasField("end_time")


async def test_calls_are_filtered(client: Client) -> None:
    await _three_calls(client)
    assert _sids(await listed(client, number="+1")) == ["CA3", "CA1"]
    assert _sids(await listed(client, number="+15550199")) == ["CA3", "CA2", "CA1"]
    assert _sids(await listed(client, number="+9")) == []
    assert _sids(await listed(client, state=CallState.CALL_STATE_ACTIVE)) == ["CA2"]
    within = await listed(
        client,
        started_after=Timestamp(seconds=START_S + 10),
        started_before=Timestamp(seconds=START_S + 20),
    )
    assert _sids(within) == ["CA2"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"page_token": "bnVsbA=="}, "page_token"),
        ({"state": 77}, "state"),
        ({"started_after": Timestamp(nanos=-5)}, "started_after"),
    ],
)
async def test_a_bad_list_request_names_its_field(
    client: Client, fields: dict[str, object], named: str
) -> None:
    status, details = await refused(listed(client, **fields))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"{named}:")


async def test_a_page_token_belongs_to_its_filters(client: Client) -> None:
    await _three_calls(client)
    token = (await listed(client, page_size=1, number="+1")).next_page_token
    status, details = await refused(listed(client, page_size=1, number="+2", page_token=token))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert "other filters" in details
    # The size of pages may change on the way.
    assert _sids(await listed(client, page_size=5, number="+1", page_token=token)) == ["CA1"]


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with running(path) as client:
        await _three_calls(client)
        before = await client.get("CA3")
    with sqlite3.connect(path) as connection:  # as if it had been killed before indexing anything
        connection.execute("UPDATE calls SET indexed = 0, summary = NULL")
    connection.close()
    async with running(path) as client:
        assert _sids(await listed(client)) == ["CA3", "CA2", "CA1"]
        assert await client.get("CA3") == before


# Who may read


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
            assert _sids(page) == ["CA1"]
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
        assert _sids(left) == ["CA-crm"]


async def test_reflection_alone_is_enough_to_read(client: Client) -> None:
    """As grpcurl does: nothing is known but the address."""
    facts = short_call()
    await client.append([fact for fact in facts if not _ends(fact)])

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


# Life and death


async def _ready(client: Client) -> tuple[int, str]:
    url = f"http://127.0.0.1:{client.server.admin.port}/readyz"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def _until_ready_is(client: Client, status: int) -> str:
    while True:
        now, text = await _ready(client)
        if now == status:
            return text
        await asyncio.sleep(0.05)


async def test_a_lost_store_is_unavailable_said_and_recovered_from(tmp_path: Path) -> None:
    impatient = open_sqlite(tmp_path / "facts.db", locked_after_s=0.1)
    async with running(tmp_path / "facts.db", store=impatient) as client:
        await _lose_the_store_and_get_it_back(client, tmp_path)


async def _lose_the_store_and_get_it_back(client: Client, tmp_path: Path) -> None:
    await client.append(short_call("CA1", ended=False))
    other = sqlite3.connect(tmp_path / "facts.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    status, _ = await refused(client.append(short_call("CA2")))
    assert status is grpc.StatusCode.UNAVAILABLE
    assert "SQLite" in await _until_ready_is(client, 503)
    assert not await client.is_serving()
    other.execute("ROLLBACK")
    other.close()
    await _until_ready_is(client, 200)
    await client.append(short_call("CA2"))
    assert (await client.get("CA2")).final


async def test_metrics_are_counted(client: Client) -> None:
    await client.append([*short_call(), Fact(call_sid="CA1")])
    url = f"http://127.0.0.1:{client.server.admin.port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        text = await response.text()
    assert re.search(r"^asheard_transcript_append_seconds_count 1\.0$", text, re.M)
    assert re.search(
        r'^asheard_transcript_facts_total\{outcome="stored",writer="gateway"\} 5\.0$', text, re.M
    )
    assert 'asheard_transcript_facts_rejected_total{reason="malformed"} 1.0' in text
    assert "asheard_event_loop_lag_seconds_bucket" in text
    assert "CA1" not in text


async def test_a_drain_ends_watches_and_then_the_service(tmp_path: Path) -> None:
    stop = Stop()
    async with running(tmp_path / "facts.db") as client:
        await client.append(short_call(ended=False))
        states = client.watch("CA1")
        await anext(states)
        draining = asyncio.create_task(client.server.drain())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(states)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await draining
        assert (await _ready(client))[0] == 503

    serving = asyncio.create_task(serve(config(tmp_path / "other.db"), stop))
    await asyncio.sleep(0)
    stop.request()
    await asyncio.wait_for(serving, 20)


async def test_a_port_in_use_is_a_configuration_error(client: Client, tmp_path: Path) -> None:
    taken = Address("127.0.0.1", client.server.viewer.port)
    bad = replace(config(tmp_path / "other.db"), viewer=taken, listen=ANY_PORT)
    server = TranscriptServer(bad)
    with pytest.raises(ConfigurationError, match="ASHEARD_VIEWER_LISTEN"):
        await server.start()
    await server.close()


def _ends(fact: Fact) -> bool:
    return fact.WhichOneof("body") in ("call_ended", "session_ended")
