"""A call through the real worker, between a scripted model and a scripted gateway."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from asheard.v1 import fact_pb2
from session.call import Call
from session.realtime.input_clock import STALL_FILL_MS, STALL_MS
from tests.session.ends import FRAME, until, worker

QUIET = "name: x\ninstructions: Be brief.\n"


def frame(n: int) -> bytes:
    """One of the caller's frames, which can be told from others."""
    return base64.b64encode(n.to_bytes(4, "big") * 40)


async def test_the_agent_greets_and_its_audio_reaches_the_gateway() -> None:
    async with worker() as w:
        model = await w.call()
        assert (await w.gateway.wait_for("call_accepted")).session_writer.startswith("session/")
        assert model.path == "/v1/realtime?model=gpt-test"
        assert "authorization" not in {name.lower() for name in model.headers}
        assert "openai-beta" not in {name.lower() for name in model.headers}
        assert "sec-websocket-extensions" not in {name.lower() for name in model.headers}
        request = await model.wait_for("response.create")
        assert "Greet the caller" in request["response"]["instructions"]
        await model.turn("R", "A", "Hello!", 500)
        await w.gateway.wait_for_audio(("A", 500, False), ("A", 0, True))
        await w.gateway.close()
        await w.facts.wait_for("session_ended")
        assert w.facts.names() == [
            "session_started",
            "item_added",
            "item_progressed",
            "item_generated",
            "session_ended",
        ]
        assert [f.sequence for f in w.facts.all] == [1, 2, 3, 4, 5]
        assert not w.facts.of("session_ended")[0].failed
        assert await w.metric('asheard_calls_total{outcome="completed"}') == 1
        assert await w.metric("asheard_realtime_reconnects_total") == 0


async def test_the_key_is_a_bearer_token() -> None:
    async with worker(key="sk-test") as w:
        model = await w.call()
        assert model.headers["authorization"] == "Bearer sk-test"


async def test_caller_audio_is_kept_until_the_session_is_configured_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        await w.gateway.open()
        await w.gateway.send_audio(*[frame(n) for n in range(50)], media_ms=100)
        model = await w.model.session()
        await w.gateway.send_audio(*[frame(n) for n in range(50, 60)], media_ms=1100)
        await model.say("session.created", session={"id": "sess_1"})
        await model.wait_for("session.update")
        await asyncio.sleep(0.05)
        assert model.of("input_audio_buffer.append") == [], "its format is not agreed yet"
        await model.say("session.updated", session={"id": "sess_1"})
        await model.wait_for("input_audio_buffer.append", 60)
        for n in range(60, 100):
            await w.gateway.send_audio(frame(n), media_ms=100 + 20 * n)
        await model.wait_for("input_audio_buffer.append", 100)
        assert model.caller_audio == b"".join(base64.b64decode(frame(n)) for n in range(100))
        # Once for all that was kept, and once a message.
        assert await w.metric("asheard_frame_forward_seconds_count") == 41


