"""What a caller is owed is spoken in the end, whatever the model does and in whichever order.

Each case stands for its kind: beside what people reported, orders that nobody did.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asheard.v1 import transcript_pb2
from session.realtime import events
from session.realtime.outputs import Note
from session.realtime.replies import ASKED_S, EXPECT_S, STALLED_S
from session.realtime.waits import FIRST_BACKOFF_S
from tests.session.realtime.talk import GREETER, Talk
from tests.session.realtime.test_functions import call_function
from tests.session.realtime.turns import (
    ACTIVE,
    GREETING,
    PATIENT,
    caller_turn,
    fail,
    refuse,
    text_only,
)

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
    assert asked == 4


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


def test_a_sentence_that_a_filter_broke_off_is_recorded_with_the_reason() -> None:
    talk = Talk()
    caller_turn(talk)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 900)
    talk.response_done("R", "incomplete", {"type": "incomplete", "reason": "content_filter"})
    (generated,) = talk.facts("item_generated")
    assert generated.reason == "content_filter"
    assert talk.noted(Note.INCOMPLETE, "content_filter") == 1


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
