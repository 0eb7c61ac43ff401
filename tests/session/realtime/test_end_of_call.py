"""The caller's words, and what is recorded when the call or the session ends."""

from __future__ import annotations

import pytest

from asheard.v1 import fact_pb2
from session.agent import parse_agent
from session.realtime import events
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from tests.session.realtime.talk import AGENT, Talk

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


def test_a_turn_without_a_word_is_nobodys_until_text_comes_after_all() -> None:
    talk = Talk()
    talk.caller_speaks("U")
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U", transcript=" \n")
    talk.caller_stops("U")
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U", delta="")
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U", transcript="")
    talk.server(f"{TRANSCRIPTION}.failed", item_id="U")
    assert not talk.waiting()
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U", transcript="Hm.")
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U", transcript="")
    assert [f for f in talk.facts("caller_transcribed") if f.complete] == [
        fact_pb2.CallerTranscribed(item_id="U", complete=True, nobody_spoke=True),
        fact_pb2.CallerTranscribed(item_id="U", text="Hm.", complete=True),
    ]


def test_what_voice_detection_made_no_item_of_is_nobodys() -> None:
    talk = Talk()
    talk.caller_speaks("cough")
    talk.server("input_audio_buffer.speech_stopped", item_id="cough", audio_end_ms=300)
    assert nobodys(talk) == []  # it may still be committed
    talk.caller_speaks("U", 2000)
    assert nobodys(talk) == ["cough"]
    talk.caller_stops("U", 3000)
    talk.caller_speaks("door", 4000)
    talk.server("input_audio_buffer.speech_stopped", item_id="door", audio_end_ms=4300)
    talk.later(1.5)
    talk.caller_speaks("click", 6000)
    talk.server("input_audio_buffer.speech_stopped", item_id="click", audio_end_ms=6100)
    talk.hang_up()
    assert nobodys(talk) == ["cough", "door"]  # the click ended as the caller left
    talk.server(f"{TRANSCRIPTION}.completed", item_id="U", transcript="Two bagels.")
    talk.server("input_audio_buffer.committed", item_id="cough")  # after all
    talk.server(f"{TRANSCRIPTION}.completed", item_id="cough", transcript="Hm.")
    talk.finish(failed=False)
    assert [f.text for f in talk.facts("caller_transcribed") if f.text] == ["Two bagels.", "Hm."]
    assert nobodys(talk) == ["cough", "door"]


def test_what_is_not_transcribed_is_no_noise() -> None:
    talk = Talk(
        parse_agent("name: x\ninstructions: Be brief.\ntranscription: null\n", name="inline")
    )
    for n in range(2):
        talk.caller_speaks(f"U{n}", 2000 * n)
        talk.caller_stops(f"U{n}", 2000 * n + 1000)
        talk.later(2.0)
    talk.hang_up()
    talk.finish(failed=False)
    assert talk.facts("caller_transcribed") == []


def nobodys(talk: Talk) -> list[str]:
    return [f.item_id for f in talk.facts("caller_transcribed") if f.nobody_spoke]


@pytest.mark.parametrize(
    ("ending", "body", "failed"),
    [("failed", {"error": {"code": "x"}}, True), ("completed", {"transcript": ""}, False)],
)
def test_what_was_transcribed_is_not_taken_back(
    ending: str, body: dict[str, object], failed: bool
) -> None:
    talk = Talk()
    talk.caller_speaks("U")
    talk.caller_stops("U")
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U", delta="I want")
    talk.server(f"{TRANSCRIPTION}.delta", item_id="U", delta=" bagels")
    talk.server(f"{TRANSCRIPTION}.{ending}", item_id="U", **body)
    assert talk.facts("caller_transcribed")[-1] == fact_pb2.CallerTranscribed(
        item_id="U", text="I want bagels", complete=True, failed=failed
    )


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
