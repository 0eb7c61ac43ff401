"""What a caller in silence is told, what is recorded of it, and what is said after noise."""

from __future__ import annotations

import pytest

from asheard.v1 import transcript_pb2
from session.realtime import events
from session.realtime.dead_air import PATIENCE_S
from session.realtime.ends import HEARD_OUT_S
from session.realtime.noise import QUIET_S
from session.realtime.outputs import Note
from session.realtime.replies import EXPECT_S
from tests.session.realtime.talk import GREETER, Talk
from tests.session.realtime.test_functions import call_function
from tests.session.realtime.turns import (
    BOOK,
    GREETING,
    caller_turn,
    fail,
    refuse,
    text_only,
)

# --- noise that cuts the agent off --------------------------------------------------------------


def cut_by_noise(talk: Talk, response_id: str, item_id: str, heard_ms: int) -> None:
    """The agent speaks, and a sound of 300 ms cuts it off."""
    talk.response(response_id)
    talk.item(response_id, item_id)
    talk.text(response_id, item_id, "We open at nine and close at six in the evening.")
    talk.audio(response_id, item_id, 4000)
    talk.wait(heard_ms / 1000)
    talk.caller_speaks()
    talk.response_done(response_id, "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.positions((item_id, heard_ms), interrupt_id=len(talk.interrupts))
    talk.wait(0.3)
    talk.server("input_audio_buffer.speech_stopped", item_id="N", audio_end_ms=300)


def transcribed(talk: Talk, item_id: str, text: str) -> None:
    talk.server(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=text,
    )


@pytest.mark.parametrize("commits", [False, True])
def test_after_noise_the_agent_goes_on_from_what_was_heard(commits: bool) -> None:
    talk = Talk()
    cut_by_noise(talk, "R", "A", 2000)
    if commits:
        talk.server("input_audio_buffer.committed", item_id="N")
        talk.wait(0.5)
        transcribed(talk, "N", "")
        talk.wait(QUIET_S - 0.6)
    else:
        talk.wait(QUIET_S - 0.1)
    assert talk.requests == []
    talk.wait(0.2)
    (request,) = talk.requests
    assert request.response is not None and request.response.instructions is not None
    assert "six in the evening" in request.response.instructions
    talk.say("R2", "B", "and close at six in the evening.", 2000)
    talk.wait(60)
    assert len(talk.requests) == 1


def test_a_greeting_that_its_own_echo_cut_off_is_said_again() -> None:
    talk = Talk(GREETER)
    cut_by_noise(talk, "R", "A", 0)
    talk.wait(QUIET_S + 0.1)
    assert [request.response for request in talk.requests] == [GREETING] * 2


def test_what_the_caller_really_says_after_a_noise_is_answered_and_nothing_else() -> None:
    talk = Talk()
    cut_by_noise(talk, "R", "A", 2000)
    talk.wait(1)
    caller_turn(talk, "U2")
    talk.say("R2", "B", "Yes.", 500)
    transcribed(talk, "U2", "Is it open on Sundays?")
    talk.wait(60)
    assert talk.requests == []


# --- silences -----------------------------------------------------------------------------------


def test_a_silence_of_two_seconds_is_recorded_on_the_calls_clock() -> None:
    talk = Talk()
    talk.caller_audio(4000, media_ms=63)
    talk.caller_speaks("U", audio_start_ms=300)
    talk.caller_stops("U", audio_end_ms=3900)  # of which 500 are the silence that decided it
    talk.response("R")
    talk.item("R", "A")
    talk.now += 1.5
    talk.caller_audio(1500, media_ms=4063)
    talk.audio("R", "A", 500)
    (silence,) = talk.facts("dead_air")
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_MODEL
    assert (silence.start_ms, silence.end_ms, silence.lasted_ms) == (3463, 5563, 2100)
    assert talk.noted(Note.DEAD_AIR, "model") == 2100


def test_a_pause_as_people_make_them_is_measured_and_not_recorded() -> None:
    talk = Talk()
    caller_turn(talk)
    talk.response("R")
    talk.now += 0.8
    talk.audio("R", "A", 500)
    assert talk.noted(Note.DEAD_AIR, "model") == 800
    assert talk.facts("dead_air") == []


def test_a_slow_function_is_what_is_waited_for() -> None:
    talk = Talk()
    talk.response("R")
    call_function(talk, "R", "F", "call_1")
    talk.response_done("R")
    talk.wait(3)
    talk.tool_returned("call_1", "$4.70")
    talk.say("R2", "A", "It is $4.70.", 900)
    (silence,) = talk.facts("dead_air")
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_TOOL


def said(talk: Talk) -> list[str]:
    """What the caller was told without the model."""
    ids = {fact.item_id for fact in talk.facts("item_added") if fact.notice}
    return [fact.text for fact in talk.facts("item_generated") if fact.item_id in ids]


def test_a_caller_in_silence_is_told_to_wait_and_in_the_end_that_there_is_no_answer() -> None:
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    talk.response("R")
    talk.wait(PATIENCE_S - 0.1)
    assert said(talk) == []
    talk.wait(0.1)
    assert said(talk) == ["One moment, please."]
    talk.wait(1 + PATIENCE_S - 0.1)
    assert len(said(talk)) == 1
    talk.wait(0.1)
    assert said(talk) == ["One moment, please.", "Could you say that again?"]
    assert [event.response_id for event in talk.sent if isinstance(event, events.CancelResponse)]
    talk.audio("R", "A", 500)
    assert talk.to_caller[-1] == ("notice_t_2", 0), "what comes now is not heard any more"
    talk.wait(120)
    assert len(said(talk)) == 2
    assert talk.requests == []
    assert [f.lasted_ms for f in talk.facts("dead_air")] == [6000, 6000]


def test_who_was_told_to_wait_hears_the_answer_when_it_comes() -> None:
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    talk.response("R")
    talk.wait(PATIENCE_S + 2)
    talk.say("R", "A", "We open at nine.", 900)
    talk.wait(120)
    assert said(talk) == ["One moment, please."]
    caller_turn(talk, "U2")
    talk.response("R2")
    talk.wait(PATIENCE_S)
    assert said(talk) == ["One moment, please."] * 2, "another wait, another word"


@pytest.mark.parametrize("message", ["", "Please try again in 6s."])
@pytest.mark.parametrize("how", ["refused", "failed", "silent"])
def test_what_fails_three_times_ends_in_words(how: str, message: str) -> None:
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    fail(talk, "R0", message)
    done = 0
    for _ in range(600):
        if len(talk.requests) > done:
            done = len(talk.requests)
            if how == "refused":
                refuse(talk, "rate_limit_exceeded", message=message)
            elif how == "failed":
                fail(talk, f"R{done}", message)
            else:
                text_only(talk, f"R{done}")
        talk.wait(0.1)
    assert said(talk)[-1] == "Could you say that again?"
    assert done <= 4
    assert all(f.lasted_ms <= 6000 for f in talk.facts("dead_air"))
    assert sum(f.lasted_ms for f in talk.facts("dead_air")) <= 12_000
    caller_turn(talk, "U2")
    talk.say("R9", "B", "We open at nine.", 900)
    talk.wait(60)
    assert said(talk).count("Could you say that again?") == 1, "the call goes on"


def test_a_slow_function_is_waited_for_after_a_word_however_long_it_takes() -> None:
    talk = Talk(notices=BOOK)
    talk.response("R")
    call_function(talk, "R", "F", "call_1")
    talk.response_done("R")
    talk.wait(4)
    assert len(talk.requests) == 1, "a word of the model's own"
    talk.say("R2", "A", "I am still looking.", 900)
    talk.wait(100)
    assert said(talk) == [], "told once"
    talk.tool_returned("call_1", "$4.70")
    assert len(talk.requests) == 2


def test_nobody_waits_once_the_caller_has_left() -> None:
    talk = Talk()
    caller_turn(talk)
    talk.wait(2.5)
    talk.hang_up()
    (silence,) = talk.facts("dead_air")
    assert silence.lasted_ms == 2500
    talk.wait(60)
    assert talk.requests == []
    assert talk.conversation.next_timer() is None


@pytest.mark.parametrize("called_s", [4.5, 5.0, 5.8])
def test_a_function_that_is_called_late_makes_no_silence_longer(called_s: float) -> None:
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    talk.response("R")
    talk.wait(called_s)
    call_function(talk, "R", "F", "call")
    talk.response_done("R")
    talk.wait(PATIENCE_S - called_s + 0.05)
    assert len([fact for fact in talk.facts("item_added") if fact.notice]) == 1


# --- the end of a response is lost ----------------------------------------------------------------


def answered_and_never_over(item_status: str = "completed") -> Talk:
    """The model says two seconds, and nothing says that its response is over."""
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 2_000)
    talk.item_done("R", "A", "We open at nine.", status=item_status)
    talk.wait(2.0)
    talk.played(("A", 2_000))
    return talk


