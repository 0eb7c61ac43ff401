"""Scenarios at Twilio's end: what a media stream, a webhook or a network may do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import aiohttp

from bench import processes
from bench.faults.model import ModelSession, ScriptedModel
from bench.faults.neighbours import neighbours
from bench.faults.phone import Phone
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import Stage, must, new_call_sid, seconds_until, stage
from cli.system import Program

ROOT = Path(__file__).parent.parent.parent

_WHOLE = Measure("of 5 other calls: whole, each frame and each word", "calls", 5, at_most=False)


@scenario(
    "oversized-marks",
    "one stream sends 90 marks with names of 200 KB",
    _WHOLE,
)
async def oversized_marks(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        hostile = await _hostile(system, "marks", 90, 200_000)
        await hostile.wait()
        return (await others.whole(),)


@scenario(
    "flood-of-marks",
    "one stream sends 100,000 marks with names of 2 KB, as fast as it can",
    Measure("99 % of other calls' frames, on their way to the model", "ms", 50),
    Measure("growth of the gateway", "MB", 60),
    _WHOLE,
    within_s=150.0,
    alone=True,
)
async def flood_of_marks(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        before = most = processes.usage(system.pid("gateway")).anonymous_bytes
        hostile = await _hostile(system, "marks", 100_000, 2_000)
        if hostile.stdout is not None:
            await hostile.stdout.readline()  # the stream is started; soon the marks come
        began_s = time.monotonic()
        while hostile.returncode is None:
            most = max(most, processes.usage(system.pid("gateway")).anonymous_bytes)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hostile.wait(), 0.2)
        delay_ms = others.delay_ms(began_s)
        return delay_ms, round((most - before) / 1e6, 1), await others.whole()


@scenario(
    "large-media-frames",
    "one stream sends 300 frames of 130 KB of audio while the worker is stopped for 1.6 s",
    _WHOLE,
)
async def large_media_frames(_options: Options) -> Values:

    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        hostile = await _hostile(system, "media", 300, 130_000, tag="h1")
        await asyncio.sleep(0.6)
        system.signal("session-0", signal.SIGSTOP)
        await asyncio.sleep(1.2)
        system.signal("session-0", signal.SIGCONT)
        await hostile.wait()
        return (await others.whole(),)


@scenario(
    "faster-than-speech",
    "one stream sends 40 minutes of audio as fast as it can",
    Measure("of it that comes to the model", "s", 120),
    _WHOLE,
)
async def faster_than_speech(_options: Options) -> Values:
    async with (
        ScriptedModel({"h": _listens}) as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        hostile = await _hostile(system, "media", 120_000, 160, tag="h1", stay_s=3)
        await hostile.wait()
        await asyncio.sleep(1.0)
        session = model.session("h1")
        came_s = session.appended_bytes / 8_000 if session is not None else 0.0
        return round(came_s, 1), await others.whole()


async def _listens(_session: ModelSession) -> None:
    """Says nothing."""


@scenario(
    "malformed-input",
    "messages and webhooks that are malformed, each in its own way",
    Measure("that are answered by a fault of ours instead of a clear refusal", "of 9", 0),
    Measure("tracebacks in the log", "", 0),
)
async def malformed_input(_options: Options) -> Values:
    deep = '{"event":"media","streamSid":"S","media":{"x":' + "[" * 3_000 + "]" * 3_000 + "}}"
    messages: list[str | bytes] = [
        '{"event": "mark", "mark": {"name": "a"}} trailing',
        deep,
        deep.replace("}}", ""),
        '{"event": "dtmf", "dtmf": {"digit": "\\ud800"}}',
        '{"event": "mark", "mark": {"name": "p' + "9" * 5_000 + '"}}',
    ]
    wrong = 0
    async with ScriptedModel() as model, stage(model.url) as system:
        for message in messages:
            phone = Phone(system.media_url(), new_call_sid(), "v1")
            await phone.open()
            await phone.frames(5)
            text = (
                message.replace('"S"', f'"{phone.stream_sid}"')
                if isinstance(message, str)
                else message
            )
            if isinstance(text, str) and '"streamSid"' not in text:
                text = text.replace("{", f'{{"streamSid": "{phone.stream_sid}", ', 1)
            await phone.send_text(text)
            await phone.frames(25)
            if phone.closed.is_set() and phone.close_code not in (1003, 1007, 1008, 1009):
                wrong += 1
            await phone.close()
        url = f"http://{system.listens()}/twilio/voice"
        form = "application/x-www-form-urlencoded"
        webhooks: list[tuple[bytes, str]] = [
            (b"CallSid=CA1", f"{form}; charset=no-such-thing"),
            (b"CallSid=%ff%fe&x=\xff", form),
            (b"--x\r\nno part", "multipart/form-data; boundary=x"),
            (b"{}", "application/json; charset=utf-7"),
        ]
        async with aiohttp.ClientSession() as http:
            for body, content_type in webhooks:
                headers = {"Content-Type": content_type}
                async with http.post(url, data=body, headers=headers) as response:
                    wrong += response.status >= 500
        await asyncio.sleep(0.3)
        return wrong, system.log.getvalue().count("Traceback")


@scenario(
    "idle-connections",
    "60 connections to the gateway that send half a header, and nothing more",
    Measure("until the last of them is closed", "s", 30),
)
async def idle_connections(_options: Options) -> Values:
    async with ScriptedModel() as model, stage(model.url) as system:
        host, _, port = system.listens().rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(60)]
        for number, (_, writer) in enumerate(opened):
            writer.write(b"GET /twilio/media HTTP/1.1\r\nHost: x\r\n" if number % 2 else b"")
        began_s = time.monotonic()

        async def gone(reader: asyncio.StreamReader) -> None:
            with contextlib.suppress(OSError):
                while await reader.read(1024):
                    pass

        waiting = [asyncio.create_task(gone(reader)) for reader, _ in opened]
        _, left = await asyncio.wait(waiting, timeout=60.0)
        for task in left:
            task.cancel()
        for _, writer in opened:
            writer.close()
        return (None if left else round(time.monotonic() - began_s, 1),)


@scenario(
    "no-descriptors",
    "400 idle connections to a gateway that may have 200 descriptors",
    Measure("of 10 looks at /livez: answered", "looks", 10, at_most=False),
    Measure("until a webhook is answered again", "s", 30),
)
async def no_descriptors(_options: Options) -> Values:
    def adjust(program: Program) -> Program:
        if program.name != "gateway":
            return program
        limited = ("sh", "-c", 'ulimit -n 200; exec "$0" "$@"', *program.command)
        return replace(program, command=limited)

    async with ScriptedModel() as model, stage(model.url, adjust=adjust) as system:
        host, _, port = system.listens().rpartition(":")
        idle = []
        for _ in range(400):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    idle.append(await asyncio.open_connection(host, int(port)))
        answered = 0
        for _ in range(10):
            status, _ = await system.ask("gateway", "/livez")
            answered += status == 200
            await asyncio.sleep(0.1)

        async def webhook() -> bool:
            timeout = aiohttp.ClientTimeout(total=2.0)
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout) as http,
                    http.post(f"http://{system.listens()}/twilio/voice", data={"CallSid": "CA1"}) as got,
                ):  # fmt: skip
                    return got.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        served_s = await seconds_until(webhook, 45.0)
        for _, writer in idle:
            writer.close()
        return answered, served_s


async def _monologue(session: ModelSession) -> None:
    await session.until_frames(70)
    await session.speak("long", "This takes half a minute and more. " * 20, 60_000)


@scenario(
    "vanished-caller",
    "Twilio's machine loses its network, and then the agent speaks",
    Measure("until the gateway has ended the call", "s", 35),
    within_s=120.0,
)
async def vanished_caller(_options: Options) -> Values:
    async with ScriptedModel({"v": _monologue}) as model, stage(model.url) as system:
        phone = await _calling(system, model, "v1", frames=60)
        phone.vanish()
        await phone.frames(20)  # these still come through; what the gateway sends does not
        noticed_s = await seconds_until(system.no_calls_left, 100.0)
        await phone.close()
        return (noticed_s,)


@scenario(
    "vanished-caller-in-silence",
    "Twilio's machine loses its network while nobody speaks",
    Measure("until the gateway has ended the call", "s", 35),
    within_s=120.0,
)
async def vanished_caller_in_silence(_options: Options) -> Values:
    async with ScriptedModel({"v": _listens}) as model, stage(model.url) as system:
        phone = await _calling(system, model, "v1", frames=60)
        phone.vanish()
        noticed_s = await seconds_until(system.no_calls_left, 100.0)
        await phone.close()
        return (noticed_s,)


@scenario(
    "hung-up-behind-a-proxy",
    "the caller hangs up, something holds the socket open, and Twilio says so to the status webhook",
    Measure("until the gateway has ended the call: 2 s, in which its stop may still come", "s", 3),
    Measure("the same when another gateway is told", "s", 3),
    Measure("the same when nobody is told", "s", 35),
    within_s=240.0,
)
async def hung_up_behind_a_proxy(_options: Options) -> Values:
    async with (
        ScriptedModel({"v": _listens}) as model,
        stage(model.url, gateways=2) as system,
        aiohttp.ClientSession() as http,
    ):
        times: list[float | None] = []
        for told in ("gateway", "gateway-1", None):
            phone = await _calling(system, model, f"v{told}", frames=30)
            if told is not None:
                form = {
                    "CallSid": phone.call_sid, "StreamSid": phone.stream_sid,
                    "AccountSid": "AC1", "StreamEvent": "stream-stopped",
                }  # fmt: skip
                url = f"http://{system.listens(told)}/twilio/status"
                async with http.post(url, data=form) as response:
                    await response.read()
            times.append(await seconds_until(system.no_calls_left, 45.0 if told else 130.0))
            await phone.close()
            await seconds_until(system.no_calls_left, 10.0)
        return tuple(times)


async def _calling(system: Stage, model: ScriptedModel, tag: str, *, frames: int) -> Phone:
    """A caller who has spoken for a while, and whose frames came to the model."""
    phone = Phone(system.media_url(), new_call_sid(), tag)
    await phone.open()
    await phone.frames(frames)
    await must(lambda: model.session(tag) is not None, "the call is connected")
    return phone


async def _hostile(
    system: Stage, kind: str, count: int, size: int, *, tag: str = "", stay_s: float = 1.0
) -> asyncio.subprocess.Process:
    """Start the process that sends what no carrier would."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.faults.hostile", system.media_url(), new_call_sid(), kind,
        "--count", str(count), "--bytes", str(size), "--tag", tag, "--stay", str(stay_s),
        cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
