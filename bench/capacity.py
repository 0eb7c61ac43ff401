"""How many calls one core carries before frames come late.

On the core is what carries audio: of asheard the gateway and a session worker, of the yardstick all
there is. The load runs on the other cores, and so do asheard's aligners and its transcript service,
which give way to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from bench.results import CallsResult
from bench.run import Load, Setup, run_calls

LATE_P99_MS = 50.0
"""The 99 % of frame-forward latency that a core may not pass."""

TRIES = 3
"""One late run may be the fault of what else the machine did just then."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one core carries."""

    bench: str = "capacity"
    system: str
    date: str
    calls: int
    """The largest number that was carried in time. 0: not even the first number."""
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


class Search:
    """Looks for the largest number of calls that a system carries. Pure.

    Args:
        counts: Numbers of calls to try, rising.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._left = list(counts)
        self._tries = 0
        self.carried = 0
        self.gave_way_at: int | None = None

    @property
    def calls(self) -> int | None:
        """What to try next. None: it is found, or all were carried."""
        return self._left[0] if self._left and self.gave_way_at is None else None

    def take(self, *, in_time: bool) -> None:
        """Take note of how the try went."""
        calls = self._left[0]
        self._tries += 1
        if in_time:
            self.carried = calls
            self._left.pop(0)
            self._tries = 0
        elif self._tries == TRIES:
            self.gave_way_at = calls


async def capacities(
    systems: Sequence[str],
    counts: Sequence[int],
    seconds: float,
    *,
    core: int = 0,
    barge_in_share: float = 0.6,
    report: Callable[[CallsResult], Awaitable[None]],
) -> dict[str, Capacity]:
    """Raise the number of calls of each system until its frames come late.

    The systems take turns, since machines change their pace within minutes.

    Args:
        systems: Some of :data:`bench.systems.NAMES`.
        counts: Numbers of calls, rising.
        seconds: The window of each run.
        core: Where audio is carried.
        barge_in_share: Which part of the agent's items the caller speaks into.
        report: Given each result as it comes.
    """
    searches = {system: Search(counts) for system in systems}
    newest: dict[str, CallsResult] = {}
    p99: dict[str, dict[int, float | None]] = {system: {} for system in systems}
    while any(search.calls for search in searches.values()):
        for system, search in searches.items():
            if search.calls is None:
                continue
            load = Load(search.calls, seconds, barge_in_share)
            newest[system] = result = await run_calls(Setup(system, core=core), load)
            await report(result)
            found = result.forward_ms.p99
            p99[system][load.calls] = found
            search.take(
                in_time=found is not None and found <= LATE_P99_MS and not result.calls_lost
            )
    return {
        system: Capacity(
            system=system,
            date=newest[system].date,
            calls=search.carried,
            gave_way_at=search.gave_way_at,
            forward_p99_ms=p99[system],
            generator_bottleneck=newest[system].generator.bottleneck,
        )
        for system, search in searches.items()
    }
