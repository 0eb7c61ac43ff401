"""What one simulated session generated and was given: the model's half of the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from simulators.speech.g711 import BYTES_PER_MS

SpokenWord = tuple[str, int, int]
"""Word as written, start and end in ms of the item's audio."""


@dataclass(slots=True)
class AgentItem:
    """An assistant message the model generated."""

    item_id: str
    response_id: str
    planned_text: str
    words: list[SpokenWord]
    """Every word of ``planned_text``, where it sounds or would have sounded."""
    text: str = ""
    """Transcript sent so far."""
    audio: bytearray = field(default_factory=bytearray)
    """Audio sent so far, mono µ-law at 8 kHz whatever the session's format."""
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    truncated_ms: int | None = None
    """``audio_end_ms`` of the last truncation that was accepted."""
    deleted: bool = False

    @property
    def generated_ms(self) -> int:
        """Audio sent, in whole ms."""
        return len(self.audio) // BYTES_PER_MS


@dataclass(frozen=True, slots=True)
class CallerItem:
    """A turn of the caller, as the model took it."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int
    """Range of the input's audio; the padding before and the silence after are in it."""
    transcript: str


@dataclass(frozen=True, slots=True)
class Truncation:
    """A ``conversation.item.truncate`` of the client."""

    at_ms: int
    """Age of the session."""
    item_id: str
    audio_end_ms: int
    refusal: str | None
    """Message of the error; None if it was accepted."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error event sent to the client."""

    at_ms: int
    code: str | None
    message: str
    param: str | None
    client_event: str
    """Type of the client's event; empty if that could not be read."""


@dataclass(frozen=True, slots=True)
class SpeechDetected:
    """A ``speech_started`` or ``speech_stopped``."""

    at_ms: int
    """Age of the session when it was sent."""
    started: bool
    audio_ms: int
    """``audio_start_ms`` or ``audio_end_ms``."""
    item_id: str


@dataclass(slots=True)
class Request:
    """A request to speak: a ``response.create`` of the client."""

    at_ms: int
    """Age of the session."""
    event_id: str | None
    instructions: str | None
    answer: Literal["none", "created", "refused"] = "none"
    """What came of it so far; ``none`` to the end if the script says so."""
    answered_ms: int | None = None
    response_id: str | None = None
    code: str | None = None
    """Of the error that refused it."""


@dataclass(slots=True)
class Generation:
    """A response from its beginning, however it ended and whatever was sent of it."""

    response_id: str
    began_ms: int
    """Age of the session."""
    asked: Literal["client", "turn", "idle"]
    """What it answers: a request of the client, a turn of the caller, a silence."""
    known_results: list[str]
    """Calls whose outputs were in the conversation when it began."""
    done_ms: int | None = None
    status: str = "in_progress"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FaultPlayed:
    """Something that the script did wrong, by number or at random."""

    at_ms: int
    """Age of the session."""
    what: str
    """``refused``, ``unanswered``, ``answered_late``, ``no_commit``, ``no_response``,
    ``late_response``, ``overtaken``, ``late_result``, ``no_requests_left``, ``spoiled``, or what a
    random fault is called."""
    about: str
    """The request's ``event_id``, the item, the response or the call."""


@dataclass(slots=True)
class SessionTruth:
    """One session."""

    session_id: str
    agent_items: list[AgentItem] = field(default_factory=list)
    caller_items: list[CallerItem] = field(default_factory=list)
    sent_order: list[tuple[str, int, int]] = field(default_factory=list)
    """Audio in the order sent: item, start and end byte in that item's ``audio``."""
    appended: bytearray = field(default_factory=bytearray)
    """Audio the client appended, as mono µ-law at 8 kHz."""
    appends: int = 0
    """``input_audio_buffer.append`` events."""
    client_events: dict[str, int] = field(default_factory=dict)
    """Events of the client, by type."""
    truncations: list[Truncation] = field(default_factory=list)
    deletions: list[str] = field(default_factory=list)
    """Items deleted, in order."""
    refusals: list[Refusal] = field(default_factory=list)
    responses: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Finished responses: id, status, reason or code."""
    speech: list[SpeechDetected] = field(default_factory=list)
    seeded: list[tuple[str, str]] = field(default_factory=list)
    """Messages the client created: role and text."""
    tool_outputs: list[tuple[str, str]] = field(default_factory=list)
    """Function call outputs: call id and output."""
    requests: list[Request] = field(default_factory=list)
    """Every ``response.create`` of the client that was well formed."""
    generations: list[Generation] = field(default_factory=list)
    """Every response, in the order they began."""
    faults: list[FaultPlayed] = field(default_factory=list)
    ending: str = "open"
    """``open``, ``client_closed``, ``expired``, ``dropped`` or ``refused``."""

    def item(self, item_id: str) -> AgentItem:
        """The assistant item of that name.

        Raises:
            KeyError: The session has no such item.
        """
        for item in self.agent_items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)

    def to_json(self) -> bytes:
        """One JSON object; audio in base64."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> SessionTruth:
        """Read what :meth:`to_json` wrote."""
        return msgspec.json.decode(data, type=cls)
