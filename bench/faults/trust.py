"""Scenarios about who may do what: strangers, readers, open ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    transcript_service_pb2,
    transcript_service_pb2_grpc,
)
from bench.faults.model import ScriptedModel
from bench.faults.phone import Phone
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import must, new_call_sid, stage
from cli.system import clean_environment

_SECRET = "0123456789abcdef" * 4


@scenario(
    "strangers",
    "somebody without the secret of the system appends a fact, opens a link; a reader appends, and deletes",
    Measure("of the four that succeed", "", 0),
)
async def strangers(_options: Options) -> Values:
    settings = {"ASHEARD_INTERNAL_SECRET": _SECRET, "ASHEARD_API_TOKENS": "reader-of-transcripts"}
    reader = (("authorization", "Bearer reader-of-transcripts"),)
    async with ScriptedModel() as model, stage(model.url, settings=settings) as system:
        phone = Phone(system.media_url(), new_call_sid(), "n1")
        await phone.open()
        await phone.frames(50)
        await phone.stop()
        await phone.close()
        fact = fact_pb2.Fact(
            call_sid=phone.call_sid, writer="session/stranger", sequence=1,
            session_ended=fact_pb2.SessionEnded(reason="made up"),
        )  # fmt: skip
        tried = (
            _succeeds(_append(system.ingest, fact)),
            _succeeds(_append(system.transcripts, fact, reader)),
            _succeeds(_link(system.listens("session-0"))),
            _succeeds(_delete(system.transcripts, phone.call_sid, reader)),
        )
        return (float(sum(await asyncio.gather(*tried))),)


async def _succeeds(attempt: Any) -> bool:
    try:
        async with asyncio.timeout(5.0):
            await attempt
    except (grpc.aio.AioRpcError, TimeoutError):
        return False
    return True


async def _append(target: str, fact: fact_pb2.Fact, metadata: Any = ()) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = ingest_service_pb2_grpc.IngestServiceStub(to_service)
        request = ingest_service_pb2.AppendFactsRequest(facts=[fact])
        await stub.AppendFacts(request, metadata=metadata)


async def _link(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stream = session_service_pb2_grpc.SessionServiceStub(to_service).Link()
        answer = await stream.read()
        if not isinstance(answer, session_service_pb2.LinkResponse):
            raise TimeoutError("the stream ended without a word")


async def _delete(target: str, call_sid: str, metadata: Any) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
        request = transcript_service_pb2.DeleteTranscriptRequest(call_sid=call_sid)
        await stub.DeleteTranscript(request, metadata=metadata)


@scenario(
    "open-ports",
    "what `make run` runs, with no setting at all",
    Measure("ports beside the public one that other machines can reach", "ports", 0),
)
async def open_ports(_options: Options) -> Values:
    # In a network of its own, so that the usual ports are free.
    command = f"ip link set lo up; exec {sys.executable} -m cli.main up --simulate-missing"
    environment = {**clean_environment(), "ASHEARD_TWILIO_VALIDATE": "off"}
    with tempfile.TemporaryDirectory(prefix="asheard-up-") as folder:
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        process = await asyncio.create_subprocess_exec(
            "unshare", "--net", "--map-root-user", "sh", "-c", command,
            env=environment, cwd=folder, process_group=0,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await must(lambda: 8080 in dict(_listening(process.pid)), "it serves", 40.0)
            await asyncio.sleep(3.0)
            found = {port for port, loopback in _listening(process.pid) if not loopback}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                await asyncio.sleep(0.5)
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return (float(len(found - {8080})),)


def _listening(pid: int) -> list[tuple[int, bool]]:
    """Ports that are listened at in a process' network, and whether only from within."""
    found = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                host, port = fields[1].split(":")
                if fields[3] == "0A":  # TCP_LISTEN
                    # IPv4, the same written as IPv6, and IPv6: each in the machine's order of bytes.
                    loopback = host.endswith("0100007F") or host == "0" * 24 + "01000000"
                    found.append((int(port, 16), loopback))
    return found
