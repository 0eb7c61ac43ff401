"""What a caller is owed is spoken in the end, whatever the model does and in whichever order.

Each case stands for its kind: beside what people reported, orders that nobody did.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asheard.v1 import transcript_pb2
from session.agent import parse_agent
from session.notices import Notice, Sentence
from session.realtime import events
from session.realtime.dead_air import PATIENCE_S
from session.realtime.outputs import Note
from session.realtime.replies import ASKED_S, EXPECT_S, STALLED_S
from session.realtime.waits import FIRST_BACKOFF_S
from tests.session.realtime.talk import GREETER, Talk
from tests.session.realtime.test_functions import call_function

GREETING = events.ResponseOptions("Be brief.\n\nSay hello.")
PATIENT = parse_agent(
    "name: x\ninstructions: Be brief.\nturn_detection: {type: server_vad, interrupt_response: false}\n",
    name="inline",
)
BOOK = {
    Notice.HOLD: Sentence.of("One moment, please.", b"\x55" * 8_000),
    Notice.SORRY: Sentence.of("Could you say that again?", b"\x55" * 16_000),
}
"""A second, and two."""
ACTIVE = "conversation_already_has_active_response"


def refuse(
    talk: Talk, code: str = "server_error", *, named: bool = True, message: str = ""
) -> None:
    """The server's No to the last request."""
    event_id = talk.requests[-1].event_id if named else None
    talk.server("error", error={"code": code, "event_id": event_id, "message": message})


def fail(talk: Talk, response_id: str, message: str = "", code: str = "server_error") -> None:
    """A response begins and fails."""
    talk.response(response_id)
    talk.response_done(
        response_id, "failed", {"type": "failed", "error": {"code": code, "message": message}}
    )


def caller_turn(talk: Talk, item_id: str = "U") -> None:
    talk.caller_speaks(item_id)
    talk.caller_stops(item_id)


# --- a refused greeting -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["named", "unnamed", "unanswered", "failed at once"])
def test_a_refused_greeting_is_asked_for_again(how: str) -> None:
    talk = Talk(GREETER)
    if how == "unanswered":
        talk.wait(ASKED_S)
    elif how == "failed at once":
        talk.response_done("R", "failed", "overloaded")
    else:
        refuse(talk, named=how == "named")
    assert len(talk.requests) == 1
    talk.wait(FIRST_BACKOFF_S)
    assert [request.response for request in talk.requests] == [GREETING, GREETING]
    talk.say("R1", "A", "Hello.", 800)
    talk.wait(60)
    assert len(talk.requests) == 2


def test_a_greeting_is_not_asked_for_again_once_the_caller_has_spoken_first() -> None:
    talk = Talk(GREETER)
    talk.caller_speaks()
    refuse(talk)
    talk.wait(5)
    talk.caller_stops()
    talk.say("R1", "A", "Yes, we are open.", 800)
    talk.wait(60)
    assert len(talk.requests) == 1


# --- a model that refuses and refuses -----------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_refusals_are_few_and_come_to_an_end(named: bool) -> None:
    talk = Talk(GREETER)
    asked = 0
    for _ in range(400):
        if len(talk.requests) > asked:
            asked = len(talk.requests)
            refuse(talk, "rate_limit_exceeded", named=named)
        talk.wait(0.05)
    assert asked == 3


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [("Please try again in 1.5s.", 1.5), ("Please try again in 300ms.", FIRST_BACKOFF_S)],
)
def test_the_wait_that_a_refusal_names_is_honoured(message: str, wait_s: float) -> None:
    talk = Talk(GREETER)
    refuse(talk, "rate_limit_exceeded", message=message)
    talk.wait(wait_s - 0.01)
    assert len(talk.requests) == 1
    talk.wait(0.02)
    assert len(talk.requests) == 2


