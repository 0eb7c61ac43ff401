"""The conversation: what goes to the caller, what the model is told, what is recorded."""

from __future__ import annotations

import json

import pytest

from asheard.v1 import fact_pb2, transcript_pb2
from session.agent import parse_agent
from session.realtime import events
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import (
    CallerStopped,
    Note,
    PartCut,
    PartGenerated,
    PartPlayed,
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
    assert (started.item_id, started.at_ms) == ("U", 663), "onset lies behind the padding"
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


# --- barge-in ---------------------------------------------------------------------------------


def test_barge_in_after_generation_truncates_at_the_position() -> None:
    talk = Talk()
    talk.say("R", "A", "Cash or credit? We also have a discount.", 3000)
    talk.caller_audio(1000)
    talk.caller_speaks(audio_start_ms=200)
    (interrupt,) = talk.interrupts
    assert (interrupt.interrupt_id, interrupt.onset_buffer_ms) == (1, 500)
    assert talk.truncations == [], "not before the position is known"
    talk.positions(("A", 1234), interrupt_id=1)
    assert talk.truncations == [("A", 1234)]
    assert talk.facts("item_truncated") == [], "not before the model answered"
    talk.server("conversation.item.truncated", item_id="A", content_index=0, audio_end_ms=1234)
    assert talk.facts("item_truncated") == [
        fact_pb2.ItemTruncated(item_id="A", content_index=0, audio_end_ms=1234, accepted=True)
    ]
    assert talk.of(PartCut) == [PartCut("A", 0, "Cash or credit? We also have a discount.")]


def test_barge_in_while_generating_drops_what_comes_late() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "I can tell you a long story")
    talk.audio("R", "A", 1000)
    talk.caller_speaks()
    talk.audio("R", "A", 250)
    talk.positions(("A", 400), interrupt_id=1)
    talk.audio("R", "A", 250)
    talk.item_done("R", "A", "I can tell you a long story about", status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.audio("R", "A", 250)
    assert talk.to_caller == [("A", 1000)], "no stragglers, and no end: it was cut"
    assert talk.noted(Note.STALE) == 3
    assert talk.truncations == [("A", 400)]
    (generated,) = talk.facts("item_generated")
    assert (generated.audio_ms, generated.status) == (1500, CANCELLED)
    assert generated.text == "I can tell you a long story about"
    assert talk.deletions == []


def test_stale_audio_of_one_response_does_not_stop_the_next() -> None:
    talk = Talk()
    talk.response("R1")
    talk.item("R1", "A")
    talk.audio("R1", "A", 500)
    talk.caller_speaks()
    talk.caller_stops()
    talk.response("R2")
    talk.item("R2", "B")
    talk.audio("R2", "B", 200)
    talk.audio("R1", "A", 250)
    talk.response_done("R1", "cancelled")
    talk.audio("R2", "B", 200)
    assert talk.to_caller == [("A", 500), ("B", 200), ("B", 200)]
    assert len(talk.interrupts) == 1, "a late response.done is no new barge-in"


def test_a_response_is_done_without_ever_being_created() -> None:
    talk = Talk()
    talk.response_done("R0", "cancelled")
    talk.audio("R0", "A", 250)
    assert talk.to_caller == []
    assert talk.noted(Note.STALE) == 1


def test_a_response_cancelled_for_speech_before_its_first_sign_is_interrupted() -> None:
    talk = Talk()
    talk.caller_speaks()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "Well", status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    assert [i.onset_buffer_ms for i in talk.interrupts] == [None]
    talk.positions(("A", 120), interrupt_id=1)
    assert talk.truncations == [("A", 120)]


def test_a_response_cancelled_beside_another_does_not_silence_that_one() -> None:
    talk = Talk()
    talk.response("R1")
    talk.item("R1", "A")
    talk.audio("R1", "A", 500)
    talk.response("R2")
    talk.item("R2", "B")
    talk.audio("R2", "B", 200)
    talk.response_done("R1", "cancelled", {"type": "cancelled", "reason": "client_cancelled"})
    talk.audio("R2", "B", 200)
    assert talk.interrupts == []
    assert talk.to_caller == [("A", 500), ("B", 200), ("A", 0), ("B", 200)]


def test_an_item_being_generated_is_deleted_only_when_its_response_is_over() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 0), interrupt_id=1)
    talk.item_done("R", "A", "Well")
    assert talk.deletions == []
    talk.response_done("R", "cancelled")
    assert talk.deletions == ["A"]
    assert talk.truncations == []


