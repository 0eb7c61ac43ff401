"""Scenarios at the model's end: what a Realtime server may send, and what must not come of it."""

from __future__ import annotations

import asyncio
import base64
import random
from typing import Any

from aiohttp import web

from asheard.v1 import transcript_pb2
from bench.faults.model import ModelSession, ScriptedModel
from bench.faults.phone import Phone
from bench.faults.proxy import proxy
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import Stage, must, new_call_sid, seconds_until, stage
from simulators.speech import corpus


@scenario(
    "vanished-model",
    "the network between worker and model goes silent while the caller speaks",
    Measure("until the caller's stream is ended", "s", 12),
    within_s=120.0,
)
async def vanished_model(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        proxy(model.address) as way,
        stage(f"ws://{way.address}/v1/realtime") as system,
    ):
        phone = Phone(system.media_url(), new_call_sid(), "v1")
        await phone.open()
        talking = asyncio.create_task(phone.frames(1_000_000))
        await must(
            lambda: (found := model.session("v1")) is not None and len(found.frames) > 60,
            "the call is connected",
        )
        way.vanish()
        noticed_s = await seconds_until(phone.closed.is_set, 90.0)
        talking.cancel()
        await phone.close()
        return (noticed_s,)


# -- functions -----------------------------------------------------------------------------------


@scenario(
    "cancelled-function",
    "six function calls are cut off; three are complete: two without arguments, one told by response.done alone",
    Measure("of the six that are carried out", "calls", 0),
    Measure("of the other three that are carried out", "calls", 3, at_most=False),
)  # fmt: skip
async def cancelled_function(_options: Options) -> Values:
    posted: list[str] = []

    async def take(request: web.Request) -> web.Response:
        posted.append(request.path.removeprefix("/"))
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/{name}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    names = ("wrong", "right")
    tools = "".join(
        f'  - {{name: {name}, description: d, url: "http://127.0.0.1:{port}/{name}"}}\n'
        for name in names
    )
    agent = f"name: faults\ninstructions: Be brief.\ntools:\n{tools}"
    try:
        async with (
            ScriptedModel({"f": _functions}) as model,
            stage(model.url, agent=agent) as system,
        ):
            phone = Phone(system.media_url(), new_call_sid(), "f1")
            await phone.open()
            await phone.frames(250)
            await phone.close()
    finally:
        await runner.cleanup()
    return posted.count("wrong"), posted.count("right")


async def _functions(session: ModelSession) -> None:
    at = 10
    for status in ("cancelled", "incomplete", "failed"):
        for arguments in ("", '{"ord'):
            await session.until_frames(at)
            at += 12
            await _unfinished_function(session, f"w{at}", status, arguments)
    for arguments in ("", "{}"):
        await session.until_frames(at)
        at += 12
        await session.call_function(f"c{at}", "right", arguments)
    await session.until_frames(at)
    item = {"id": "only-done", "type": "function_call", "status": "completed", "name": "right",
            "call_id": "call_only", "arguments": "{}"}  # fmt: skip
    await session.send("response.created", response={"id": "r-only", "status": "in_progress"})
    response = {"id": "r-only", "status": "completed", "output": [item]}
    await session.send("response.done", response=response)


async def _unfinished_function(
    session: ModelSession, item_id: str, status: str, arguments: str
) -> None:
    response_id, call_id = f"r-{item_id}", f"call_{item_id}"
    item = {"id": item_id, "type": "function_call", "status": "in_progress", "name": "wrong",
            "call_id": call_id, "arguments": ""}  # fmt: skip
    done = {**item, "status": "incomplete", "arguments": arguments}
    await session.send("response.created", response={"id": response_id, "status": "in_progress"})
    await session.send("response.output_item.added", response_id=response_id, item=item)
    if status == "cancelled":
        await session.caller_starts(f"u{item_id}")
    await session.send(
        "response.function_call_arguments.done", response_id=response_id, item_id=item_id,
        call_id=call_id, name="wrong", arguments=arguments, output_index=0,
    )  # fmt: skip
    await session.send("response.output_item.done", response_id=response_id, item=done)
    response = {"id": response_id, "status": status, "output": [done]}
    await session.send("response.done", response=response)
    if status == "cancelled":
        await session.caller_stops(f"u{item_id}", "Never mind.")


# -- text and sound ------------------------------------------------------------------------------

_SILENT_TEXT = "Refund deadline Friday."
_SPOKEN = "agent-condition-warranty"
"""A line of the simulators' speech, so that it is known when each of its words sounds."""


