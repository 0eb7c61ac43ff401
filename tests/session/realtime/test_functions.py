"""What a function call needs to be carried out, in every order of events; what is cut off never
is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from asheard.v1 import transcript_pb2
from session.realtime import events
from session.realtime.bounds import MAX_ARGUMENTS_CHARS, MAX_CALLS
from session.realtime.outputs import Note
from tests.session.realtime.talk import Talk

HALF = '{"order": ["bag'
WHOLE = '{"order": ["bagel"]}'


def item(arguments: str | None = None, status: str | None = None, **more: Any) -> dict[str, Any]:
    """The item of the call."""
    return {
        "id": "F",
        "type": "function_call",
        "call_id": "call_1",
        "name": "place_order",
        "arguments": arguments,
        "status": status,
        **more,
    }


class Call(Talk):
    """A conversation in which the model calls a function; each method is one event of the API's."""

    def added(self) -> None:
        self.server("response.output_item.added", response_id="R", item=item("", "in_progress"))
        self.server("conversation.item.added", item=item("", "in_progress"))

    def arguments(self, arguments: str) -> None:
        self.server(
            "response.function_call_arguments.done",
            response_id="R",
            item_id="F",
            call_id="call_1",
            name="place_order",
            arguments=arguments,
        )

    def item_ends(self, status: str | None, arguments: str | None) -> None:
        self.server("conversation.item.done", item=item(arguments, status))
        self.server("response.output_item.done", response_id="R", item=item(arguments, status))

    def ends(self, status: str | None, *output: dict[str, Any]) -> None:
        self.server("response.done", response={"id": "R", "status": status, "output": output})

    @property
    def told(self) -> list[str]:
        """Results that the model was given."""
        return [e.item["output"] for e in self.sent if isinstance(e, events.CreateItem)]

    def was_called_once_with(self, arguments: str) -> None:
        assert [c.arguments for c in self.tool_calls] == [arguments]
        assert [f.arguments for f in self.facts("tool_called")] == [arguments]
        assert [f.item_id for f in self.facts("item_added")] == ["F"]
        assert self.told == []

    def was_never_called(self) -> None:
        assert self.tool_calls == []
        assert self.facts("tool_called") == self.facts("item_added") == [], "no turn of a tool"


@pytest.mark.parametrize("arguments", ["", HALF])
@pytest.mark.parametrize("speaks_at", range(4))
def test_a_call_that_the_caller_cut_off_is_not_carried_out(arguments: str, speaks_at: int) -> None:
    """The API says that arguments are done and that items are, of what it has cancelled too."""
    talk = Call()
    talk.response("R")
    talk.added()
    steps: list[Callable[[], None]] = [
        lambda: talk.arguments(arguments),
        lambda: talk.item_ends("incomplete", arguments),
        lambda: talk.ends("cancelled", item(arguments, "incomplete")),
    ]
    for at, step in enumerate(steps):
        if at == speaks_at:
            talk.caller_speaks()
        step()
    talk.was_never_called()
    (told,) = talk.told
    assert "not carried out" in json.loads(told)["error"]
    assert talk.noted(Note.CALL_NOT_MADE) == 1
    talk.caller_stops()
    talk.say("R2", "A", "Yes?", 500)
    talk.later(10)
    assert talk.requests == [], "the caller's turn is answered anyway"


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed", None])
@pytest.mark.parametrize("item_status", ["incomplete", "in_progress", None])
def test_what_is_cut_off_by_anything_is_not_carried_out(
    status: str | None, item_status: str | None
) -> None:
    talk = Call()
    talk.response("R")
    talk.added()
    talk.arguments(HALF)
    talk.item_ends(item_status, HALF)
    talk.ends(status)
    talk.was_never_called()
    talk.arguments(WHOLE)
    talk.item_ends("completed", WHOLE)
    talk.ends("completed", item(WHOLE, "completed"))
    talk.was_never_called()


@pytest.mark.parametrize("status", ["cancelled", "incomplete", "failed", None])
@pytest.mark.parametrize("known", [True, False])
def test_a_call_known_only_from_a_response_that_was_cut_off_is_not_carried_out(
    status: str | None, known: bool
) -> None:
    talk = Call()
    if known:
        talk.response("R")
        talk.added()
    talk.ends(status, item(WHOLE, "completed"))
    talk.ends(status, item(WHOLE, "completed"))
    talk.was_never_called()


def test_a_call_without_any_end_is_not_carried_out() -> None:
    talk = Call()
    talk.response("R")
    talk.added()
    talk.arguments(WHOLE)
    assert talk.tool_calls == [], "whether it was cut off is not known yet"
    talk.hang_up()
    talk.finish(failed=False)
    talk.was_never_called()


@pytest.mark.parametrize("arguments", ["", "{}"])
def test_a_complete_call_without_parameters_is_a_call(arguments: str) -> None:
    talk = Call()
    talk.response("R")
    talk.added()
    talk.arguments(arguments)
    talk.item_ends("completed", arguments)
    talk.was_called_once_with(arguments)
    talk.ends("completed", item(arguments, "completed"))
    talk.was_called_once_with(arguments)


def test_a_complete_call_does_not_wait_for_the_end_of_its_response() -> None:
    talk = Call()
    talk.response("R")
    talk.added()
    talk.server("conversation.item.done", item=item(WHOLE, "completed"))
    talk.was_called_once_with(WHOLE)
    talk.caller_speaks()
    talk.ends("cancelled")
    talk.was_called_once_with(WHOLE)
    talk.tool_returned("call_1", "done")
    assert talk.told == ["done"]


