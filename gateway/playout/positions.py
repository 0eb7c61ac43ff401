"""The values that go into the playhead and come out of it. Plain data, no behaviour.

Audio is mono µ-law at 8 kHz: 8 bytes are a millisecond, a byte is 125 µs. Inside the playhead audio
is counted in bytes and time in microseconds; milliseconds are made at the edge, here, floored.

They are msgspec's structs, since a frozen dataclass takes seven times as long to make and five
times as long to look up, and each piece of audio makes and looks up a dozen.
"""

from __future__ import annotations

import enum

import msgspec

from runtime.units import BYTES_PER_MS

US_PER_BYTE = 125
"""How long one byte sounds."""


def floor_ms(audio_bytes: int) -> int:
    """Whole milliseconds of so much audio."""
    return audio_bytes // BYTES_PER_MS


class Part(msgspec.Struct, frozen=True, gc=False):
    """What audio belongs to: one content part of one Realtime item."""

    item_id: str
    content_index: int = 0


class Sent(msgspec.Struct, frozen=True, gc=False):
    """Which marks the shell writes around one media message."""

    marks_before: tuple[str, ...]
    """Names of marks to write before it, as a rule none: it times the start of what follows."""
    marks_after: tuple[str, ...]
    """Names of marks to write after it."""


class Rule(enum.IntEnum):
    """How a best estimate was found; the numbers are those of ``asheard.v1.PositionRule``."""

    PLAYED_TO_END = 1
    """The mark after the last audio of an ended part proves all of it."""
    MEDIA_CLOCK = 2
    """Twilio's media clock ran so long between a proven position and the flush."""
    LOCAL_CLOCK = 3
    """The same by the gateway's clock: the media clock gave no time."""
    PROVEN_ONLY = 4
    """Nothing times the stop: a cautious guess within the range."""
    NOT_STARTED = 5
    """Playback had not reached the part."""
    MARK = 6
    """An echo proves exactly this position and nothing beyond it was sent."""


class Cause(enum.IntEnum):
    """Why playback of a part ended; the numbers are those of ``asheard.v1.PositionCause``."""

    PLAYED = 1
    CLEARED = 2
    HUNG_UP = 3
    DROPPED = 4


class Evidence(msgspec.Struct, frozen=True):
    """What a position rests on."""

    rule: Rule
    proven_mark: str = ""
    """The last mark that proves playback of this part. Empty when there is none."""
    proven_at_ms: int | None = None
    """When that mark was echoed, on the call's clock."""
    next_mark: str = ""
    """The first mark after it: it proves nothing. Empty when there is none."""
    stopped_at_ms: int | None = None
    """When playback stopped, on the call's clock. None: played to the end, or not known."""


class ItemPosition(msgspec.Struct, frozen=True):
    """How much of one part was played: ``low_ms <= best_ms <= high_ms <= sent_ms``."""

    part: Part
    low_ms: int
    """Proven: at least so much."""
    best_ms: int
    high_ms: int
    """At most so much."""
    sent_ms: int
    """How much had been given to Twilio."""
    evidence: Evidence


def never_sent(part: Part) -> ItemPosition:
    """The position of a part that was dropped before its first byte was written to Twilio."""
    return ItemPosition(
        part=part,
        low_ms=0,
        best_ms=0,
        high_ms=0,
        sent_ms=0,
        evidence=Evidence(rule=Rule.NOT_STARTED),
    )


class PlaybackStarted(msgspec.Struct, frozen=True):
    """Twilio began to play a part."""

    part: Part
    at_ms: int
    """When, on the call's clock."""


class PlaybackProgressed(msgspec.Struct, frozen=True):
    """How far playback of a part is proven while it goes on; told about once a second."""

    part: Part
    played_ms: int
    sent_ms: int
    at_ms: int
    """When it was proven, on the call's clock."""


class PositionFixed(msgspec.Struct, frozen=True):
    """The last word on how much of a part was played; said once for each part."""

    position: ItemPosition
    cause: Cause
    at_ms: int | None
    """When playback of the part ended, on the call's clock. None when it never began."""
    interrupt_id: int
    """The interrupt that cut it; 0 when none did."""


class TimedBy(enum.Enum):
    """What the timestamp of a flush comes from."""

    BURST = "burst"
    """An echo that can only have come from the clear."""
    FENCE = "fence"
    """The fence's echo: it follows the clear at once."""
    LATER_ECHO = "later echo"
    """The fence was lost; something written after it was echoed. The flush was not later."""
    NOTHING = "nothing"
    """Neither came."""


class Flushed(msgspec.Struct, frozen=True):
    """The line fell silent because of an interrupt. For the metrics; positions follow."""

    interrupt_id: int
    at_ms: int | None
    """When, on the call's clock. None when nothing times it."""
    timed_by: TimedBy
    unheard_ms: int
    """How much audio the clear threw away, at best knowledge. 0: there was nothing to interrupt."""


class PositionsSettled(msgspec.Struct, frozen=True):
    """Every part that the interrupt concerns has its position fixed."""

    interrupt_id: int


PlayoutEvent = PlaybackStarted | PlaybackProgressed | PositionFixed | Flushed | PositionsSettled


class TraceKind(enum.IntEnum):
    """Which input; the numbers are those of ``asheard.v1.PlayoutEventKind``."""

    SENT = 1
    ENDED = 2
    ECHOED = 3
    CLEARED = 4
    STOPPED = 5
    DROPPED = 6
    TIMED = 7
    MEDIA = 8


class TraceEvent(msgspec.Struct, frozen=True, gc=False):
    """One input of the playhead, with what it knew of the media clock then."""

    kind: TraceKind
    now_us: int
    media_ms: int | None
    """The newest ``media.timestamp`` then. None before the first."""
    media_us: int | None
    """When that media message came, by the clock of ``now_us``."""
    part: Part | None = None
    """For SENT and ENDED."""
    audio_bytes: int = 0
    """For SENT: how much. For MEDIA: the length of that message."""
    mark: str = ""
    """For ECHOED."""
    interrupt_id: int = 0
    """For CLEARED."""