def test_a_limit_that_is_used_up_is_waited_for_before_the_first_request() -> None:
    talk = Talk()
    talk.server(
        "rate_limits.updated",
        rate_limits=[{"name": "tokens", "limit": 1000, "remaining": 0, "reset_seconds": 5.5}],
    )
    caller_turn(talk)
    talk.wait(5.4)
    assert talk.requests == [], "by itself the model would have been asked after three"
    talk.wait(0.2)
    assert len(talk.requests) == 1


def test_three_responses_that_failed_are_tried_again_when_the_server_says() -> None:
    talk = Talk()
    caller_turn(talk)
    fail(talk, "R1", "Rate limit reached. Please try again in 5s.")
    for attempt in (1, 2):
        talk.wait(4.9)
        assert len(talk.requests) == attempt - 1
        talk.wait(0.2)
        assert len(talk.requests) == attempt
        fail(talk, f"S{attempt}", "Please try again in 5s.")
    talk.wait(120)
    assert len(talk.requests) == 2, "the caller was told instead"


# --- results that a response cannot know --------------------------------------------------------


def with_result(talk: Talk) -> None:
    """A function has answered while the caller speaks."""
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.caller_speaks()
    talk.tool_returned("call_1", "$4.70")


@pytest.mark.parametrize("when", ["before it", "after its beginning", "after its end", "never"])
def test_a_result_is_spoken_by_the_first_response_that_can_know_it(when: str) -> None:
    talk = Talk()
    with_result(talk)
    talk.caller_stops()
    if when == "before it":
        talk.result_added("call_1")
    talk.response("R2")
    if when == "after its beginning":
        talk.result_added("call_1")
    talk.say("R2", "A", "Sure.", 500)
    if when == "after its end":
        talk.result_added("call_1")
    assert len(talk.requests) == (when != "before it")
    talk.say("R3", "B", "It is $4.70.", 900)
    talk.wait(60)
    assert len(talk.requests) == (when != "before it"), "spoken once"


def test_a_result_that_was_added_while_two_responses_follow_is_spoken_by_the_second() -> None:
    talk = Talk()
    with_result(talk)
    talk.caller_stops()
    talk.response("R2")
    talk.result_added("call_1")
    talk.caller_speaks("U2")
    talk.response_done("R2", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.caller_stops("U2")
    talk.say("R3", "B", "It is $4.70.", 900)
    talk.wait(60)
    assert talk.requests == []


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("order", ["created, refused", "refused, created"])
def test_a_request_that_voice_detection_forestalled_is_repeated_where_it_is_needed(
    named: bool, order: str
) -> None:
    talk = Talk()
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.tool_returned("call_1", "$4.70")
    assert len(talk.requests) == 1
    steps: list[Callable[[], None]] = [
        lambda: talk.response("R2"),
        lambda: refuse(talk, ACTIVE, named=named),
    ]
    for step in steps if order == "created, refused" else reversed(steps):
        step()
    talk.result_added("call_1")
    assert len(talk.requests) == 1
    talk.say("R2", "A", "Sure.", 500)
    talk.wait(FIRST_BACKOFF_S)
    assert len(talk.requests) == 2, "R2 could not know it"
    talk.say("R3", "B", "It is $4.70.", 900)
    talk.wait(60)
    assert len(talk.requests) == 2


# --- turns that voice detection does not answer -------------------------------------------------


@pytest.mark.parametrize("refused", [True, False])
def test_a_turn_in_a_response_that_is_not_interrupted_is_answered_after_it(refused: bool) -> None:
    talk = Talk(PATIENT)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 3000)
    caller_turn(talk)
    if refused:
        talk.server("error", error={"code": ACTIVE, "event_id": None})
    talk.wait(EXPECT_S + 1)
    assert talk.requests == [], "a response is under way"
    talk.item_done("R", "A", "A long sentence.")
    talk.response_done("R")
    assert len(talk.requests) == 1
    talk.say("R2", "B", "Yes.", 500)
    talk.wait(60)
    assert len(talk.requests) == 1


