"""A running system as its surroundings see it: what scenarios start, ask and hurt."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import grpc
import grpc.aio

from asheard.v1 import transcript_pb2, transcript_service_pb2, transcript_service_pb2_grpc
from cli.system import Program, Supervisor, clean_environment, free_ports, on_free_ports, plan

PATIENCE_S = 30.0
"""For what is no part of a figure, such as a call being connected."""

ASKED_EVERY_S = 0.05
"""How often a figure is looked at that is not told: so exact are times."""

Adjust = Callable[[Program], Program]


@dataclass(frozen=True, slots=True)
class Stage:
    """A system that runs."""

    supervisor: Supervisor
    programs: tuple[Program, ...]
    environment: Mapping[str, str]
    """Of the services as a whole."""
    folder: Path
    """Of its store; it is gone with the system."""
    log: io.StringIO

    @property
    def store(self) -> Path:
        """The database file."""
        return self.folder / "asheard.db"

    @property
    def transcripts(self) -> str:
        """gRPC target of readers."""
        return self.environment["ASHEARD_TRANSCRIPT_TARGET"]

    @property
    def ingest(self) -> str:
        """gRPC target of writers; older versions have one for both."""
        return self.environment.get("ASHEARD_INGEST_TARGET") or self.transcripts

    def program(self, name: str) -> Program:
        """One of its programs."""
        return next(program for program in self.programs if program.name == name)

    def listens(self, name: str = "gateway") -> str:
        """``host:port`` of a gateway's public port, or a worker's link."""
        program = self.program(name)
        return program.environment[f"ASHEARD_{program.arguments[0].upper()}_LISTEN"]

    def media_url(self, gateway: str = "gateway") -> str:
        """A gateway's media socket."""
        return f"ws://{self.listens(gateway)}/twilio/media"

    def voice_url(self, gateway: str = "gateway") -> str:
        """A gateway's voice webhook, as Twilio knows it."""
        return f"https://{self.listens(gateway)}/twilio/voice"

    def pid(self, name: str) -> int:
        """A program's process."""
        return self.supervisor.process(name).pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a program."""
        os.kill(self.pid(name), number)

    async def ask(self, name: str, path: str, within_s: float = 2.0) -> tuple[int, str]:
        """What a program's admin port answers; (0, "") when it does not."""
        program = self.program(name)
        admin = program.environment[f"ASHEARD_{program.arguments[0].upper()}_ADMIN"]
        try:
            async with (
                asyncio.timeout(within_s), aiohttp.ClientSession() as http,
                http.get(f"http://{admin}{path}") as response,
            ):  # fmt: skip
                return response.status, await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, ""

    async def metric(self, name: str, sample: str) -> float | None:
        """A sample of a program's metrics; None when there is none."""
        _, text = await self.ask(name, "/metrics")
        for line in text.splitlines():
            if line.startswith(sample + " "):
                return float(line.split(" ")[1])
        return None

    async def no_calls_left(self, gateway: str = "gateway") -> bool:
        """Whether a gateway has no call any more."""
        return await self.metric(gateway, "asheard_active_calls") == 0

    async def transcript(self, call_sid: str) -> transcript_pb2.Transcript | None:
        """A transcript as it stands; None when there is none, or it cannot be had just now."""
        found = await self.transcripts_of([call_sid])
        return found[call_sid]

    async def transcripts_of(
        self, call_sids: list[str]
    ) -> dict[str, transcript_pb2.Transcript | None]:
        """Several transcripts as they stand."""
        found: dict[str, transcript_pb2.Transcript | None] = dict.fromkeys(call_sids)
        async with grpc.aio.insecure_channel(self.transcripts, options=_LARGE) as to_service:
            stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
            for call_sid in call_sids:
                request = transcript_service_pb2.GetTranscriptRequest(call_sid=call_sid)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    found[call_sid] = (await stub.GetTranscript(request, timeout=10)).transcript
        return found

    async def finals(
        self, call_sids: list[str], within_s: float
    ) -> dict[str, transcript_pb2.Transcript]:
        """The transcripts that are final, as soon as all are, or the time is over."""
        finals: dict[str, transcript_pb2.Transcript] = {}
        deadline_s = time.monotonic() + within_s
        while len(finals) < len(call_sids) and time.monotonic() < deadline_s:
            left = [call_sid for call_sid in call_sids if call_sid not in finals]
            for call_sid, transcript in (await self.transcripts_of(left)).items():
                if transcript is not None and transcript.final:
                    finals[call_sid] = transcript
            await asyncio.sleep(0.3)
        return finals


