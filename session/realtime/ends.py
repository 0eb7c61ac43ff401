"""What the end of a response means to each part of the conversation. Pure.

A response is over when the server says so, whatever that looks like, or when it is given up: it
showed no sign for too long, or the caller was told that there will be no answer.

======================  ==========================================================================
its status              what it was to the caller (:class:`~session.realtime.replies.End`)
======================  ==========================================================================
cancelled, or any once  CUT
the caller cut it off
failed                  FAILED
any other               SPOKE when audio of it went to the caller or it called functions, else
                        SILENT: text alone, nothing at all, a limit before the first word
======================  ==========================================================================

One that SPOKE, called no function and says that it is *incomplete* broke off in mid-sentence: it is
to go on (:meth:`.noise.Noise.broken_off`).

The word that it is over may be lost. When all its items are over, what was to be heard of them was
played, and nothing more came for 1.5 s, a response is *heard out*: nobody waits for it. It is given
up, as one that SPOKE, once something else is owed or it called functions; if more of it comes
before that, it goes on.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from session.realtime import events
from session.realtime.bounds import MAX_ITEMS_A_RESPONSE
from session.realtime.faults import counted_code, is_fatal_code, told_code
from session.realtime.functions import Functions
from session.realtime.interruptions import Interruptions
from session.realtime.items import Items
from session.realtime.line import Line
from session.realtime.noise import Noise
from session.realtime.outputs import Fatal, Note, Outputs
from session.realtime.replies import End, Replies
from session.realtime.state import Memory, Response
from session.realtime.waits import named_wait_s

HEARD_OUT_S = 1.5
"""How long nothing more came of a response that was heard out: its end comes with that of its last
item, and a function call soon after."""

MAX_TOKENS = 10**9
"""Of one kind in one response; more is a mistake, and a counter does not go back."""

_GENERATION_STATUS = {
    "completed": fact_pb2.GENERATION_STATUS_COMPLETED,
    "cancelled": fact_pb2.GENERATION_STATUS_CANCELLED,
    "incomplete": fact_pb2.GENERATION_STATUS_INCOMPLETE,
    "failed": fact_pb2.GENERATION_STATUS_FAILED,
}


class Ends:
    """Ends responses; see the module."""

    def __init__(
        self,
        memory: Memory,
        items: Items,
        functions: Functions,
        interruptions: Interruptions,
        replies: Replies,
        noise: Noise,
        line: Line,
        outputs: Outputs,
    ) -> None:
        self._memory = memory
        self._items = items
        self._functions = functions
        self._interruptions = interruptions
        self._replies = replies
        self._noise = noise
        self._line = line
        self._outputs = outputs

    def done(self, done: events.Response, *, now: float) -> None:
        """The server says that a response is over."""
        self._memory.stirred = True
        status = done.status or "incomplete"  # of one that says nothing, nothing is claimed
        self._outputs.note(Note.RESPONSE, status if status in _GENERATION_STATUS else "other")
        _note_usage(done.usage, self._outputs)
        responses = self._memory.responses
        response_id = done.id
        if not response_id and len(responses) == 1:
            response_id = next(iter(responses))  # which one could not be read
        if not response_id:
            self._outputs.note(Note.MALFORMED_EVENT, "response.done")
            return
        late = self._items.is_over(response_id)
        for output in (done.output or ())[:MAX_ITEMS_A_RESPONSE]:
            item = None if late else self._items.of_response(output, response_id)
            if item is not None and not item.speech:
                self._functions.note_end(item, output)  # the response's own status decides
            else:
                self.item_done(output, now=now)
        if late:
            return
        response = responses.get(response_id) or Response(response_id)
        cancelled_unasked = status == "cancelled" and not response.interrupted
        if cancelled_unasked and not responses.keys() - {response_id}:
            # Cancelled for speech that began before its first sign: its audio is out already.
            response.interrupted = True
            responses.pop(response_id, None)
            self._noise.cut(response_id, now=now)
            self._line.agent_silenced(now=now)
            self._interruptions.interrupt(None, now=now)
        failed = status == "failed"
        if failed:
            self._outputs.note(Note.ERROR, f"response_{counted_code(done.reason)}")
            if is_fatal_code(done.reason):
                self._outputs.add(Fatal(f"response failed: {done.reason}"))
        elif status == "incomplete":
            self._outputs.note(Note.INCOMPLETE, counted_code(done.reason))
        called = response.called_tools
        self._over(
            response,
            done.status,
            _GENERATION_STATUS.get(status, fact_pb2.GENERATION_STATUS_FAILED),
            now=now,
            reason=told_code(status, done.reason),
        )
        if response.interrupted or status == "cancelled":
            end = End.CUT
        else:
            called |= response.called_tools
            spoke = called or self._spoke(response)
            if not spoke:
                self._noise.said_nothing(response_id)
            elif done.status == "incomplete" and not called:
                self._noise.broken_off(response_id, now=now)
            elif not failed:
                self._noise.said_all()
            end = End.FAILED if failed else End.SPOKE if spoke else End.SILENT
        named_s = named_wait_s(done.message) if failed else None
        self._replies.done(response_id, end, now=now, named_s=named_s)
        self._items.forget()

    def give_up(self, response_id: str, end: End, *, now: float) -> None:
        """Nothing is expected of a response any more.

        Args:
            response_id: Which.
            end: What it was to the caller.
            now: Monotonic seconds.
        """
        self._outputs.note(Note.ERROR, "response_given_up")
        response = self._memory.responses.get(response_id) or Response(response_id)
        if not response.interrupted:
            self._outputs.send(
                events.CancelResponse(event_id=self._outputs.event_id(), response_id=response_id)
            )
        self._over(response, "failed", fact_pb2.GENERATION_STATUS_FAILED, now=now)
        self._replies.done(response_id, End.CUT if response.interrupted else end, now=now)

    def heard_out_at(self, response: Response) -> float | None:
        """When a response is heard out if nothing more of it comes, in monotonic seconds.

        None: it is not by that.
        """
        items = [self._memory.items.get(item_id) for item_id in response.items]
        over = all(i is None or (i.done if i.speech else i.call.decided) for i in items)
        if response.interrupted or not over or not (response.called_tools or self._spoke(response)):
            return None
        return max(self._memory.playing_until, self._replies.sign_at) + HEARD_OUT_S

    def item_done(self, said: events.Item, *, now: float) -> None:
        """An item is over, whatever becomes of its response."""
        item = self._memory.items.get(said.id)
        if item is None:
            return
        if item.speech:
            self._items.speech_over(item, said, now=now)
        else:
            self._memory.stirred = True
            self._functions.item_done(item, said, now=now)

    def _over(
        self,
        response: Response,
        status: str | None,
        generation: fact_pb2.GenerationStatus.ValueType,
        *,
        now: float,
        reason: str = "",
    ) -> None:
        self._functions.response_done(response, status, now=now)
        self._items.response_over(response, generation, reason)

    def _spoke(self, response: Response) -> bool:
        items = (self._memory.items.get(item_id) for item_id in response.items)
        return any(part.sent for item in items if item is not None for part in item.parts.values())


def _note_usage(usage: events.Usage | None, outputs: Outputs) -> None:
    if usage is None:
        return
    for direction, details in (
        ("input", usage.input_token_details),
        ("output", usage.output_token_details),
    ):
        if details is not None:
            for kind, tokens in (
                ("text", details.text_tokens),
                ("audio", details.audio_tokens),
                ("cached", details.cached_tokens),
            ):
                amount = min(max(0, tokens or 0), MAX_TOKENS)
                outputs.note(Note.TOKENS, f"{direction}_{kind}", amount)
