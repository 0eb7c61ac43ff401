"""Many short calls for a long time: does anything grow, does anything get lost?"""

from __future__ import annotations

import msgspec

from bench.processes import Usage
from bench.results import CallsResult
from bench.run import Load, Measured, Setup, judge, measure

SAMPLES = 40
"""Readings of memory over the run."""


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """A long run of short calls."""

    bench: str = "soak"
    result: CallsResult
    finished_calls: int
    memory_mb: dict[str, list[float]]
    """Own memory of each process of the system, evenly over the run."""
    growth_kb_per_call: dict[str, float]
    """Over the second half of the run, per call that was finished in it: what never comes back."""


async def soak(setup: Setup, *, minutes: float, total: int, at_once: int) -> Soak:
    """Place ``total`` calls within ``minutes``, so many at once.

    Args:
        setup: The system.
        minutes: Length of the run.
        total: About how many calls; each is as long as that makes it.
        at_once: How many run at any time.
    """
    seconds = 60 * minutes
    load = Load(
        at_once,
        seconds,
        call_seconds=seconds * at_once / total,
        sample_s=seconds / SAMPLES,
    )
    run = await measure(setup, load)
    return summed_up(setup, load, run)


def summed_up(setup: Setup, load: Load, run: Measured) -> Soak:
    """Judge a run. Pure."""
    finished = len(run.caller.calls)
    memory = {
        name: [
            round(sample.get(name, Usage()).anonymous_bytes / 2**20, 2) for sample in run.samples
        ]
        for name in sorted({name for sample in run.samples for name in sample})
    }
    return Soak(
        result=judge(setup, load, run),
        finished_calls=finished,
        memory_mb=memory,
        growth_kb_per_call={
            name: round(growth(series) * 1024 / max(1, finished / 2), 2)
            for name, series in memory.items()
        },
    )


def growth(series: list[float]) -> float:
    """How much higher a series ends than its middle, by its last two quarters' means. Pure."""
    quarter = len(series) // 4
    if not quarter:
        return 0.0
    third, last = series[-2 * quarter : -quarter], series[-quarter:]
    # From the middle of one quarter to that of the next is half of the half.
    return 2 * (sum(last) - sum(third)) / quarter