def test_an_item_heard_to_its_end_is_left_alone() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 1000), interrupt_id=1)
    assert talk.sent == []
    assert talk.of(PartPlayed) == [PartPlayed("A", 0)]


def test_speech_with_nothing_playing_is_no_barge_in() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.played(("A", 1000))
    talk.caller_speaks()
    assert talk.interrupts == []
    assert talk.sent == []


def test_speech_before_the_first_audio_of_a_response_spares_the_item_before() -> None:
    talk = Talk()
    talk.say("R1", "A", "Yes.", 1000)
    talk.played(("A", 1000))
    talk.response("R2")
    talk.item("R2", "B")
    talk.text("R2", "B", "Let me")
    talk.caller_speaks()
    assert talk.interrupts == []
    talk.item_done("R2", "B", "Let me", status="incomplete")
    assert talk.deletions == [], "the server may still be adding to it"
    talk.response_done("R2", "cancelled")
    assert talk.truncations == []
    assert talk.deletions == ["B"]


def test_what_never_reached_twilio_is_deleted() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "First.")
    talk.item("R", "B", previous="A")
    talk.audio("R", "B", 500)
    talk.item_done("R", "B", "Second.")
    talk.response_done("R")
    talk.caller_speaks()
    talk.positions(("A", 200), interrupt_id=1)  # B was taken back on the link
    assert talk.truncations == [("A", 200)]
    assert talk.deletions == ["B"]
    talk.server("conversation.item.deleted", item_id="B")
    assert talk.facts("item_deleted") == [fact_pb2.ItemDeleted(item_id="B", accepted=True)]


def test_each_queued_item_is_treated_on_its_own() -> None:
    talk = Talk()
    talk.response("R")
    for item_id in ("A", "B", "C"):
        talk.item("R", item_id)
        talk.audio("R", item_id, 500)
        talk.item_done("R", item_id, f"Item {item_id}.")
    talk.response_done("R")
    talk.caller_speaks()
    talk.positions(("A", 500), ("B", 120), ("C", 0), interrupt_id=1)
    assert talk.truncations == [("B", 120)]
    assert talk.deletions == ["C"]


def test_overlapping_items_end_each_at_its_own_time() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item("R", "B")
    talk.audio("R", "B", 300)
    talk.item_done("R", "A", "First.")
    talk.audio("R", "B", 300)
    talk.item_done("R", "B", "Second.")
    talk.response_done("R")
    assert talk.to_caller == [("A", 500), ("B", 300), ("A", 0), ("B", 300), ("B", 0)]
    assert [(g.item_id, g.audio_ms) for g in talk.facts("item_generated")] == [
        ("A", 500),
        ("B", 600),
    ]


def test_a_position_beyond_what_was_received_is_no_truncation() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 99_999), interrupt_id=1)
    assert talk.sent == []


def test_cut_at_its_end_until_a_straggler_lies_behind_the_cut() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    assert talk.truncations == []
    talk.audio("R", "A", 250)
    assert talk.truncations == [("A", 500)]


def test_truncated_once_whatever_is_repeated() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks("U1")
    talk.positions(("A", 300), interrupt_id=1)
    talk.positions(("A", 280), interrupt_id=1)
    talk.positions(("A", 320))
    talk.caller_speaks("U2")
    talk.positions(("A", 310), interrupt_id=2)
    assert talk.truncations == [("A", 300)]


