"""How many calls one core carries before frames come late.

On the core is what carries audio: of asheard the gateway and a session worker, of the yardstick all
there is. The load runs on the other cores, and so do asheard's aligners and its transcript service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

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


class CapacityRatio(msgspec.Struct, frozen=True, kw_only=True):
    """asheard's calls on one core against the yardstick's, measured in one sitting."""

    bench: str = "capacity_ratio"
    asheard: int
    yardstick: int
    ratio: float | None
    """None: the yardstick did not carry the first number."""


def ratio(asheard: Capacity, yardstick: Capacity) -> CapacityRatio:
    """Compare two. Pure."""
    return CapacityRatio(
        asheard=asheard.calls,
        yardstick=yardstick.calls,
        ratio=round(asheard.calls / yardstick.calls, 2) if yardstick.calls else None,
    )


async def capacity(
    system: str,
    counts: Sequence[int],
    seconds: float,
    *,
    core: int = 0,
    barge_in_share: float = 0.6,
    report: Callable[[CallsResult], Awaitable[None]],
) -> Capacity:
    """Raise the number of calls until frames come late.

    Args:
        system: One of :data:`bench.systems.NAMES`.
        counts: Numbers of calls, rising.
        seconds: The window of each run.
        core: Where audio is carried.
        barge_in_share: Which part of the agent's items the caller speaks into.
        report: Given each result as it comes.
    """
    carried = 0
    gave_way_at = None
    p99: dict[int, float | None] = {}
    newest: CallsResult | None = None
    for calls in counts:
        for _ in range(TRIES):
            newest = await run_calls(Setup(system, core=core), Load(calls, seconds, barge_in_share))
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
