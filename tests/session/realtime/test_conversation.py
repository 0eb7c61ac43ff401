"""The conversation: what goes to the caller, what the model is told, what is recorded."""

from __future__ import annotations

import json

import pytest

from asheard.v1 import fact_pb2, transcript_pb2
from session.realtime import codec, events
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import (
    CallerStopped,
    Note,
    ToModel,
)
from tests.session.realtime.talk import AGENT, GREETER, Talk
from tests.session.recordings import WHY_SKIPPED, Recording, recordings

COMPLETED = fact_pb2.GENERATION_STATUS_COMPLETED
CANCELLED = fact_pb2.GENERATION_STATUS_CANCELLED


def test_configures_first_and_records_the_session() -> None:
    talk = Talk()
    first = talk.of(ToModel)[0].event
    assert isinstance(first, events.UpdateSession)
    assert talk.conversation.configured
    assert talk.all_facts() == [
        (
            "session_started",
            fact_pb2.SessionStarted(session_id="sess_1", model="gpt-test", language="en"),
        )
    ]


def test_no_audio_may_be_appended_before_the_model_agreed() -> None:
    conversation = Conversation(AGENT, "m", InputClock())
    conversation.open()
    conversation.receive(events.SessionCreated(), now=0.0)
    assert not conversation.configured


def test_the_agent_speaks_first_with_both_instructions() -> None:
    talk = Talk(GREETER)
    (request,) = talk.requests
    assert request.response == events.ResponseOptions("Be brief.\n\nSay hello.")
    talk.server("session.updated", session={"id": "sess_1"})
    assert len(talk.requests) == 1


def test_a_turn_is_spoken_and_recorded() -> None:
    talk = Talk()
    talk.caller_audio(2000, media_ms=63)
    talk.caller_speaks("U", audio_start_ms=300)
    talk.caller_stops("U", audio_end_ms=1700)
    talk.response("R")
    talk.item("R", "A", previous="U")
    talk.text("R", "A", "Sure")
    talk.audio("R", "A", 250)
    talk.now += 1
    talk.text("R", "A", ", now.")
    talk.audio("R", "A", 250)
    talk.item_done("R", "A", "Sure, now.")
    talk.response_done("R")
    assert talk.to_caller == [("A", 250), ("A", 250), ("A", 0)]
    (started,) = talk.facts("caller_speech_started")
    assert (started.item_id, started.at_ms) == ("U", 663), "the onset comes after the padding"
    (stopped,) = talk.facts("caller_speech_stopped")
    assert stopped.at_ms == 1263, "the end lies before the silence that decided it"
    assert talk.of(CallerStopped) == [CallerStopped(1200)]
    assert [(f.item_id, f.role, f.previous_item_id) for f in talk.facts("item_added")] == [
        ("U", transcript_pb2.ROLE_CALLER, ""),
        ("A", transcript_pb2.ROLE_AGENT, "U"),
    ]
    progressed = talk.facts("item_progressed")
    assert "".join(p.text for p in progressed) == "Sure, now."
    assert [p.text_offset for p in progressed] == [0, 4]
    assert talk.facts("item_generated") == [
        fact_pb2.ItemGenerated(
            item_id="A", content_index=0, text="Sure, now.", audio_ms=500, status=COMPLETED
        )
    ]
    assert talk.sent == [], "a turn that was not interrupted tells the model nothing"


def test_audio_is_floored_over_the_whole_item_not_over_each_delta() -> None:
    talk = Talk()
    talk.response("R")
    for _ in range(3):
        talk.server(
            "response.output_audio.delta",
            response_id="R",
            item_id="A",
            delta="//////////8=",  # eight bytes less one a delta would be a millisecond lost
        )
    talk.item_done("R", "A", "Hm.")
    assert talk.facts("item_generated")[0].audio_ms == 3


# --- refusals and errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    ["response_cancel_not_active", "conversation_already_has_active_response", "made_up", None],
)
def test_the_session_stays_open_after_an_error(code: str | None) -> None:
    talk = Talk()
    talk.server("error", error={"type": "t", "code": code, "message": "m"})
    assert talk.fatal == []
    assert talk.noted(Note.ERROR) == 1


@pytest.mark.parametrize("code", ["session_expired", "invalid_api_key", "insufficient_quota"])
def test_some_errors_end_the_session(code: str) -> None:
    talk = Talk()
    talk.server("error", error={"type": "t", "code": code, "message": "m"})
    assert talk.fatal == [f"the model reported {code}"]


def test_a_refused_configuration_says_what_was_refused_and_no_key() -> None:
    conversation = Conversation(AGENT, "m", InputClock())
    conversation.open()
    (update,) = [o.event for o in conversation.take() if isinstance(o, ToModel)]
    conversation.receive(
        events.Error(
            events.ErrorDetail(
                code="invalid_value",
                message="Invalid voice for key sk-abc123",
                param="session.audio.output.voice",
                event_id=update.event_id,
            )
        ),
        now=0.0,
    )
    talk = Talk()
    talk.outputs = conversation.take()
    (reason,) = talk.fatal
    assert "session.audio.output.voice" in reason
    assert "Invalid voice" in reason
    assert "abc123" not in reason