@pytest.mark.parametrize("kind", ["committed", "committed without an end of speech"])
def test_a_turn_that_got_no_response_is_asked_for(kind: str) -> None:
    talk = Talk()
    talk.caller_speaks()
    if kind == "committed":
        talk.caller_stops()
    else:
        talk.server("input_audio_buffer.committed", item_id="U")
    talk.wait(EXPECT_S - 0.1)
    assert talk.requests == []
    talk.wait(0.2)
    assert len(talk.requests) == 1
    talk.say("R", "A", "Yes.", 500)
    (silence,) = talk.facts("dead_air")
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE
    assert silence.lasted_ms == 3100


# --- responses in which nothing is heard --------------------------------------------------------


def text_only(talk: Talk, response_id: str) -> None:
    talk.response(response_id)
    item = {
        "id": f"T_{response_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "We open at nine."}],
    }
    talk.server("response.output_item.done", response_id=response_id, item=item)
    talk.response_done(response_id)


@pytest.mark.parametrize("how", ["text", "nothing", "content_filter", "max_output_tokens"])
def test_a_response_in_which_nothing_was_heard_is_asked_for_once_more(how: str) -> None:
    talk = Talk()
    caller_turn(talk)
    if how == "text":
        text_only(talk, "R")
    elif how == "nothing":
        talk.response("R")
        talk.response_done("R")
    else:
        talk.response("R")
        talk.response_done("R", "incomplete", {"type": "incomplete", "reason": how})
        assert talk.noted(Note.INCOMPLETE, how) == 1
    assert len(talk.requests) == 1
    talk.say("R2", "A", "We open at nine.", 900)
    talk.wait(60)
    assert len(talk.requests) == 1


def test_a_sentence_that_a_filter_broke_off_is_recorded_with_the_reason_and_not_repeated() -> None:
    talk = Talk()
    caller_turn(talk)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 900)
    talk.response_done("R", "incomplete", {"type": "incomplete", "reason": "content_filter"})
    (generated,) = talk.facts("item_generated")
    assert generated.reason == "content_filter"
    assert talk.noted(Note.INCOMPLETE, "content_filter") == 1
    talk.wait(60)
    assert talk.requests == []


# --- events that are odd, and events that never come --------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        {"id": "R", "status": "failed", "status_details": {"error": "overloaded"}},
        {"id": "R", "status": "failed", "status_details": "overloaded"},
        {"id": "R", "status": "failed", "status_details": {"error": {"code": 503.0}}},
        {"status": "failed", "output": "none"},
        {"id": "R", "output": [{"type": "message"}]},
        {"id": "R", "status": 7},
    ],
    ids=str,
)
def test_however_a_response_says_that_it_is_over_the_caller_is_answered(
    end: dict[str, object],
) -> None:
    talk = Talk()
    caller_turn(talk)
    talk.response("R")
    talk.server("response.done", response=end)
    talk.wait(FIRST_BACKOFF_S)
    assert len(talk.requests) == 1


@pytest.mark.parametrize("begun", ["created", "by an item", "by its first audio"])
def test_a_response_that_never_says_that_it_is_over_does_not_block_the_call(begun: str) -> None:
    talk = Talk()
    caller_turn(talk)
    if begun == "created":
        talk.response("R")
    elif begun == "by an item":
        talk.item("R", "A")
    else:
        talk.audio("R", "A", 250)
    talk.wait(EXPECT_S + 0.1)
    assert talk.requests == [], "it is under way"
    talk.wait(STALLED_S)
    assert [type(event) for event in talk.sent].count(events.CancelResponse) == 1
    caller_turn(talk, "U2")
    talk.say("R2", "B", "Yes.", 500)
    talk.wait(60)
    talk.audio("R", "A", 250)
    assert ("A", 250) not in talk.to_caller[-1:], "what was given up is not heard any more"


def test_an_interrupted_response_that_never_ends_holds_up_nothing() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 3000)
    talk.caller_speaks()
    talk.caller_stops()
    talk.wait(EXPECT_S + 0.1)
    assert len(talk.requests) == 1


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
