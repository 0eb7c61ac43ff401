"""What the carrier knows of one stream: what was played, flushed, echoed, warned about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulators.speech.g711 import BYTES_PER_MS


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message of the carrier to the server."""

    at_ms: int
    """When it left, on the media clock."""
    message: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The JSON text frame."""
        return json.dumps(self.message, separators=(",", ":"))


@dataclass(slots=True)
class Stretch:
    """Agent audio that was played without a gap."""

    start_byte: int
    end_byte: int
    """Half-open range of positions."""
    start_ms: int
    """Media clock when its first byte began to sound; its last one ended ``bytes / 8`` ms later."""

    @property
    def end_ms(self) -> int:
        """Media clock when it had sounded, rounded up to the ms."""
        return self.start_ms + -(-(self.end_byte - self.start_byte) // BYTES_PER_MS)

    def continues_with(self, byte: int, at_ms: int) -> bool:
        """Whether this byte, sounding then, follows without a gap of even one sample."""
        sounded_bytes = (at_ms - self.start_ms) * BYTES_PER_MS
        return byte == self.end_byte and sounded_bytes == self.end_byte - self.start_byte


@dataclass(frozen=True, slots=True)
class Flush:
    """What one ``clear`` did."""

    at_ms: int
    start_byte: int
    end_byte: int
    """Half-open range of positions that were dropped unplayed; empty if nothing was buffered."""
    marks: tuple[str, ...]
    """Pending marks echoed with it."""


@dataclass(frozen=True, slots=True)
class Echo:
    """A mark that was returned."""

    name: str
    position: int
    """Bytes of agent audio accepted before the mark."""
    received_ms: int
    at_ms: int
    flushed: bool
    """Returned by a ``clear``, not by playback."""


@dataclass(frozen=True, slots=True)
class MediaMessage:
    """A media message of the server, as accepted."""

    at_ms: int
    start_byte: int
    end_byte: int
    discarded_bytes: int
    """Bytes beyond the buffer's limit; they have no position."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning or error of Twilio's."""

    at_ms: int
    code: int
    detail: str
    reported: bool
    """Twilio shows each warning once per stream; later ones of the same code are silent."""


@dataclass(slots=True)
class CallerLine:
    """One line the caller spoke."""

    name: str
    text: str
    start_ms: int
    """Media clock of the first frame that holds it."""
    onset_ms: int
    """When its first word began to sound."""
    end_ms: int
    """When its last word had sounded."""


@dataclass(slots=True)
class StreamTruth:
    """Everything the carrier knows of one stream; grows while the stream lives."""

    stream_sid: str
    played: list[Stretch] = field(default_factory=list)
    flushes: list[Flush] = field(default_factory=list)
    echoes: list[Echo] = field(default_factory=list)
    media: list[MediaMessage] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    caller_lines: list[CallerLine] = field(default_factory=list)
    noises: list[CallerLine] = field(default_factory=list)
    """Sounds of the caller's without a word in them; they are no lines, and cut in on nobody."""
    frames_sent: int = 0
    """Caller frames sent; the tags in them count from 0 over the whole call."""
    frames_omitted: int = 0
    """Silent frames left out, over which the timestamps jumped."""
    audio: bytearray = field(default_factory=bytearray)
    """Accepted agent audio, mono µ-law at 8 kHz, by position; empty if it was not to be kept."""
    ended_ms: int | None = None