def test_a_second_barge_in_while_the_first_is_under_way() -> None:
    talk = Talk()
    talk.say("R1", "A", "One.", 1000)
    talk.caller_speaks("U1")
    talk.caller_stops("U1")
    talk.say("R2", "B", "Two.", 1000)
    talk.caller_speaks("U2")
    assert [i.interrupt_id for i in talk.interrupts] == [1, 2]
    talk.positions(("A", 200), interrupt_id=1)
    talk.positions(("B", 100), interrupt_id=2)
    assert talk.truncations == [("A", 200), ("B", 100)]


def test_positions_that_take_long_are_counted_and_used_when_they_come() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks()
    assert talk.conversation.next_timer() == pytest.approx(talk.now + 0.3)
    talk.later(0.29)
    assert talk.noted(Note.POSITIONS_LATE) == 0
    talk.later(0.02)
    assert talk.noted(Note.POSITIONS_LATE) == 1
    assert talk.sent == [], "nothing is known: it is left whole"
    talk.later(5)
    assert talk.noted(Note.POSITIONS_LATE) == 1
    talk.positions(("A", 300), interrupt_id=1)
    assert talk.truncations == [("A", 300)]


def test_a_caller_who_may_not_cut_in_does_not() -> None:
    patient = parse_agent(
        "name: x\ninstructions: i\nturn_detection: {type: server_vad, interrupt_response: false}\n",
        name="inline",
    )
    talk = Talk(patient)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.audio("R", "A", 500)
    assert talk.interrupts == []
    assert talk.to_caller == [("A", 500), ("A", 500)]


def test_a_hang_up_truncates_nothing_but_times_the_words() -> None:
    talk = Talk()
    talk.say("R", "A", "Thank you and goodbye.", 2000)
    talk.positions(("A", 700), cause=fact_pb2.POSITION_CAUSE_HUNG_UP)
    assert talk.sent == []
    assert talk.of(PartCut) == [PartCut("A", 0, "Thank you and goodbye.")]


def test_all_audio_of_a_cancelled_item_was_heard_but_not_all_of_its_text() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "One two three four five")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    talk.item_done("R", "A", "One two three four five", status="incomplete")
    talk.response_done("R", "cancelled")
    assert talk.sent == []
    assert talk.of(PartCut) == [PartCut("A", 0, "One two three four five")]
    assert talk.of(PartGenerated) == [PartGenerated("A", 0, "One two three four five", False)]


def test_a_cut_that_is_decided_after_the_hang_up_tells_the_model_nothing() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    talk.hang_up()
    talk.audio("R", "A", 250)
    talk.finish(failed=False)
    assert talk.truncations == []
    assert talk.deletions == []
    assert [type(output) for output in talk.of(PartCut)] == [PartCut]


# --- refusals and errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_value", "Audio content of 3700ms is already shorter than 3760ms"),
        ("invalid_value", "Audio content of 120.00ms is already shorter than 140.50ms"),
        ("unsupported_content_type", "Only model output audio messages can be truncated"),
        (None, "Only model output audio messages can be truncated"),
    ],
)
@pytest.mark.parametrize("correlated", [True, False])
def test_a_refused_truncation_is_recorded_and_survived(
    code: str | None, message: str, correlated: bool
) -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 300), interrupt_id=1)
    event_id = talk.sent[-1].event_id if correlated else None
    talk.server(
        "error",
        error={
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "event_id": event_id,
        },
    )
    assert talk.fatal == []
    assert talk.noted(Note.TRUNCATION, "refused") == 1
    assert talk.facts("item_truncated") == [
        fact_pb2.ItemTruncated(item_id="A", audio_end_ms=300, accepted=False)
    ]


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


# --- the caller's words -----------------------------------------------------------------------

TRANSCRIPTION = "conversation.item.input_audio_transcription"


