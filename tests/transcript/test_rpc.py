"""What writers and readers are answered, through a real gRPC server and channel (integration)."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

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
from asheard.v1.transcript_pb2 import (
    CallEvent,
    CallState,
    DeadAirReason,
    Role,
    Silence,
    Transcript,
    Turn,
)
from asheard.v1.transcript_service_pb2 import (
    CheckHeardRequest,
    CheckHeardResponse,
    GetTranscriptRequest,
    PassageResult,
)
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub
from tests.transcript.call_facts import START_S, Writer, ends, short_call, troubled_call
from tests.transcript.running_server import (
    Client,
    delete,
    listed,
    refused,
    refused_watch,
)

# Writers


async def test_a_call_is_read_while_it_runs_and_after(client: Client) -> None:
    facts = short_call(text="Hello there.")
    await client.append([fact for fact in facts if not ends(fact)])
    live = await client.get("CA1")
    assert live.state == CallState.CALL_STATE_ACTIVE
    assert not live.final
    assert live.turns[0].heard_text == "Hello there."

    response = await client.append([fact for fact in facts if ends(fact)])
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


# Readers


async def test_silences_notices_and_reasons_are_told(client: Client) -> None:
    assert not (await client.append(troubled_call())).rejected
    transcript = await client.get("CA1")
    assert transcript.final
    question, hold, answer, unclear = transcript.turns  # nobody's noise is none of them
    assert question.heard_text == "Are you open?"
    assert (hold.role, hold.notice, hold.heard_text) == (
        Role.ROLE_AGENT,
        True,
        "One moment, please.",
    )
    assert (answer.notice, answer.incomplete_reason) == (False, "content_filter")
    assert (unclear.heard_text, unclear.transcription_failed) == ("", True)
    assert list(transcript.events) == [
        CallEvent(
            start_ms=2000,
            end_ms=7000,
            after_item_id="question",
            silence=Silence(reason=DeadAirReason.DEAD_AIR_REASON_REFUSED, lasted_ms=5000),
        )
    ]


async def test_a_noise_is_a_turn_until_nobody_is_found_to_have_spoken(client: Client) -> None:
    facts = [fact for fact in troubled_call() if not ends(fact)]
    [last] = [fact for fact in facts if fact.caller_transcribed.nobody_spoke]
    session = [fact for fact in facts if fact.writer == last.writer]
    under_way = session[: session.index(last)]
    await client.append(under_way)
    states = client.watch("CA1")
    assert [turn.item_id for turn in (await anext(states)).turns] == ["noise"]
    await client.append([last])
    assert not (await anext(states)).turns
    words = CallerTranscribed(item_id="noise", text="Hm.", complete=True)
    await client.append(
        [Fact(call_sid="CA1", writer="session/2", sequence=1, caller_transcribed=words)]
    )
    assert [turn.heard_text for turn in (await anext(states)).turns] == ["Hm."]


async def test_what_a_worker_of_before_found_empty_stays_a_turn(client: Client) -> None:
    facts = troubled_call()
    for fact in facts:
        if fact.HasField("caller_transcribed"):
            fact.caller_transcribed.ClearField("nobody_spoke")
    await client.append(facts)
    noise = (await client.get("CA1")).turns[0]
    assert noise == Turn(item_id="noise", role=Role.ROLE_CALLER, start_ms=100, end_ms=1100)


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


async def test_a_watch_of_a_deleted_callends(client: Client) -> None:
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
        if fact.HasField("position_fixed"):  # cut off well after the price
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
