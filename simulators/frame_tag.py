"""A number in every caller frame that no ear notices: which call, and which frame of it.

Twenty calls that all say the same line sound the same to a test that wants to know whether a frame
was lost, repeated, swapped or given to a neighbour. So the simulated carrier writes a tag into the
lowest bit of the first 88 bytes of each 20 ms frame (the finest step of µ-law, below the noise of a
telephone line), and the simulated model reads the tags back out of the audio it was given.

Layout, most significant bit first: 32 bits call, 24 bits frame, 32 bits CRC-32 of those.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

FRAME_BYTES = 160
"""20 ms of mono µ-law at 8 kHz."""

_BITS = 88
_CLEAR_LOWEST = bytes(code & 0xFE for code in range(256))
_LOWEST_AS_DIGIT = bytes(ord("0") + (code & 1) for code in range(256))


def stamp(frame: bytes, call: int, number: int) -> bytes:
    """The frame with its tag in it.

    Args:
        frame: At least 88 bytes of µ-law.
        call: Which call; 32 bits of it are kept.
        number: Which frame of the call; 24 bits, 93 hours of frames.
    """
    head = (call & 0xFFFFFFFF).to_bytes(4, "big") + number.to_bytes(3, "big")
    bits = int.from_bytes(head + zlib.crc32(head).to_bytes(4, "big"), "big")
    carrier = int.from_bytes(frame[:_BITS].translate(_CLEAR_LOWEST), "big")
    # Spread the tag: one bit to each byte. Formatting to text and back is the fast way in Python.
    spread = int.from_bytes(bytes(c - 48 for c in format(bits, f"0{_BITS}b").encode()), "big")
    return (carrier | spread).to_bytes(_BITS, "big") + frame[_BITS:]


def read(audio: bytes | memoryview) -> tuple[int, int] | None:
    """Call and frame number of a frame that starts here, or None if none does."""
    if len(audio) < FRAME_BYTES:
        return None
    bits = int(bytes(audio[:_BITS]).translate(_LOWEST_AS_DIGIT), 2).to_bytes(_BITS // 8, "big")
    if zlib.crc32(bits[:7]) != int.from_bytes(bits[7:], "big"):
        return None
    return int.from_bytes(bits[:4], "big"), int.from_bytes(bits[4:7], "big")


def _is_cut_short(view: memoryview, at: int) -> bool:
    """Whether another frame begins within the one that was read here.

    Of a frame that was cut off after 80 bytes the last bits are the first ones of the next. One
    time in 256 they are the same, and the next frame would be swallowed.
    """
    after = at + FRAME_BYTES
    if after == len(view) or read(view[after : after + FRAME_BYTES]) is not None:
        return False
    inside = range(at + 8, after, 8)
    return any(read(view[start : start + FRAME_BYTES]) is not None for start in inside)


@dataclass(frozen=True, slots=True)
class TaggedFrames:
    """What :func:`scan` found in a stretch of audio."""

    frames: Sequence[tuple[int, int]]
    """(call, frame number) in the order in which the audio has them."""
    offsets: Sequence[int]
    """Where each of them starts, in bytes from the start of the audio."""
    foreign_bytes: int
    """Audio that belongs to no tagged frame: silence that was filled in, for instance."""


def scan(audio: bytes) -> TaggedFrames:
    """Find every tagged frame, also after stretches of foreign audio of any whole ms."""
    view = memoryview(audio)
    frames: list[tuple[int, int]] = []
    offsets: list[int] = []
    at = foreign = 0
    while at < len(view):
        tag = read(view[at : at + FRAME_BYTES])
        if tag is None or _is_cut_short(view, at):
            step = min(8, len(view) - at)
            foreign += step
            at += step
        else:
            frames.append(tag)
            offsets.append(at)
            at += FRAME_BYTES
    return TaggedFrames(frames, offsets, foreign)
