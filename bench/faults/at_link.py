"""Scenarios between gateway and session worker."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.faults.model import ModelSession, Script, ScriptedModel, sound
from bench.faults.neighbours import neighbours
from bench.faults.phone import Phone
from bench.faults.proxy import Proxy, proxy
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import Stage, must, new_call_sid, seconds_until, stage, with_environment
from cli.system import Program, free_ports

_WHOLE = Measure("of 5 other calls: whole, each frame and each word", "calls", 5, at_most=False)


async def _absurd_content_index(session: ModelSession) -> None:
    await session.until_frames(5)
    await session.open_item("odd")
    part = {"response_id": "r-odd", "item_id": "odd", "output_index": 0}
    await session.send(
        "response.output_audio.delta", delta=sound(100), content_index=1 << 31, **part
    )
    await session.send("response.output_audio.delta", delta=sound(100), content_index=-1, **part)


async def _huge_delta(session: ModelSession) -> None:
    await session.until_frames(5)
    await session.open_item("huge")
    await session.send(
        "response.output_audio.delta", delta=sound(2_000_000), content_index=0,
        response_id="r-huge", item_id="huge", output_index=0,
    )  # fmt: skip


async def _huge_text(session: ModelSession) -> None:
    await session.until_frames(5)
    await session.begin("wordy", "Well. ", 400)
    for _ in range(64):
        await session.send(
            "response.output_audio_transcript.delta", delta="words and " * 26_000,
            response_id="r-wordy", item_id="wordy", output_index=0, content_index=0,
        )  # fmt: skip
    await session.end("wordy", "Well. " + "words and " * 26_000 * 64)


@scenario("absurd-content-index", "the model names content part 2,147,483,648 in one call", _WHOLE)
async def absurd_content_index(_options: Options) -> Values:
    return await _with_model_event("odd", _absurd_content_index)


@scenario("huge-audio-delta", "the model sends an audio delta of 21 MB in one call", _WHOLE)
async def huge_audio_delta(_options: Options) -> Values:
    return await _with_model_event("huge", _huge_delta)


@scenario("huge-text", "the model sends 16 MB of text in one call", _WHOLE)
async def huge_text(_options: Options) -> Values:
    return await _with_model_event("wordy", _huge_text)


async def _with_model_event(tag: str, script: Script) -> Values:
    async with (
        ScriptedModel({tag: script}) as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        phone = Phone(system.media_url(), new_call_sid(), tag)
        await phone.open()
        await phone.frames(150)
        await phone.stop()
        whole = await others.whole()
        await phone.close()
        return (whole,)


@scenario(
    "speech-after-silence",
    "ten callers fall silent; 750 ms after their last frames the model hears speech, and says more at once",
    Measure("calls that go on", "of 10", 10, at_most=False),
)
async def speech_after_silence(_options: Options) -> Values:
    async def script(session: ModelSession) -> None:
        await session.until_frames(30)
        offset_ms = int(session.tag.removeprefix("q")) * 0.1
        await asyncio.sleep(
            max(0.0, session.came_at_s[-1] + 0.7493 + offset_ms / 1000 - time.monotonic())
        )
        begin = session.event(
            "input_audio_buffer.speech_started", item_id="u", audio_start_ms=session.now_ms
        )
        more = session.event("rate_limits.updated", rate_limits=[])
        # Both in one write, so that the worker reads them in one go.
        for text in (begin, more):
            session.socket.protocol.send_text(text.encode())
        session.socket.transport.write(b"".join(session.socket.protocol.data_to_send()))

    async with ScriptedModel({"q": script}) as model, stage(model.url) as system:
        phones = [Phone(system.media_url(), new_call_sid(), f"q{n}") for n in range(10)]
        for phone in phones:
            await phone.open()
        await asyncio.gather(*(phone.frames(30) for phone in phones))
        await asyncio.sleep(2.0)
        await asyncio.gather(*(phone.frames(20) for phone in phones))
        alive = sum(
            not phone.closed.is_set()
            and (session := model.session(phone.tag)) is not None
            and len(session.frames) >= 45
            for phone in phones
        )
        for phone in phones:
            await phone.close()
        return (alive,)


@scenario(
    "stopped-worker",
    "a session worker is stopped (SIGSTOP)",
    Measure("until its callers' streams are ended, so that Twilio asks for new ones", "s", 3.5),
)
async def stopped_worker(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as others,
    ):
        system.signal("session-0", signal.SIGSTOP)
        try:
            noticed_s = await seconds_until(
                lambda: all(phone.closed.is_set() for phone in others.phones), 60.0
            )
        finally:
            system.signal("session-0", signal.SIGCONT)
        return (noticed_s,)


@scenario(
    "silent-link",
    "the network between gateway and worker goes silent, without a reset",
    Measure("until the callers' streams are ended", "s", 3.5),
    Measure("until the worker has ended its sessions at the model", "s", 8),
)
async def silent_link(_options: Options) -> Values:
    async with _proxied_link() as (model, system, link), neighbours(system, model) as others:
        sessions = [others.session(phone) for phone in others.phones]
        link.vanish()

        async def at_gateway() -> float | None:
            return await seconds_until(
                lambda: all(phone.closed.is_set() for phone in others.phones), 60.0
            )

        async def at_worker() -> float | None:
            return await seconds_until(
                lambda: all(session is None or session.ended.is_set() for session in sessions),
                60.0,
            )

        return tuple(await asyncio.gather(at_gateway(), at_worker()))


@scenario(
    "link-cut-for-a-moment",
    "the link to the only worker is reset, and 50 ms later a new stream comes; ten times",
    Measure("streams that are served", "of 10", 10, at_most=False),
)
async def link_cut_for_a_moment(_options: Options) -> Values:
    served = 0
    async with _proxied_link() as (model, system, link):
        for number in range(10):
            await must(_ready(system), "the link is up")
            link.cut()
            await asyncio.sleep(0.05)
            phone = Phone(system.media_url(), new_call_sid(), f"s{number}")
            await phone.open()
            await phone.frames(150)
            session = model.session(phone.tag)
            served += session is not None and not phone.closed.is_set()
            await phone.stop()
            await phone.close()
        return (served,)


def _ready(system: Stage) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        return (await system.ask("gateway", "/readyz"))[0] == 200

    return ready


@asynccontextmanager
async def _proxied_link() -> AsyncIterator[tuple[ScriptedModel, Stage, Proxy]]:
    """A system whose gateway reaches its only worker through a proxy of ours."""
    [port] = free_ports(1)
    async with ScriptedModel() as model, proxy(f"127.0.0.1:{port}") as link:

        def adjust(program: Program) -> Program:
            if program.name == "gateway":
                return with_environment("gateway", ASHEARD_SESSION_TARGETS=link.address)(program)
            if program.name == "session-0":
                listen = {"ASHEARD_SESSION_LISTEN": f"127.0.0.1:{port}"}
                return replace(program, environment={**program.environment, **listen})
            return program

        async with stage(model.url, adjust=adjust) as system:
            yield model, system, link
