"""Metrics in base units, with registries handed in, and the buckets that all services share.

Labels are bounded sets, never ids. Names begin with ``asheard_``; CONTRACT of the names is in
``docs/metrics.md``.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from prometheus_client import CollectorRegistry, Gauge, Histogram

LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0,
)  # fmt: skip
"""Seconds; for what takes from half a millisecond (a frame) to seconds (a slow model)."""

CALL_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds; for what lasts as long as a call."""

LAG_PERIOD_S = 0.1
"""How often the loop is asked how late it is: ten times a second costs nothing and sees a stall
of one frame (20 ms) often enough."""


class LoopLag:
    """How late the event loop runs what is due: the first sign of a process with too many calls.

    ``asheard_event_loop_lag_seconds`` is a histogram of all readings; :attr:`recent_s` is the
    worst of the last second, for placement, and :attr:`usual_s` what admission asks.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            "asheard_event_loop_lag_seconds",
            "How late the event loop ran a timer that was due.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._worst = Gauge(
            "asheard_event_loop_lag_recent_seconds",
            "The worst lag of the event loop within the last second.",
            registry=registry,
        )
        self._worst.set_function(lambda: self.recent_s)
        self._readings: list[float] = [0.0] * round(1 / LAG_PERIOD_S)

    @property
    def recent_s(self) -> float:
        """The worst reading of the last second, in seconds."""
        return max(self._readings)

    @property
    def usual_s(self) -> float:
        """The median of the last ten readings, in seconds: a hiccup leaves it as it is."""
        return median(self._readings)

    async def run(self) -> None:
        """Take readings until cancelled."""
        place = 0
        while True:
            due = time.monotonic() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            lag = max(0.0, time.monotonic() - due)
            self._readings[place] = lag
            place = (place + 1) % len(self._readings)
            self._histogram.observe(lag)
