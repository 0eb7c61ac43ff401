"""Reads back what a transcript service says of the calls of a bench."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from asheard.v1 import transcript_pb2, transcript_service_pb2, transcript_service_pb2_grpc
from bench.score import Account
from runtime.rpc import channel

FINAL_S = 15.0
"""How long transcripts may take to become final after the hang-up."""

_AT_ONCE = 20


async def accounts(target: str, call_sids: Sequence[str]) -> tuple[dict[str, Account], int]:
    """What was heard of each agent's item by its id, and how many transcripts never became final.

    Args:
        target: gRPC target of the transcript service.
        call_sids: Calls that have ended.
    """
    found: dict[str, Account] = {}
    open_calls = 0
    at_once = asyncio.Semaphore(_AT_ONCE)
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + FINAL_S
    async with channel(target) as opened:
        stub = transcript_service_pb2_grpc.TranscriptServiceStub(opened)

        async def read(call_sid: str) -> None:
            nonlocal open_calls
            transcript: transcript_pb2.Transcript | None = None
            while True:
                async with at_once:
                    transcript = await _get(stub, call_sid) or transcript
                if (transcript is not None and transcript.final) or loop.time() > deadline_s:
                    break
                await asyncio.sleep(0.3)
            if transcript is None or not transcript.final:
                open_calls += 1
            for turn in transcript.turns if transcript is not None else ():
                if turn.role == transcript_pb2.ROLE_AGENT:
                    found[turn.item_id] = _account(turn)

        async with asyncio.TaskGroup() as group:
            for call_sid in call_sids:
                group.create_task(read(call_sid))
    return found, open_calls


def _account(turn: transcript_pb2.Turn) -> Account:
    position = turn.position
    known = turn.HasField("position")
    return Account(
        turn.heard_text,
        turn.heard_audio_ms,
        (position.low_ms, position.high_ms) if known else None,
        f"{turn.word_times.method} {'refined' if turn.word_times.refined else 'estimated'}",
    )


async def _get(
    stub: transcript_service_pb2_grpc.TranscriptServiceAsyncStub, call_sid: str
) -> transcript_pb2.Transcript | None:
    request = transcript_service_pb2.GetTranscriptRequest(call_sid=call_sid)
    try:
        return (await stub.GetTranscript(request, timeout=10)).transcript
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            return None
        raise