def test_transcription_may_come_before_the_item_and_long_after() -> None:
    talk = Talk()
    talk.caller_speaks("U1")
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U1", delta="I want")
    talk.caller_stops("U1")
    assert talk.waiting()
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U1", transcript="I want bagels.")
    assert not talk.waiting()
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U1", delta="!")
    assert [(f.text, f.complete) for f in talk.facts("caller_transcribed")] == [
        ("I want", False),
        ("I want bagels.", True),
    ]


def test_a_failed_transcription_is_recorded_and_the_call_goes_on() -> None:
    talk = Talk()
    talk.caller_speaks("U")
    talk.caller_stops("U")
    talk.server(f"{TRANSCRIPTION}.failed", item_id="U", error={"code": "DeploymentNotFound"})
    assert talk.facts("caller_transcribed") == [
        fact_pb2.CallerTranscribed(item_id="U", complete=True, failed=True)
    ]
    assert not talk.waiting()


def test_last_words_are_committed_at_the_hang_up_and_waited_for() -> None:
    talk = Talk()
    talk.caller_speaks("U")
    talk.hang_up()
    assert [type(event) for event in talk.sent] == [events.CommitAudio]
    assert talk.waiting()
    talk.server("input_audio_buffer.committed", item_id="U")
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U", delta="Bye")
    assert talk.waiting()
    talk.finish(failed=False)
    assert [(f.text, f.complete, f.failed) for f in talk.facts("caller_transcribed")] == [
        ("Bye", False, False),
        ("Bye", True, False),
    ]


def test_an_empty_commit_is_not_waited_for() -> None:
    talk = Talk()
    talk.caller_speaks("U")
    talk.hang_up()
    talk.server(
        "error",
        error={"code": "input_audio_buffer_commit_empty", "event_id": talk.sent[-1].event_id},
    )
    assert not talk.waiting()


def test_nothing_is_given_to_the_caller_after_the_hang_up() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.hang_up()
    assert [type(event) for event in talk.sent] == [events.CancelResponse]
    talk.audio("R", "A", 500)
    talk.response_done("R", "cancelled", {"reason": "client_cancelled"})
    assert talk.to_caller == [("A", 500)]
    assert talk.interrupts == []
    assert talk.facts("item_generated")[0].audio_ms == 1000


def test_what_was_open_is_recorded_at_the_end_and_the_end_is_last() -> None:
    talk = Talk()
    talk.say("R1", "A", "Yes, of course.", 1000)
    talk.caller_speaks("U")
    talk.positions(("A", 300), interrupt_id=1)
    talk.caller_stops("U")
    talk.response("R2")
    talk.item("R2", "B")
    talk.text("R2", "B", "And")
    talk.finish(failed=True)
    talk.end("the model's socket closed with code 1006", failed=True)
    generated = talk.facts("item_generated")[-1]
    assert (generated.item_id, generated.status) == ("B", fact_pb2.GENERATION_STATUS_FAILED)
    assert talk.facts("caller_transcribed")[-1].failed
    assert not talk.facts("item_truncated")[-1].accepted
    name, body = talk.all_facts()[-1]
    assert name == "session_ended"
    assert body == fact_pb2.SessionEnded(
        reason="the model's socket closed with code 1006", failed=True
    )


def test_a_session_that_never_opened_is_recorded_whole() -> None:
    conversation = Conversation(AGENT, "m", InputClock())
    conversation.finish(failed=True)
    conversation.ended("unreachable", failed=True)
    talk = Talk()
    talk.outputs = conversation.take()
    assert [name for name, _ in talk.all_facts()] == ["session_started", "session_ended"]
    assert talk.facts("session_started")[0].session_id == ""


# --- functions --------------------------------------------------------------------------------


