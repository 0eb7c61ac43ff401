"""Which session worker gets the next call. Pure.

The least loaded one, as a share of what it takes at most, by its own newest report plus the calls
that it was given since. A worker whose event loop is late comes after all that keep time: another
call there would be heard by every caller that it has.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TypeVar

LATE_LOOP_US = 50_000
"""An event loop 50 ms late delays audio by more than two frames: that worker has too much to do."""


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What is known of one worker's load."""

    active_calls: int
    max_calls: int
    event_loop_lag_us: int = 0
    draining: bool = False
    given_since: int = 0
    """Calls given to it after it made this report."""

    @property
    def has_room(self) -> bool:
        """Whether it would take another call, as far as is known."""
        return not self.draining and self.active_calls + self.given_since < self.max_calls


Worker = TypeVar("Worker")


def by_preference(loads: Mapping[Worker, WorkerLoad], *, tried: Container[object]) -> list[Worker]:
    """The workers to ask, best first.

    Args:
        loads: The workers whose link is up, in an order that decides among equals.
        tried: Workers that refused this call already.
    """
    candidates = [worker for worker, load in loads.items() if load.has_room and worker not in tried]

    def cost(worker: Worker) -> tuple[bool, float]:
        load = loads[worker]
        return (
            load.event_loop_lag_us > LATE_LOOP_US,
            (load.active_calls + load.given_since) / load.max_calls,
        )

    return sorted(candidates, key=cost)
