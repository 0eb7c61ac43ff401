"""What the model generates: its responses, their items, and how long those are remembered. Pure.

Rules:

1. A response is known by its id alone, never as "the current one": late deltas, a late
   ``response.done`` and one without ``response.created`` all occur around interruptions. Whatever
   names it first begins it, its end ends it, and what names it after that is late.
2. An item is the agent's when a response or the server says so. It is over when it is complete, or
   when its response is over: whether it was cancelled, cut off by a limit or failed is for the
   response to say.
3. A notice (:mod:`session.realtime.notices`) is an item that only we write.
4. What is remembered is bounded (:mod:`session.realtime.bounds`). Items that are over and settled
   are forgotten first, and of any other it is reported first what was generated.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2
from session.notices import Sentence
from session.realtime import events
from session.realtime.bounds import (
    MAX_ITEMS,
    MAX_ITEMS_A_RESPONSE,
    MAX_PARTS,
    MAX_RESPONSES,
)
from session.realtime.input_clock import audio_bytes
from session.realtime.interruptions import Interruptions
from session.realtime.order import Order
from session.realtime.outputs import Note, Outputs
from session.realtime.parts import Parts
from session.realtime.state import Item, Memory, Response, remember

REMEMBERED_ITEMS = 256
"""Items that are over and settled are forgotten beyond this: a late event cannot be that late."""


class Items:
    """Follows responses and items from their first sign to their end."""

    def __init__(
        self,
        memory: Memory,
        order: Order,
        parts: Parts,
        interruptions: Interruptions,
        outputs: Outputs,
    ) -> None:
        self._memory = memory
        self._order = order
        self._parts = parts
        self._interruptions = interruptions
        self._outputs = outputs
        self._ended: dict[str, None] = {}
        """Responses that are over, by id; the newest."""

    # --- responses --------------------------------------------------------------------------

    def is_over(self, response_id: str) -> bool:
        """Whether a response has ended."""
        return response_id in self._ended

    def response(self, response_id: str) -> Response | None:
        """The response, which begins with its first sign; None when it is over."""
        responses = self._memory.responses
        response = responses.get(response_id)
        if response is None:
            if response_id in self._ended:
                return None
            if len(responses) >= MAX_RESPONSES:
                self._outputs.note(Note.DROPPED, "response")
                oldest = next(iter(responses.values()))
                self.response_over(oldest, fact_pb2.GENERATION_STATUS_INCOMPLETE)
            response = responses[response_id] = Response(response_id)
            response.interrupted = self._memory.caller_left
            self._memory.begun.append(response_id)
            self._memory.stirred = True
        return response

    def response_over(
        self, response: Response, status: fact_pb2.GenerationStatus.ValueType, reason: str = ""
    ) -> None:
        """No more of a response will be generated.

        Args:
            response: Which.
            status: How generation ended, of items that do not say so themselves.
            reason: The model's code for that; empty when it completed or was cut off.
        """
        self._memory.responses.pop(response.response_id, None)
        remember(self._ended, response.response_id)
        response.done = True
        for item_id in response.items:
            item = self._memory.items.get(item_id)
            if item is None:
                continue
            item.interrupted = response.interrupted
            if not item.done:
                item.reason = reason
                self._item_over(item, status)
            if response.interrupted and not self._memory.caller_left:
                self._interruptions.response_over(item)

    def finish(self, status: fact_pb2.GenerationStatus.ValueType) -> None:
        """Nothing more will be generated at all: report what was left open."""
        for item in self._memory.items.values():
            if not item.done:
                self._item_over(item, status)
        self._parts.write_late(now=float("inf"))

    # --- items ------------------------------------------------------------------------------

    def of_response(self, said: events.Item, response_id: str) -> Item | None:
        """The item, as one of a response; None when there is no room, or it is not the agent's."""
        item = self._memory.items.get(said.id)
        response = self.response(response_id)
        if item is not None and item.notice:
            return None
        if item is None:
            if said.type not in ("message", "function_call") or self._order.is_callers(said.id):
                return None
            if response is not None and len(response.items) >= MAX_ITEMS_A_RESPONSE:
                self._outputs.note(Note.DROPPED, "item")
                return None
            item = self._new(said)
        if response is not None and not item.response_id:
            item.response_id = response_id
            item.done = bool(item.status)  # it is being generated, whatever its first status
            response.items.append(said.id)
        item.call.name = said.name or item.call.name
        item.call.call_id = said.call_id or item.call.call_id
        return item

    def added(self, said: events.Item, previous: str) -> None:
        """The server says after which turn an item of the agent's stands."""
        item = self._memory.items.get(said.id)
        if item is None:
            item = self._new(said)
            item.call.name = said.name
            item.call.call_id = said.call_id
            item.done = item.speech and said.status == "completed"
        self._order.added(item, previous)

    def speech_over(self, item: Item, said: events.Item, *, now: float) -> None:
        """The server says what an item of speech is as a whole."""
        if item.notice:
            return
        for content_index, content in enumerate((said.content or ())[:MAX_PARTS]):
            part = item.part(content_index)
            part.audible = content.is_audio or part.received_bytes > 0
            text = content.transcript or content.text or ""
            self._parts.whole_text(item, content_index, text, now=now)
        if not item.done and said.status == "completed":
            self._memory.stirred = True
            self._item_over(item, fact_pb2.GENERATION_STATUS_COMPLETED)

    def _item_over(self, item: Item, status: fact_pb2.GenerationStatus.ValueType) -> None:
        """No more of an item will be generated."""
        completed = status == fact_pb2.GENERATION_STATUS_COMPLETED
        if completed and any(part.short for part in item.parts.values()):
            status, completed = fact_pb2.GENERATION_STATUS_INCOMPLETE, False
        item.done = True
        item.completed = completed
        item.status = status
        if not item.speech:
            item.call.decided = True
            return
        self._order.announce(item)
        self._parts.over(item)

    def notice(self, item_id: str, sentence: Sentence) -> None:
        """A sentence of our own: an item of no response, over as soon as it begins."""
        item = self._new(events.Item(item_id))
        item.notice = True
        self._order.announce(item)
        self._parts.notice(item, sentence)
        self._item_over(item, fact_pb2.GENERATION_STATUS_COMPLETED)

    # --- their parts ------------------------------------------------------------------------

    def part_added(self, event: events.PartAdded) -> None:
        """A part begins."""
        item = self._speaking(event.response_id, event.item_id)
        if item is not None:
            part = item.part(event.content_index)
            part.audible = event.part.is_audio or part.received_bytes > 0

    def audio(self, event: events.AudioDelta, *, now: float) -> None:
        """A piece of audio."""
        try:
            payload = event.delta.encode("ascii")
        except UnicodeEncodeError:
            payload = b"?"
        length_bytes = audio_bytes(payload)
        if length_bytes is None:
            self._outputs.note(Note.MALFORMED_EVENT, "response.output_audio.delta")
            return
        item = self._speaking(event.response_id, event.item_id)
        if item is None or item.done:
            if item is not None:
                item.part(event.content_index)
            self._outputs.note(Note.STALE)
            return
        stale = self._memory.responses[event.response_id].interrupted
        self._parts.audio(item, event.content_index, payload, length_bytes, stale=stale, now=now)

    def audio_over(self, event: events.AudioDone) -> None:
        """No more audio of a part."""
        item = self._memory.items.get(event.item_id)
        if event.response_id not in self._memory.responses or item is None:
            return
        if event.content_index in item.parts:
            self._parts.audio_over(item, event.content_index)

    def text(self, event: events.TranscriptDelta, *, now: float) -> None:
        """A piece of text."""
        item = self._spoken(event.response_id, event.item_id)
        if item is not None:
            self._parts.text(item, event.content_index, event.delta, now=now)

    def whole_text(self, event: events.TranscriptDone, *, now: float) -> None:
        """All the text of a part."""
        item = self._spoken(event.response_id, event.item_id)
        if item is None:
            return
        item.part(event.content_index)
        if event.transcript:
            self._parts.whole_text(item, event.content_index, event.transcript, now=now)

    def _speaking(self, response_id: str, item_id: str) -> Item | None:
        """The item of speech that an event is about; None when its response is over."""
        if response_id not in self._memory.responses and self.response(response_id) is None:
            return None
        item = self._memory.items.get(item_id)
        if item is None or not item.response_id or not item.announced:
            item = self.of_response(events.Item(item_id), response_id)
            if item is not None and item.speech:
                self._order.announce(item)
        return item if item is not None and item.speech else None

    def _spoken(self, response_id: str, item_id: str) -> Item | None:
        """The same for text, which is taken also when the response is over."""
        item = self._memory.items.get(item_id)
        if item is not None and item.status and item.speech:
            return None if item.notice else item
        return self._speaking(response_id, item_id)

    # --- what is forgotten ------------------------------------------------------------------

    def forget(self) -> None:
        """Keep what a late event may still be about, and no more."""
        items = self._memory.items
        if len(items) <= REMEMBERED_ITEMS:
            return
        for item in list(items.values()):
            if item.settled and item.response_id not in self._memory.responses:
                self._forget(item)
                if len(items) <= REMEMBERED_ITEMS:
                    return

    def _new(self, said: events.Item) -> Item:
        items = self._memory.items
        if len(items) >= MAX_ITEMS:
            self._make_room()
        item = items[said.id] = Item(said.id, "", speech=said.type == "message")
        return item

    def _make_room(self) -> None:
        """Forget the oldest of what matters least, and report what was generated of it."""
        by_need = sorted(  # stable: the oldest first
            self._memory.items.values(),
            key=lambda item: (
                0 if item.settled else 1 + (item.response_id in self._memory.responses)
            ),
        )
        for item in by_need[: MAX_ITEMS // 8]:
            if not item.settled:
                self._outputs.note(Note.DROPPED, "item")
            if not item.done:
                self._item_over(item, fact_pb2.GENERATION_STATUS_INCOMPLETE)
            self._forget(item)

    def _forget(self, item: Item) -> None:
        self._parts.forget(item)
        del self._memory.items[item.item_id]
