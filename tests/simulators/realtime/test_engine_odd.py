"""What a simulated session does beside the ordinary: several outputs, failures, drops, nonsense."""

from __future__ import annotations

import json

import pytest

from simulators.realtime.engine import Close
from simulators.realtime.script import (
    AgentScript,
    CallTool,
    Drop,
    Failure,
    Reply,
    Speak,
    Stall,
    bakery,
    say,
)
from simulators.speech.g711 import SILENCE
from tests.simulators.realtime.drive import (
    CREATE,
    GREETING,
    ORDER,
    Drive,
    every,
    kinds,
    only,
    only_error,
    pcmu_session,
)


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