@scenario(
    "text-without-sound",
    "an item has a text part of three words before speech that is cut at about 4 s",
    Measure("words of the text part that are said to be heard", "words", 0),
    Measure("words that sounded and are not said to be heard, or the other way round", "words", 2),
)
async def text_without_sound(_options: Options) -> Values:
    speech = corpus()[_SPOKEN]
    async with ScriptedModel({"t": _text_without_sound}) as model, stage(model.url) as system:
        phone = Phone(system.media_url(), new_call_sid(), "t1")
        await phone.open()
        await phone.frames(260)
        await phone.stop()
        await phone.close()
        transcript = await _settled(system, phone.call_sid)
    turn = _first_of_agent(transcript)
    if turn is None:
        return None, None
    heard = turn.heard_text.split()
    silent = [word for word in heard if word in _SILENT_TEXT.split()]
    true_words = sum(
        2 * phone.played_bytes >= 8 * (word.start_ms + word.end_ms) for word in speech.words
    )
    return len(silent), abs(len(heard) - len(silent) - true_words)


async def _text_without_sound(session: ModelSession) -> None:
    speech = corpus()[_SPOKEN]
    await session.until_frames(10)
    await session.open_item("two")
    text = {"response_id": "r-two", "item_id": "two", "output_index": 0, "content_index": 0}
    audio = {**text, "content_index": 1}
    await session.send("response.content_part.added", part={"type": "text", "text": ""}, **text)
    await session.send("response.output_text.delta", delta=_SILENT_TEXT, **text)
    await session.send("response.output_text.done", text=_SILENT_TEXT, **text)
    await session.send("response.content_part.done", part={"type": "text"}, **text)
    await session.send("response.content_part.added", part={"type": "audio"}, **audio)
    await session.send("response.output_audio_transcript.delta", delta=speech.text, **audio)
    for start in range(0, len(speech.ulaw), 3_200):
        delta = base64.b64encode(speech.ulaw[start : start + 3_200]).decode()
        await session.send("response.output_audio.delta", delta=delta, **audio)
    await session.send("response.output_audio.done", **audio)
    await session.send("response.output_audio_transcript.done", transcript=speech.text, **audio)
    await session.send("response.content_part.done", part={"type": "audio"}, **audio)
    await session.close_item(
        "two",
        [{"type": "output_text", "text": _SILENT_TEXT},
         {"type": "output_audio", "transcript": speech.text}],
    )  # fmt: skip
    await session.until_frames(215)
    await session.listen("u1", "Wait.")


@scenario(
    "late-text",
    "an item ends with one word of text; the other six come after its end, before the response's",
    Measure("of seven words that were heard: in the transcript", "words", 7, at_most=False),
)
async def late_text(_options: Options) -> Values:
    async with ScriptedModel({"t": _late_text}) as model, stage(model.url) as system:
        phone = Phone(system.media_url(), new_call_sid(), "t1")
        await phone.open()
        await phone.frames(200)
        await phone.stop()
        await phone.close()
        turn = _first_of_agent(await _settled(system, phone.call_sid))
    return (float(len(turn.heard_text.split())) if turn is not None else 0.0,)


async def _late_text(session: ModelSession) -> None:
    await session.until_frames(10)
    await session.begin("late", "Sure. ", 2_600)
    whole = "Sure. What would you like to order?"
    part = {"response_id": "r-late", "item_id": "late", "output_index": 0, "content_index": 0}
    content: list[dict[str, Any]] = [{"type": "output_audio", "transcript": None}]
    item = {"id": "late", "type": "message", "role": "assistant", "status": "completed",
            "content": content}  # fmt: skip
    await session.send("response.output_audio.done", **part)
    await session.send("conversation.item.done", item=item, previous_item_id=None)
    await session.send("response.output_item.done", response_id="r-late", item=item)
    await session.send(
        "response.output_audio_transcript.delta", delta="What would you like to order?", **part
    )
    await session.send("response.output_audio_transcript.done", transcript=whole, **part)
    item = {**item, "content": [{"type": "output_audio", "transcript": whole}]}
    response = {"id": "r-late", "status": "completed", "output": [item]}
    await session.send("response.done", response=response)


