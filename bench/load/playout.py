"""The agent's audio at Twilio's end: what is buffered, what was played, which marks are due. Pure.

The rules are those of ``simulators.twilio.carrier``, which is strict where this is cheap: playback
in frames of 20 ms on the call's beat; a mark is echoed when the audio before it has been played, at
once if there is none; ``clear`` silences the line at that moment, within the frame, and sets every
mark free. Positions count all received bytes; dropped bytes keep theirs.
"""

from __future__ import annotations

from collections import deque

from bench.load.clock import BEAT_NS
from bench.load.tag import FRAME_BYTES


class Playout:
    """One call's line toward the caller."""

    def __init__(self) -> None:
        self.audio = bytearray()
        """Everything received, µ-law."""
        self.played: list[tuple[int, int]] = []
        """Positions that were played, in order, without the stretch under way."""
        self.position = 0
        """Everything before it was played or dropped."""
        self._taken = 0
        """End of the frame that is sounding."""
        self._taken_ns = 0
        self._from = 0
        """Where the stretch under way began."""
        self._marks: deque[tuple[int, bytes]] = deque()

    @property
    def playing(self) -> bool:
        """Whether anything sounds or is about to."""
        return self.position < len(self.audio)

    def media(self, audio: bytes) -> None:
        """Audio came."""
        self.audio += audio

    def mark(self, name: bytes) -> bool:
        """A mark came; whether it is to be echoed at once."""
        if not self._marks and not self.playing:
            return True
        self._marks.append((len(self.audio), name))
        return False

    def beat(self, now_ns: int) -> list[bytes]:
        """The frame that sounded has been played, the next begins; the marks to echo now."""
        if self.position == len(self.audio) and not self._marks:
            return []
        self.position = self._taken
        if self._taken < len(self.audio):
            self._taken = min(self._taken + FRAME_BYTES, len(self.audio))
            self._taken_ns = now_ns
        echoes: list[bytes] = []
        while self._marks and self._marks[0][0] <= self.position:
            echoes.append(self._marks.popleft()[1])
        return echoes

    def clear(self, now_ns: int) -> list[bytes]:
        """Silence; every pending mark, in order."""
        self._sound_until(now_ns)
        echoes = [name for _, name in self._marks]
        self._marks.clear()
        return echoes

    def hang_up(self, now_ns: int) -> None:
        """The line is gone: what sounds, sounds no further."""
        self._sound_until(now_ns)

    def _sound_until(self, now_ns: int) -> None:
        sounded = min(BEAT_NS, max(0, now_ns - self._taken_ns)) * FRAME_BYTES // BEAT_NS
        self.position = min(self._taken, self.position + sounded)
        if self.position > self._from:
            self.played.append((self._from, self.position))
        self._from = self.position = self._taken = len(self.audio)
