"""When something came, by both clocks, read once for all that came together.

Sockets are read in turns and messages of a link come in batches: whoever reads a turn or a message
reads the clocks, and passes what they said down. So nothing below it asks for the time, and tests
say what it is.
"""

from __future__ import annotations

import time

import msgspec


class Instant(msgspec.Struct, frozen=True, gc=False):
    """One moment."""

    mono_us: int
    """Microseconds of the monotonic clock: for what is measured within this process."""
    unix_us: int
    """Microseconds of the wall clock: for what other processes and people compare."""


def now() -> Instant:
    """This moment."""
    return Instant(time.monotonic_ns() // 1000, time.time_ns() // 1000)
