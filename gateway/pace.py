"""How fast audio of the caller may come: no faster than anybody can have spoken it. Pure.

Somebody who plays a recording into the model costs as much as a long call, in a moment.
"""

from __future__ import annotations

from gateway.playout.clock import MAX_AHEAD_US, MediaClock
from gateway.twilio.messages import POLICY_VIOLATION, TwilioProtocolError
from runtime.units import BYTES_PER_MS


class Pace:
    """One stream's.

    Args:
        clock: Its media clock. Regular audio is as long as its timestamps say, or half of it, so of
            that the clock knows enough.
    """

    def __init__(self, clock: MediaClock) -> None:
        self._clock = clock
        self._received_bytes = 0
        """Of audio that was not regular."""
        self._look_bytes = 0
        """At so many its pace is looked at again."""

    def take(self, audio_bytes: int, now_us: int, *, look: bool) -> None:
        """Take audio that was not regular.

        Args:
            audio_bytes: How much.
            now_us: Microseconds since the stream's start, monotonic.
            look: There may be a reason to look at the clock, too.

        Raises:
            TwilioProtocolError: More audio came than anybody can have spoken by now.
        """
        self._received_bytes += audio_bytes
        if not look and self._received_bytes <= self._look_bytes:
            return
        self._look_bytes = (now_us + MAX_AHEAD_US) * BYTES_PER_MS // 1000
        if self._clock.ahead_us > MAX_AHEAD_US or self._received_bytes > self._look_bytes:
            raise TwilioProtocolError(
                f"audio more than {MAX_AHEAD_US // 1_000_000} s ahead of the time that has passed",
                POLICY_VIOLATION,
                limit="pace",
            )