def test_who_has_heard_a_response_to_its_end_is_not_told_to_wait_for_it() -> None:
    talk = answered_and_never_over()
    talk.wait(60)
    assert [fact for fact in talk.facts("item_added") if fact.notice] == []
    assert talk.facts("dead_air") == []
    assert talk.requests == []
    caller_turn(talk, "U2")
    talk.wait(EXPECT_S)
    assert len(talk.requests) == 1


def test_one_that_was_not_heard_to_its_end_is_waited_for() -> None:
    talk = answered_and_never_over("in_progress")
    talk.wait(PATIENCE_S)
    assert len([fact for fact in talk.facts("item_added") if fact.notice]) == 1


def test_a_response_that_was_heard_out_may_go_on() -> None:
    talk = answered_and_never_over()
    talk.wait(HEARD_OUT_S + 3)
    call_function(talk, "R", "F", "call")
    talk.response_done("R")
    assert [call.call_id for call in talk.tool_calls] == ["call"]
    talk.tool_returned("call", "$9.05")
    talk.result_added("call")
    assert len(talk.requests) == 1


def test_what_is_owed_does_not_wait_for_a_response_that_was_heard_out() -> None:
    talk = answered_and_never_over()
    talk.wait(HEARD_OUT_S)
    talk.server("input_audio_buffer.committed", item_id="U2")  # without a word that it spoke
    assert [type(event) for event in talk.sent].count(events.CancelResponse) == 1
    talk.wait(EXPECT_S)
    assert len(talk.requests) == 1


def test_results_are_spoken_of_though_the_response_that_called_is_never_over() -> None:
    talk = Talk(notices=BOOK)
    caller_turn(talk)
    talk.response("R")
    call_function(talk, "R", "F", "call")
    talk.tool_returned("call", "$9.05")
    talk.result_added("call")
    talk.wait(HEARD_OUT_S)
    assert len(talk.requests) == 1


def test_noise_after_a_response_that_was_heard_out_has_cut_off_nothing() -> None:
    talk = answered_and_never_over()
    talk.wait(HEARD_OUT_S)
    talk.caller_speaks("N")
    talk.wait(0.3)
    talk.server("input_audio_buffer.speech_stopped", item_id="N", audio_end_ms=300)
    talk.wait(60)
    assert talk.requests == []
