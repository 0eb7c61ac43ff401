"""How many calls one core carries before frames come late. The load runs on the other cores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from bench.results import CallsResult
from bench.run import Load, Setup, run_calls

LATE_P99_MS = 50.0
"""The 99 % of frame-forward latency that a core may not pass."""


TRIES = 2
"""One late run may be the fault of what else the machine did just then."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one core carries."""

    bench: str = "capacity"
    system: str
    date: str
    calls: int
    """The most that were carried in time. 0: not even the first number."""
    gave_way_at: int | None
    """The first number that was not. None: the last one tried was carried."""
    forward_p99_ms: dict[int, float | None]
    generator_bottleneck: bool
    """The last run's load processes were late themselves: the capacity may be higher."""


async def capacity(
    system: str,
    counts: Iterable[int],
    seconds: float,
    *,
    core: int = 0,
    report: Callable[[CallsResult], Awaitable[None]],
) -> Capacity:
    """Raise the number of calls until frames come late.

    Args:
        system: One of :data:`bench.systems.NAMES`.
        counts: Numbers of calls, rising.
        seconds: The window of each run.
        core: Where the system runs, all its processes together.
        report: Given each result as it comes.
    """
    carried = 0
    gave_way_at = None
    p99: dict[int, float | None] = {}
    newest: CallsResult | None = None
    for calls in counts:
        for _ in range(TRIES):
            newest = await run_calls(Setup(system, core=core), Load(calls, seconds))
            await report(newest)
            p99[calls] = newest.forward_ms.p99
            late = newest.forward_ms.p99 is None or newest.forward_ms.p99 > LATE_P99_MS
            if not late and not newest.calls_lost:
                carried = calls
                break
        if carried != calls:
            gave_way_at = calls
            break
    return Capacity(
        system=system,
        date=newest.date if newest else "",
        calls=carried,
        gave_way_at=gave_way_at,
        forward_p99_ms=p99,
        generator_bottleneck=newest is not None and newest.generator.bottleneck,
    )
