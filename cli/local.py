"""The real system on this machine, before a simulated model: for demo, tests and benches."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TextIO

import grpc
import grpc.aio

from asheard.v1 import transcript_pb2, transcript_service_pb2, transcript_service_pb2_grpc
from cli.system import Supervisor, clean_environment, on_free_ports, plan
from runtime.credentials import Credentials
from runtime.rpc import channel
from runtime.trust import Trust
from simulators.realtime import AgentScript, RealtimeSimulator


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """A system that serves."""

    supervisor: Supervisor
    realtime: RealtimeSimulator
    environment: Mapping[str, str]
    """What the services were configured with."""

    @property
    def voice_url(self) -> str:
        """The voice webhook, as Twilio knows it: https, though a simulated Twilio speaks no TLS."""
        return f"https://{self.environment['ASHEARD_GATEWAY_LISTEN']}/twilio/voice"

    @property
    def media_url(self) -> str:
        """The media socket."""
        return f"ws://{self.environment['ASHEARD_GATEWAY_LISTEN']}/twilio/media"

    @property
    def transcript_target(self) -> str:
        """Where transcripts can be read."""
        return self.environment["ASHEARD_TRANSCRIPT_TARGET"]

    async def final_transcript(
        self, call_sid: str, deadline_s: float = 30.0
    ) -> transcript_pb2.Transcript:
        """Watch a transcript until it is final.

        Raises:
            TimeoutError: It was not within ``deadline_s``.
        """
        reading = channel(
            self.transcript_target, credentials=Credentials(Trust.from_env(self.environment))
        )
        async with asyncio.timeout(deadline_s), reading as to_service:
            stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
            while True:
                try:
                    return await _last_state(stub, call_sid)
                except grpc.aio.AioRpcError as error:
                    # The call's first facts may still be on their way, or the service be starting.
                    if error.code() not in _LATER:
                        raise
                await asyncio.sleep(0.05)


_LATER = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


async def _last_state(
    stub: transcript_service_pb2_grpc.TranscriptServiceAsyncStub, call_sid: str
) -> transcript_pb2.Transcript:
    newest = transcript_pb2.Transcript()
    request = transcript_service_pb2.WatchTranscriptRequest(call_sid=call_sid)
    async for change in stub.WatchTranscript(request):
        newest = change.transcript
    if not newest.final:
        raise AssertionError("a watch ends only when the transcript is final")
    return newest


@asynccontextmanager
async def local_system(
    script: AgentScript,
    output: TextIO,
    *,
    sessions: int = 1,
    settings: Mapping[str, str] | None = None,
    realtime: RealtimeSimulator | None = None,
) -> AsyncIterator[LocalSystem]:
    """Start the three services as processes, on free ports of loopback.

    Args:
        script: What the simulated model says.
        output: Where the processes' lines go.
        sessions: Number of session workers.
        settings: Environment variables that differ from a plain system's.
        realtime: A simulator that is given instead of one with ``script``.

    Raises:
        TimeoutError: The system was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="asheard-") as folder:
        async with realtime or RealtimeSimulator(script) as model:
            environment = on_free_ports(
                {
                    **clean_environment(),
                    "ASHEARD_TWILIO_VALIDATE": "off",
                    "ASHEARD_STORE": f"sqlite:///{folder}/asheard.db",
                    "ASHEARD_REALTIME_URL": model.url,
                    # A simulated Twilio asks for a new stream at once or never.
                    "ASHEARD_STREAM_GRACE_SECONDS": "5",
                    **(settings or {}),
                },
                sessions=sessions,
            )
            supervisor = Supervisor(plan(environment, sessions=sessions), output)
            await supervisor.start()
            try:
                await supervisor.ready()
                yield LocalSystem(supervisor, model, environment)
                async with asyncio.timeout(30):
                    await supervisor.stop()
            finally:
                supervisor.kill()
                await supervisor.stop()
