"""Function calls: which are carried out, and what the model is told of the others. Pure.

Rules:

1. A function is called when its item is complete and nothing speaks against its response. Once the
   caller has begun to speak, how the response ended decides. What was cut off is never called: the
   API says that arguments are done of what it broke off, too.
2. A call is decided once, by its item and by its ``call_id``. The model gets a result for each: the
   function's, or why it was not called. Once the caller has left, nothing is decided any more.
3. The model is to speak about the results when the response is over and all of them are there.

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
from session.realtime import events
from session.realtime.bounds import MAX_ARGUMENTS_CHARS, MAX_CALLS
from session.realtime.order import Order
from session.realtime.outputs import CallTool, Note, Outputs
from session.realtime.state import Item, Memory, Response, remember

_INTERRUPTED = "The caller interrupted you before this call was complete. It was not carried out."
_BROKEN_OFF = "This call was broken off before it was complete. It was not carried out."
_TOO_MANY = "Too many functions were called at a time. This call was not carried out."
_TOO_LONG = "The arguments were too long. This call was not carried out."
"""What the model is told in place of a result."""


class Functions:
    """Decides about function calls; see the module for the rules."""

    def __init__(self, memory: Memory, order: Order, outputs: Outputs) -> None:
        self._memory = memory
        self._order = order
        self._outputs = outputs
        self._decided: dict[str, None] = {}
        """Calls that were carried out or refused, by ``call_id``; the newest."""
        self._under_way: dict[str, Response] = {}
        """Calls that have not answered yet, by ``call_id``."""

    # --- what the model says ----------------------------------------------------------------

    def arguments_done(self, item: Item, arguments: str) -> None:
        """All arguments are there, or all that there will be: the item's end says which."""
        item.call.arguments = arguments or item.call.arguments
        item.call.arguments_done = True

    def item_done(self, item: Item, said: events.Item) -> None:
        """The item has ended, whatever became of its response."""
        self.note_end(item, said)
        response = self._memory.responses.get(item.response_id)
        if response is not None and not response.interrupted and item.call.item_completed:
            self._call(item, response)

    def note_end(self, item: Item, said: events.Item) -> None:
        """Take in what is said of an item that has ended, and decide nothing yet."""
        call = item.call
        call.call_id = said.call_id or call.call_id
        call.name = said.name or call.name
        call.arguments = said.arguments or call.arguments
        call.item_completed |= said.status == "completed"
        call.broken_off |= said.status == "incomplete"

    def response_done(self, response: Response, status: str | None) -> None:
        """The response is over, so no call of it is left undecided."""
        for item_id in response.items:
            item = self._memory.items.get(item_id)
            if item is None or item.speech:
                continue
            call = item.call
            complete = call.item_completed or (call.arguments_done and not call.broken_off)
            if status == "completed" and complete:
                self._call(item, response)
            else:
                self._refuse(item, _INTERRUPTED if response.interrupted else _BROKEN_OFF)

    # --- results ----------------------------------------------------------------------------

    def returned(self, call_id: str, output: str) -> Response | None:
        """A function has answered.

        Returns:
            The response that called it, which may be to be spoken about; None when there is none.
        """
        self._tell(call_id, output)
        response = self._under_way.pop(call_id, None)
        if response is not None:
            response.tool_calls.discard(call_id)
        return response

    def take_answered(self, response: Response) -> bool:
        """Whether the model is to speak about a response's results now; True once."""
        answered = response.done and response.called_tools and not response.tool_calls
        if answered:
            response.called_tools = False
        return answered

    # --- decisions --------------------------------------------------------------------------

    def _call(self, item: Item, response: Response) -> None:
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
        self._under_way[call_id] = response
        name = call.name or ""
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
        self._tell(call_id, f'{{"error": "{why}"}}')

    def _tell(self, call_id: str, output: str) -> None:
        self._outputs.send(
            events.CreateItem(
                event_id=self._outputs.event_id(),
                item={"type": "function_call_output", "call_id": call_id, "output": output},
            )
        )
