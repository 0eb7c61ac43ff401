"""What a conversation wants done: plain values for the shell to carry out, in order. Pure.

Facts are the contract's own messages: a class of ours for each would be a second contract to keep
in step with the first.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec
from google.protobuf.message import Message

from session.realtime.bounds import MAX_FACT_BYTES, MAX_FACTS
from session.realtime.events import ClientEvent


class ToModel(msgspec.Struct, frozen=True):
    """Send an event to the model."""

    event: ClientEvent


class ToCaller(msgspec.Struct, frozen=True, gc=False):
    """Give a piece of generated audio to the gateway."""

    item_id: str
    content_index: int
    payload: bytes
    """Base64 of µ-law at 8 kHz; may be empty, also without ``last``."""
    last: bool = False
    """No more audio of this part will come."""
    notice: bool = False
    """It is ours, and no answer of the model's."""


class Interrupt(msgspec.Struct, frozen=True):
    """Interrupt playback, and take back audio that was given to the gateway and has not left."""

    interrupt_id: int
    onset_buffer_ms: int | None
    """When the caller began to speak, in the model's input buffer. None: not known."""


class WriteFact(msgspec.Struct, frozen=True):
    """Record what happened."""

    name: str
    """Field of ``Fact.body``."""
    body: Message


class CallerStopped(msgspec.Struct, frozen=True):
    """The caller stopped speaking: the delay of the answer counts from here."""

    end_buffer_ms: int
    """In the model's input buffer, without the silence that voice detection waited for."""


class CallTool(msgspec.Struct, frozen=True):
    """Call a function; answer with :meth:`Conversation.tool_returned`."""

    call_id: str
    name: str
    arguments: str
    """JSON text as the model gave it; may be anything."""


class CancelTool(msgspec.Struct, frozen=True):
    """Abort a call of :class:`CallTool`: the model has been told that it was given up."""

    call_id: str


class AudioReceived(msgspec.Struct, frozen=True, gc=False):
    """Audio was generated, whether it went to the caller or was stale: word times need it all."""

    item_id: str
    content_index: int
    payload: bytes


class TextReceived(msgspec.Struct, frozen=True, gc=False):
    """Text was generated; it comes before its audio."""

    item_id: str
    content_index: int
    delta: str


class PartCut(msgspec.Struct, frozen=True):
    """The caller heard some of a part and no more: its word times are needed now."""

    item_id: str
    content_index: int
    text: str
    """All text received so far."""


class PartGenerated(msgspec.Struct, frozen=True):
    """All text and audio of a part are there. Comes again with text that comes late."""

    item_id: str
    content_index: int
    text: str
    complete: bool
    """The model said all it wanted; False: text may have no audio."""


class PartPlayed(msgspec.Struct, frozen=True):
    """A part was heard to its end, or not at all: nothing is to be found out about its words."""

    item_id: str
    content_index: int


class Note(enum.Enum):
    """What is counted; the label's values are bounded for each."""

    RESPONSE = "response"
    """Label: status."""
    ERROR = "error"
    """Label: code, out of a bounded set."""
    TRUNCATION = "truncation"
    """Label: result."""
    STALE = "stale"
    """Audio of an interrupted response that came late."""
    UNKNOWN_EVENT = "unknown event"
    MALFORMED_EVENT = "malformed event"
    """Label: type of the event, which is one of ours."""
    TOKENS = "tokens"
    """Label: direction and kind; the amount is how many."""
    RATE_LIMIT = "rate limit"
    """Label: name; the amount is per mille of it that remain."""
    POSITIONS_LATE = "positions late"
    DROPPED = "dropped"
    """Something lay beyond a bound of :mod:`session.realtime.bounds`. Label: out of
    :data:`DROPPED`."""
    SETTING_DIFFERS = "setting differs"
    """The server has another setting than it was told. Label: which, out of
    :data:`session.realtime.agreed.SETTINGS`."""
    INCOMPLETE = "incomplete"
    """A response that a limit or a filter ended. Label: why, out of a bounded set."""
    DEAD_AIR = "dead air"
    """A silence in which the caller waited. Label: reason; the amount is its milliseconds."""
    NOTICE = "notice"
    """A sentence that was said without the model. Label: which, out of
    :class:`session.notices.Notice`."""
    CALL_NOT_MADE = "call not made"
    """A function call that was not carried out, since it was cut off."""


DROPPED = ("text", "caller_text", "audio", "item", "response", "function_call")
"""What may lie beyond a bound."""


class Noted(msgspec.Struct, frozen=True):
    """Something to count, and to log where the shell thinks fit."""

    note: Note
    label: str = ""
    amount: int = 1


class Fatal(msgspec.Struct, frozen=True):
    """The session cannot go on."""

    reason: str
    """In words for an engineer; no secrets, no speech."""


Output = (
    ToModel | ToCaller | Interrupt | WriteFact | CallerStopped | CallTool | CancelTool | AudioReceived
    | TextReceived | PartCut | PartGenerated | PartPlayed | Noted | Fatal
)  # fmt: skip


class Outputs:
    """Where all that decides in a conversation puts what it wants done, in order."""

    def __init__(self) -> None:
        self._outputs: list[Output] = []
        self._event_ids = 0
        self._facts = 0
        self._fact_bytes = 0

    def take(self) -> list[Output]:
        """All of it so far; handed over once."""
        taken, self._outputs = self._outputs, []
        return taken

    def add(self, output: Output) -> None:
        """Want this done."""
        self._outputs.append(output)

    def extend(self, outputs: Iterable[Output]) -> None:
        """Want all these done."""
        self._outputs.extend(outputs)

    def event_id(self, kind: str = "e") -> str:
        """An id for an event of ours, unique in the session."""
        self._event_ids += 1
        return f"{kind}{self._event_ids}"

    def send(self, event: ClientEvent) -> None:
        """Tell the model."""
        self._outputs.append(ToModel(event))

    def fact(self, name: str, body: Message) -> None:
        """Record what happened; who says more than any conversation is long ends the session."""
        self._outputs.append(WriteFact(name, body))
        before = self._fact_bytes
        self._facts += 1
        self._fact_bytes += body.ByteSize()
        if self._facts == MAX_FACTS or self._fact_bytes >= MAX_FACT_BYTES > before:
            self._outputs.append(Fatal("the model says more than any conversation is long"))

    def note(self, note: Note, label: str = "", amount: int = 1) -> None:
        """Have something counted."""
        self._outputs.append(Noted(note, label, amount))
