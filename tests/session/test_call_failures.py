"""What becomes of a call whose model, gateway or own code fails."""

from __future__ import annotations

import base64
from http import HTTPStatus
from pathlib import Path

import pytest

from asheard.v1 import fact_pb2, session_service_pb2
from session.notices.book import SHIPPED
from session.realtime.conversation import Conversation
from session.realtime.outputs import Fatal
from tests.session.ends import FRAME, Worker, endpoint, worker
from tests.session.ports import free_port

QUIET = "name: x\ninstructions: Be brief.\n"


async def failed(w: Worker, detail: str) -> None:
    """The gateway is told, the facts are whole, and the call ends when the gateway closes it."""
    finished = await w.gateway.wait_for("call_finished")
    assert finished.outcome == fact_pb2.CALL_OUTCOME_MODEL_FAILED
    assert detail in finished.detail
    assert finished.told
    said = b"".join(
        base64.b64decode(audio.payload)
        for message in w.gateway.messages
        for audio in message.agent_audio
        if audio.item_id.startswith("notice_")
    )
    assert said == (SHIPPED / "en-goodbye.ulaw").read_bytes(), "the caller is told"
    assert w.gateway.agent_audio()[-1][2], "and nothing follows"
    await w.gateway.close()
    ended = await w.facts.wait_for("session_ended")
    assert ended.failed
    assert detail in ended.reason
    goodbye = w.facts.of("item_added")[-1]
    assert goodbye.notice and len(goodbye.item_id) <= 32
    assert w.facts.names()[0] == "session_started"
    assert w.facts.names()[-1] == "session_ended"
    assert await w.metric('asheard_calls_total{outcome="model_failed"}') == 1
    assert await w.metric('asheard_notices_total{notice="goodbye"}') == 1


async def test_a_bad_key_closes_with_3000(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        await w.gateway.open()
        model = await w.model.session()
        await model.close(3000, "invalid_request_error.invalid_api_key")
        await failed(w, "refused the key (close 3000)")


async def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    url = f"ws://127.0.0.1:{free_port()}/v1/realtime"
    async with worker(agent=QUIET, directory=tmp_path, realtime_url=url) as w:
        await w.gateway.open()
        await failed(w, "cannot be reached")


async def test_an_endpoint_that_refuses_the_handshake(tmp_path: Path) -> None:
    async with (
        endpoint(refuse=HTTPStatus.UNAUTHORIZED) as refusing,
        worker(agent=QUIET, directory=tmp_path, realtime=refusing) as w,
    ):
        await w.gateway.open()
        await failed(w, "HTTP 401: check OPENAI_API_KEY")


async def test_expiry_is_no_normal_end(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.close(1001, "Your session hit the maximum duration of 60 minutes.")
        await failed(w, "close 1001")


async def test_a_sentence_of_ours_is_no_answer_by_the_figures(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await w.gateway.send_audio(*[FRAME] * 100)
        await model.wait_for("input_audio_buffer.append", 100)
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await model.say("input_audio_buffer.speech_stopped", item_id="U", audio_end_ms=2000)
        await model.close(1001, "Going away.")
        await failed(w, "close 1001")
        assert await w.metric("asheard_first_audio_seconds_count") == 0


async def test_a_socket_that_drops_in_mid_sentence(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R", "A")
        await model.text("R", "A", "I was about to")
        await model.audio("R", "A", 500)
        await w.gateway.wait_for_audio(("A", 500, False))
        model.drop()
        await w.gateway.wait_for("call_finished")
        assert w.gateway.agent_audio()[:2] == [("A", 500, False), ("A", 0, True)]
        await w.gateway.positions(("A", 300), cause=fact_pb2.POSITION_CAUSE_HUNG_UP)
        await failed(w, "code 1006")
        generated, goodbye = w.facts.of("item_generated")
        assert generated.status == fact_pb2.GENERATION_STATUS_FAILED
        assert goodbye.status == fact_pb2.GENERATION_STATUS_COMPLETED
        assert [f.source.refined for f in w.facts.of("words_timed")] == [True]


async def test_a_conversation_that_gives_up_by_itself_ends_as_if_the_model_had_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(self: Conversation, fixed: session_service_pb2.PositionsFixed) -> None:
        self._outputs.add(Fatal("nobody answers any more"))

    monkeypatch.setattr(Conversation, "positions_fixed", gives_up)
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.turn("R", "A", "Yes.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True))
        await w.gateway.positions(("A", 100))
        await w.gateway.wait_for("call_finished")
        monkeypatch.undo()
        await failed(w, "nobody answers any more")
        assert [added.item_id for added in w.facts.of("item_added")][:-1] == ["A"]


async def test_a_refused_configuration_names_the_parameter(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        await w.gateway.open()
        model = await w.model.session()
        update = await model.wait_for("session.update")
        await model.say(
            "error",
            error={
                "type": "invalid_request_error",
                "code": "invalid_value",
                "param": "session.audio.output.voice",
                "message": "Invalid value",
                "event_id": update["event_id"],
            },
        )
        await failed(w, "session.audio.output.voice")


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[" * 100_000,
        b"\xff\xfe",
        b'{"type":"response.output_audio_transcript.delta","delta":"\xff"}',
        '{"type":"response.done","response":{"x":' + "[" * 100_000,
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
async def test_a_call_goes_on_whatever_its_model_sends(
    tmp_path: Path, garbage: str | bytes
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        for _ in range(3):
            await model.socket.send(garbage)
        await model.turn("R", "A", "Yes.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True))
        await w.gateway.close()
        assert not (await w.facts.wait_for("session_ended")).failed


async def test_a_bug_ends_that_call_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Conversation, fixed: session_service_pb2.PositionsFixed) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Conversation, "positions_fixed", broken)
    async with worker(agent=QUIET, directory=tmp_path) as w:
        await w.call(1)
        sound = await w.call(2)
        await w.gateway.positions(("A", 300))
        finished = await w.gateway.wait_for("call_finished")
        assert finished.detail == "internal error: RuntimeError"
        ended = await w.facts.wait_for("session_ended")
        assert ended.failed
        await sound.turn("R", "A", "Yes.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True), call=2)
        assert await w.metric('asheard_calls_total{outcome="failed"}') == 1


async def test_the_loss_of_the_link_ends_its_calls_and_their_facts_are_whole(
    tmp_path: Path,
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R", "A")
        await model.text("R", "A", "Cash or credit?")
        await model.audio("R", "A", 500)
        await w.facts.wait_for("item_added")
        w.gateway.hang_up()
        ended = await w.facts.wait_for("session_ended")
        assert ended.failed
        assert "link" in ended.reason
        assert len(w.facts.of("item_generated")) == 1
        # Nobody says how much of it was heard. What is proven is counted in words.
        assert [timed.source.refined for timed in w.facts.of("words_timed")] == [True]
        assert await w.metric('asheard_calls_total{outcome="link_lost"}') == 1
