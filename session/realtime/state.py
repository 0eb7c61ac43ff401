"""What a conversation remembers of responses, items and their content parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from session.realtime.input_clock import BYTES_PER_MS


@dataclass(slots=True)
class Part:
    """One content part of an agent's item."""

    audible: bool = True
    text: str = ""
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
    tool_name: str | None = None
    called: bool = False
    """It is a function call, and was passed on."""

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
class Response:
    """One response, from its first sign to its end."""

    response_id: str
    items: list[str] = field(default_factory=list)
    interrupted: bool = False
    done: bool = False
    tool_calls: set[str] = field(default_factory=set)
    """Calls whose results are still out."""
    called_tools: bool = False
