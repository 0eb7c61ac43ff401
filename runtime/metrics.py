"""Metrics in base units, with registries handed in, and the buckets that all services share.

Labels are bounded sets, never ids. Names begin with ``asheard_``; CONTRACT of the names is in
``docs/metrics.md``.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from statistics import median

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0,
)  # fmt: skip
"""Seconds; for what takes from half a millisecond (a frame) to seconds (a slow model)."""

CALL_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds; for what lasts as long as a call."""

LAG_PERIOD_S = 0.1
"""How often the loop is asked how late it is: ten times a second costs nothing and sees a stall
of one frame (20 ms) often enough."""


MAX_APART_US = 10_000_000
"""Between readings of two machines' wall clocks, microseconds. What is measured by them takes
milliseconds, and seconds after a halt; more is a clock that was set, or is wrong."""


def passed_us(earlier_unix_us: int, later_unix_us: int, max_us: int = MAX_APART_US) -> int | None:
    """What passed between readings of two machines' wall clocks, in microseconds.

    None: it cannot be told. It would be negative or more than ``max_us``, so that the clocks
    differ, or one of them was set.
    """
    passed = later_unix_us - earlier_unix_us
    return passed if 0 <= passed <= max_us else None


class FrameHistogram(Collector):
    """A histogram for what happens with every frame: :meth:`observe` takes no locks.

    prometheus_client's own takes two, for threads that are not here: it is observed and collected
    in the event loop alone.

    Args:
        name: With its unit.
        documentation: For the scrape.
        buckets: Upper bounds in ascending order, without infinity.
        registry: Where it is collected.
        left_out: Name, without ``_total``, and documentation of a counter of what was not observed.
            None: there is no such counter.
    """

    # session/kernel.c does what `observe` and `leave_out` do, in these slots.
    __slots__ = (
        "_buckets", "_counts", "_documentation", "_left_out", "_left_out_as", "_name", "_sum",
    )  # fmt: skip

    def __init__(
        self, name: str, documentation: str, *, buckets: Sequence[float],
        registry: CollectorRegistry, left_out: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._name = name
        self._documentation = documentation
        self._buckets = tuple(buckets)
        self._counts = [0] * (len(self._buckets) + 1)
        self._sum = 0.0
        self._left_out = 0
        self._left_out_as = left_out
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._buckets, value)] += 1
        self._sum += value

    def leave_out(self) -> None:
        """Count a value that is not known."""
        self._left_out += 1

    def collect(self) -> Iterator[Metric]:
        """What the scrape shows; for the registry."""
        below = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self._buckets, float("inf")), self._counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=buckets, sum_value=self._sum
        )
        if self._left_out_as is not None:
            yield CounterMetricFamily(*self._left_out_as, value=self._left_out)

    def describe(self) -> Iterator[Metric]:
        """Its names, so that no other metric takes them; for the registry."""
        yield HistogramMetricFamily(self._name, self._documentation)
        if self._left_out_as is not None:
            yield CounterMetricFamily(*self._left_out_as)


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
