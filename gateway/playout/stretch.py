"""What was given to Twilio between two clears: audio in order, marks in it, echoes of them.

Positions here are bytes of the stretch, counted from its first. Audio of several parts may lie in
it in any order (A, B, A); each part reads its own position off the one position of the stretch.

Twilio works a stretch off in order, so an echo that came before the ``clear`` was written proves
all before it. What is proven is forgotten but for the last few echoes, which say how playback runs
on the media clock: a long call costs no more than its queue.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from gateway.playout.clock import Stamp
from gateway.playout.positions import US_PER_BYTE, Part

SAFE_LEAD_US = 500_000
"""Audio written so long before its predecessor can possibly end follows it without a gap, unless
the network stalls for longer. Less, and a start mark goes before it to time where it really
began: a bad network's trip is 250 ms, and a mark costs a hundred bytes."""

BUFFER_LIMIT_BYTES = 600 * 8000
"""Twilio buffers ten minutes of audio and throws further audio away (its warning 31931)."""

OVERDUE_US = 2_000_000
"""When the echo of all that was sent counts as lost (M5 of ``playhead.py``). More than a bad
network's round trip with a retransmission; there is no hurry."""

ECHOES_KEPT = 16
"""How many proven echoes say how playback runs: a few seconds of speech. More would let the drift
between two crystals in, fewer would waste the frames' worth of doubt that each takes away."""


class PartPlayout(msgspec.Struct, eq=False):
    """One part: how much of it was sent, is proven, and whether more is to come."""

    part: Part
    sent_bytes: int = 0
    played_bytes: int = 0
    """Proven."""
    lost_at: int | None = None
    """Where in the part Twilio's buffer may have been full. What lies after it counts as
    unheard."""
    ended: bool = False
    started: bool = False
    """Told so."""
    closed: bool = False
    """Its position is fixed: further audio takes its time in the queue, nothing more is told."""
    told_bytes: int = 0
    """Up to which progress was told."""
    proven_mark: str = ""
    proven: Stamp | None = None
    """The echo that proves what is proven, maybe of a mark further on."""
    reached_us: int | None = None
    """When playback reached what is proven, on the call's clock."""


class Chunk(msgspec.Struct, eq=False):
    """The audio of one media message."""

    owner: PartPlayout
    start: int
    end: int
    owner_start: int
    """Where it lies in its part."""
    sent: Stamp
    segment: int
    """Grows where playback may have run dry; within a segment audio follows without a gap."""
    opens_segment: bool
    earliest_us: int
    """By the gateway's clock, when it began to sound at the earliest: when all before it had
    sounded and it was written, had the network taken no time."""
    overflow: bool
    """Twilio's buffer may have been full: it may never be played."""

    @property
    def duration_us(self) -> int:
        """How long it sounds; nothing if Twilio has thrown it away."""
        return 0 if self.overflow else (self.end - self.start) * US_PER_BYTE


class Mark(msgspec.Struct, eq=False):
    """A mark in the stretch."""

    name: str
    at: int
    """The audio before it."""
    segment: int
    owner: PartPlayout
    sent: Stamp
    dry: bool
    """All before it was proven when it was written: Twilio echoes it at once, clear or no clear."""
    echo: Stamp | None = None


