"""Scenarios about readers: a long call that is watched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    transcript_pb2,
    transcript_service_pb2,
    transcript_service_pb2_grpc,
)
from bench.faults.model import ScriptedModel
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import new_call_sid, stage


@scenario(
    "long-call-watched",
    "a call of 20,000 facts is watched while facts come",
    Measure("median time from a fact to the watcher's next state", "s", 3),
    within_s=150.0,
)
async def long_call_watched(_options: Options) -> Values:
    async with ScriptedModel() as model, stage(model.url) as system:
        call_sid = new_call_sid()
        await _append_many(system.ingest, _long_call(call_sid))
        waits: list[float] = []
        seen = asyncio.Event()
        async with grpc.aio.insecure_channel(
            system.transcripts, options=[("grpc.max_receive_message_length", 256 << 20)]
        ) as to_service:
            stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
            request = transcript_service_pb2.WatchTranscriptRequest(call_sid=call_sid)
            states: list[int] = []

            async def watch() -> None:
                async for change in stub.WatchTranscript(request):
                    states.append(len(change.transcript.turns))
                    seen.set()

            watching = asyncio.create_task(watch())
            await asyncio.wait_for(seen.wait(), 60.0)
            for number in range(5):
                seen.clear()
                began_s = time.monotonic()
                await _append_many(system.ingest, _one_more(call_sid, number))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(seen.wait(), 25.0)
                waits.append(time.monotonic() - began_s)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return (round(sorted(waits)[len(waits) // 2], 2),)


def _long_call(call_sid: str) -> list[fact_pb2.Fact]:
    writer = "session/long"
    facts = [
        fact_pb2.Fact(
            call_sid=call_sid, writer="gateway/MZlong", sequence=1,
            call_started=fact_pb2.CallStarted(stream_sid="MZlong"),
        )
    ]  # fmt: skip
    bodies: list[dict[str, Any]] = [{"session_started": fact_pb2.SessionStarted(language="en")}]
    for number in range(4_000):
        item = f"item{number}"
        previous = f"item{number - 1}" if number else ""
        text = "That will be nine dollars and five cents, please."
        bodies += [
            {"item_added": fact_pb2.ItemAdded(
                item_id=item, role=transcript_pb2.ROLE_AGENT, previous_item_id=previous)},
            {"item_progressed": fact_pb2.ItemProgressed(item_id=item, text=text[:20], audio_ms=900)},
            {"item_generated": fact_pb2.ItemGenerated(
                item_id=item, text=text, audio_ms=3_000,
                status=fact_pb2.GENERATION_STATUS_COMPLETED)},
            {"caller_speech_started": fact_pb2.CallerSpeechStarted(item_id=f"u{number}")},
            {"caller_transcribed": fact_pb2.CallerTranscribed(
                item_id=f"u{number}", text="And then?", complete=True)},
        ]  # fmt: skip
    facts += [
        fact_pb2.Fact(call_sid=call_sid, writer=writer, sequence=number, **body)
        for number, body in enumerate(bodies, start=1)
    ]
    return facts


def _one_more(call_sid: str, number: int) -> list[fact_pb2.Fact]:
    return [
        fact_pb2.Fact(
            call_sid=call_sid, writer="session/long", sequence=20_002 + number,
            caller_transcribed=fact_pb2.CallerTranscribed(
                item_id=f"u{number}", text=f"And then, number {number}?", complete=True),
        )
    ]  # fmt: skip


async def _append_many(target: str, facts: Sequence[fact_pb2.Fact]) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = ingest_service_pb2_grpc.IngestServiceStub(to_service)
        for start in range(0, len(facts), 1_000):
            batch = facts[start : start + 1_000]
            await stub.AppendFacts(ingest_service_pb2.AppendFactsRequest(facts=batch))
