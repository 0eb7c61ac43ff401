"""Which item follows which, and who is told that it joined the conversation. Pure.

The server says where an item stands when it adds it, and at no other time reliably. A turn of the
transcript is speech, or a function that was called; what is neither (a function's result, a system
message, a call that may yet be cut off) is stood in for by the item before it.
"""

from __future__ import annotations

from asheard.v1 import fact_pb2, transcript_pb2
from session.realtime.bounds import MAX_REMEMBERED
from session.realtime.outputs import Outputs
from session.realtime.state import Item, remember


class Order:
    """Writes ``item_added``, once for each item."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._last_item_id = ""
        self._stand_ins: dict[str, str] = {}
        """What is no turn, and the item that stands in for it; the newest."""
        self._callers: dict[str, None] = {}
        """Items of the caller's; the newest."""

    def is_callers(self, item_id: str) -> bool:
        """Whether an item is one of the caller's."""
        return item_id in self._callers

    def turn(self, item_id: str | None) -> str:
        """The turn that an item is, or that stands in for it; empty for the beginning."""
        return self._stand_ins.get(item_id or "", item_id or "")

    def added(self, item: Item, previous: str) -> None:
        """The server says after which turn an item of the agent's stands."""
        item.previous = previous
        if item.speech:
            self.announce(item, previous)
        elif not item.announced:
            self.stand_in(item.item_id, previous)

    def stand_in(self, item_id: str, previous: str) -> None:
        """An item is no turn, or not yet one: the turn before it stands in for it."""
        self._stand_ins[item_id] = previous
        if len(self._stand_ins) > MAX_REMEMBERED:
            del self._stand_ins[next(iter(self._stand_ins))]

    def called(self, item: Item) -> None:
        """A function is called: that is a turn."""
        self.announce(item, item.previous or None)
        self._stand_ins.pop(item.item_id, None)

    def announce(self, item: Item, previous: str | None = None) -> None:
        """Write that an item of the agent's joined the conversation.

        Args:
            item: The item.
            previous: The turn before it. None: the last one that joined.
        """
        if item.announced:
            return
        item.announced = True
        body = fact_pb2.ItemAdded(
            item_id=item.item_id,
            role=transcript_pb2.ROLE_AGENT if item.speech else transcript_pb2.ROLE_TOOL,
            previous_item_id=self._last_item_id if previous is None else previous,
            response_id=item.response_id,
            notice=item.notice,
        )
        self._last_item_id = item.item_id
        self._outputs.fact("item_added", body)

    def announce_caller(self, item_id: str, previous: str) -> None:
        """Write that an item of the caller's joined the conversation."""
        if item_id in self._callers:
            return
        remember(self._callers, item_id)
        self._last_item_id = item_id
        self._outputs.fact(
            "item_added",
            fact_pb2.ItemAdded(
                item_id=item_id,
                role=transcript_pb2.ROLE_CALLER,
                previous_item_id=previous,
            ),
        )
