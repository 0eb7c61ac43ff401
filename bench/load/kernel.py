"""Finds the compiled part of the load, ``kernel.c``, where it was built.

Without it the load is the same and costs a seventh more CPU (at 400 calls): then it is late sooner.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from bench.load.received import Received


class SendFrame(Protocol):
    """Sends one frame of a caller's."""

    def __call__(
        self,
        fd: int,
        begin: bytes,
        middle: bytes,
        sequence: int,
        number: int,
        timestamp_ms: int,
        flags: int,
        call: int,
        /,
    ) -> bytes | None:
        """Write a media message to a socket; what the socket did not take, or None."""
        ...


class Receive(Protocol):
    """Counts one frame of a caller's."""

    def __call__(self, received: Received, data: bytes, /) -> bool:
        """Whether an event was the frame that comes next, without flags. Otherwise it is not
        counted."""
        ...


class Kernel(NamedTuple):
    """The compiled part."""

    send_frame: SendFrame
    receive: Receive


def kernel() -> Kernel | None:
    """The compiled part, or None where it was not built."""
    try:
        from bench.load._kernel import receive, send_frame
    except (ImportError, AttributeError, TypeError):
        return None
    return Kernel(send_frame, receive)
