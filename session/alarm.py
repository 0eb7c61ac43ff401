"""Wakes one call at the earliest time that anything in it asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """One timer of the event loop, for the earliest wish. Who is woken early finds nothing due, and
    sets it anew."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        """When that timer is due; uvloop's own handle need not know."""

    def set(self, due: float, wake: Callable[[], None]) -> None:
        """Call ``wake`` at ``due``, in monotonic seconds, unless it is called earlier anyway."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, due - time.monotonic())
        if self._timer is not None:
            if self._rings_at <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._ring, wake)
        self._rings_at = when

    def cancel(self) -> None:
        """Wake nobody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, wake: Callable[[], None]) -> None:
        self._timer = None
        wake()
