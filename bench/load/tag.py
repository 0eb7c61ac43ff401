"""Which call, which frame of it, and when it was sent: written into each caller frame of a bench.

The tag is the first 18 of a frame's 160 bytes, so that in base64 it is the first 24 characters, and
a bridge that hands the base64 on and one that decodes and encodes it again both keep it. Layout,
big endian: magic (2 bytes), flags (1), nothing (1), call (2), number of the frame in the call from
0 (4), CLOCK_MONOTONIC in nanoseconds when it was sent (8; the two ends are on one machine).
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64

FRAME_BYTES = 160
"""20 ms of mono µ-law at 8 kHz."""

FRAME_CHARS = 216
"""A frame in base64."""

ONSET = 1
"""Flag: the caller begins to speak with this frame; voice detection is to say so at once."""
END = 2
"""Flag: voice detection is to say with this frame that the caller has spoken."""

MAX_CALLS = 0x10000

_MAGIC = b"\xa5\x5a"
_TAG = struct.Struct(">2sBxHIQ")
_TAG_CHARS = 24
REST = b2a_base64(b"\xff" * (FRAME_BYTES - _TAG.size), newline=False)
"""The rest of a frame: µ-law silence."""


Tag = tuple[int, int, int, int]
"""What a frame says of itself: flags, call, number of the frame in the call, when it was sent (ns)."""


def payload(flags: int, call: int, number: int, sent_ns: int) -> bytes:
    """A frame in base64, with its tag."""
    return head(flags, call, number, sent_ns) + REST


def head(flags: int, call: int, number: int, sent_ns: int) -> bytes:
    """The tag in base64; in a frame :data:`REST` follows."""
    return b2a_base64(_TAG.pack(_MAGIC, flags, call, number, sent_ns), newline=False)


def read_one(base64: bytes, at: int = 0) -> Tag | None:
    """The tag of exactly one frame in base64, which begins at ``at``; None when it bears none."""
    return _read(a2b_base64(base64[at : at + _TAG_CHARS]))


def read_all(base64: bytes) -> tuple[list[Tag], int]:
    """The tags of audio of any length, in order, and how many bytes of it belong to no frame.

    Foreign audio is looked through in steps of whole ms.
    """
    audio = a2b_base64(base64)
    tags: list[Tag] = []
    at = foreign_bytes = 0
    while at < len(audio):
        tag = _read(audio[at : at + _TAG.size]) if at + FRAME_BYTES <= len(audio) else None
        if tag is None:
            step = min(8, len(audio) - at)
            foreign_bytes += step
            at += step
        else:
            tags.append(tag)
            at += FRAME_BYTES
    return tags, foreign_bytes


def _read(bits: bytes) -> Tag | None:
    if len(bits) != _TAG.size:
        return None
    magic, flags, call, number, sent_ns = _TAG.unpack(bits)
    return (flags, call, number, sent_ns) if magic == _MAGIC else None
