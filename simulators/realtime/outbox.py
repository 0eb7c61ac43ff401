"""What the parts of one session share: its clock, its names, its events and its timers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

_BETA_NAMES = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
"""GA name to beta name (B.6)."""

_NOT_IN_BETA = {"conversation.item.done"}

_PADDING = "q7ZtK2mWx9RbV4Ld"


@dataclass(frozen=True, slots=True)
class Timer:
    """Something to do later."""

    due_ms: int
    act: Callable[[], None]


class Outbox:
    """Collects server events, numbers what needs a name, and holds timers."""

    def __init__(self, session_id: str, *, beta: bool) -> None:
        self.now_ms = 0
        """Age of the session."""
        self.events: list[Event] = []
        self.timers: list[Timer] = []
        self._tag = session_id.removeprefix("sess_")
        self._beta = beta
        self._counts: dict[str, int] = {}

    def new_id(self, kind: str) -> str:
        """A name unique among all sessions: ``item_``, ``resp_``, …"""
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._tag}{number:04d}"

    def emit(self, kind: str, **body: Any) -> None:
        """Send an event; what it holds is copied, so that it keeps what was true when sent."""
        if self._beta:
            if kind in _NOT_IN_BETA:
                return
            kind = _BETA_NAMES.get(kind, kind)
        self.events.append({"type": kind, "event_id": self.new_id("event"), **copied(body)})

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Do something later."""
        self.timers.append(Timer(self.now_ms + delay_ms, act))

    def next_timer_ms(self) -> int | None:
        """When the first timer is due; None without any."""
        return min((timer.due_ms for timer in self.timers), default=None)

    def run_first_timer(self) -> None:
        """Do what is due first."""
        first = min(self.timers, key=lambda timer: timer.due_ms)
        self.timers.remove(first)
        first.act()


def obfuscation(delta: str) -> str:
    """Padding that brings a delta to an even length, as recorded beside every text delta."""
    return _PADDING[len(delta) % 16 :]


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value
