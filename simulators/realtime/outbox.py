"""What the parts of one session share: its clock, its names, its events and its timers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.realtime.faults import EventFault
from simulators.realtime.tampering import Parcel, Tampering
from simulators.realtime.wire import Sent, copied

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


@dataclass(frozen=True, slots=True)
class Timer:
    """Something to do later."""

    due_ms: int
    act: Callable[[], None]


class Outbox:
    """Collects server events, numbers what needs a name, and holds timers."""

    def __init__(self, session_id: str, tampering: Tampering, *, beta: bool) -> None:
        self.now_ms = 0
        """Age of the session."""
        self.events: list[Sent] = []
        self.timers: list[Timer] = []
        self._tag = session_id.removeprefix("sess_")
        self._tampering = tampering
        self._beta = beta
        self._counts: dict[str, int] = {}

    def new_id(self, kind: str) -> str:
        """A name unique among all sessions: ``item_``, ``resp_``, …"""
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._tag}{number:04d}"

    def emit(self, kind: str, **body: Any) -> None:
        """Send an event; what it holds is copied, so that it keeps what was true when sent."""
        if self._beta and kind in _NOT_IN_BETA:
            return
        name = _BETA_NAMES.get(kind, kind) if self._beta else kind
        event = {"type": name, "event_id": self.new_id("event"), **copied(body)}
        if self._tampering.idle:
            self.events.append(event)
            return
        parcel = self._tampering.treat(kind, event, self.now_ms)
        if parcel.awaits is not None:
            self._tampering.hold(parcel)
        else:
            self._send_later(parcel)

    def _send_later(self, parcel: Parcel) -> None:
        if parcel.after_ms:
            self.after(parcel.after_ms, lambda: self._send(parcel))
        else:
            self._send(parcel)

    def _send(self, parcel: Parcel) -> None:
        self.events += parcel.sent
        self.events += [{"event_id": self.new_id("event"), **extra} for extra in parcel.added]
        if parcel.sent:
            for held in self._tampering.release(parcel.kind):
                self._send_later(held)

    def watch(self, response_id: str, faults: Sequence[EventFault]) -> None:
        """Take in what becomes of a response's events; it is about to begin."""
        self._tampering.watch(response_id, faults)

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
