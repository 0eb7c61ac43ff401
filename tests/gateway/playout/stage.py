"""A playhead on a stage: inbound media ticks by itself, everything else is done by hand."""

from __future__ import annotations

from gateway.playout import (
    Flushed,
    Part,
    Playhead,
    PlayoutEvent,
    PositionFixed,
    PositionsSettled,
    Sent,
)

A, B = Part("item_a"), Part("item_b")

FRAME_MS = 20


class Stage:
    """Time is in ms. Media arrives each 20 ms, stamped with its time, unless ``media`` is off."""

    def __init__(self, *, media: bool = True) -> None:
        self.head = Playhead()
        self.now_ms = 0
        self.events: list[PlayoutEvent] = []
        self._media = media
        self._next_media_ms = 0
        self._queue: list[tuple[int, str]] = []
        """Marks written, with how much audio is ahead of them, in ms."""
        self._sent_ms = 0

    def to(self, now_ms: int) -> Stage:
        """Let time pass."""
        while self._media and self._next_media_ms <= now_ms:
            self.head.receive_media(self._next_media_ms, 160, now_us=self._next_media_ms * 1000)
            self._next_media_ms += FRAME_MS
        self.now_ms = now_ms
        return self._take()

    def omit(self, until_ms: int) -> Stage:
        """Let time pass without media."""
        self._next_media_ms = until_ms
        self.now_ms = until_ms
        return self

    def send(self, *chunks_ms: int, part: Part = A) -> list[Sent]:
        """Send so much audio, a media message each."""
        sent = [self.head.send(part, ms * 8, now_us=self.now_ms * 1000) for ms in chunks_ms]
        for ms, marks in zip(chunks_ms, sent, strict=True):
            self._queue += [(self._sent_ms, name) for name in marks.marks_before]
            self._sent_ms += ms
            self._queue += [(self._sent_ms, name) for name in marks.marks_after]
        self._take()
        return sent

    def play(self, until_ms: int, *, since_ms: int, way_ms: int = 0) -> Stage:
        """Let Twilio play from ``since_ms`` on and echo in time; echoes take ``way_ms``."""
        while self._queue and since_ms + self._queue[0][0] + way_ms <= until_ms:
            at_ms, name = self._queue.pop(0)
            self.to(since_ms + at_ms + way_ms).echo(name)
        return self.to(until_ms)

    def flush(self, *fences: str | None) -> Stage:
        """Let Twilio return all pending marks at once, and then these."""
        pending, self._queue = self._queue, []
        return self.echo(*(name for _, name in pending), *(str(fence) for fence in fences))

    def end(self, part: Part = A) -> Stage:
        self.head.end(part, now_us=self.now_ms * 1000)
        return self._take()

    def echo(self, *names: str) -> Stage:
        for name in names:
            self.head.receive_mark(name, now_us=self.now_ms * 1000)
        return self._take()

    def interrupt(self, interrupt_id: int = 1) -> str | None:
        fence = self.head.interrupt(interrupt_id, now_us=self.now_ms * 1000)
        self._take()
        return fence

    def stop(self) -> Stage:
        self.head.stop(now_us=self.now_ms * 1000)
        return self._take()

    def drop(self) -> Stage:
        self.head.drop(now_us=self.now_ms * 1000)
        return self._take()

    def timer(self) -> Stage:
        """Let the timer fire when it is due."""
        due_us = self.head.next_timer_us()
        assert due_us is not None
        self.to(max(self.now_ms, -(-due_us // 1000)))
        self.head.handle_timer(now_us=self.now_ms * 1000)
        return self._take()

    def fixed(self, part: Part = A) -> PositionFixed:
        (found,) = [
            e for e in self.events if isinstance(e, PositionFixed) and e.position.part == part
        ]
        return found

    def range(self, part: Part = A) -> tuple[int, int, int]:
        position = self.fixed(part).position
        return position.low_ms, position.best_ms, position.high_ms

    def flushed(self, interrupt_id: int = 1) -> Flushed:
        (found,) = [
            e for e in self.events if isinstance(e, Flushed) and e.interrupt_id == interrupt_id
        ]
        return found

    def settled(self) -> list[int]:
        return [e.interrupt_id for e in self.events if isinstance(e, PositionsSettled)]

    def _take(self) -> Stage:
        self.events += self.head.events()
        return self


def names(sent: list[Sent]) -> list[str]:
    """The marks in the order in which they are written."""
    return [name for one in sent for name in (*one.marks_before, *one.marks_after)]