def call_function(talk: Talk, response_id: str, item_id: str, call_id: str) -> None:
    item = {"id": item_id, "type": "function_call", "call_id": call_id, "name": "quote"}
    talk.server(
        "response.output_item.added",
        response_id=response_id,
        item={**item, "status": "in_progress"},
    )
    talk.server("conversation.item.added", item={**item, "status": "in_progress"})
    talk.server(
        "response.function_call_arguments.done",
        response_id=response_id,
        item_id=item_id,
        call_id=call_id,
        name="quote",
        arguments='{"items":["bagel"]}',
    )
    done = {**item, "status": "completed", "arguments": '{"items":["bagel"]}'}
    talk.server("conversation.item.done", item=done)
    talk.server("response.output_item.done", response_id=response_id, item=done)


def test_the_model_is_asked_to_speak_when_the_response_is_over_and_all_answers_are_there() -> None:
    talk = Talk()
    talk.response("R")
    call_function(talk, "R", "F1", "call_1")
    call_function(talk, "R", "F2", "call_2")
    assert [(c.call_id, c.name) for c in talk.tool_calls] == [
        ("call_1", "quote"),
        ("call_2", "quote"),
    ]
    talk.tool_returned("call_2", "$4.70")
    talk.response_done("R")
    assert talk.requests == []
    talk.tool_returned("call_1", "$2.35")
    outputs = [event.item for event in talk.sent if isinstance(event, events.CreateItem)]
    assert outputs == [
        {"type": "function_call_output", "call_id": "call_2", "output": "$4.70"},
        {"type": "function_call_output", "call_id": "call_1", "output": "$2.35"},
    ]
    assert len(talk.requests) == 1
    assert [(f.item_id, f.tool_call_id) for f in talk.facts("tool_called")] == [
        ("F1", "call_1"),
        ("F2", "call_2"),
    ]
    assert [f.role for f in talk.facts("item_added")] == [transcript_pb2.ROLE_TOOL] * 2


def test_a_result_that_comes_during_the_callers_turn_needs_no_request() -> None:
    talk = Talk()
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.caller_speaks()
    talk.tool_returned("call_1", "$4.70")
    talk.caller_stops()
    talk.response("R2")
    talk.response_done("R2")
    talk.later(10)
    assert talk.requests == []


def test_a_result_that_comes_during_another_response_is_spoken_about_after_it() -> None:
    talk = Talk()
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.caller_speaks()
    talk.caller_stops()
    talk.response("R2")
    talk.tool_returned("call_1", "$4.70")
    assert talk.requests == []
    talk.response_done("R2")
    assert len(talk.requests) == 1


def test_a_request_that_lost_the_race_is_repeated() -> None:
    talk = Talk()
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.tool_returned("call_1", "$4.70")
    (request,) = talk.requests
    talk.server(
        "error",
        error={"code": "conversation_already_has_active_response", "event_id": request.event_id},
    )
    talk.later(0)
    assert len(talk.requests) == 2


def test_the_next_turn_follows_the_item_before_a_tools_result() -> None:
    talk = Talk()
    talk.response("R")
    call_function(talk, "R", "F", "call_1")
    talk.server(
        "conversation.item.added",
        previous_item_id="F",
        item={"id": "O", "type": "function_call_output", "call_id": "call_1"},
    )
    talk.response_done("R")
    talk.response("R2")
    talk.item("R2", "A", previous="O")
    assert talk.facts("item_added")[-1].previous_item_id == "F"


def test_a_function_of_an_interrupted_response_is_not_deleted() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    call_function(talk, "R", "F", "call_1")
    talk.caller_speaks()
    talk.positions(("A", 100), interrupt_id=1)
    talk.response_done("R", "cancelled")
    assert talk.deletions == []


# --- recordings -------------------------------------------------------------------------------


@pytest.mark.skipif(not recordings(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("recording", recordings(), ids=lambda r: r.name)
def test_a_recorded_session_is_understood(recording: Recording) -> None:
    talk = Talk()
    del talk.outputs[:]
    talk.conversation = Conversation(AGENT, "m", talk.clock)
    for event in recording.received:
        event = {key: value for key, value in event.items() if key != "session"}  # it has PCM
        talk.conversation.receive(events.decode(json.dumps(event)), now=talk.now)
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