_LARGE = [("grpc.max_receive_message_length", 256 << 20)]


@asynccontextmanager
async def stage(
    realtime_url: str,
    *,
    sessions: int = 1,
    gateways: int = 1,
    settings: Mapping[str, str] | None = None,
    adjust: Adjust = lambda program: program,
    agent: str | None = None,
) -> AsyncIterator[Stage]:
    """Run a system of processes on free ports of loopback.

    Args:
        realtime_url: Where the model is.
        sessions: Session workers.
        gateways: Gateways, each with ports of its own: ``gateway``, ``gateway-1``, …
        settings: More environment.
        adjust: Changes a program before it is started.
        agent: Text of the agent file; None: one that does not greet.

    Raises:
        TimeoutError: It was not ready in time.
        RuntimeError: It ended instead.
    """
    log = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="asheard-faults-") as name:
        folder = Path(name)
        (folder / "agent.yaml").write_text(agent or AGENT)
        environment = on_free_ports(
            {
                **clean_environment(),
                "ASHEARD_TWILIO_VALIDATE": "off",
                "ASHEARD_STORE": f"sqlite:///{folder}/asheard.db",
                "ASHEARD_REALTIME_URL": realtime_url,
                "ASHEARD_AGENT": str(folder / "agent.yaml"),
                "ASHEARD_DRAIN_SECONDS": "2",
                # A busy machine is not what is measured.
                "ASHEARD_SESSION_MAX_LAG_MS": "60000",
                **(settings or {}),
            },
            sessions=sessions,
        )
        programs = plan(environment, sessions=sessions)
        for number in range(1, gateways):
            programs.append(_another_gateway(programs[-1], f"gateway-{number}"))
        programs = [adjust(program) for program in programs]
        supervisor = Supervisor(programs, log)
        await supervisor.start()
        try:
            try:
                await supervisor.ready(60.0)
            except TimeoutError as error:
                raise TimeoutError(f"{error}\n{log.getvalue()[-2000:]}") from error
            if supervisor.failed.is_set():
                raise RuntimeError(f"the system did not start:\n{log.getvalue()[-2000:]}")
            yield Stage(supervisor, tuple(programs), environment, folder, log)
        finally:
            supervisor.kill()
            await supervisor.stop()


def _another_gateway(program: Program, name: str) -> Program:
    listen, admin = free_ports(2)
    ports = {
        "ASHEARD_GATEWAY_LISTEN": f"127.0.0.1:{listen}",
        "ASHEARD_GATEWAY_ADMIN": f"127.0.0.1:{admin}",
    }
    return replace(
        program,
        name=name,
        environment={**program.environment, **ports},
        ready_url=f"http://127.0.0.1:{admin}/readyz",
    )


def with_environment(name: str, **settings: str) -> Adjust:
    """Change the environment of one program."""

    def adjust(program: Program) -> Program:
        if program.name != name:
            return program
        return replace(program, environment={**program.environment, **settings})

    return adjust


AGENT = """
name: faults
instructions: Be brief.
"""

_call_numbers = iter(range(1, 1 << 30))


def new_call_sid() -> str:
    """Of a call that there was not before."""
    return f"CA{time.time_ns() & 0xFFFFFFFF:08x}{next(_call_numbers):024x}"


async def seconds_until(
    condition: Callable[[], bool] | Callable[[], object], within_s: float
) -> float | None:
    """How long until something is so; None when it was not in time.

    Args:
        condition: Called again and again; what it returns may be awaitable.
        within_s: When to give up.
    """
    began_s = time.monotonic()
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        now_s = time.monotonic() - began_s
        if answer:
            return round(now_s, 2)
        if now_s > within_s:
            return None
        await asyncio.sleep(ASKED_EVERY_S)


async def must(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Wait for what a scenario needs before it can begin.

    Raises:
        TimeoutError: It did not come.
    """
    if await seconds_until(condition, within_s) is None:
        raise TimeoutError(f"waited {within_s:.0f} s in vain for: {what}")
