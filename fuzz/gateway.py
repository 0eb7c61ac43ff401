"""Odd peers at a gateway process, with good calls beside them that are looked at.

The gateway is the real one, in a process of its own. Here are its other neighbours: Twilio's end of the
good calls, in real time; a session worker, to which their frames come; a transcript service. The odd
peers are in a third process (:mod:`fuzz.strangers`), which begins after a quiet while.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import uvloop

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from cli.system import clean_environment, free_ports
from fuzz.harness import MAX_FINDINGS, Report, memory_bytes
from transcript.facts import fault

GOOD_CALLS = 8

FRAME_S = 0.02

SPEAK_EVERY_S = 2.0
"""How often the agent of a good call says something."""

SPOKEN_MS = 400

LATE_S = 0.05
"""What a frame may take from Twilio's end to the worker, at 99 %."""

TIMES_QUIET = 4
"""Or so many times as long as it takes without odd peers: a machine may have other things to do."""

CROWDED_S = 0.3
"""A second in which the gateway, or this process, waited for a CPU for longer than this says nothing of
the gateway: the machine had other things to do. With odd peers beside them on two cores it is 0.05 to 0.28,
some tenth of a millisecond each time."""

HALTED_S = 1.0
"""A process that was once so late cannot tell what the gateway did meanwhile: of frames nothing is
said then. Facts are whole all the same."""

ENOUGH_FRAMES = 2_000
"""With fewer nothing is said of 99 %."""

MAX_GROWTH_BYTES = 100 * 1024 * 1024
"""Of the gateway, after the first `WARM_S` with odd peers."""

WARM_S = 10.0

PATIENCE_S = 20.0

RECENT_CASES = 5
"""A finding names so many cases before it: what they did may come out later."""

_PEERS_FAULT = {"Twilio reports a stream error"}
"""Logged as an error, and caused by what a peer says."""


