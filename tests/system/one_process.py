"""The three real services in this process, on one uvloop, over real sockets: so that a test can reach in.

Around them a scripted model and scripted telephones, small enough to know by heart what each call
must have come to. All that happens hangs on the caller's frames, not on clocks: a slow machine makes
a call longer, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio

import gateway.service
import session.service
import transcript.service
from asheard.v1 import transcript_pb2, transcript_service_pb2, transcript_service_pb2_grpc
from bench.faults.model import ModelSession, ScriptedModel
from cli.system import clean_environment, on_free_ports, plan
from gateway.config import GatewayConfig
from runtime.process import Stop
from runtime.rpc import channel
from session.config import SessionConfig
from transcript.config import TranscriptConfig
from words.proportional import ProportionalSource
from words.timing import Speech, WordTimes

PATIENCE_S = 20.0
"""How long anything may take on a busy machine before a test fails."""

STOPS_WITHIN_S = 5.0
"""What a service gets to end in. One that was hurt may never."""

AGENT = """
name: barriers
instructions: Be brief.
tools:
  - {name: look, description: Looks something up., url: "http://127.0.0.1:9/nobody", timeout_s: 2}
"""
"""Nobody listens at port 9: the function is called, and refused at once."""


async def until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It was not, in time.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not condition():
        if loop.time() > deadline_s:
            raise AssertionError(f"waited {within_s:.0f} s in vain for: {what}")
        await asyncio.sleep(0.01)


# -- the model ---------------------------------------------------------------------------------


async def everything(session: ModelSession) -> None:
    """What happens in a victim's call, within a second: all that can."""
    session.answers["text"] = "I looked it up."
    session.refuses.append("conversation.item.create")  # the first result; the second is added
    await session.listen("u1", "Good day.")
    await session.speak("a1", "Yes, please?", 100)
    await session.until_frames(8)
    await session.speak("a2", "That takes a while, so let me tell you all of it.", 2_000)
    await session.send("rate_limits.updated", rate_limits=[
        {"name": "requests", "limit": 10, "remaining": 5, "reset_seconds": 1.0}
    ])  # fmt: skip
    await session.send("error", error={"type": "x", "code": "odd", "message": "Odd."})
    await session.until_frames(16)
    await session.listen("u2", "Stop!")  # cuts a2
    await session.call_function("f1", "look")
    await session.call_function("f2", "look")
    await session.until_frames(26)
    await session.begin("a3", "This is cut while", 600)
    await session.until_frames(30)
    await session.caller_starts("u3")
    await session.end("a3", "This is cut while", "cancelled")
    await session.until_frames(36)
    await session.begin("a4", "And this is never", 100)


async def everything_and_its_end(session: ModelSession) -> None:
    """The same, and the model closes the socket."""
    await everything(session)
    await session.socket.close(1011, "broken")


async def everything_and_no_answer(session: ModelSession) -> None:
    """The same, and what the caller asks last is not answered."""
    await everything(session)
    await session.caller_stops("u3", "And then?")


# -- the system --------------------------------------------------------------------------------


async def _proportional(speech: Speech) -> WordTimes | None:
    return ProportionalSource().word_times(speech)


class OneProcess:
    """The services, as tasks of this loop, and the model."""

    def __init__(self, environment: dict[str, str], model: ScriptedModel) -> None:
        self.environment = environment
        self.model = model
        self.services: dict[str, asyncio.Task[None]] = {}

    @property
    def media_url(self) -> str:
        """The media socket."""
        return f"ws://{self.environment['ASHEARD_GATEWAY_LISTEN']}/twilio/media"

    def ended(self) -> list[str]:
        """Services that have ended by themselves, and why."""
        return [
            f"{name} ended: {task.exception()!r}"
            for name, task in self.services.items()
            if task.done()
        ]

    async def probe(self, name: str, path: str) -> int:
        """What a service's admin port answers; 0 when it does not."""
        url = f"http://{self.environment[f'ASHEARD_{name.upper()}_ADMIN']}{path}"
        try:
            async with asyncio.timeout(2), aiohttp.ClientSession() as http, http.get(url) as got:
                return got.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def post(self, path: str, **form: str) -> None:
        """A webhook of Twilio's."""
        url = f"http://{self.environment['ASHEARD_GATEWAY_LISTEN']}{path}"
        async with aiohttp.ClientSession() as http, http.post(url, data=form) as response:
            await response.read()

    async def transcripts(self, call_sids: Sequence[str]) -> dict[str, transcript_pb2.Transcript]:
        """Transcripts as they stand, but for those that cannot be had just now."""
        found: dict[str, transcript_pb2.Transcript] = {}
        async with channel(self.environment["ASHEARD_TRANSCRIPT_TARGET"]) as to_service:
            stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
            for call_sid in call_sids:
                request = transcript_service_pb2.GetTranscriptRequest(call_sid=call_sid)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    found[call_sid] = (await stub.GetTranscript(request, timeout=5)).transcript
        return found


@asynccontextmanager
async def one_process() -> AsyncIterator[OneProcess]:
    """Run the services and the model in this loop.

    Raises:
        AssertionError: A service did not become ready.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asheard-"))
        agent = Path(folder, "agent.yaml")
        agent.write_text(AGENT)
        scripts = {
            "vmodel": everything_and_its_end,
            "vwaits": everything_and_no_answer,
            "v": everything,
        }
        model = await stack.enter_async_context(ScriptedModel(scripts))
        environment = on_free_ports(
            {
                **clean_environment(),
                "ASHEARD_TWILIO_VALIDATE": "off",
                "ASHEARD_STORE": f"sqlite:///{folder}/asheard.db",
                "ASHEARD_REALTIME_URL": model.url,
                "ASHEARD_AGENT": str(agent),
                "ASHEARD_DRAIN_SECONDS": "0",
                "ASHEARD_SESSION_MAX_LAG_MS": "60000",
                "ASHEARD_STREAM_GRACE_SECONDS": "1",
            },
            sessions=1,
        )
        system = OneProcess(environment, model)
        programs = plan(environment, sessions=1)
        stops: list[Stop] = []
        for program in programs:
            stop = Stop()
            name = program.arguments[0]
            running = _SERVICES[name](program.environment, stop)
            system.services[name] = asyncio.create_task(running, name=name)
            stops.append(stop)
        try:
            async with aiohttp.ClientSession() as http:
                for program in programs:
                    await _ready(http, program.ready_url or "", system)
            yield system
        finally:
            # The gateway first: what is behind it must still take its last facts.
            for stop, task in reversed(list(zip(stops, system.services.values(), strict=True))):
                stop.draining.set()
                stop.now.set()
                await asyncio.wait([task], timeout=STOPS_WITHIN_S)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _ready(http: aiohttp.ClientSession, url: str, system: OneProcess) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + PATIENCE_S
    while loop.time() < deadline_s:
        with contextlib.suppress(aiohttp.ClientError):
            async with http.get(url) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{url} is not ready; {system.ended()}")


_SERVICES: dict[str, Callable[..., Any]] = {
    "transcript": lambda env, stop: transcript.service.serve(TranscriptConfig.from_env(env), stop),
    "session": lambda env, stop: session.service.serve(
        SessionConfig.from_env(env), stop, refine=_proportional
    ),
    "gateway": lambda env, stop: gateway.service.serve(GatewayConfig.from_env(env), stop),
}
