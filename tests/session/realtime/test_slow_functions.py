"""Functions that take long: what a barge-in ends, and which results the server knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asheard.v1 import transcript_pb2
from session.agent import parse_agent
from session.notices import Notice, Sentence
from session.realtime import events
from session.realtime.functions import Functions
from session.realtime.order import Order
from session.realtime.outputs import CancelTool, Outputs, ToModel
from session.realtime.state import Item, Memory, Response
from session.realtime.waiting import SAY, Waiting
from tests.session.realtime.talk import Talk

PATIENT = """
name: x
instructions: Be brief.
tools:
  - {name: quote, description: d, url: "http://a/quote", cancel_on_barge_in: true, timeout_s: 300}
  - {name: order, description: d, url: "http://a/order", timeout_s: 300}
"""


def call_of(name: str) -> dict[str, Any]:
    """The item of a complete call: item ``quote`` calls ``quote`` as ``call_quote``."""
    call = {"id": name, "type": "function_call", "call_id": f"call_{name}", "name": name}
    return {**call, "arguments": "{}", "status": "completed"}


def at_work(*functions: str) -> Talk:
    """A conversation in which functions work: ``call_quote``, ``call_order``."""
    talk = Talk(parse_agent(PATIENT, name="inline"))
    talk.response("R")
    for name in functions:
        done = call_of(name)
        talk.server("response.output_item.done", response_id="R", item=done)
    talk.response_done("R")
    return talk


def results(talk: Talk) -> dict[str, str]:
    """What the model was told, by call."""
    told = [e.item for e in talk.sent if isinstance(e, events.CreateItem)]
    assert len({t["call_id"] for t in told}) == len(told), "one result for each call"
    return {t["call_id"]: t["output"] for t in told}


def test_a_barge_in_gives_up_what_may_be_given_up() -> None:
    talk = at_work("quote", "order")
    talk.caller_speaks()
    assert [c.call_id for c in talk.of(CancelTool)] == ["call_quote"]
    assert "Whether it was carried out is not known." in results(talk)["call_quote"]
    assert json.loads(results(talk)["call_quote"]).keys() == {"error"}
    talk.tool_returned("call_quote", "too late")
    talk.caller_speaks("U2")
    assert len(talk.of(CancelTool)) == 1
    talk.tool_returned("call_order", "done")
    assert results(talk)["call_order"] == "done"
    assert "too late" not in results(talk).values()


def test_a_callers_turn_after_a_call_was_given_up_is_answered_once() -> None:
    talk = at_work("quote")
    talk.caller_speaks()
    talk.result_added("call_quote")
    talk.caller_stops()
    talk.say("R2", "A", "Never mind then.", 900)
    talk.later(30)
    assert talk.requests == []


def test_a_call_that_noise_has_ended_is_spoken_about() -> None:
    """No turn follows, so nobody else asks the model to say that nothing will come of it."""
    talk = at_work("quote")
    talk.caller_speaks()
    talk.server("input_audio_buffer.speech_stopped", item_id="U", audio_end_ms=300)
    talk.wait(4)
    assert len(talk.requests) == 1


def test_a_call_made_while_the_caller_speaks_already_is_not_given_up() -> None:
    talk = Talk(parse_agent(PATIENT, name="inline"))
    talk.response("R")
    talk.caller_speaks()
    done = call_of("quote")
    talk.server("response.output_item.done", response_id="R", item=done)
    talk.response_done("R")
    assert len(talk.tool_calls) == 1
    assert talk.of(CancelTool) == []


def test_without_barge_in_nothing_is_given_up() -> None:
    talk = at_work("order")
    talk.caller_speaks()
    talk.caller_stops()
    assert talk.of(CancelTool) == []
    assert results(talk) == {}


class TwoCalls:
    """Two functions at work, without the rest of a conversation."""

    def __init__(self) -> None:
        agent, memory, self._outputs = parse_agent(PATIENT, name="inline"), Memory(), Outputs()
        self.functions = Functions(
            agent, memory, Order(self._outputs), Waiting(agent), self._outputs
        )
        memory.responses["R"] = Response("R")
        for name in ("quote", "order"):
            called = Item(name, "R", speech=False)
            said = events.Item(
                name, type="function_call", status="completed", call_id=f"call_{name}", name=name
            )
            self.functions.item_done(called, said, now=1.0)
        assert self.functions.results_added, "none was given"

    def result(self, call_id: str) -> events.CreateItem:
        """A function answers: what the server is sent."""
        self.functions.returned(call_id, "$4.70")
        created = [o.event for o in self._outputs.take() if isinstance(o, ToModel)][-1]
        assert isinstance(created, events.CreateItem)
        assert len(created.item["id"]) <= 32, "as the API wants it"
        assert not self.functions.results_added
        return created

    def added(self, item_id: str, call_id: str | None) -> bool:
        """The server adds a result: whether all are known then."""
        said = events.Item(item_id, type="function_call_output", call_id=call_id)
        self.functions.result_added(said)
        return self.functions.results_added


@pytest.mark.parametrize("own_ids", [True, False])
def test_a_result_is_known_once_the_server_has_added_it(own_ids: bool) -> None:
    """By the id that it has from us or, where the server gives its own, by its call."""
    calls = TwoCalls()
    first, second = calls.result("call_quote"), calls.result("call_order")
    assert not calls.added("another", "another")
    calls.functions.result_added(events.Item(second.item["id"], type="message"))
    assert not calls.functions.results_added
    for call_id, sent in (("call_quote", first), ("call_order", second)):
        known = calls.added(sent.item["id"], None) if own_ids else calls.added("S", call_id)
        assert known == (call_id == "call_order")


def test_a_result_that_was_refused_is_waited_for_no_longer() -> None:
    calls = TwoCalls()
    first, second = calls.result("call_quote"), calls.result("call_order")
    for event_id, known in (("another", False), (second.event_id, False), (first.event_id, True)):
        calls.functions.result_refused(event_id)
        assert calls.functions.results_added == known


def test_a_result_before_one_that_was_added_is_waited_for_no_longer() -> None:
    """The server takes our events in order."""
    calls = TwoCalls()
    calls.result("call_quote")
    calls.result("call_order")
    assert calls.added("S", "call_order")


# --- while they work -----------------------------------------------------------------------------

NOTICES = {
    notice: Sentence.of(notice.value, b"\x55" * (length_s * 8000))
    for notice, length_s in ((Notice.HOLD, 1), (Notice.SORRY, 2))
}


def working(*functions: str, after_s: float = 4) -> Talk:
    """As :func:`at_work`, with notices; the line is quiet from the call on."""
    text = f"{PATIENT}while_waiting: {{after_s: {after_s}, say: Still on it.}}\n"
    talk = Talk(parse_agent(text, name="inline"), NOTICES)
    call(talk, "R", *functions)
    return talk


def call(talk: Talk, response_id: str, *functions: str) -> None:
    """The model calls functions, and says nothing."""
    talk.response(response_id)
    for name in functions:
        talk.server("response.output_item.done", response_id=response_id, item=call_of(name))
    talk.response_done(response_id)


def returns(talk: Talk, name: str, output: str = "$4.70") -> None:
    """A function answers, and the server adds its result."""
    talk.tool_returned(f"call_{name}", output)
    added(talk)


def added(talk: Talk) -> None:
    """The server adds the last result."""
    result = [e.item for e in talk.sent if isinstance(e, events.CreateItem)][-1]
    talk.server("conversation.item.added", item={**result, "object": "realtime.item"})


def asked_for_words(talk: Talk) -> list[str]:
    """What the model was asked to say while functions work."""
    texts = []
    for request in talk.requests:
        if request.response is not None:
            assert request.response.tool_choice == "none", "it would call the function again"
            session, _, text = (request.response.instructions or "").partition("\n\n")
            assert session == "Be brief."
            texts.append(text)
    return texts


def notices(talk: Talk) -> list[str]:
    """What the caller was told without the model."""
    said = {f.item_id for f in talk.facts("item_added") if f.notice}
    return [f.text for f in talk.facts("item_generated") if f.item_id in said]


SAID = [f'{SAY}"Still on it."']


def test_a_function_that_answers_in_time_is_waited_for_in_silence() -> None:
    talk = working("quote")
    talk.wait(3.9)
    assert talk.requests == []
    returns(talk, "quote")
    assert [r.response for r in talk.requests] == [None]
    talk.say("R2", "A", "It is $4.70.", 900)
    talk.wait(60)
    assert len(talk.requests) == 1
    assert notices(talk) == []


def test_functions_that_take_long_have_one_word_and_their_results_are_spoken() -> None:
    talk = working("quote", "order")
    talk.wait(4)
    assert asked_for_words(talk) == SAID
    talk.say("R2", "A2", "Still on it.", 900)
    talk.wait(100)
    returns(talk, "quote")
    talk.wait(100)
    assert len(talk.requests) == 1
    assert notices(talk) == []
    returns(talk, "order")
    assert len(talk.requests) == 2
    assert asked_for_words(talk) == SAID
    talk.say("R3", "A3", "It is $4.70, and ordered.", 900)
    talk.wait(60)
    assert len(talk.requests) == 2
    (silence, *rest) = talk.facts("dead_air")
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_TOOL
    assert silence.lasted_ms == 4000
    assert {s.reason for s in rest} == {transcript_pb2.DEAD_AIR_REASON_TOOL}


@pytest.mark.parametrize("comes", ["before the turn", "while it is answered", "long after"])
def test_a_result_is_spoken_whatever_was_said_meanwhile(comes: str) -> None:
    talk = working("order")
    talk.wait(2)
    talk.caller_speaks()
    talk.wait(2)
    talk.caller_stops()
    if comes == "before the turn":
        talk.tool_returned("call_order", "$4.70")
    talk.response("R2")
    talk.item("R2", "A2")
    talk.audio("R2", "A2", 1500)
    if comes == "while it is answered":
        returns(talk, "order")
    talk.item_done("R2", "A2", "We close at six.")
    talk.response_done("R2")
    if comes == "long after":
        assert asked_for_words(talk) == []
        talk.wait(1.5 + 4)
        assert asked_for_words(talk) == SAID
        talk.say("R3", "A3", "Still on it.", 900)
        talk.wait(20)
        returns(talk, "order")
    assert [r.response for r in talk.requests][-1] is None, "one request, for the result"
    assert sum(r.response is None for r in talk.requests) == 1


def test_a_result_that_comes_while_the_word_is_said_is_spoken_after_it() -> None:
    talk = working("quote")
    talk.wait(4)
    talk.response("R2")
    returns(talk, "quote")
    assert len(talk.requests) == 1
    talk.say("R2", "A2", "Still on it.", 900)
    assert [r.response for r in talk.requests][1:] == [None]


def test_a_word_that_came_too_late_is_not_said() -> None:
    """It was owed, but the model could not be asked before the result was there."""
    talk = working("quote")
    talk.server(
        "rate_limits.updated",
        rate_limits=[{"name": "tokens", "limit": 10, "remaining": 0, "reset_seconds": 5.5}],
    )
    talk.wait(5)
    assert talk.requests == []
    returns(talk, "quote")
    talk.wait(1)
    assert [r.response for r in talk.requests] == [None]


def test_functions_called_one_after_the_other_in_silence_are_one_wait() -> None:
    talk = working("quote")
    talk.wait(3)
    returns(talk, "quote")
    call(talk, "R2", "order")
    talk.wait(1)
    assert asked_for_words(talk) == SAID


@pytest.mark.parametrize("why", ["refused", "no answer", "no sound"])
def test_where_the_model_cannot_say_so_the_caller_is_told_to_wait(why: str) -> None:
    """And not that something went wrong: the function is still at work."""
    talk = working("quote")
    talk.wait(4)
    for _ in range(12):
        if why == "refused" and talk.requests:
            error = {"code": "server_error", "event_id": talk.requests[-1].event_id}
            talk.server("error", error=error)
        elif why == "no sound":
            talk.response("R2")
        talk.wait(0.5)
    assert notices(talk) == ["hold"]
    talk.wait(100)
    assert notices(talk) == ["hold"]
    before = len(talk.requests)
    returns(talk, "quote")
    talk.wait(30 if why == "no sound" else 1)
    assert len(talk.requests) > before
    assert talk.requests[-1].response is None


def test_how_long_the_caller_is_left_in_silence_is_for_the_agent_file_to_say() -> None:
    talk = working("quote", after_s=30)
    talk.wait(29.9)
    assert talk.requests == []
    assert notices(talk) == []
    talk.wait(0.1)
    assert asked_for_words(talk) == SAID


def test_patience_with_the_model_begins_when_the_function_has_answered() -> None:
    talk = working("quote", after_s=30)
    talk.wait(20)
    returns(talk, "quote")
    talk.response("R2")
    talk.wait(5.9)
    assert notices(talk) == []
    talk.wait(0.1)
    assert notices(talk) == ["hold"]


def test_a_function_that_was_given_up_is_waited_for_no_longer() -> None:
    talk = working("quote")
    talk.wait(1)
    talk.caller_speaks()
    added(talk)
    talk.wait(1)
    talk.caller_stops()
    talk.say("R2", "A2", "Never mind then.", 900)
    talk.wait(60)
    assert talk.requests == []
    assert notices(talk) == []
