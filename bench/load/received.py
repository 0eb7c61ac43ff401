"""What the model's end has received of a caller, by the tags of the frames."""

from __future__ import annotations

from array import array

from bench.load import tag


class Window:
    """The time in which frames are measured, of a whole process."""

    __slots__ = ("begin_ns", "end_ns", "forward_us")

    def __init__(self) -> None:
        self.begin_ns = self.end_ns = 0
        """Frames sent within it are measured."""
        self.forward_us = array("I")
        """How long each was under way."""


class Received:
    """The frames of one session."""

    __slots__ = (
        "call", "frames", "missing", "n_bytes", "next_number", "reordered", "repeated",
        "strangers", "window",
    )  # fmt: skip

    def __init__(self, window: Window) -> None:
        self.window = window
        self.call = -1
        """Which one it is; -1 before its first frame."""
        self.next_number = 0
        self.n_bytes = 0
        """Audio appended so far, whatever it was."""
        self.frames = 0
        """Received for the first time."""
        self.missing: set[int] = set()
        """Numbers that later ones overtook."""
        self.repeated = 0
        self.reordered = 0
        """Frames that came after a later one."""
        self.strangers = 0
        """Frames of other calls."""

    def take(self, found: tag.Tag, now_ns: int) -> None:
        """Count one frame."""
        window = self.window
        _, call, number, sent_ns = found
        self.n_bytes += tag.FRAME_BYTES
        if window.begin_ns <= sent_ns < window.end_ns:
            window.forward_us.append((now_ns - sent_ns) // 1000)
        if number == self.next_number and call == self.call:
            self.next_number = number + 1
            self.frames += 1
        else:
            self._unexpected(call, number)

    def _unexpected(self, call: int, number: int) -> None:
        if self.call < 0:
            self.call = call
        if call != self.call:
            self.strangers += 1
        elif number >= self.next_number:
            self.missing.update(range(self.next_number, number))
            self.next_number = number + 1
            self.frames += 1
        elif number in self.missing:
            self.missing.remove(number)
            self.reordered += 1
            self.frames += 1
        else:
            self.repeated += 1
