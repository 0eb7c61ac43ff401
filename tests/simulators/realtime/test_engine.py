"""The simulated session, in virtual time: what a client sees and what the truth says."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from simulators.realtime.script import (
    AgentScript,
    Hearing,
    Reply,
    Speak,
    bakery,
    say,
)
from simulators.speech import spoken
from simulators.speech.g711 import SILENCE
from tests.simulators.realtime.drive import (
    COFFEE,
    CREATE,
    GREETING,
    ORDER,
    Drive,
    every,
    greeted,
    kinds,
    only,
    only_error,
    pcmu_session,
)


def test_session_created_comes_first_and_nothing_else_unasked() -> None:
    drive = Drive(bakery(), configure=False)
    drive.wait(10_000)
    assert kinds(drive.events) == ["session.created"]
    session = drive.events[0]["session"]
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert session["audio"]["output"]["voice"] == "marin"


def test_first_generation_model_has_its_own_defaults() -> None:
    session = Drive(bakery(), model="gpt-realtime", configure=False).events[0]["session"]
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
    assert session["audio"]["output"]["voice"] == "alloy"


def test_update_is_merged_into_what_was_there() -> None:
    drive = Drive(bakery(), model="gpt-realtime", configure=False)
    update = {
        "type": "realtime",
        "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.8}}},
    }
    updated = drive.send({"type": "session.update", "session": update})
    detection = only(updated, "session.updated")["session"]["audio"]["input"]["turn_detection"]
    assert detection["threshold"] == 0.8
    assert detection["silence_duration_ms"] == 200
    assert detection["create_response"] is True


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "temperature": 1}, "unknown_parameter", "session.temperature"),
        ({"type": "phone"}, "invalid_value", "session.type"),
        ({"type": "realtime", "instructions": 3}, "invalid_type", "session.instructions"),
        (
            {"type": "realtime", "max_output_tokens": 5000},
            "invalid_value",
            "session.max_output_tokens",
        ),
        (
            {"type": "realtime", "output_modalities": ["audio", "text"]},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "g711_ulaw"}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu", "rate": 8}}}},
            "unknown_parameter",
            "session.audio.input.format.rate",
        ),
        (
            {
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "server_vad", "eagerness": "low"}}},
            },
            "unknown_parameter",
            "session.audio.input.turn_detection.eagerness",
        ),
    ],
)
def test_bad_update_is_refused_by_code_and_param_and_changes_nothing(
    session: dict[str, Any], code: str, param: str
) -> None:
    drive = Drive(bakery(), configure=False)
    before = drive.events[0]["session"]
    event = {"type": "session.update", "event_id": "cfg-1", "session": session}
    error = only_error(drive.send(event))
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "cfg-1")
    good = {"type": "session.update", "session": {"type": "realtime"}}
    assert only(drive.send(good), "session.updated")["session"] == before


def test_voice_is_locked_once_the_model_has_spoken() -> None:
    drive = greeted()
    voice = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    error = only_error(drive.send({"type": "session.update", "session": voice}))
    assert error["code"] == "cannot_update_voice"
    assert error["param"] is None


def test_spoken_turn_comes_in_the_recorded_order() -> None:
    drive = greeted()
    events = [e for e in drive.hear_speech(ORDER) if "transcription" not in e["type"]] + [
        e for e in drive.wait(8_000) if "transcription" not in e["type"]
    ]
    names = kinds(events)
    opening = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
    ]
    closing = [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert names[: len(opening)] == opening
    assert names[-len(closing) :] == closing
    middle = names[len(opening) : -len(closing)]
    assert set(middle) == {"response.output_audio.delta", "response.output_audio_transcript.delta"}
    first_audio = middle.index("response.output_audio.delta")
    assert 3 <= first_audio <= 6, "text runs ahead of the first audio"
    assert middle[-1] == "response.output_audio.delta"


def test_turn_is_dated_in_audio_written_with_padding_and_silence() -> None:
    drive = Drive(bakery())
    drive.wait(60_000)  # Time does not count, only audio does.
    events = drive.hear(SILENCE * 8_000) + drive.hear_speech(ORDER)
    started = only(events, "input_audio_buffer.speech_started")["audio_start_ms"]
    stopped = only(events, "input_audio_buffer.speech_stopped")["audio_end_ms"]
    onset_ms = 1_000 + ORDER.onset_ms
    assert onset_ms - 40 <= started + 300 <= onset_ms + 100
    assert (started + 300) % 32 == 0
    last_word_ms = 1_000 + ORDER.words[-1].end_ms
    assert last_word_ms + 500 - 150 <= stopped <= last_word_ms + 500 + 64
    turn = drive.truth.caller_items[0]
    assert (turn.audio_start_ms, turn.audio_end_ms) == (started, stopped)


def test_caller_is_transcribed_by_what_was_really_appended() -> None:
    drive = Drive(bakery())
    events = drive.hear_speech(ORDER) + drive.wait(400)
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == ORDER.text
    half = ORDER.ulaw[: ORDER.words[2].end_ms * 8]
    drive = Drive(bakery())
    events = drive.hear(half + SILENCE * 8_000) + drive.wait(400)
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == "I want bagels"


def test_streaming_transcription_begins_before_the_item_exists() -> None:
    drive = Drive(bakery())
    whisper = {
        "type": "realtime",
        "audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}},
    }
    drive.send({"type": "session.update", "session": whisper})
    names = kinds(drive.hear_speech(COFFEE) + drive.wait(1_000))
    delta = "conversation.item.input_audio_transcription.delta"
    assert names.index(delta) < names.index("input_audio_buffer.speech_stopped")
    text = "".join(e["delta"] for e in every(drive.events, delta))
    done = only(drive.events, "conversation.item.input_audio_transcription.completed")
    assert text.strip() == done["transcript"] == COFFEE.text
    assert done["usage"]["type"] == "duration"


def test_transcription_can_fail_or_come_after_the_response() -> None:
    late = Hearing(text="Something else.", delay_ms=20_000)
    script = AgentScript(
        replies=(say("Yes, of course."),) * 2,
        hearings=(late, Hearing(failure="DeploymentNotFound")),
    )
    drive = Drive(script)
    names = kinds(drive.hear_speech(ORDER) + drive.wait(19_000))
    assert "response.done" in names
    assert "conversation.item.input_audio_transcription.completed" not in names
    events = drive.hear_speech(ORDER) + drive.wait(20_000)
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    failed = only(events, "conversation.item.input_audio_transcription.failed")
    assert completed["transcript"] == "Something else."
    assert failed["error"]["code"] == "DeploymentNotFound"
    assert completed["item_id"] != failed["item_id"]


def test_audio_is_the_lines_speech_faster_than_real_time() -> None:
    drive = Drive(bakery())
    drive.send(CREATE)
    text = GREETING.parts[0]
    assert isinstance(text, Speak)
    speech = spoken(text.text)
    began = drive.now
    arrivals: list[int] = []
    audio = b""
    while not every(drive.events, "response.done"):
        for event in every(drive.wait(1), "response.output_audio.delta"):
            chunk = base64.b64decode(event["delta"])
            arrivals.append(drive.now - began)
            assert len(chunk) == 2_000 or len(audio) + len(chunk) == len(speech.ulaw)
            audio += chunk
    assert audio == speech.ulaw
    assert arrivals[0] == 400
    speed = speech.duration_ms / (arrivals[-1] - arrivals[0])
    assert 3.2 <= speed <= 4.2
    done = only(drive.events, "response.done")["response"]
    assert done["usage"]["output_token_details"]["audio_tokens"] == speech.duration_ms // 50
    assert drive.truth.agent_items[0].audio == speech.ulaw
    assert drive.truth.agent_items[0].words == [tuple(w) for w in speech.words]


def test_session_in_pcm16_gives_six_bytes_for_each_of_ulaw() -> None:
    drive = Drive(bakery(), configure=False)
    drive.send(CREATE)
    drive.wait(5_000)
    sent = sum(
        len(base64.b64decode(e["delta"]))
        for e in every(drive.events, "response.output_audio.delta")
    )
    assert sent == 6 * len(drive.truth.agent_items[0].audio)


def test_speech_during_generation_cancels_with_stragglers_and_an_incomplete_item() -> None:
    slow = Reply((Speak(bakery().replies[1].parts[0].text),), speed=0.8)  # type: ignore[union-attr]
    drive = Drive(AgentScript(replies=(slow, say("Yes, of course."))))
    drive.send(CREATE)
    drive.wait(2_000)
    events = drive.hear_speech(COFFEE) + drive.wait(4_000)
    names = kinds(events)
    cut = names.index("input_audio_buffer.speech_started")
    done = names.index("response.done")
    between = [n for n in names[cut + 1 : done] if "transcript" not in n]
    assert between == [
        "response.output_audio.delta",  # a straggler
        "response.output_audio.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    response = events[done]["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    item = drive.truth.agent_items[0]
    assert item.planned_text.startswith(item.text)
    assert 0 < item.generated_ms < spoken(item.planned_text).duration_ms
    second = every(events, "response.created")[0]["response"]["id"]
    assert second != response["id"]
    late = [e for e in events[done + 1 :] if e.get("response_id") == response["id"]]
    assert not late


def test_without_interrupt_response_the_model_talks_on() -> None:
    slow = Reply((Speak(GREETING.parts[0].text),), speed=0.5)  # type: ignore[union-attr]
    drive = Drive(AgentScript(replies=(slow,)))
    update = pcmu_session()
    update["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] = False
    drive.send(update)
    drive.send(CREATE)
    drive.wait(1_000)
    drive.hear_speech(spoken("Yes."))
    drive.wait(20_000)
    assert drive.truth.responses[0][1] == "completed"


def test_speech_after_generation_cancels_nothing() -> None:
    drive = greeted()
    names = kinds(drive.hear(ORDER.ulaw))
    assert names[0] == "input_audio_buffer.speech_started"
    assert "response.done" not in names
    assert drive.truth.responses == [(drive.truth.responses[0][0], "completed", None)]


def test_cancel_by_the_client_and_cancel_of_nothing() -> None:
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(600)
    events = drive.send({"type": "response.cancel"}) + drive.wait(100)
    details = only(events, "response.done")["response"]["status_details"]
    assert details == {"type": "cancelled", "reason": "client_cancelled"}
    error = only_error(drive.send({"type": "response.cancel", "event_id": "c2"}))
    assert error["code"] == "response_cancel_not_active"
    assert error["message"] == "Cancellation failed: no active response found"
    assert error["event_id"] == "c2"


def test_second_response_is_refused_while_one_is_active() -> None:
    drive = Drive(bakery())
    drive.send(CREATE)
    error = only_error(drive.send(CREATE))
    assert error["code"] == "conversation_already_has_active_response"
    aside = {"type": "response.create", "response": {"conversation": "none"}}
    assert kinds(drive.send(aside)) == ["response.created"]
