"""What a conversation remembers of responses, items and their content parts. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from asheard.v1 import fact_pb2
from runtime.units import BYTES_PER_MS
from session.realtime.bounds import MAX_REMEMBERED

PartKey = tuple[str, int]
"""Item id and content index."""


class PartState(enum.Enum):
    """What is known of how much of a part was heard; :mod:`session.realtime.interruptions`."""

    UNSENT = "unsent"
    """Nothing of it was given to the gateway."""
    GIVEN = "given"
    """Some of it was: it may be playing."""
    CUT = "cut"
    """Playback stopped at its ``position_ms``; what follows from that is not known yet."""
    SETTLED = "settled"
    """Decided, for good."""


@dataclass(slots=True)
class Part:
    """One content part of an agent's item."""

    audible: bool = True
    """It has sound, as far as is known: text that nobody can hear has none."""
    text: str = ""
    """The best text so far."""
    deltas: str = ""
    """The pieces of text, joined."""
    whole: str = ""
    """The longest text that was said to be all of it."""
    written_text: str = ""
    """What its last fact about generation says."""
    short: bool = False
    """Some of its audio was dropped, so that text may have none."""
    received_bytes: int = 0
    """Audio that the model generated, stale or not."""
    sent: bool = False
    """Some of its audio was given to the gateway."""
    last_sent: bool = False
    """The gateway knows that no more will come."""
    generated: bool = False
    """A fact says how much of it was generated."""
    settled: bool = False
    """What became of it at the caller's end is decided."""
    position_ms: int | None = None
    """Where playback was cut. None: it was not, as far as is known."""
    written_chars: int = 0
    """Text in its facts about progress."""
    written_at: float | None = None
    """When the last of them was written, in monotonic seconds."""

    @property
    def state(self) -> PartState:
        """What is known of how much of it was heard."""
        if self.settled:
            return PartState.SETTLED
        if self.position_ms is not None:
            return PartState.CUT
        return PartState.GIVEN if self.sent else PartState.UNSENT

    @property
    def received_ms(self) -> int:
        """Audio received, floored."""
        return self.received_bytes // BYTES_PER_MS

    def add_text(self, delta: str) -> None:
        """The next piece of text came; after a whole text, pieces count if they continue it."""
        self.deltas += delta
        whole = self.whole.strip()
        if not whole or (
            len(self.deltas) > len(self.text) and self.deltas.lstrip().startswith(whole)
        ):
            self.text = self.deltas

    def complete_text(self, text: str) -> None:
        """All of its text came; said more than once, the longest stands."""
        if len(text) > len(self.whole):
            self.whole = text
        if self.whole and len(self.whole) >= len(self.written_text):
            self.text = self.whole


@dataclass(slots=True)
class Item:
    """One item of the agent's: speech, or a function call."""

    item_id: str
    response_id: str
    """Of the response that generates it; empty: not known, or none, as a notice has."""
    speech: bool
    parts: dict[int, Part] = field(default_factory=dict)
    """By content index."""
    notice: bool = False
    """A sentence of ours, not the model's."""
    announced: bool = False
    """A fact says that it joined the conversation."""
    done: bool = False
    """No more of it will be generated."""
    heard: bool = False
    """Some of it was played for certain, or may have been."""
    removed: bool = False
    """The model was told to delete it, or would have been."""
    interrupted: bool = False
    """Its response was interrupted, and is over."""
    completed: bool = False
    """The model said all it wanted in it."""
    status: fact_pb2.GenerationStatus.ValueType = fact_pb2.GENERATION_STATUS_UNSPECIFIED
    """How its generation ended, once it has."""
    reason: str = ""
    """The model's code for a generation that neither completed nor was cut off by the caller."""
    previous: str = ""
    """The item before it, as the server said when it was added."""
    call: FunctionCall = field(default_factory=lambda: FunctionCall())
    """Of what is no speech."""

    def part(self, content_index: int) -> Part:
        """The part, made when it is new."""
        known = self.parts.get(content_index)
        if known is None:
            known = self.parts[content_index] = Part()
        return known

    @property
    def settled(self) -> bool:
        """Nothing is left to decide or to report about it."""
        return self.done and (
            self.removed or all(p.settled or not p.sent for p in self.parts.values())
        )


@dataclass(slots=True)
class FunctionCall:
    """What is known of an item that is a function call."""

    call_id: str | None = None
    name: str | None = None
    arguments: str = ""
    arguments_done: bool = False
    """The model said that these are all; it says so of what it broke off, too."""
    item_completed: bool = False
    """The item's own status says that the call is meant as it is."""
    broken_off: bool = False
    """The item's own status says that it is not."""
    decided: bool = False
    """It was passed on, or will never be."""


@dataclass(slots=True)
class Response:
    """One response, from its first sign to its end."""

    response_id: str
    items: list[str] = field(default_factory=list)
    interrupted: bool = False
    """Its audio is stale: the caller has begun to speak since, or has left."""
    done: bool = False
    heard_out: bool = False
    """All its items are over and were played, and nothing more of it came: it may be over without
    a word of the server's; see :mod:`session.realtime.ends`."""
    tool_calls: set[str] = field(default_factory=set)
    """Calls that have not answered yet."""
    called_tools: bool = False
    """It called functions, and the model has not been asked to speak about their results."""


@dataclass(slots=True)
class Memory:
    """What the parts of a conversation have in common: each reads it, few write.

    :mod:`~session.realtime.items` adds and forgets responses and items, and counts held audio;
    :mod:`~session.realtime.interruptions` says what is settled and takes that off the count.
    """

    items: dict[str, Item] = field(default_factory=dict)
    """The agent's, by id; the oldest first."""
    responses: dict[str, Response] = field(default_factory=dict)
    """Those under way, by id; the oldest first."""
    caller_left: bool = False
    """Nothing more can be heard, and no next turn will need what was."""
    held_bytes: int = 0
    """Audio of parts that are not settled."""
    playing_until: float = 0.0
    """When all audio that was given to the gateway will have been played, by its length, in
    monotonic seconds; past: nothing is playing."""
    generated_at: float = 0.0
    """When the model generated audio or text last, in monotonic seconds."""
    begun: list[str] = field(default_factory=list)
    """Responses that showed their first sign and are not told of yet."""
    stirred: bool = False
    """Something happened after which it is to be looked at who speaks next. Most of what the model
    sends, ten deltas a second and a dozen other events a turn, is nothing of the kind."""

    def part(self, key: PartKey) -> tuple[Item, Part] | None:
        """A part and its item; None when it is not known, or not any more."""
        item = self.items.get(key[0])
        part = item.parts.get(key[1]) if item is not None else None
        return (item, part) if item is not None and part is not None else None


def remember(known: dict[str, None], value: str) -> None:
    """Keep the newest of what is remembered only by name."""
    known[value] = None
    if len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]
