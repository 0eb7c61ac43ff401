"""How long the caller waits for what it does to be noticed and answered. Pure.

Speech is timed at the gateway, by its wall clock at the receipt of the frame that holds it, and an
answer here: figures of clocks that contradict each other are left out.
"""

from __future__ import annotations

from typing import NamedTuple

from session.realtime.input_clock import InputClock

MAX_APART_US = 10_000_000
"""Between readings of two machines' wall clocks, microseconds. What is measured by them takes
milliseconds, and seconds after a halt; more is a clock that was set, or is wrong."""

MAX_WAITED_US = 60_000_000
"""The longest time to the first audio of an answer that is believed, with function calls in it."""


def passed_us(earlier_unix_us: int, later_unix_us: int, max_us: int = MAX_APART_US) -> int | None:
    """What passed between readings of two machines' wall clocks, in microseconds.

    None: it cannot be told. It would be negative or more than ``max_us``, so that the clocks
    differ, or one of them was set.
    """
    passed = later_unix_us - earlier_unix_us
    return passed if 0 <= passed <= max_us else None


class Onset(NamedTuple):
    """When the caller cut in, and how long it took to be noticed."""

    media_ms: int | None
    """On the call's clock. None: not known."""
    detection_us: int
    """From the receipt of the caller's audio at the gateway to now. 0: not known."""
    worker_us: int
    """From the model's event to now. 0: it was not about speech."""


class TurnLatency:
    """Times the turns of one call.

    Args:
        clock: Says when what place of the model's input buffer was received.
    """

    def __init__(self, clock: InputClock) -> None:
        self._clock = clock
        self._stopped_unix_us: int | None = None
        self._speech_started_at = 0.0

    def speech_started(self, now: float) -> None:
        """The model says that the caller speaks; ``now`` in seconds of some clock."""
        self._speech_started_at = now

    def onset(self, buffer_ms: int | None, *, now_unix_us: int, now: float) -> Onset:
        """The caller cut in.

        Args:
            buffer_ms: Where, in the model's input buffer. None: not known.
            now_unix_us: The wall clock.
            now: The clock of :meth:`speech_started`.
        """
        if buffer_ms is None:
            return Onset(None, 0, 0)
        received_us = self._clock.received_at(buffer_ms)
        detection_us = None if received_us is None else passed_us(received_us, now_unix_us)
        worker_us = int((now - self._speech_started_at) * 1_000_000)
        return Onset(self._clock.media_at(buffer_ms), detection_us or 0, worker_us)

    def speech_stopped(self, buffer_ms: int) -> None:
        """The caller said its last word there in the model's input buffer."""
        self._stopped_unix_us = self._clock.received_at(buffer_ms)

    @property
    def unanswered(self) -> bool:
        """Whether the caller has said something and heard nothing since."""
        return self._stopped_unix_us is not None

    def answered(self, now_unix_us: int) -> float | None:
        """Audio went to the caller: how many seconds after its last word.

        None: nobody can tell, or it had said nothing since the last answer.
        """
        stopped_us, self._stopped_unix_us = self._stopped_unix_us, None
        if stopped_us is None:
            return None
        waited_us = passed_us(stopped_us, now_unix_us, MAX_WAITED_US)
        return None if waited_us is None else waited_us / 1_000_000
