"""Finds the compiled way of the caller's frames, ``kernel.c``, where it was built.

It is optional: it is built when the package is installed on a machine with a C compiler and Python's
headers, and without it Python does the same with each frame, for more CPU (ADR 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from session.call import Call


class Append(Protocol):
    """Gives a message's frames to their calls."""

    def __call__(
        self,
        calls: dict[int, Call],
        handles: Sequence[int],
        payloads: Sequence[bytes],
        media_ms: Sequence[int],
        received_unix_us: Sequence[int],
        now_unix_us: int,
        now: float,
        /,
    ) -> list[tuple[int, BaseException]] | None:
        """Do with each frame, in order, what :meth:`session.call.Call.receive_audio` does.

        Args:
            calls: By handle; frames of a handle that is not there are dropped.
            handles: Whose each frame is.
            payloads: Base64 of µ-law at 8 kHz.
            media_ms: Twilio's timestamps.
            received_unix_us: The wall clock when the gateway had each, in microseconds.
            now_unix_us: The wall clock.
            now: Monotonic seconds.

        Returns:
            What a call raised in spite of its own barriers, with its handle, once for each frame.
            Other calls' frames were not hindered by it. None: nothing.

        Raises:
            ValueError: The columns are not of one length.
        """
        ...


def kernel() -> Append | None:
    """The compiled way, or None where it was not built; then Python does the work."""
    try:
        from session._kernel import append
    except (ImportError, AttributeError, TypeError):
        return None  # not built, or from older source: then a class has not the slots it knows
    return append