@scenario(
    "other-audio-format",
    "session.updated says PCM at 24 kHz where µ-law was asked for, and 4 s of that come",
    Measure("noise that is said to be heard speech", "ms", 0),
    Measure("until the caller's stream is ended", "s", 12),
)
async def other_audio_format(_options: Options) -> Values:
    pcm = {"type": "audio/pcm", "rate": 24_000}
    overrides = {"audio": {"input": {"format": pcm}, "output": {"format": pcm, "voice": "marin"}}}
    async with (
        ScriptedModel({"t": _noise}, overrides=overrides) as model,
        stage(model.url) as system,
    ):
        phone = Phone(system.media_url(), new_call_sid(), "t1")
        await phone.open()
        talking = asyncio.create_task(phone.frames(600))
        ended_s = await seconds_until(phone.closed.is_set, 12.0)
        talking.cancel()
        await phone.stop()
        await phone.close()
        transcript = await _settled(system, phone.call_sid)
    heard = [turn.heard_audio_ms for turn in transcript.turns] if transcript is not None else []
    return float(sum(heard)), ended_s


async def _noise(session: ModelSession) -> None:
    await session.until_frames(10)
    noise = random.Random(1).randbytes(24_000 * 2 * 4)
    await session.open_item("pcm")
    part = {"response_id": "r-pcm", "item_id": "pcm", "output_index": 0, "content_index": 0}
    await session.send("response.output_audio_transcript.delta", delta="Well now.", **part)
    for start in range(0, len(noise), 4_800):
        delta = base64.b64encode(noise[start : start + 4_800]).decode()
        await session.send("response.output_audio.delta", delta=delta, **part)
    await session.end("pcm", "Well now.")


# -- events that cannot be read ------------------------------------------------------------------

_ODD_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "failed", "status_details": {"type": "failed", "error": "no"}}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "completed", "usage": {"input_token_details": {"text_tokens": 1.5}}}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "completed", "output": [{"type": "message"}, "odd", None]}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "completed", "output": {"not": "a list"}}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "cancelled", "status_details": "turn_detected"}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": "completed", "output": [{"id": "f", "type": "function_call",
        "status": "completed", "name": "x", "call_id": "c", "arguments": {"an": "object"}}]}},
    {"type": "response.done", "response": {
        "id": "r-odd", "status": 7, "metadata": [], "usage": "none"}},
    {"type": "response.done", "response": {"id": "r-odd", "status": "in_a_new_way"}},
)  # fmt: skip


@scenario(
    "unreadable-event",
    "in each of eight calls a response ends with an event that is odd in its own way",
    Measure("calls in which the model is asked to answer afterwards, and is heard", "of 8", 8, at_most=False),
)  # fmt: skip
async def unreadable_event(_options: Options) -> Values:
    agent = "name: faults\ninstructions: Be brief.\ntools:\n" + (
        '  - {name: look, description: d, url: "http://127.0.0.1:9/nobody", timeout_s: 2}\n'
    )
    async with ScriptedModel({"odd": _odd_event}) as model, stage(model.url, agent=agent) as system:
        phones = [
            Phone(system.media_url(), new_call_sid(), f"odd{n}") for n in range(len(_ODD_EVENTS))
        ]
        for phone in phones:
            await phone.open()
        await asyncio.gather(*(phone.frames(150) for phone in phones))
        for phone in phones:
            await phone.stop()
        good = 0
        for phone in phones:
            transcript = await _settled(system, phone.call_sid)
            turns = transcript.turns if transcript is not None else ()
            good += any(turn.heard_text == "I have looked." for turn in turns)
            await phone.close()
        return (good,)


async def _odd_event(session: ModelSession) -> None:
    odd = _ODD_EVENTS[int(session.tag.removeprefix("odd"))]
    session.answers["text"] = "I have looked."
    await session.until_frames(10)
    await session.send("response.created", response={"id": "r-odd", "status": "in_progress"})
    body = dict(odd)
    await session.send(str(body.pop("type")), **body)
    # The machine is well when it still asks for an answer to what a function gave.
    await session.until_frames(30)
    await session.call_function("f1", "look")


# -- both ----------------------------------------------------------------------------------------


def _first_of_agent(transcript: transcript_pb2.Transcript | None) -> transcript_pb2.Turn | None:
    turns = transcript.turns if transcript is not None else ()
    return next((turn for turn in turns if turn.role == transcript_pb2.ROLE_AGENT), None)


async def _settled(system: Stage, call_sid: str) -> transcript_pb2.Transcript | None:
    """A transcript once it is final, or as it stands after a while."""
    finals = await system.finals([call_sid], 12.0)
    return finals.get(call_sid) or await system.transcript(call_sid)
