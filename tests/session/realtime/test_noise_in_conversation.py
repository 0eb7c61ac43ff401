"""Noise in a conversation: a sound that was no turn costs the caller a pause, and no word.

Whole conversations, in the orders of events that people reported and in others.
"""

from __future__ import annotations

import re

import pytest

from session.agent import parse_agent
from session.realtime import events
from session.realtime.noise import MAX_IN_A_ROW, QUIET_S
from session.realtime.replies import EXPECT_S
from tests.session.realtime.talk import AGENT, GREETER, Talk
from tests.session.realtime.test_functions import call_function
from tests.session.realtime.turns import refuse

PATIENT = parse_agent(
    "name: x\ninstructions: Be brief.\nturn_detection: {type: server_vad, interrupt_response: false}\n",
    name="inline",
)
WAITER = parse_agent(
    "name: x\ninstructions: Be brief.\nwhen_cut_by_noise: wait\n",
    name="inline",
)
TEXT = (
    "Your order of four cupcakes comes to twelve dollars and fifty cents, ready at half past nine."
)
REST = "twelve dollars and fifty cents, ready at half past nine."
"""After 3 of 6 seconds."""
GREETING = events.ResponseOptions("Be brief.\n\nSay hello.")


def noise(talk: Talk, item_id: str = "N", *, committed: bool = False) -> None:
    """Voice detection hears something for 0.3 s, and sees its end half a second later."""
    talk.caller_speaks(item_id)
    talk.wait(0.8)
    if committed:
        talk.caller_stops(item_id)
    else:
        talk.server("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=300)


def transcribed(talk: Talk, item_id: str, text: str | None) -> None:
    kind = "conversation.item.input_audio_transcription"
    if text is None:
        talk.server(f"{kind}.failed", item_id=item_id, error={"code": "server_error"})
    else:
        talk.server(f"{kind}.completed", item_id=item_id, transcript=text)


def cut_by_noise(
    talk: Talk,
    heard_ms: int = 3_000,
    *,
    response_id: str = "R",
    item_id: str = "A",
    text: str = TEXT,
    ms: int = 6_000,
    committed: bool = False,
) -> None:
    """The agent says something, and noise cuts it off."""
    talk.say(response_id, item_id, text, ms)
    talk.wait(heard_ms / 1000)
    noise(talk, f"N{item_id}", committed=committed)
    talk.positions((item_id, heard_ms), interrupt_id=len(talk.interrupts))


def rests(talk: Talk) -> list[str]:
    """What the model was told not to have been heard, for each request; empty: something else."""
    return [
        (request.response and request.response.instructions or "")
        .partition("has not heard: «")[2]
        .partition("»")[0]
        for request in talk.requests
    ]


# --- it is noise --------------------------------------------------------------------------------


def test_after_noise_and_silence_the_agent_goes_on_from_what_was_heard() -> None:
    talk = Talk()
    cut_by_noise(talk)
    assert talk.truncations == [("A", 3_000)]
    talk.wait(QUIET_S - 0.9)
    assert talk.requests == [], "somebody may be about to speak"
    talk.wait(1)
    assert rests(talk) == [REST]
    talk.say("R2", "A2", REST, 3_000)
    talk.wait(60)
    assert rests(talk) == [REST], "once"


def test_noise_that_cancels_what_is_being_generated() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", TEXT)
    talk.audio("R", "A", 3_000)
    talk.wait(2)
    talk.caller_speaks("N")
    talk.item_done("R", "A", TEXT, status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.positions(("A", 2_000), interrupt_id=1)
    talk.wait(0.8)
    talk.server("input_audio_buffer.speech_stopped", item_id="N", audio_end_ms=300)
    talk.wait(3)
    (rest,) = rests(talk)
    assert rest.endswith("ready at half past nine.")
    assert rest.startswith("four")


def test_noise_whose_response_never_says_that_it_is_over() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", TEXT)
    talk.audio("R", "A", 6_000)
    talk.wait(3)
    noise(talk)
    talk.positions(("A", 3_000), interrupt_id=1)
    talk.wait(4)
    assert len(rests(talk)) == 1


@pytest.mark.parametrize("after_s", [0.1, 2.0])
def test_a_turn_that_is_transcribed_as_empty_is_noise(after_s: float) -> None:
    talk = Talk()
    cut_by_noise(talk, committed=True)
    talk.wait(after_s)
    transcribed(talk, "NA", "")
    talk.wait(QUIET_S)
    assert rests(talk) == [REST]


def test_a_turn_that_is_transcribed_as_empty_before_it_is_committed_is_noise() -> None:
    talk = Talk()
    talk.say("R", "A", TEXT, 6_000)
    talk.wait(3)
    talk.caller_speaks("N")
    transcribed(talk, "N", "")
    talk.caller_stops("N")
    talk.positions(("A", 3_000), interrupt_id=1)
    talk.wait(QUIET_S)
    assert rests(talk) == [REST]


@pytest.mark.parametrize(("refined", "begins"), [(True, "fifty"), (False, "twelve")])
def test_the_times_of_an_aligner_say_what_was_heard_and_no_estimate_does(
    refined: bool, begins: str
) -> None:
    talk = Talk()
    cut_by_noise(talk)
    words = [(match.start(), match.end()) for match in re.finditer(r"\S+", TEXT)]
    ends_ms = [280 * (n + 1) for n in range(len(words))]
    assert TEXT.split()[10] == "fifty"
    assert ends_ms[9] <= 2_950 < ends_ms[10]
    talk.words_timed(
        "A", *((*w, end) for w, end in zip(words, ends_ms, strict=True)), refined=refined
    )
    talk.wait(QUIET_S)
    assert [rest.partition(" ")[0] for rest in rests(talk)] == [begins]


def test_where_the_gateway_is_silent_the_clock_says_what_was_heard() -> None:
    talk = Talk()
    talk.say("R", "A", TEXT, 6_000)
    talk.wait(3)
    noise(talk)
    talk.wait(QUIET_S)
    (rest,) = rests(talk)
    assert rest.endswith(REST)


def test_two_noises_in_a_row_are_one() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(1.0)
    noise(talk, "N2")
    talk.wait(0.5)
    assert talk.requests == []
    talk.wait(QUIET_S)
    assert rests(talk) == [REST]


def test_noise_while_the_continuation_plays() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(QUIET_S)
    cut_by_noise(talk, 3_000, response_id="R2", item_id="A2", text=REST, ms=4_000)
    talk.wait(QUIET_S)
    assert rests(talk) == [REST, "ready at half past nine."]


def test_noise_before_the_continuation_is_heard_changes_nothing() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(QUIET_S)
    talk.response("R2")
    noise(talk, "N2")
    talk.response_done("R2", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.wait(QUIET_S)
    assert rests(talk) == [REST, REST]


def test_noise_while_the_continuation_is_asked_for_asks_no_second_time() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(QUIET_S)
    noise(talk, "N2")
    talk.say("R2", "A2", REST, 3_000)
    talk.played(("A2", 3_000))
    talk.wait(60)
    assert rests(talk) == [REST]


def test_a_continuation_that_is_refused_is_asked_for_again() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(QUIET_S)
    talk.server("error", error={"code": "server_error", "event_id": talk.requests[-1].event_id})
    talk.wait(2)
    assert rests(talk) == [REST, REST]


def test_noise_while_a_refused_continuation_is_waited_for_loses_it_neither() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(QUIET_S)
    talk.server("error", error={"code": "server_error", "event_id": talk.requests[-1].event_id})
    noise(talk, "N2", committed=True)
    transcribed(talk, "N2", "")
    talk.wait(3)
    assert rests(talk) == [REST, REST]


def test_an_agent_that_hears_its_own_echo_gives_up() -> None:
    talk = Talk()
    for n in range(MAX_IN_A_ROW + 3):
        cut_by_noise(talk, 1_500, response_id=f"R{n}", item_id=f"A{n}")
        before = len(talk.requests)
        talk.wait(QUIET_S)
        if len(talk.requests) == before:
            break
    talk.wait(60)
    assert len(talk.requests) == MAX_IN_A_ROW


# --- the greeting -------------------------------------------------------------------------------


@pytest.mark.parametrize("heard_ms", [0, 300])
def test_a_greeting_that_its_own_echo_cut_off_is_said_anew(heard_ms: int) -> None:
    talk = Talk(GREETER)
    cut_by_noise(talk, heard_ms)
    talk.wait(QUIET_S)
    assert [request.response for request in talk.requests] == [GREETING, GREETING]
    talk.say("R2", "A2", "Hello.", 800)
    talk.played(("A2", 800))
    talk.wait(60)
    assert len(talk.requests) == 2


def test_a_greeting_that_noise_cancelled_before_it_began() -> None:
    talk = Talk(GREETER)
    talk.caller_speaks("N")
    talk.response("R")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.server("input_audio_buffer.speech_stopped", item_id="N", audio_end_ms=300)
    talk.wait(3)
    assert [request.response for request in talk.requests] == [GREETING, GREETING]


def test_a_greeting_that_is_refused_is_not_lost_for_a_turn_that_was_none() -> None:
    talk = Talk(GREETER)
    talk.server("error", error={"code": "server_error", "event_id": talk.requests[-1].event_id})
    noise(talk, committed=True)
    transcribed(talk, "N", "")
    talk.wait(3)
    assert [request.response for request in talk.requests] == [GREETING, GREETING]


# --- it is none, or nothing is to be said --------------------------------------------------------


def test_noise_after_everything_was_heard_is_nothing_to_go_on_from() -> None:
    talk = Talk()
    talk.say("R", "A", TEXT, 6_000)
    talk.wait(6)
    noise(talk)
    talk.positions(("A", 6_000), interrupt_id=1)
    talk.wait(60)
    assert talk.requests == []


def test_noise_while_nobody_speaks_is_answered_by_nobody() -> None:
    talk = Talk()
    talk.say("R", "A", TEXT, 6_000)
    talk.played(("A", 6_000))
    talk.wait(10)
    noise(talk, committed=True)
    transcribed(talk, "N", "")
    talk.wait(60)
    assert talk.requests == []


def test_the_caller_really_speaks_a_second_after_the_noise() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.wait(1.0)
    talk.caller_speaks("U")
    talk.wait(2)
    talk.caller_stops("U")
    talk.wait(0.3)
    talk.say("R2", "A2", "Twelve fifty.", 1_500)
    transcribed(talk, "U", "How much?")
    talk.played(("A2", 1_500))
    talk.wait(60)
    assert talk.requests == []


@pytest.mark.parametrize("text", ["Wait.", None])
def test_a_turn_with_no_response_is_answered_and_not_talked_over(text: str | None) -> None:
    talk = Talk()
    cut_by_noise(talk, committed=True)
    transcribed(talk, "NA", text)
    talk.wait(QUIET_S + 0.1)
    assert talk.requests == [], "the model may yet answer by itself"
    talk.wait(EXPECT_S)
    assert [request.response for request in talk.requests] == [None]


def test_a_model_that_answers_noise_by_itself_has_answered() -> None:
    talk = Talk()
    cut_by_noise(talk, committed=True)
    talk.wait(0.3)
    talk.say("R2", "A2", "Sorry?", 700)
    transcribed(talk, "NA", "")
    talk.played(("A2", 700))
    talk.wait(60)
    assert talk.requests == []


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_model_whose_answer_to_noise_says_nothing_has_not_answered(status: str) -> None:
    talk = Talk()
    cut_by_noise(talk, committed=True)
    talk.response("R2")
    talk.response_done("R2", status)
    talk.wait(0.7)
    refuse(talk)
    transcribed(talk, "NA", "")
    talk.wait(QUIET_S + 0.1)
    assert [request.response for request in talk.requests[:1]] == [None]
    assert rests(talk)[1:] == [REST]


def test_an_agent_that_is_to_wait_leaves_it_to_the_caller() -> None:
    talk = Talk(WAITER)
    cut_by_noise(talk, committed=True)
    transcribed(talk, "NA", "")
    talk.wait(60)
    assert talk.requests == []


@pytest.mark.parametrize(("text", "answers"), [("", 0), ("Stop!", 1), (None, 1)])
def test_an_agent_that_cannot_be_cut_off_answers_turns_and_no_noise(
    text: str | None, answers: int
) -> None:
    talk = Talk(PATIENT)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 2_000)
    noise(talk, committed=True)
    transcribed(talk, "N", text)
    talk.audio("R", "A", 2_000)
    talk.item_done("R", "A", TEXT)
    talk.response_done("R")
    assert talk.interrupts == []
    talk.wait(2)
    assert [request.response for request in talk.requests] == [None] * answers


def test_of_a_turn_and_a_noise_the_turn_is_answered() -> None:
    talk = Talk(PATIENT)
    talk.response("R")
    for item_id, text in (("U", "How much?"), ("N", "")):
        noise(talk, item_id, committed=True)
        transcribed(talk, item_id, text)
    talk.response_done("R", "failed", {"type": "failed", "error": {"code": "server_error"}})
    talk.wait(2)
    assert [request.response for request in talk.requests] == [None]


def test_nothing_is_said_to_a_caller_who_has_left() -> None:
    talk = Talk()
    cut_by_noise(talk)
    talk.hang_up()
    talk.wait(60)
    assert talk.requests == []


# --- functions ----------------------------------------------------------------------------------


def waiting_for_a_function(talk: Talk) -> None:
    """The agent says that it looks something up, and is cut off by noise while it does."""
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "Let me look that up for you, one moment please.")
    talk.audio("R", "A", 3_000)
    talk.item_done("R", "A", "Let me look that up for you, one moment please.")
    call_function(talk, "R", "F", "call_1")
    talk.response_done("R")
    talk.wait(1.5)
    noise(talk)
    talk.positions(("A", 1_500), interrupt_id=1)


def test_noise_during_a_functions_wait_costs_no_word() -> None:
    talk = Talk(AGENT)
    waiting_for_a_function(talk)
    talk.wait(QUIET_S)
    assert [rest.endswith("one moment please.") for rest in rests(talk)] == [True]


def test_a_result_that_comes_right_after_the_noise_is_spoken_after_what_was_not_heard() -> None:
    talk = Talk(AGENT)
    waiting_for_a_function(talk)
    talk.tool_returned("call_1", "{}")
    talk.server(
        "conversation.item.added",
        item={"id": "O", "type": "function_call_output", "call_id": "call_1"},
    )
    talk.wait(QUIET_S)
    (request,) = talk.requests
    assert rests(talk)[0].endswith("one moment please.")
    assert request.response is not None
    assert "speak of its result after that" in (request.response.instructions or "")
    talk.say("R2", "A2", "One moment please. It is ready.", 2_000)
    talk.played(("A2", 2_000))
    talk.wait(60)
    assert len(talk.requests) == 1