async def test_omitted_silence_is_filled_and_bad_payloads_are_dropped(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await w.gateway.send_audio(frame(1), media_ms=0)
        await w.gateway.send_audio(b'"}{"', media_ms=20)
        await w.gateway.send_audio(frame(2), media_ms=120)
        await model.wait_for("input_audio_buffer.append", 3)
        silence = b"\xff" * (8 * 100)
        assert model.caller_audio == (
            base64.b64decode(frame(1)) + silence + base64.b64decode(frame(2))
        )
        assert await w.metric('asheard_caller_frames_unappended_total{reason="malformed"}') == 1


async def test_barge_in_overtakes_and_the_model_is_told_what_was_heard(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        text = "Cash or credit? We also have a store discount you can apply now."
        await model.turn("R", "A", text, 4000)
        await w.gateway.wait_for_audio(("A", 4000, False), ("A", 0, True))
        await w.gateway.send_audio(*[FRAME] * 50, media_ms=1000)
        await model.wait_for("input_audio_buffer.append", 50)
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=200)
        interrupt = await w.gateway.wait_for("interrupt")
        assert interrupt.interrupt_id == 1
        assert interrupt.onset_ms == 1500
        assert 0 <= interrupt.worker_us < 1_000_000
        assert 0 < interrupt.detection_us < 10_000_000
        await w.gateway.positions(("A", 1500), interrupt_id=1)
        truncate = await model.wait_for("conversation.item.truncate")
        assert (truncate["item_id"], truncate["content_index"]) == ("A", 0)
        assert truncate["audio_end_ms"] == 1500
        await model.say(
            "conversation.item.truncated", item_id="A", content_index=0, audio_end_ms=1500
        )
        assert (await w.facts.wait_for("item_truncated")).accepted
        refined = await w.facts.wait_for("words_timed")
        assert refined.source.refined
        assert [text[word.text_start : word.text_end] for word in refined.words] == text.split()
        assert refined.audio_ms == 4000
        assert await w.metric('asheard_truncations_total{result="accepted"}') == 1


async def test_stragglers_of_an_interrupted_response_stay_here_and_the_next_one_is_heard(
    tmp_path: Path,
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R1", "A")
        await model.audio("R1", "A", 1000)
        await w.gateway.wait_for_audio(("A", 1000, False))
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await model.audio("R1", "A", 250)
        await model.item_done("R1", "A", "Well", status="incomplete")
        await model.begin("R2", "B")
        await model.done("R1", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
        await model.audio("R2", "B", 300)
        await w.gateway.wait_for_audio(("A", 1000, False), ("B", 300, False))
        assert await w.metric("asheard_stale_audio_deltas_total") == 1


async def test_two_items_of_one_response_are_cut_each_on_its_own(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R", "A", "B")
        for item_id in ("A", "B"):
            await model.audio("R", item_id, 500)
            await model.item_done("R", item_id, f"Item {item_id}.")
        await model.done("R")
        await until(lambda: len(w.gateway.agent_audio()) == 4, "both items")
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await w.gateway.wait_for("interrupt")
        await w.gateway.positions(("A", 200), ("B", 0), interrupt_id=1)
        assert (await model.wait_for("conversation.item.truncate"))["item_id"] == "A"
        assert (await model.wait_for("conversation.item.delete"))["item_id"] == "B"


async def test_a_refused_truncation_does_not_disturb_the_call(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.turn("R1", "A", "Yes, of course.", 1000)
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await w.gateway.wait_for("interrupt")
        await w.gateway.positions(("A", 300), interrupt_id=1)
        truncate = await model.wait_for("conversation.item.truncate")
        await model.say(
            "error",
            error={
                "type": "invalid_request_error",
                "code": "invalid_value",
                "message": "Audio content of 200ms is already shorter than 300ms",
                "event_id": truncate["event_id"],
            },
        )
        assert not (await w.facts.wait_for("item_truncated")).accepted
        await model.say("input_audio_buffer.speech_stopped", item_id="U", audio_end_ms=0)
        await model.begin("R2", "B")
        await model.audio("R2", "B", 100)
        await until(lambda: ("B", 100, False) in w.gateway.agent_audio(), "the next answer")


async def test_a_function_is_called_and_its_answer_spoken_about(tmp_path: Path) -> None:
    asked: list[object] = []

    async def quote(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"total": "$9.05"})

    app = web.Application()
    app.router.add_post("/quote", quote)
    async with TestServer(app) as http:
        url = http.make_url("/quote")
        tool = f'tools: [{{name: quote, description: Price., url: "{url}"}}]\n'
        async with worker(agent=QUIET + tool, directory=tmp_path) as w:
            model = await w.call()
            offered = model.of("session.update")[0]["session"]["tools"]
            assert [t["name"] for t in offered] == ["quote"]
            await model.begin("R")
            call = {
                "id": "F",
                "type": "function_call",
                "call_id": "call_1",
                "name": "quote",
                "arguments": '{"items": ["bagel"]}',
                "status": "completed",
            }
            await model.say("response.output_item.added", response_id="R", item=call)
            await model.say("conversation.item.added", item=call)
            await model.say("conversation.item.done", item=call)
            answer = await model.wait_for("conversation.item.create")
            assert asked == [{"items": ["bagel"]}]
            assert answer["item"]["call_id"] == "call_1"
            assert json.loads(answer["item"]["output"]) == {"total": "$9.05"}
            assert model.of("response.create") == [], "the response is not over"
            await model.done("R")
            await model.wait_for("response.create")
            assert (await w.facts.wait_for("tool_returned")).succeeded
            assert (await w.facts.wait_for("tool_called")).arguments == '{"items": ["bagel"]}'
            assert await w.metric('asheard_tool_calls_total{outcome="ok"}') == 1


async def test_last_words_are_waited_for_after_the_hang_up(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await w.facts.wait_for("caller_speech_started")
        await w.gateway.close()
        await model.wait_for("input_audio_buffer.commit")
        await model.say("input_audio_buffer.committed", item_id="U")
        await model.say(
            "conversation.item.input_audio_transcription.completed",
            item_id="U",
            transcript="Goodbye.",
        )
        await w.facts.wait_for("session_ended")
        assert w.facts.of("caller_transcribed")[0].text == "Goodbye."
        assert w.facts.names()[-1] == "session_ended"


async def test_speech_long_after_the_last_frame_is_filled_at_once(tmp_path: Path) -> None:
    """A timer that is due already is none of uvloop's timers, and more events come before it."""
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await w.gateway.send_audio(FRAME)
        await model.wait_for("input_audio_buffer.append")
        await asyncio.sleep(STALL_MS / 1000 + 0.05)
        for _ in range(10):
            await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await model.wait_for("input_audio_buffer.append", 2)
        assert len(model.caller_audio) == 160 + 8 * STALL_FILL_MS
        await model.turn("R", "A", "Yes.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True))


async def test_first_audio_is_measured_from_the_callers_last_word(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await w.gateway.send_audio(*[FRAME] * 100)
        await model.wait_for("input_audio_buffer.append", 100)
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await model.say("input_audio_buffer.speech_stopped", item_id="U", audio_end_ms=2000)
        await model.turn("R", "A", "Yes.", 100)
        await until(lambda: bool(w.gateway.agent_audio()), "the answer")
        assert await w.metric("asheard_first_audio_seconds_count") == 1


@pytest.mark.parametrize("align", ["all", "off"])
async def test_which_words_are_timed_is_the_operators_choice(tmp_path: Path, align: str) -> None:
    async with worker(agent=QUIET, directory=tmp_path, align=align) as w:
        model = await w.call()
        await model.turn("R", "A", "Yes, of course.", 1000)
        await w.gateway.wait_for_audio(("A", 1000, False), ("A", 0, True))
        await w.gateway.positions(("A", 1000), cause=fact_pb2.POSITION_CAUSE_PLAYED)
        await w.gateway.close()
        await w.facts.wait_for("session_ended")
        assert len(w.facts.of("words_timed")) == (1 if align == "all" else 0)


async def test_a_call_that_is_over_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the garbage collector comes: it comes seldom, and a call holds its audio."""
    calls: list[weakref.ref[Call]] = []
    usual = Call.__init__

    def remembered(call: Call, *args: Any, **named: Any) -> None:
        usual(call, *args, **named)
        calls.append(weakref.ref(call))

    monkeypatch.setattr(Call, "__init__", remembered)
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.turn("R", "A", "Hello there!", 1500)
        await w.gateway.wait_for_audio(("A", 1500, False), ("A", 0, True))
        gc.disable()
        try:
            await w.gateway.close()
            await w.facts.wait_for("session_ended")
            await until(lambda: calls[0]() is None, "the call is gone")
        finally:
            gc.enable()
