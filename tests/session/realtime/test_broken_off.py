"""A sentence that breaks off by itself, and a notice that noise cuts off: the caller still waits."""

from __future__ import annotations

import pytest

from session.agent import Agent, parse_agent
from session.notices import Notice, NoticeBook, Sentence
from session.realtime.noise import QUIET_S
from tests.session.realtime.talk import AGENT, Talk
from tests.session.realtime.test_noise_in_conversation import WAITER, noise, transcribed

BEGINNING = "One moment please, I will look at your order and then"
AUDIO_MS = 4_000
SORRY_MS = 3_000
BOOK: NoticeBook = {
    Notice.SORRY: Sentence.of(
        "I am sorry, something went wrong. Could you say that again?", b"\x55" * (8 * SORRY_MS)
    )
}


def broken_off(
    talk: Talk, response_id: str = "R", item_id: str = "A", reason: str = "max_output_tokens"
) -> None:
    """The model says the beginning of a sentence, and may not say more."""
    talk.response(response_id)
    talk.item(response_id, item_id)
    talk.text(response_id, item_id, BEGINNING)
    talk.audio(response_id, item_id, AUDIO_MS)
    talk.item_done(response_id, item_id, BEGINNING, status="incomplete")
    talk.response_done(response_id, "incomplete", {"type": "incomplete", "reason": reason})


def instructions(talk: Talk) -> list[str]:
    return [request.response and request.response.instructions or "" for request in talk.requests]


@pytest.mark.parametrize("agent", [AGENT, WAITER], ids=["goes on", "waits after noise"])
@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
def test_the_model_is_to_go_on_from_what_it_said(agent: Agent, reason: str) -> None:
    talk = Talk(agent)
    broken_off(talk, reason=reason)
    talk.wait(AUDIO_MS / 1000 + QUIET_S - 0.1)
    assert talk.requests == [], "it is still heard, and the caller may speak"
    talk.wait(0.2)
    (told,) = instructions(talk)
    assert "You were broken off" in told and "noise" not in told
    assert "call a function, then call it now" in told
    assert "The last words that the caller heard: «One moment please" in told
    assert talk.requests[0].response and talk.requests[0].response.tool_choice is None
    talk.say("R2", "A2", "and then I will call you back.", 2_000)
    talk.wait(60)
    assert len(talk.requests) == 1, "once"


def test_it_goes_on_once_until_it_has_said_all() -> None:
    talk = Talk()
    broken_off(talk)
    talk.wait(10)
    broken_off(talk, "R2", "A2")
    talk.wait(60)
    assert len(talk.requests) == 1, "it would break off for ever"
    talk.say("R3", "A3", "Your order is ready.", 1_000)
    talk.wait(10)
    broken_off(talk, "R4", "A4")
    talk.wait(10)
    assert len(talk.requests) == 2


def test_a_turn_makes_it_void() -> None:
    talk = Talk(parse_agent("name: x\ninstructions: Be brief.\n", name="inline"))
    broken_off(talk)
    talk.wait(AUDIO_MS / 1000 + 0.5)
    talk.caller_speaks("U")
    talk.wait(1)
    talk.caller_stops("U")
    transcribed(talk, "U", "Hello?")
    talk.say("R2", "A2", "Yes, your order is ready.", 1_000)
    talk.wait(60)
    assert talk.requests == []


def test_what_noise_cuts_off_of_it_is_said_as_after_any_noise() -> None:
    talk = Talk()
    broken_off(talk)
    talk.wait(2)
    noise(talk)
    talk.positions(("A", 2_000), interrupt_id=1)
    talk.wait(3)
    (told,) = instructions(talk)
    assert "A noise on the line" in told
    assert told.partition("has not heard: «")[2].partition("»")[0].endswith("order and then")


def test_after_a_notice_that_noise_cut_off_the_caller_is_owed_an_answer() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.SORRY)
    talk.wait(1)
    noise(talk, committed=True)
    talk.positions(("notice_t_1", 1_000), interrupt_id=1)
    talk.response("R")
    talk.response_done("R", "failed", {"type": "failed", "error": {"code": "server_error"}})
    transcribed(talk, "N", "")
    talk.wait(4)
    assert instructions(talk) == [""]


def test_a_notice_that_was_heard_to_its_end_is_owed_nothing() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.SORRY)
    talk.wait(SORRY_MS / 1000 + 1)
    talk.played(("notice_t_1", SORRY_MS))
    noise(talk)
    talk.wait(60)
    assert talk.requests == []
