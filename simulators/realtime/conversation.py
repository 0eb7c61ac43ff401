"""The conversation: its items, their order, and what a client may do to them. Pure.

From the protocol notes: creating (B.3, B.9), retrieving, truncating with its exact refusals (B.7),
deleting, and the recorded quirk of ``previous_item_id`` in ``conversation.item.done`` (B.5).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from simulators.realtime.errors import ClientError
from simulators.realtime.outbox import Outbox
from simulators.realtime.session_truth import AgentItem, SessionTruth, Truncation
from simulators.realtime.wire import Event
from simulators.speech.g711 import BYTES_PER_MS


@dataclass(slots=True)
class Item:
    """One item of the conversation."""

    wire: Event
    """As events show it, without audio."""
    truth: AgentItem | None = None
    """For a message the model generated."""
    input_audio: bytes = b""
    """For a turn of the caller: mono µ-law at 8 kHz."""

    @property
    def id(self) -> str:
        """Name of the item."""
        return str(self.wire["id"])


class Conversation:
    """The items of one session, in order."""

    def __init__(self, outbox: Outbox, truth: SessionTruth) -> None:
        self._outbox = outbox
        self._truth = truth
        self._items: dict[str, Item] = {}
        self._order: list[str] = []

    @property
    def items(self) -> list[Item]:
        """All items, in order."""
        return [self._items[item_id] for item_id in self._order]

    @property
    def last_id(self) -> str | None:
        """Name of the last item; None while there is none."""
        return self._order[-1] if self._order else None

    @property
    def has_assistant_audio(self) -> bool:
        """The model has spoken."""
        return any(item.truth is not None and item.truth.audio for item in self._items.values())

    def known_results(self) -> list[str]:
        """Calls whose outputs are in the conversation, in order."""
        wires = (item.wire for item in self.items)
        return [w["call_id"] for w in wires if w["type"] == "function_call_output"]

    def add(self, item: Item, previous: str | None = None) -> None:
        """Put an item in, at the end or after ``previous`` (``root``: first), and say so."""
        if previous == "root":
            self._order.insert(0, item.id)
        elif previous is not None:
            self._order.insert(self._order.index(previous) + 1, item.id)
        else:
            self._order.append(item.id)
        self._items[item.id] = item
        self._outbox.emit(
            "conversation.item.added", previous_item_id=self._before(item.id), item=item.wire
        )

    def done(self, item: Item) -> None:
        """Say that an item is final; nothing is said of one deleted meanwhile."""
        if item.id not in self._items:
            return
        previous = self._before(item.id)
        if previous == self._order[0]:
            previous = None  # A quirk of the live service, recorded 17 times of 17.
        self._outbox.emit("conversation.item.done", previous_item_id=previous, item=item.wire)

    def set_transcript(self, item_id: str, text: str) -> None:
        """Note what the caller was transcribed to have said, if the item is still there."""
        if item_id in self._items:
            self._items[item_id].wire["content"][0]["transcript"] = text

    def create(self, wire: Event, previous: str | None) -> Item:
        """Put in an item the client made; its fields have been checked.

        Raises:
            ClientError: Its id is taken, or the item it should follow does not exist.
        """
        item_id = wire.get("id") or self._outbox.new_id("item")
        if item_id in self._items:
            raise ClientError(
                "invalid_value",
                f"Error adding item: an item with id '{item_id}' already exists.",
                "item.id",
            )
        if previous not in (None, "root") and previous not in self._items:
            raise ClientError(
                "invalid_value",
                f"Error adding item: the previous item with id '{previous}' does not exist.",
                "previous_item_id",
            )
        item = Item({"id": item_id, "type": wire["type"], **self._body(wire)})
        self.add(item, previous)
        self.done(item)
        return item

    def _body(self, wire: Event) -> Event:
        match wire["type"]:
            case "message":
                content = [
                    {k: v for k, v in part.items() if k != "audio"} for part in wire["content"]
                ]
                return {"status": "completed", "role": wire["role"], "content": content}
            case "function_call":
                return {
                    "status": "completed",
                    "name": wire["name"],
                    "call_id": wire.get("call_id") or self._outbox.new_id("call"),
                    "arguments": wire["arguments"],
                }
            case _:
                return {"call_id": wire["call_id"], "output": wire["output"]}

    def retrieve(self, item_id: str) -> None:
        """Answer with an item and its audio.

        Raises:
            ClientError: There is no such item.
        """
        item = self._existing(item_id, "retriev")
        wire = dict(item.wire)
        audio = item.input_audio
        if item.truth is not None:
            end_ms = item.truth.truncated_ms
            audio = bytes(item.truth.audio[: None if end_ms is None else end_ms * BYTES_PER_MS])
        if audio and wire.get("content"):
            encoded = base64.b64encode(audio).decode("ascii")
            wire["content"] = [{**wire["content"][0], "audio": encoded}]
        self._outbox.emit("conversation.item.retrieved", item=wire)

    def truncate(self, item_id: str, audio_end_ms: int) -> None:
        """Cut an item's audio and remove its transcript.

        Raises:
            ClientError: Refused; nothing has changed.
        """
        refusal: str | None = None
        try:
            truth = self._truncatable(item_id, audio_end_ms)
        except ClientError as error:
            refusal = error.message
            raise
        finally:
            self._truth.truncations.append(
                Truncation(self._outbox.now_ms, item_id, audio_end_ms, refusal)
            )
        truth.truncated_ms = audio_end_ms
        for content in self._items[item_id].wire["content"]:
            content.pop("transcript", None)
        self._outbox.emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=0,
            audio_end_ms=audio_end_ms,
        )

    def _truncatable(self, item_id: str, audio_end_ms: int) -> AgentItem:
        truth = self._existing(item_id, "truncat").truth
        if truth is None or not truth.audio:
            raise ClientError(
                "unsupported_content_type", "Only model output audio messages can be truncated"
            )
        exists_ms = len(truth.audio) / BYTES_PER_MS
        if truth.truncated_ms is not None:
            exists_ms = truth.truncated_ms
        if audio_end_ms > exists_ms:
            shown = f"{exists_ms:.0f}" if exists_ms == int(exists_ms) else f"{exists_ms:.2f}"
            raise ClientError(
                "invalid_value",
                f"Audio content of {shown}ms is already shorter than {audio_end_ms}ms",
                "audio_end_ms",
            )
        return truth

    def delete(self, item_id: str) -> None:
        """Take an item out.

        Raises:
            ClientError: There is no such item.
        """
        item = self._existing(item_id, "delet")
        del self._items[item_id]
        self._order.remove(item_id)
        self._truth.deletions.append(item_id)
        if item.truth is not None:
            item.truth.deleted = True
        self._outbox.emit("conversation.item.deleted", item_id=item_id)

    def _existing(self, item_id: str, verb: str) -> Item:
        item = self._items.get(item_id)
        if item is None:
            raise ClientError(
                f"item_{verb}e_invalid_item_id",
                f"Error {verb}ing item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        return item

    def _before(self, item_id: str) -> str | None:
        at = self._order.index(item_id)
        return self._order[at - 1] if at else None