@dataclass(slots=True)
class Stretch:
    """Everything between two clears that is not proven yet, and the last proofs."""

    number: int
    parts: dict[Part, PartPlayout] = field(default_factory=dict)
    """Parts without a fixed position, by their first audio."""
    chunks: deque[Chunk] = field(default_factory=deque)
    """Not proven, in order."""
    marks: deque[Mark] = field(default_factory=deque)
    """Not proven, in order."""
    proofs: deque[Mark] = field(default_factory=lambda: deque(maxlen=ECHOES_KEPT))
    """Proven by their echo, in order."""
    sent_bytes: int = 0
    proven_bytes: int = 0
    segment: int = 0
    earliest_end_us: int = 0
    """By the gateway's clock, the earliest end of all that was sent."""
    changed_us: int = 0
    """By the gateway's clock, when audio was last sent or proven."""
    presumed: bool = False
    """What is not proven counts as played (M5), and nothing was sent since."""
    unpunctual: bool = False
    """An echo came out of order: the timestamps of echoes are not to be trusted too far."""

    @property
    def dry(self) -> bool:
        """All that was sent is proven to be played."""
        return not self.chunks

    def overdue_us(self) -> int | None:
        """By the gateway's clock, when what is not proven counts as played. None: nothing will."""
        if not self.chunks or self.presumed:
            return None
        queued_us = (self.sent_bytes - self.proven_bytes) * US_PER_BYTE
        return max(self.changed_us + queued_us, self.earliest_end_us) + OVERDUE_US

    def append(self, owner: PartPlayout, audio_bytes: int, sent: Stamp) -> Chunk:
        """Put audio at the end of the queue."""
        opens_segment = not self.sent_bytes or self.earliest_end_us - sent.now_us < SAFE_LEAD_US
        if opens_segment:
            self.segment += 1
        unproven = self.sent_bytes - self.proven_bytes
        # Twilio may have played more than is proven, so this errs toward unheard.
        overflow = unproven + audio_bytes > BUFFER_LIMIT_BYTES
        if overflow and owner.lost_at is None:
            owner.lost_at = owner.sent_bytes
        chunk = Chunk(
            owner=owner,
            start=self.sent_bytes,
            end=self.sent_bytes + audio_bytes,
            owner_start=owner.sent_bytes,
            sent=sent,
            segment=self.segment,
            opens_segment=opens_segment,
            earliest_us=max(self.earliest_end_us, sent.now_us),
            overflow=overflow,
        )
        self.chunks.append(chunk)
        self.changed_us = sent.now_us
        self.presumed = False
        self.sent_bytes = chunk.end
        owner.sent_bytes += audio_bytes
        self.earliest_end_us = chunk.earliest_us + chunk.duration_us
        return chunk

    def prove(self, mark: Mark, echo: Stamp) -> tuple[list[Chunk], list[Mark]]:
        """Take an echo that came before any clear was written.

        Returns:
            The audio it newly proves, and the marks before it whose own echo did not come.
        """
        mark.echo = echo
        self.changed_us = echo.now_us
        missed = []
        while (passed := self.marks.popleft()) is not mark:
            missed.append(passed)
        self.proofs.append(mark)
        played = []
        while self.chunks and self.chunks[0].end <= mark.at:
            chunk = self.chunks.popleft()
            chunk.owner.played_bytes = chunk.owner_start + chunk.end - chunk.start
            played.append(chunk)
        self.proven_bytes = mark.at
        return played, missed


@dataclass(slots=True, eq=False)
class Clearing:
    """A stretch that was cleared and is not settled."""

    stretch: Stretch
    interrupt_id: int
    written: Stamp
    """When the clear was written."""
    due_us: int
    """When its fence is not waited for any more."""
    fence: Stamp | None = None
    """When the fence came back, or an echo that says as much. None: not yet."""
    fence_is_later_echo: bool = False


def heard_prefix(owner: PartPlayout, audio_bytes: int) -> int:
    """What counts of what was played: nothing after a hole that a full buffer may have made."""
    return audio_bytes if owner.lost_at is None else min(audio_bytes, owner.lost_at)


class PartsOf:
    """The audio of a stretch that is not proven, by part."""

    def __init__(self, stretch: Stretch) -> None:
        self._chunks: dict[PartPlayout, list[Chunk]] = {}
        for chunk in stretch.chunks:
            self._chunks.setdefault(chunk.owner, []).append(chunk)

    def chunks(self, owner: PartPlayout) -> list[Chunk]:
        """The part's unproven audio, in order."""
        return self._chunks.get(owner, [])

    def played_bytes(self, owner: PartPlayout, at: int) -> int:
        """How much of the part was played when the stretch was played up to ``at``."""
        played = owner.played_bytes
        for chunk in self.chunks(owner):
            if at <= chunk.start:
                break
            played = chunk.owner_start + min(at, chunk.end) - chunk.start
        return played
