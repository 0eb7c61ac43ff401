"""The simulated session, in virtual time: what a client sees and what the truth says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from simulators.realtime.engine import Close
from simulators.realtime.script import (
    AgentScript,
    CallTool,
    Drop,
    Failure,
    Hearing,
    Reply,
    Speak,
    Stall,
    bakery,
    say,
)
from simulators.speech import spoken
from simulators.speech.g711 import SILENCE
from tests.simulators.realtime.drive import Drive, every, kinds, only, only_error, pcmu_session

GREETING = bakery().replies[0]
ORDER = spoken("I want bagels and a soda.")
COFFEE = spoken("Sorry for interrupting, do you also have coffee?")
CREATE = {"type": "response.create"}


def greeted() -> Drive:
    """A bakery session whose greeting has been generated."""
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(5_000)
    return drive


def agent_item(drive: Drive) -> str:
    return str(drive.truth.agent_items[-1].item_id)


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


# --- truncation ---------------------------------------------------------------------------------


def truncate(item_id: str, audio_end_ms: Any, content_index: Any = 0) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "event_id": "t1",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def test_truncate_is_echoed_and_removes_the_transcript() -> None:
    drive = greeted()
    item = agent_item(drive)
    echoed = only(drive.send(truncate(item, 1_500)), "conversation.item.truncated")
    assert (echoed["item_id"], echoed["content_index"], echoed["audio_end_ms"]) == (item, 0, 1_500)
    retrieved = drive.send({"type": "conversation.item.retrieve", "item_id": item})
    content = only(retrieved, "conversation.item.retrieved")["item"]["content"][0]
    assert "transcript" not in content
    assert len(base64.b64decode(content["audio"])) == 1_500 * 8
    assert drive.truth.agent_items[0].truncated_ms == 1_500


def test_truncate_beyond_the_audio_is_refused_in_the_known_words() -> None:
    drive = greeted()
    has_ms = spoken("Yes, I can help you place your order. What would you like?").duration_ms
    error = only_error(drive.send(truncate(agent_item(drive), has_ms + 60)))
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "invalid_value"
    assert error["param"] == "audio_end_ms"
    assert error["message"] == (
        f"Audio content of {has_ms}ms is already shorter than {has_ms + 60}ms"
    )
    assert error["event_id"] == "t1"
    assert drive.truth.agent_items[0].truncated_ms is None
    assert drive.truth.truncations[0].refusal == error["message"]
    assert not every(drive.send(truncate(agent_item(drive), has_ms)), "error")


def test_second_truncate_must_be_shorter_than_the_first() -> None:
    drive = greeted()
    drive.send(truncate(agent_item(drive), 1_000))
    error = only_error(drive.send(truncate(agent_item(drive), 1_001)))
    assert error["message"] == "Audio content of 1000ms is already shorter than 1001ms"
    assert not every(drive.send(truncate(agent_item(drive), 400)), "error")


def test_only_the_models_own_audio_can_be_truncated() -> None:
    drive = Drive(bakery())
    drive.hear_speech(ORDER)
    refused = "Only model output audio messages can be truncated"
    user = drive.truth.caller_items[0].item_id
    assert only_error(drive.send(truncate(user, 100)))["message"] == refused
    written = {
        "type": "message",
        "role": "assistant",
        "id": "a1",
        "content": [{"type": "output_text", "text": "Hello."}],
    }
    drive.send({"type": "conversation.item.create", "item": written})
    assert only_error(drive.send(truncate("a1", 0)))["message"] == refused
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(300)  # The reply's item is open, but its audio has not begun.
    assert only_error(drive.send(truncate(agent_item(drive), 0)))["message"] == refused
    assert only_error(drive.send(truncate("nobody", 0)))["code"] == "item_truncate_invalid_item_id"


@pytest.mark.parametrize(
    ("audio_end_ms", "content_index", "code", "param"),
    [
        (10.5, 0, "invalid_type", "audio_end_ms"),
        (-1, 0, "invalid_value", "audio_end_ms"),
        (10, 1, "invalid_value", "content_index"),
        (True, 0, "invalid_type", "audio_end_ms"),
    ],
)
def test_truncate_is_judged_field_by_field(
    audio_end_ms: Any, content_index: Any, code: str, param: str
) -> None:
    drive = greeted()
    error = only_error(drive.send(truncate(agent_item(drive), audio_end_ms, content_index)))
    assert (error["code"], error["param"]) == (code, param)


def test_deleted_item_is_gone() -> None:
    drive = greeted()
    item = agent_item(drive)
    delete = {"type": "conversation.item.delete", "item_id": item}
    assert only(drive.send(delete), "conversation.item.deleted")["item_id"] == item
    assert only_error(drive.send(delete))["code"] == "item_delete_invalid_item_id"
    retrieve = {"type": "conversation.item.retrieve", "item_id": item}
    assert only_error(drive.send(retrieve))["code"] == "item_retrieve_invalid_item_id"
    assert drive.truth.deletions == [item]


# --- items of the client ------------------------------------------------------------------------


def message(role: str, text: str, **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}
    return {"type": "conversation.item.create", "item": item}


def test_seeded_items_are_acknowledged_in_order_and_under_their_own_ids() -> None:
    drive = Drive(bakery())
    events = drive.send(message("user", "Hello.", id="u1"))
    events += drive.send(message("assistant", "Hello, how can I", id="a1"))
    events += drive.send(message("system", "The caller was cut off here."))
    assert kinds(events) == ["conversation.item.added", "conversation.item.done"] * 3
    added = every(events, "conversation.item.added")
    assert [e["previous_item_id"] for e in added] == [None, "u1", "a1"]
    done = every(events, "conversation.item.done")
    assert [e["previous_item_id"] for e in done] == [None, None, "a1"], "the recorded quirk"
    first = {**message("user", "Before all.", id="u0"), "previous_item_id": "root"}
    assert only(drive.send(first), "conversation.item.added")["previous_item_id"] is None


def test_bad_items_are_refused() -> None:
    drive = Drive(bakery())
    drive.send(message("user", "Hello.", id="u1"))
    error = only_error(drive.send(message("user", "Again.", id="u1")))
    assert (error["code"], error["param"]) == ("invalid_value", "item.id")
    lost = {**message("user", "Where?"), "previous_item_id": "nobody"}
    assert only_error(drive.send(lost))["param"] == "previous_item_id"
    audio = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_audio", "audio": "AAAA"}],
    }
    event = {"type": "conversation.item.create", "item": audio}
    assert only_error(drive.send(event))["param"] == "item.content[0].type"


def test_reply_already_begun_in_an_earlier_session_is_not_repeated() -> None:
    drive = Drive(bakery())
    drive.send(message("assistant", "Yes, I can help you place"))
    drive.send(message("user", "I want bagels and a soda."))
    drive.send(CREATE)
    drive.wait(5_000)
    assert drive.truth.agent_items[0].planned_text.startswith("That will be")


def test_input_no_reply_is_for_gets_the_fallback() -> None:
    drive = greeted()
    drive.hear_speech(spoken("Can you repeat that please?"))
    drive.wait(5_000)
    assert drive.truth.agent_items[-1].planned_text == "I am sorry, could you say that again?"


# --- several items, tools, faults ---------------------------------------------------------------


def test_message_and_function_call_of_one_response_overlap_as_recorded() -> None:
    reply = Reply((Speak("Yes, of course."), CallTool("quote", '{"items":["bagel"]}')))
    drive = Drive(AgentScript(replies=(reply, say("Yes, of course."))))
    drive.send(CREATE)
    events = drive.wait(5_000)
    added = every(events, "response.output_item.added")
    assert [e["item"]["type"] for e in added] == ["message", "function_call"]
    assert added[0]["item"]["phase"] == "commentary"
    names = kinds(events)
    assert names.index("response.output_audio.done") > names.index(
        "response.function_call_arguments.delta"
    )
    arguments = only(events, "response.function_call_arguments.done")
    assert json.loads(arguments["arguments"]) == {"items": ["bagel"]}
    output = {"type": "function_call_output", "call_id": arguments["call_id"], "output": "$9.05"}
    drive.send({"type": "conversation.item.create", "item": output})
    drive.send(CREATE)
    drive.wait(5_000)
    assert drive.truth.tool_outputs == [(arguments["call_id"], "$9.05")]
    assert drive.truth.responses[-1][1] == "completed"


def test_two_audio_items_may_overlap_but_their_audio_is_in_order() -> None:
    parts = (Speak("Yes, of course."), Speak("Sorry, we are out of rye today."))
    drive = Drive(AgentScript(replies=(Reply(parts, overlap_items=True),)))
    drive.send(CREATE)
    events = drive.wait(10_000)
    first, second = (item.item_id for item in drive.truth.agent_items)
    audio = [e["item_id"] for e in every(events, "response.output_audio.delta")]
    assert audio == sorted(audio) and set(audio) == {first, second}
    order = [
        (e["type"].rsplit(".", 1)[1], e["item_id"])
        for e in events
        if e["type"].startswith("response.output_audio.")
    ]
    assert order.index(("done", first)) > order.index(("delta", second))


def test_failed_and_incomplete_responses_say_why() -> None:
    failing = Reply((Speak("Yes, of course."),), failure=Failure())
    cut = Reply(
        (Speak("Sorry, we are out of rye today."),),
        failure=Failure("incomplete", "max_output_tokens", after_audio_ms=500),
    )
    drive = Drive(AgentScript(replies=(failing, cut)))
    drive.send(CREATE)
    failed = only(drive.wait(3_000), "response.done")["response"]
    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["code"] == "inference_rate_limit_exceeded"
    assert failed["output"] == []
    drive.send(CREATE)
    incomplete = only(drive.wait(3_000), "response.done")["response"]
    assert incomplete["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert drive.truth.agent_items[0].generated_ms == 500
    assert drive.truth.agent_items[0].status == "incomplete"


def test_stall_leaves_a_gap_in_the_audio() -> None:
    reply = Reply(GREETING.parts, stall=Stall(at_audio_ms=1_000, for_ms=4_000))
    drive = Drive(AgentScript(replies=(reply,)))
    drive.send(CREATE)
    drive.wait(3_000)
    assert drive.truth.agent_items[0].generated_ms == 1_000
    drive.wait(4_000)
    assert drive.truth.responses[0][1] == "completed"


def test_scripted_drop_closes_and_loses_the_rest() -> None:
    reply = Reply(GREETING.parts, drop=Drop(after_audio_ms=1_000, close_code=1011))
    drive = Drive(AgentScript(replies=(reply,)))
    drive.send(CREATE)
    drive.wait(10_000)
    assert drive.engine.closing == Close(1011, "dropped by the script")
    assert drive.truth.agent_items[0].generated_ms == 1_000
    assert drive.truth.ending == "dropped"


def test_session_expires_with_an_error_and_a_normal_looking_close() -> None:
    drive = Drive(AgentScript(expires_after_ms=60_000))
    error = only_error(drive.wait(60_001))
    assert error["code"] == "session_expired"
    assert error["param"] is None and error["event_id"] is None
    text = "Your session hit the maximum duration of 60 minutes."
    assert drive.engine.closing == Close(1001, text)
    assert drive.send(CREATE) == []


# --- the buffer, and nonsense -------------------------------------------------------------------


def test_manual_turns_commit_without_a_response() -> None:
    drive = Drive(bakery())
    update = pcmu_session()
    update["session"]["audio"]["input"]["turn_detection"] = None
    drive.send(update)
    drive.hear(ORDER.ulaw)
    assert not every(drive.events, "input_audio_buffer.speech_started")
    events = drive.send({"type": "input_audio_buffer.commit"}) + drive.wait(2_000)
    assert kinds(events)[:3] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert "response.created" not in kinds(events)
    error = only_error(drive.send({"type": "input_audio_buffer.commit"}))
    assert error["code"] == "input_audio_buffer_commit_empty"


def test_clear_forgets_a_turn_under_way() -> None:
    drive = Drive(bakery())
    drive.hear(ORDER.ulaw[:8_000])
    assert kinds(drive.send({"type": "input_audio_buffer.clear"})) == ["input_audio_buffer.cleared"]
    drive.hear(SILENCE * 16_000)
    assert not every(drive.events, "input_audio_buffer.committed")


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ("{", None, None),
        (b"\x00", None, None),
        ("[]", "invalid_type", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": "session.destroy"}', "invalid_value", "type"),
        ('{"type": "response.create", "now": true}', "unknown_parameter", "now"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "*"}', "invalid_value", "audio"),
        (
            '{"type": "response.create", "response": {"modalities": ["text"]}}',
            "unknown_parameter",
            "response.modalities",
        ),
    ],
)
def test_nonsense_gets_an_error_and_the_session_goes_on(
    frame: str | bytes, code: str | None, param: str | None
) -> None:
    drive = Drive(bakery())
    error = only_error(drive.send_raw(frame))
    assert (error["code"], error["param"]) == (code, param)
    assert kinds(drive.send(CREATE)) == ["response.created"]


def test_beta_interface_has_its_own_names_and_shapes() -> None:
    drive = Drive(AgentScript(replies=bakery().replies, names="beta"), configure=False)
    session = drive.events[0]["session"]
    assert session["input_audio_format"] == "pcm16" and "audio" not in session
    update = {
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_ulaw",
        "modalities": ["audio", "text"],
        "temperature": 0.8,
    }
    updated = drive.send({"type": "session.update", "session": update})
    assert only(updated, "session.updated")["session"]["output_audio_format"] == "g711_ulaw"
    drive.send(CREATE)
    names = set(kinds(drive.wait(6_000)))
    assert {"response.audio.delta", "response.audio_transcript.done"} <= names
    assert "conversation.item.created" in names
    assert not any("output_audio" in name or name == "conversation.item.done" for name in names)
