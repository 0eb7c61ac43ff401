"""What the playhead was told, in order, so that a replay (``replay.py``) can tell it again. Pure.

All inputs are noted but for inbound media that ticks on regularly; what else is noted says between
which readings it was.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.playout.clock import MediaClock
from gateway.playout.positions import Part, TraceEvent, TraceKind

MAX_MEDIA_TRACED = 10_000
"""Trace events about inbound media that does not tick on regularly, two of each. Beyond it a replay
knows the media clock only from what else was traced."""

LONG_TRACE = 1_000
"""Events. The shell is told then, so that it hands the trace in."""


class Reading(NamedTuple):
    """What the media clock had of a media message."""

    media_ms: int | None
    media_us: int | None
    frame_bytes: int


class Trace:
    """One stream's.

    Args:
        clock: The stream's media clock.
    """

    def __init__(self, clock: MediaClock) -> None:
        self._clock = clock
        self._events: list[TraceEvent] = []
        self._media_events = 0

    def __len__(self) -> int:
        return len(self._events)

    def take(self) -> list[TraceEvent]:
        """Hand over the inputs since the last call."""
        events, self._events = self._events, []
        return events

    def note(
        self,
        kind: TraceKind,
        now_us: int,
        *,
        part: Part | None = None,
        audio_bytes: int = 0,
        mark: str = "",
        interrupt_id: int = 0,
    ) -> None:
        """Note an input, as the clock stands before it is taken."""
        clock = self._clock
        self._events.append(
            TraceEvent(
                kind=kind,
                now_us=now_us,
                media_ms=clock.newest_ms,
                media_us=clock.received_us,
                part=part,
                audio_bytes=audio_bytes,
                mark=mark,
                interrupt_id=interrupt_id,
            )
        )

    def reading(self) -> Reading:
        """The newest media message."""
        clock = self._clock
        return Reading(clock.newest_ms, clock.received_us, clock.frame_bytes)

    def note_media(self, before: Reading) -> None:
        """Note two media messages, the one before and the newest: only so is the step told."""
        if self._media_events >= MAX_MEDIA_TRACED:
            return
        self._media_events += 2
        newest = self.reading()
        for media_ms, media_us, frame_bytes in (
            newest if before.media_us is None else before,
            newest,
        ):
            self._events.append(
                TraceEvent(
                    kind=TraceKind.MEDIA,
                    now_us=media_us or 0,
                    media_ms=media_ms,
                    media_us=media_us,
                    audio_bytes=frame_bytes,
                )
            )
