"""What a conversation remembers of responses, items and their content parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from asheard.v1 import fact_pb2
from session.realtime.input_clock import BYTES_PER_MS


@dataclass(slots=True)
class Part:
    """One content part of an agent's item."""

    audible: bool = True
    """It has sound, as far as is known: text that nobody can hear has none."""
    text: str = ""
    """The best text so far."""
    deltas: str = ""
    """The pieces of text, one behind the other."""
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
    generated: bool = False
    """Its last fact about generation is written."""
    settled: bool = False
    """What became of it at the caller's end is decided (rule 3)."""
    position_ms: int | None = None
    """Where playback was cut, while it is not decided whether anything lies behind."""
    written_chars: int = 0
    written_at: float | None = None

    @property
    def received_ms(self) -> int:
        """Audio received, floored."""
        return self.received_bytes // BYTES_PER_MS

    def add_text(self, delta: str) -> None:
        """The next piece of text came; behind a whole text the pieces count if they go on from it."""
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
    speech: bool
    parts: dict[int, Part] = field(default_factory=dict)
    announced: bool = False
    done: bool = False
    heard: bool = False
    """Some of it was played for certain, or may have been."""
    removed: bool = False
    interrupted: bool = False
    """Its response was interrupted, and is over."""
    completed: bool = False
    """The model said all it wanted in it."""
    status: fact_pb2.GenerationStatus.ValueType = fact_pb2.GENERATION_STATUS_UNSPECIFIED
    """How its generation ended, once it has."""
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
    done: bool = False
    tool_calls: set[str] = field(default_factory=set)
    """Calls whose results are still out."""
    called_tools: bool = False