@pytest.mark.parametrize("known", ["not at all", "as begun", "by its arguments"])
def test_a_call_known_only_from_the_end_of_its_response_is_carried_out_once(known: str) -> None:
    talk = Call()
    if known != "not at all":
        talk.response("R")
        talk.added()
    if known == "by its arguments":
        talk.arguments(WHOLE)
        talk.ends("completed")
    else:
        talk.ends("completed", item(WHOLE, "completed"))
    talk.was_called_once_with(WHOLE)
    talk.ends("completed", item(WHOLE, "completed"))
    talk.item_ends("completed", WHOLE)
    talk.was_called_once_with(WHOLE)
    talk.tool_returned("call_1", "done")
    assert len(talk.requests) == 1, "the model speaks about it"


def test_once_the_caller_speaks_the_end_of_the_response_decides() -> None:
    for status in ("completed", "cancelled"):
        talk = Call()
        talk.response("R")
        talk.added()
        talk.caller_speaks()
        talk.arguments(WHOLE)
        talk.item_ends("completed", WHOLE)
        assert talk.tool_calls == []
        talk.ends(status, item(WHOLE, "completed"))
        if status == "completed":
            talk.was_called_once_with(WHOLE)
        else:
            talk.was_never_called()


def test_a_complete_call_is_carried_out_once_in_every_order_of_events() -> None:
    def steps(talk: Call) -> list[Any]:
        return [
            lambda: talk.response("R"),
            lambda: talk.server(
                "response.output_item.added", response_id="R", item=item("", "in_progress")
            ),
            lambda: talk.server("conversation.item.added", item=item("", "in_progress")),
            lambda: talk.arguments(WHOLE),
            lambda: talk.server("conversation.item.done", item=item(WHOLE, "completed")),
            lambda: talk.server(
                "response.output_item.done", response_id="R", item=item(WHOLE, "completed")
            ),
        ]

    for order in itertools.permutations(range(6)):
        talk = Call()
        events_of = steps(talk)
        for step in order:
            events_of[step]()
        talk.ends("completed", item(WHOLE, "completed"))
        assert [c.arguments for c in talk.tool_calls] == [WHOLE], order
        assert [f.item_id for f in talk.facts("item_added")] == ["F"], order


def test_two_items_that_claim_one_call_are_one_call() -> None:
    talk = Call()
    talk.response("R")
    for item_id in ("F", "G"):
        talk.server(
            "response.output_item.done",
            response_id="R",
            item=item(WHOLE, "completed", id=item_id),
        )
    talk.ends("completed")
    talk.was_called_once_with(WHOLE)


def test_arguments_beyond_the_bound_are_refused_in_words() -> None:
    talk = Call()
    talk.response("R")
    talk.added()
    talk.item_ends("completed", "x" * (MAX_ARGUMENTS_CHARS + 1))
    talk.was_never_called()
    assert "too long" in talk.told[0]
    talk.ends("completed")
    assert len(talk.requests) == 1, "the model may say so, or call again"


def test_calls_at_a_time_are_bounded() -> None:
    talk = Call()
    talk.response("R")
    for n in range(MAX_CALLS + 2):
        talk.server(
            "response.output_item.done",
            response_id="R",
            item=item(WHOLE, "completed", id=f"F{n}", call_id=f"call_{n}"),
        )
    assert len(talk.tool_calls) == MAX_CALLS
    assert len(talk.told) == 2
    assert talk.noted(Note.DROPPED, "function_call") == 2


def test_a_turn_after_a_call_that_was_not_made_follows_the_one_before_it() -> None:
    talk = Call()
    talk.say("R0", "A", "One moment.", 500)
    talk.response("R")
    talk.server("response.output_item.added", response_id="R", item=item("", "in_progress"))
    talk.server("conversation.item.added", previous_item_id="A", item=item("", "in_progress"))
    talk.caller_speaks()
    talk.ends("cancelled", item(HALF, "incomplete"))
    talk.response("R2")
    talk.item("R2", "B", previous="F")
    assert [(f.item_id, f.previous_item_id) for f in talk.facts("item_added")] == [
        ("A", ""),
        ("B", "A"),
    ]


# --- results -------------------------------------------------------------------------------------


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
    assert len({output.pop("id") for output in outputs}) == 2, "ids of our own tell them apart"
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


@pytest.mark.parametrize("added", ["before the response", "during the response"])
def test_a_result_that_comes_during_the_callers_turn(added: str) -> None:
    """Whether voice detection's response can know it, the server's own order says."""
    talk = Talk()
    talk.response("R1")
    call_function(talk, "R1", "F", "call_1")
    talk.response_done("R1")
    talk.caller_speaks()
    talk.tool_returned("call_1", "$4.70")
    talk.caller_stops()
    if added == "before the response":
        talk.result_added("call_1")
    talk.response("R2")
    if added == "during the response":
        talk.result_added("call_1")
    talk.say("R2", "A", "Yes?", 500)
    talk.later(10)
    assert len(talk.requests) == (added == "during the response")


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
    talk.say("R2", "A", "Yes?", 500)
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
    assert len(talk.requests) == 1
    talk.later(0.5)
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
