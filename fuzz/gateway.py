"""Odd peers at a gateway process, with good calls beside them that are looked at.

The gateway is the real one, in a process of its own. This process has Twilio's end of the good calls,
in real time, and the services that the gateway needs (:mod:`fuzz.neighbours`). The odd peers are in a
third process (:mod:`fuzz.strangers`), which begins after a quiet while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import uvloop

from asheard.v1 import ingest_service_pb2_grpc, session_service_pb2_grpc
from cli.system import clean_environment, free_ports
from fuzz.good_call import FRAME_S, GoodCall
from fuzz.harness import MAX_FINDINGS, Report, memory_bytes
from fuzz.neighbours import Log, World

GOOD_CALLS = 8

SPEAK_EVERY_S = 2.0
"""How often the agent of a good call says something."""

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


def run(*, seed: int, seconds: float, case: int | None) -> Report:
    """Try odd peers for so long, or one of them alone."""
    report = Report("gateway", seed)
    began = time.monotonic()
    uvloop.run(_run(report, seconds, case))
    report.seconds = time.monotonic() - began
    return report


async def _run(report: Report, seconds: float, case: int | None) -> None:
    world = World(report)
    server = grpc.aio.server()
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(world, server)
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(world, server)
    peers = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with tempfile.TemporaryDirectory(prefix="fuzz-gateway-") as folder:
        log = Path(folder) / "gateway.log"
        reader = Log(world, log)
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
    world: World, log: Path, peers: int
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
    world: World,
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
            call = GoodCall(number, socket)
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


async def _speaking(world: World) -> None:
    while True:
        await asyncio.sleep(SPEAK_EVERY_S)
        for call in world.good.values():
            if call.handle and not call.stop.is_set():
                call.spoken += 1
                world.speak(call.handle, f"item_{call.spoken}")


async def _own_delay(world: World) -> None:
    while True:
        due = time.monotonic() + FRAME_S
        await asyncio.sleep(FRAME_S)
        world.delays.own_s = max(world.delays.own_s, time.monotonic() - due)


async def _seconds(world: World, gateway: int) -> None:
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
    world: World,
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


async def _until_told(world: World) -> None:
    """Until the last facts of the good calls are there, or it is not to be expected."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if all(c.facts and c.facts[-1].HasField("call_ended") for c in world.good.values()):
            return
        await asyncio.sleep(0.05)


def _judge(world: World) -> None:
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
