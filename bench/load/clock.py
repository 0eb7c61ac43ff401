"""The 20 ms beat of many calls, spread over the beat, and how late it is kept.

Each call has one of twenty places, a ms apart. All calls of a place are served in one turn. A late
turn is made up at once, so that counts stay exact, and its lateness is written down: a load
generator that cannot keep time says so.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

BEAT_NS = 20_000_000
_PLACES = 20
_STEP_NS = BEAT_NS // _PLACES
_EARLY_NS = 500_000
"""Timers of the loop have whole ms: half of one is near enough to be served."""


class Beat:
    """Calls back every 20 ms, each listener at its own place in the beat.

    Without listeners it is a watch of the event loop: one turn a beat, and how late it came.
    """

    def __init__(self) -> None:
        self.late_us = array("I")
        """Lateness of each turn in the window, microseconds."""
        self._measuring = False
        self._listeners: list[list[Callable[[int], None]]] = [[] for _ in range(_PLACES)]
        self._turns = 0
        self._start_ns = 0

    def join(self, listener: Callable[[int], None]) -> None:
        """Call ``listener(now_ns)`` on every beat, at the emptiest place."""
        min(self._listeners, key=len).append(listener)

    def leave(self, listener: Callable[[int], None]) -> None:
        """No more calls."""
        for place in self._listeners:
            if listener in place:
                place.remove(listener)

    def measure(self, measuring: bool) -> None:
        """Write lateness down from now on, or no more."""
        self._measuring = measuring

    def start(self) -> None:
        """Begin, on the running loop, for as long as it runs."""
        self._start_ns = time.monotonic_ns()
        self._turn(asyncio.get_running_loop())

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        due_ns = self._start_ns + self._turns * _STEP_NS
        now_ns = time.monotonic_ns()
        while due_ns <= now_ns + _EARLY_NS:
            place = self._turns % _PLACES
            listeners = self._listeners[place]
            if listeners or place == 0:
                now_ns = time.monotonic_ns()
                if self._measuring:
                    self.late_us.append(max(0, now_ns - due_ns) // 1000)
                for listener in tuple(listeners):
                    listener(now_ns)
            self._turns += 1
            due_ns += _STEP_NS
        # Sleep to the next place that somebody has.
        while self._turns % _PLACES and not self._listeners[self._turns % _PLACES]:
            self._turns += 1
            due_ns += _STEP_NS
        loop.call_later(max(0, due_ns - time.monotonic_ns()) / 1e9, self._turn, loop)
