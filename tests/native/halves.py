"""Both halves of ``native``, and what a client's socket gives."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from native import _python


class Half(Protocol):
    """What :mod:`native` is."""

    read_media: Callable[[bytes, bytes], list[tuple[int, bytes, int, int]]]
    read_text: Callable[[bytes], tuple[bytes, int] | None]
    append_message: Callable[[bytes], tuple[bytes, int] | None]


HALVES: dict[str, Half] = {"python": _python}
try:
    from native import _speedups

    HALVES["compiled"] = _speedups
except ImportError:
    pass  # not built

_CAN_BE_BUILT = (
    any(map(shutil.which, ("cc", "gcc", "clang")))
    and Path(sysconfig.get_path("include"), "Python.h").is_file()
)
needs_compiled = pytest.mark.skipif(
    "compiled" not in HALVES and not _CAN_BE_BUILT,
    reason="native/_speedups.c needs a C compiler and Python's headers",
)
"""Where there is a compiler, one that does not compile is no reason to skip: the tests fail."""

STREAM = b"MZ0123456789abcdef0123456789abcdef"
MASK = b"\x11\x22\x33\xc4"


def frame(content: bytes, *, mask: bytes = MASK, first: int = 0x81) -> bytes:
    """One masked frame of a client's, up to 64 KiB."""
    masked = bytes(byte ^ mask[i & 3] for i, byte in enumerate(content))
    if len(content) < 126:
        return bytes((first, 0x80 | len(content))) + mask + masked
    return bytes((first, 0x80 | 126)) + len(content).to_bytes(2, "big") + mask + masked


def message(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A compact JSON object; the values are JSON already."""
    return b"{" + b",".join(b'"%b":%b' % field for field in fields) + b"}"


def media(timestamp: bytes = b"20", payload: bytes = b"AAEC", stream_sid: bytes = STREAM) -> bytes:
    """Twilio's media message."""
    details = message(
        [(b"track", b'"inbound"'), (b"chunk", b'"2"'), (b"timestamp", b'"%b"' % timestamp),
         (b"payload", b'"%b"' % payload)]
    )  # fmt: skip
    return message(
        [(b"event", b'"media"'), (b"sequenceNumber", b'"3"'), (b"media", details),
         (b"streamSid", b'"%b"' % stream_sid)]
    )  # fmt: skip


TWILIO_FRAME = frame(media(b"172000000", b"AAEC" * 53 + b"AA=="))
"""A frame as Twilio sends it; its numbers are too large to be among those that Python keeps."""
