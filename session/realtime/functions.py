"""Function calls: which are carried out, and what the model is told of the others. Pure.

Rules:

1. A function is called when its item is complete and nothing speaks against its response. Once the
   caller has begun to speak, how the response ended decides. What was cut off is never called: the
   API says that arguments are done of what it broke off, too.
2. A call is decided once, by its item and by its ``call_id``. The model gets a result for each: the
   function's, or why it was not called. Once the caller has left, nothing is decided any more.
3. The model is to speak about the results when the response is over and all of them are there. The
   conversation goes on meanwhile, and a result that nobody waits for any more is told all the same.
4. A function with ``cancel_on_barge_in`` is given up when the caller begins to speak while it is at
   work: its request is aborted, and the model is told so in place of a result, and may speak about
   that as about any other. The barge-in may turn out to be noise: the call is given up all the
   same, and what the model then says is all that the caller learns of it.
5. The server may begin a response before it has added a result that it was given; such a response
   does not know the result. :attr:`Functions.results_added` tells the two apart: by the id that a
   result has from us or, where a server gives its own, by the ``call_id``.

=============================  =============================  ===================================
a function call's item         while its response goes on     when its response is over
=============================  =============================  ===================================
complete by its own status     called, unless the caller      called if the response completed,
                               has begun to speak             else refused
all arguments there, no        waits                          called if the response completed,
status of its own                                             else refused
broken off by its own status,  waits                          refused
or not all arguments there
=============================  =============================  ===================================
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from session.agent import Agent
from session.realtime import events
from session.realtime.bounds import MAX_ARGUMENTS_CHARS, MAX_CALLS, MAX_REMEMBERED
from session.realtime.order import Order
from session.realtime.outputs import CallTool, CancelTool, Note, Outputs
from session.realtime.state import Item, Memory, Response, remember
from session.realtime.waiting import Waiting

_INTERRUPTED = "The caller interrupted you before this call was complete. It was not carried out."
_BROKEN_OFF = "This call was broken off before it was complete. It was not carried out."
_TOO_MANY = "Too many functions were called at a time. This call was not carried out."
_TOO_LONG = "The arguments were too long. This call was not carried out."
_GIVEN_UP = (
    "The caller began to speak, so this call was given up before it answered. "
    "Whether it was carried out is not known."
)
"""What the model is told in place of a result."""


class Functions:
    """Decides about function calls; see the module for the rules.

    Args:
        agent: With the functions.
        memory: Of the conversation.
        order: Of its items.
        waiting: Is told which functions are at work.
        outputs: Where what is to be done goes.
    """

    def __init__(
        self, agent: Agent, memory: Memory, order: Order, waiting: Waiting, outputs: Outputs
    ) -> None:
        self._memory = memory
        self._order = order
        self._waiting = waiting
        self._outputs = outputs
        self._given_up_on_barge_in = {t.name for t in agent.tools if t.cancel_on_barge_in}
        self._decided: dict[str, None] = {}
        """Calls that were carried out or refused, by ``call_id``; the newest."""
        self._under_way: dict[str, tuple[str, Response]] = {}
        """Calls that have not answered yet, by ``call_id``: the function, and who called it."""
        self._answered = False
        """All results of a response are there, and nobody has asked for that yet."""
        self._not_added: dict[str, tuple[str, str]] = {}
        """Results that the server has not added yet: ``call_id`` to our ids of item and event."""

    # --- what the model says ----------------------------------------------------------------

    def arguments_done(self, item: Item, arguments: str) -> None:
        """All arguments are there, or all that there will be: the item's end says which."""
        item.call.arguments = arguments or item.call.arguments
        item.call.arguments_done = True

    def item_done(self, item: Item, said: events.Item, *, now: float) -> None:
        """The item has ended, whatever became of its response."""
        self.note_end(item, said)
        response = self._memory.responses.get(item.response_id)
        if response is not None and not response.interrupted and item.call.item_completed:
            self._call(item, response, now)

    def note_end(self, item: Item, said: events.Item) -> None:
        """Take in what is said of an item that has ended, and decide nothing yet."""
        call = item.call
        call.call_id = said.call_id or call.call_id
        call.name = said.name or call.name
        call.arguments = said.arguments or call.arguments
        call.item_completed |= said.status == "completed"
        call.broken_off |= said.status == "incomplete"

    def response_done(self, response: Response, status: str | None, *, now: float) -> None:
        """The response is over, so no call of it is left undecided."""
        for item_id in response.items:
            item = self._memory.items.get(item_id)
            if item is None or item.speech:
                continue
            call = item.call
            complete = call.item_completed or (call.arguments_done and not call.broken_off)
            if status == "completed" and complete:
                self._call(item, response, now)
            else:
                self._refuse(item, _INTERRUPTED if response.interrupted else _BROKEN_OFF)
        if not response.tool_calls:
            self._all_answered(response)

    # --- results ----------------------------------------------------------------------------

    def returned(self, call_id: str, output: str) -> None:
        """A function has answered; ignored for a call that is not under way, such as one given up."""
        _name, response = self._under_way.pop(call_id, ("", None))
        if response is not None:
            self._over(call_id, output, response)

    def barge_in(self) -> None:
        """The caller began to speak: give up the calls that are to be."""
        for call_id, (name, response) in list(self._under_way.items()):
            if name in self._given_up_on_barge_in:
                del self._under_way[call_id]
                self._outputs.add(CancelTool(call_id))
                self._over(call_id, _error(_GIVEN_UP), response)

    def take_answered(self) -> bool:
        """Whether all results of a response are there since this was asked; True once.

        The model is to speak about them then: see the rules for what it knows of them.
        """
        answered, self._answered = self._answered, False
        return answered

    @property
    def results_added(self) -> bool:
        """Whether a response that begins now knows every result that the server was given."""
        return not self._not_added

    def result_added(self, item: events.Item) -> None:
        """The server has added an item to the conversation, perhaps a result.

        It takes our events in order: results that were sent before this one are added, or never
        will be.
        """
        added = [c for c, ids in self._not_added.items() if c == item.call_id or ids[0] == item.id]
        if added and item.type == "function_call_output":
            sent = list(self._not_added)
            for call_id in sent[: sent.index(added[-1]) + 1]:
                del self._not_added[call_id]

    def result_refused(self, event_id: str) -> None:
        """The server has refused an event of ours, perhaps a result: it will not be added."""
        refused = [c for c, ids in self._not_added.items() if ids[1] == event_id]
        for call_id in refused:
            del self._not_added[call_id]

    # --- decisions --------------------------------------------------------------------------

    def _call(self, item: Item, response: Response, now: float) -> None:
        call = item.call
        call_id = call.call_id
        if call.decided or call_id is None or call_id in self._decided or self._memory.caller_left:
            return
        too_long = len(call.arguments) > MAX_ARGUMENTS_CHARS
        if too_long or len(self._under_way) >= MAX_CALLS:
            self._outputs.note(Note.DROPPED, "function_call")
            self._refuse(item, _TOO_LONG if too_long else _TOO_MANY)
            response.called_tools = True  # it has been answered, and may be spoken about
            return
        call.decided = True
        remember(self._decided, call_id)
        self._order.called(item)
        response.tool_calls.add(call_id)
        response.called_tools = True
        name = call.name or ""
        self._under_way[call_id] = name, response
        self._waiting.called(call_id, name, round_id=response.response_id, now=now)
        self._outputs.fact(
            "tool_called",
            fact_pb2.ToolCalled(
                item_id=item.item_id, tool_call_id=call_id, name=name, arguments=call.arguments
            ),
        )
        self._outputs.add(CallTool(call_id, name, call.arguments))

    def _refuse(self, item: Item, why: str) -> None:
        """Carry out nothing, and tell the model so."""
        call_id = item.call.call_id
        if item.call.decided:
            return
        item.call.decided = True
        self._outputs.note(Note.CALL_NOT_MADE)
        if call_id is None or call_id in self._decided or self._memory.caller_left:
            return
        remember(self._decided, call_id)
        self._tell(call_id, _error(why))

    def _over(self, call_id: str, output: str, response: Response) -> None:
        """A call that was under way is no more."""
        self._tell(call_id, output)
        self._waiting.over(call_id)
        response.tool_calls.discard(call_id)
        if response.done and not response.tool_calls:
            self._all_answered(response)

    def _all_answered(self, response: Response) -> None:
        self._answered |= response.called_tools
        response.called_tools = False

    def _tell(self, call_id: str, output: str) -> None:
        event_id = self._outputs.event_id()
        item_id = self._outputs.event_id("result")
        self._not_added[call_id] = item_id, event_id
        if len(self._not_added) > MAX_REMEMBERED:
            del self._not_added[next(iter(self._not_added))]
        self._outputs.send(
            events.CreateItem(
                event_id=event_id,
                item={
                    "id": item_id,
                    "type": "function_call_output",
                    "call_id": call_id,
                    "output": output,
                },
            )
        )


def _error(text: str) -> str:
    """An error as the model gets it in place of a result; the text has nothing to escape."""
    return f'{{"error": "{text}"}}'