def test_a_failed_response_is_asked_for_again_but_not_for_ever() -> None:
    talk = Talk()
    failure = {"type": "failed", "error": {"code": "inference_rate_limit_exceeded"}}
    for attempt, delay_s in enumerate((0.5, 1.5), start=1):
        talk.response(f"R{attempt}")
        talk.response_done(f"R{attempt}", "failed", failure)
        assert len(talk.requests) == attempt - 1
        talk.later(delay_s)
        assert len(talk.requests) == attempt
    talk.response("R3")
    talk.response_done("R3", "failed", failure)
    talk.later(60)
    assert len(talk.requests) == 2
    assert talk.noted(Note.RESPONSE, "failed") == 3


def test_a_greeting_that_failed_is_asked_for_as_a_greeting() -> None:
    talk = Talk(GREETER)
    talk.response("R")
    talk.response_done("R", "failed", "overloaded")
    talk.later(0.5)
    assert [r.response for r in talk.requests] == [
        events.ResponseOptions("Be brief.\n\nSay hello.")
    ] * 2


def test_a_response_that_failed_for_good_ends_the_session() -> None:
    talk = Talk()
    talk.response("R")
    talk.response_done("R", "failed", {"error": {"code": "insufficient_quota"}})
    assert talk.fatal == ["response failed: insufficient_quota"]


def test_an_incomplete_response_is_recorded_as_such() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "It is", status="incomplete")
    talk.response_done("R", "incomplete", {"reason": "max_output_tokens"})
    assert talk.facts("item_generated")[0].status == fact_pb2.GENERATION_STATUS_INCOMPLETE
    assert talk.to_caller == [("A", 500), ("A", 0)]


@pytest.mark.parametrize(
    ("status", "details", "reason"),
    [
        ("incomplete", {"type": "incomplete", "reason": "content_filter"}, "content_filter"),
        ("incomplete", "max_output_tokens", "max_output_tokens"),
        (None, {"reason": "content_filter"}, "content_filter"),
        ("incomplete", None, ""),
        ("failed", {"error": {"type": "server_error", "code": "overloaded"}}, "overloaded"),
        ("failed", {"error": {"type": "server_error", "code": None}}, "server_error"),
        ("failed", {"error": {"code": 503}}, "503"),
        ("failed", {"error": "You said that my card number is 4111"}, ""),
        ("failed", "You said that my card number is 4111", "other"),
        ("failed", {"error": {"code": "sk-proj-1234567890abcdef"}}, "other"),
        ("failed", {"error": {"code": "x" * 5000}}, "other"),
        ("cancelled", {"type": "cancelled", "reason": "turn_detected"}, ""),
        ("completed", {"reason": "stop"}, ""),
    ],
)
def test_why_an_answer_fell_short_is_recorded(
    status: str | None, details: object, reason: str
) -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "It is")
    talk.audio("R", "A", 500)
    done = {"id": "R", "status": status, "status_details": details}
    talk.server("response.done", response=done)
    talk.text("R", "A", " nine dollars.")  # too late; it is recorded again
    talk.later(2.0)
    assert [f.reason for f in talk.facts("item_generated")] == [reason, reason]


def test_an_item_that_was_complete_before_its_response_fell_short_has_no_reason() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "It is nine.")
    talk.item("R", "B")
    talk.audio("R", "B", 500)
    talk.response_done("R", "incomplete", {"reason": "content_filter"})
    assert [(f.item_id, f.reason) for f in talk.facts("item_generated")] == [
        ("A", ""),
        ("B", "content_filter"),
    ]


# --- recordings -------------------------------------------------------------------------------


@pytest.mark.skipif(not recordings(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("recording", recordings(), ids=lambda r: r.name)
def test_a_recorded_session_is_understood(recording: Recording) -> None:
    talk = Talk()
    del talk.outputs[:]
    talk.conversation = Conversation(AGENT, "m", talk.clock)
    for event in recording.received:
        event = {key: value for key, value in event.items() if key != "session"}  # it has PCM
        talk.conversation.receive(codec.decode(json.dumps(event)), now=talk.now)
    talk.take()
    assert talk.fatal == []
    assert talk.noted(Note.UNKNOWN_EVENT) == talk.noted(Note.MALFORMED_EVENT) == 0
    assert talk.noted(Note.STALE) == 0
    roles = {"user": transcript_pb2.ROLE_CALLER, "assistant": transcript_pb2.ROLE_AGENT}
    added = [e["item"] for e in recording.received if e["type"] == "conversation.item.added"]
    expected = [
        (item["id"], roles.get(item.get("role"), transcript_pb2.ROLE_TOOL))
        for item in added
        if item["type"] != "function_call_output" and item.get("role") != "system"
    ]
    assert [(f.item_id, f.role) for f in talk.facts("item_added")] == expected
    generated = {f.item_id: f for f in talk.facts("item_generated")}
    for event in recording.received:
        if event["type"] != "conversation.item.done" or event["item"].get("role") != "assistant":
            continue
        content = event["item"]["content"][0]
        text = content.get("transcript") or content.get("text")
        item_id = event["item"]["id"]
        if item_id in generated:
            assert generated[item_id].text == text
            assert generated[item_id].status == COMPLETED
    transcripts = {
        e["item_id"]: e["transcript"]
        for e in recording.received
        if e["type"].endswith("input_audio_transcription.completed")
    }
    assert {
        f.item_id: f.text for f in talk.facts("caller_transcribed") if f.complete
    } == transcripts
    deltas = [e for e in recording.received if e["type"] == "response.output_audio.delta"]
    assert len([p for _, p in talk.to_caller if p]) == len(deltas)
