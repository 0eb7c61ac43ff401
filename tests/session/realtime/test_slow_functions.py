"""Functions that take long: what a barge-in ends, and which results the server knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from session.agent import parse_agent
from session.realtime import events
from session.realtime.functions import Functions
from session.realtime.order import Order
from session.realtime.outputs import CancelTool, Outputs, ToModel
from session.realtime.state import Item, Memory, Response
from session.realtime.waiting import Waiting
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
    talk.later(30)
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