@dataclass(slots=True)
class _Delays:
    """What was measured in one phase, in seconds."""

    frames: list[float] = field(default_factory=list)
    """Of seconds in which the machine had room."""
    crowded: int = 0
    """How many frames came in other seconds."""
    own_s: float = 0.0
    """How late this process was at the most."""

    @property
    def p99_s(self) -> float:
        return sorted(self.frames)[len(self.frames) * 99 // 100] if self.frames else 0.0


class _GoodCall:
    """Twilio's end of a good call, and what the others know of it."""

    def __init__(self, number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.call_sid = f"CA_good_{number}"
        self.stream_sid = f"MZ_good_{number}"
        self._socket = socket
        self.sent_at: list[float] = []
        self.arrived: list[int] = []
        self.handle = 0
        self.spoken = 0
        self.facts: list[fact_pb2.Fact] = []
        self._plays_until = 0.0
        self.stop = asyncio.Event()
        self.lost = ""

    async def run(self) -> None:
        """Send frames until told to stop; play what comes; hang up."""
        listening = asyncio.create_task(self._listen())
        try:
            await self._say("connected", protocol="Call", version="1.0.0")
            start = {
                "streamSid": self.stream_sid,
                "accountSid": "AC1",
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"stream": "1"},
            }
            await self._say("start", start=start)
            due = time.monotonic()
            while not self.stop.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                number = len(self.sent_at)
                payload = base64.b64encode(number.to_bytes(4, "big") * 40).decode()
                media = {"track": "inbound", "chunk": "1", "payload": payload}
                self.sent_at.append(time.monotonic())
                await self._say("media", media=media | {"timestamp": str(20 * (number + 1))})
                due += FRAME_S
            await asyncio.sleep(max(0.0, self._plays_until - time.monotonic()) + 0.2)
            await self._say("stop", stop={"accountSid": "AC1", "callSid": self.call_sid})
        except (ConnectionError, aiohttp.ClientError) as error:
            self.lost = f"the socket of a good call was lost: {type(error).__name__}"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _say(self, event: str, **fields: Any) -> None:
        message = {"event": event, "streamSid": self.stream_sid, **fields}
        if event == "connected":
            del message["streamSid"]
        await self._socket.send_str(json.dumps(message))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            now = time.monotonic()
            if said["event"] == "media":
                played_s = len(base64.b64decode(said["media"]["payload"])) / 8000
                self._plays_until = max(now, self._plays_until) + played_s
            elif said["event"] == "mark":
                loop.call_later(max(0.0, self._plays_until - now), self._echo, said["mark"]["name"])
        if not self.stop.is_set():
            self.lost = f"a good call was ended with {self._socket.close_code}"

    def _echo(self, name: str) -> None:
        if not self._socket.closed:
            self._echoing = asyncio.create_task(self._say("mark", mark={"name": name}))

    def fault(self, *, halted: bool) -> str | None:
        """What is not whole about it, now that it is over."""
        if self.lost:
            return self.lost
        if not halted and self.arrived != list(range(len(self.sent_at))):
            return f"{len(self.sent_at)} frames were sent, {len(self.arrived)} came in their order"
        kinds = [str(fact.WhichOneof("body")) for fact in self.facts]
        if [fact.sequence for fact in self.facts] != list(range(1, len(self.facts) + 1)):
            return "a fact of a good call is missing"
        if kinds[:1] != ["call_started"] or kinds[-1:] != ["call_ended"]:
            return f"the facts of a good call are {kinds[:3]} … {kinds[-3:]}"
        if self.facts[-1].call_ended.outcome != fact_pb2.CALL_OUTCOME_COMPLETED:
            return "a good call did not end well"
        fixed = [fact.position_fixed for fact in self.facts if fact.HasField("position_fixed")]
        played = [f for f in fixed if f.cause == fact_pb2.POSITION_CAUSE_PLAYED]
        if len(played) != self.spoken or any(f.position.sent_ms != SPOKEN_MS for f in played):
            return f"{self.spoken} items were spoken, {len(played)} of {len(fixed)} played to their end"
        return None


class _World(
    session_service_pb2_grpc.SessionServiceServicer, ingest_service_pb2_grpc.IngestServiceServicer
):
    """Session worker and transcript service."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.good: dict[str, _GoodCall] = {}
        self.quiet, self.loud = _Delays(), _Delays()
        self.delays = self.quiet
        self.window: list[float] = []
        """Delays of frames within the second that runs."""
        self.recent: deque[int] = deque([0], RECENT_CASES)
        self.facts = 0
        self._by_handle: dict[int, _GoodCall] = {}
        self._out: asyncio.Queue[session_service_pb2.LinkResponse] = asyncio.Queue()

    def found(self, what: str, detail: str) -> None:
        """Note a finding, at the case that is under way."""
        cases = ", ".join(map(str, self.recent))
        self.report.add(self.recent[-1], what, f"{detail}\nthe last cases: {cases}")

    # -- the session worker ----------------------------------------------------------------------

    async def Link(
        self,
        request_iterator: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[session_service_pb2.LinkResponse]:
        """One gateway."""
        self._out = asyncio.Queue()
        report = session_service_pb2.LoadReport(active_calls=0, max_calls=10_000)
        self._control(0, load_report=report)
        reading = asyncio.create_task(self._read(request_iterator))
        try:
            while True:
                yield await self._out.get()
        finally:
            reading.cancel()

    async def _read(self, requests: AsyncIterator[session_service_pb2.LinkRequest]) -> None:
        async for request in requests:
            now = time.monotonic()
            for control in request.control:
                self._told(control)
            audio = request.caller_audio
            for handle, payload in zip(audio.call, audio.payload, strict=True):
                call = self._by_handle.get(handle)
                if call is not None:
                    number = int.from_bytes(base64.b64decode(payload)[:4], "big")
                    call.arrived.append(number)
                    self.window.append(now - call.sent_at[number])

    def _told(self, control: session_service_pb2.GatewayControl) -> None:
        handle = control.call
        match control.WhichOneof("body"):
            case "open_call":
                accepted = session_service_pb2.CallAccepted(session_writer=f"session/{handle}")
                self._control(handle, call_accepted=accepted)
                call = self.good.get(control.open_call.call_sid)
                if call is not None:
                    call.handle = handle
                    self._by_handle[handle] = call
                    return
                self.speak(handle, "item_1")  # so that there are marks to be echoed
                if handle % 3 == 0:
                    self._control(handle, interrupt=session_service_pb2.Interrupt(interrupt_id=1))

    def _control(self, call: int, **body: Any) -> None:
        control = session_service_pb2.SessionControl(call=call, **body)
        self._out.put_nowait(session_service_pb2.LinkResponse(control=[control]))

    def speak(self, handle: int, item_id: str) -> None:
        """Let the agent of a call say something."""
        payload = base64.b64encode(b"\x55" * (8 * SPOKEN_MS))
        audio = session_service_pb2.AgentAudio(
            call=handle, item_id=item_id, payload=payload, last=True
        )
        self._out.put_nowait(session_service_pb2.LinkResponse(agent_audio=[audio]))

    # -- the transcript service --------------------------------------------------------------------

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ingest_service_pb2.AppendFactsResponse:
        """Take facts, if a transcript service would."""
        response = ingest_service_pb2.AppendFactsResponse()
        for index, fact in enumerate(request.facts):
            self.facts += 1
            reason = fault(fact)
            if reason is not None:
                self.found(f"a fact that cannot be stored: {reason}", fact.call_sid[:60])
                response.rejected.add(index=index, reason=reason)
            elif fact.HasField("fact_dropped"):
                self.found(
                    f"a fact was given up: {fact.fact_dropped.body}", fact.fact_dropped.reason
                )
            elif fact.call_sid in self.good and fact.writer.startswith("gateway/MZ_good"):
                self.good[fact.call_sid].facts.append(fact)
        return response


def run(*, seed: int, seconds: float, case: int | None) -> Report:
    """Try odd peers for so long, or one of them alone."""
    report = Report("gateway", seed)
    began = time.monotonic()
    uvloop.run(_run(report, seconds, case))
    report.seconds = time.monotonic() - began
    return report


async def _run(report: Report, seconds: float, case: int | None) -> None:
    world = _World(report)
    server = grpc.aio.server()
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(world, server)
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(world, server)
    peers = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with tempfile.TemporaryDirectory(prefix="fuzz-gateway-") as folder:
        log = Path(folder) / "gateway.log"
        reader = _Log(world, log)
        watching: asyncio.Task[None] | None = None
        try:
            async with _gateway(world, log, peers) as (process, port, admin):
                watching = asyncio.create_task(reader.watch())
                await _calls(world, process, port, admin, seconds, case)
        finally:
            if watching is not None:
                watching.cancel()
            await server.stop(0)
            reader.look()
    quiet, loud = world.quiet, world.loud
    report.notes = (
        f"{len(loud.frames)} frames of {GOOD_CALLS} good calls: 99 % within "
        f"{loud.p99_s * 1000:.1f} ms, {quiet.p99_s * 1000:.1f} without odd peers "
        f"({loud.crowded} more while the machine was busy with others), {world.facts} facts"
    )


@contextlib.asynccontextmanager
async def _gateway(
    world: _World, log: Path, peers: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, int]]:
    """A gateway process; its ports. Ended by two SIGTERMs, and that ends it well."""
    port, admin = free_ports(2)
    environment = {
        **clean_environment(),
        "ASHEARD_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "ASHEARD_GATEWAY_ADMIN": f"127.0.0.1:{admin}",
        "ASHEARD_SESSION_TARGETS": f"127.0.0.1:{peers}",
        "ASHEARD_INGEST_TARGET": f"127.0.0.1:{peers}",
        "ASHEARD_TWILIO_VALIDATE": "off",
        "ASHEARD_DRAIN_SECONDS": "2",
        "ASHEARD_LOG_FORMAT": "json",
        "ASHEARD_LOG_LEVEL": "warning",
    }
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", "gateway", env=environment, stdout=out, stderr=out
        )
    try:
        await _until_ready(process, admin)
        yield process, port, admin
        if process.returncode is None:
            process.terminate()
            await asyncio.sleep(0.2)
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # odd peers' calls need not be waited for
            status = await asyncio.wait_for(process.wait(), PATIENCE_S)
            if status:
                world.found(f"the gateway ended with status {status}", "")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, admin: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await _answers(admin, "/readyz"):
        if process.returncode is not None or time.monotonic() > deadline:
            raise RuntimeError("the gateway did not start")
        await asyncio.sleep(0.05)


async def _answers(admin: int, path: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"http://127.0.0.1:{admin}{path}") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _calls(
    world: _World,
    process: asyncio.subprocess.Process,
    port: int,
    admin: int,
    seconds: float,
    case: int | None,
) -> None:
    """Good calls for all the time, odd peers for most of it."""
    quiet_s = 0.5 if case is not None else min(10.0, seconds / 4)
    async with aiohttp.ClientSession() as http:
        running: list[asyncio.Task[None]] = []
        for number in range(GOOD_CALLS):
            socket = await http.ws_connect(f"ws://127.0.0.1:{port}/twilio/media")
            call = _GoodCall(number, socket)
            world.good[call.call_sid] = call
            running.append(asyncio.create_task(call.run()))
        beside = [
            asyncio.create_task(_speaking(world)),
            asyncio.create_task(_own_delay(world)),
            asyncio.create_task(_seconds(world, process.pid)),
        ]
        await asyncio.sleep(min(0.5, quiet_s / 2))  # until all are placed
        world.window.clear()
        await asyncio.sleep(quiet_s)
        world.delays = world.loud
        await _strangers(world, process, port, max(1.0, seconds - quiet_s), case)
        alive = process.returncode is None
        if not alive:
            world.found(f"the gateway died with status {process.returncode}", "")
        elif not await _answers(admin, "/livez"):
            world.found("the gateway is not alive any more", "")
        for task in beside:
            task.cancel()
        for good in world.good.values():
            good.stop.set()
        await asyncio.wait(running, timeout=PATIENCE_S)
        if alive:
            await _until_told(world)
            _judge(world)


async def _speaking(world: _World) -> None:
    while True:
        await asyncio.sleep(SPEAK_EVERY_S)
        for call in world.good.values():
            if call.handle and not call.stop.is_set():
                call.spoken += 1
                world.speak(call.handle, f"item_{call.spoken}")


async def _own_delay(world: _World) -> None:
    while True:
        due = time.monotonic() + FRAME_S
        await asyncio.sleep(FRAME_S)
        world.delays.own_s = max(world.delays.own_s, time.monotonic() - due)


async def _seconds(world: _World, gateway: int) -> None:
    """Take the frames of each second in which the machine had room for what is measured."""
    pids = (gateway, os.getpid())
    before = [_waited_s(pid) for pid in pids]
    while True:
        delays = world.delays
        await asyncio.sleep(1.0)
        now = [_waited_s(pid) for pid in pids]
        frames, world.window = world.window, []
        if delays is not world.delays:
            pass  # some of both phases
        elif max(after - then for after, then in zip(now, before, strict=True)) <= CROWDED_S:
            delays.frames += frames
        else:
            delays.crowded += len(frames)
        before = now


def _waited_s(pid: int) -> float:
    """How long the main thread of a process was ready to run and had no CPU, in all."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0  # it has ended


async def _strangers(
    world: _World,
    process: asyncio.subprocess.Process,
    port: int,
    seconds: float,
    case: int | None,
) -> None:
    """Let odd peers come for so long, or one of them."""
    report = world.report
    command = [sys.executable, "-m", "fuzz.strangers", "--port", str(port)]
    command += ["--seed", str(report.seed)]
    if case is not None:
        command += ["--case", str(case)]
    strangers = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert strangers.stdout is not None and strangers.stdin is not None
    began = time.monotonic()
    try:
        while (line := await strangers.stdout.readline()) and process.returncode is None:
            number, inputs = map(int, line.split())
            world.recent.append(number)
            report.cases, report.inputs = report.cases + 1, inputs
            elapsed = time.monotonic() - began
            if report.cases % 50 == 0:
                report.end_bytes = memory_bytes(process.pid)
                if elapsed < WARM_S or not report.warm_bytes:
                    report.warm_bytes = report.end_bytes
                elif report.end_bytes > report.warm_bytes + MAX_GROWTH_BYTES:
                    sizes = f"{report.warm_bytes >> 20} to {report.end_bytes >> 20} MB"
                    world.found("the gateway grows", sizes)
            if case is None and elapsed >= seconds:
                break
            if len(report.findings) >= MAX_FINDINGS:
                break
        if case is not None:
            await asyncio.sleep(1.0)  # what it did may come out later
    finally:
        strangers.stdin.close()
        try:
            await asyncio.wait_for(strangers.communicate(), PATIENCE_S)
        except TimeoutError:
            strangers.kill()
            await strangers.wait()
    if strangers.returncode and process.returncode is None:
        world.found(f"the odd peers themselves failed with {strangers.returncode}", "")


async def _until_told(world: _World) -> None:
    """Until the last facts of the good calls are there, or it is not to be expected."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if all(c.facts and c.facts[-1].HasField("call_ended") for c in world.good.values()):
            return
        await asyncio.sleep(0.05)


def _judge(world: _World) -> None:
    quiet, loud = world.quiet, world.loud
    halted = max(quiet.own_s, loud.own_s) > HALTED_S
    for call in world.good.values():
        if (reason := call.fault(halted=halted)) is not None:
            world.found(re.sub(r"\d+", "N", reason), f"{call.call_sid}: {reason}")
    max_s = max(LATE_S, TIMES_QUIET * quiet.p99_s)
    if len(loud.frames) >= ENOUGH_FRAMES and loud.p99_s > max_s:
        world.found(
            "frames of good calls come late",
            f"99 % within {loud.p99_s * 1000:.1f} ms, {quiet.p99_s * 1000:.1f} without odd peers",
        )


class _Log:
    """The gateway's log: it blames itself for nothing."""

    def __init__(self, world: _World, path: Path) -> None:
        self._world = world
        self._path = path
        self._read_bytes = 0

    async def watch(self) -> None:
        """Look at what is new, so that a finding is near to its case."""
        while True:
            await asyncio.sleep(0.25)
            self.look()

    def look(self) -> None:
        """Look at all whole lines that are new."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            data, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(data) + len(newline)
        for line in data.decode(errors="replace").splitlines():
            self._line(line)

    def _line(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"level": "error", "event": line}
        if not isinstance(entry, dict) or entry.get("level") not in ("error", "critical"):
            return
        if entry.get("event") in _PEERS_FAULT:
            return
        raised = _RAISED.findall(str(entry.get("exception", "")))
        what = f"logged: {str(entry.get('event'))[:120]}{': ' + raised[-1] if raised else ''}"
        detail = json.dumps(entry, indent=1).replace("\\n", "\n")
        self._world.found(re.sub(r"\d+", "N", what), detail[:6_000])


_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)
"""The types in a traceback; the message behind one may have several lines."""
