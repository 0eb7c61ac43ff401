"""What a scenario measures, and the list of all scenarios."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one scenario."""

    bench: str = "faults"
    fault: str
    """Name of the scenario."""
    done: str
    """What was done."""
    measured: str
    """What ``value`` is."""
    value: float | None
    """None: it could not be had in time, which is as bad as can be."""
    unit: str
    bound: float | None
    """None: nothing is promised about it."""
    at_most: bool
    """Whether ``value`` may be at most ``bound``; else it must be at least that."""
    ok: bool
    note: str
    seconds: float
    """How long the scenario took."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that a scenario gives."""

    what: str
    unit: str = ""
    bound: float | None = None
    at_most: bool = True

    def fulfilled(self, value: float | None) -> bool:
        """Whether a value is within the bound."""
        if self.bound is None:
            return True
        if value is None:
            return False
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    calls: int = 100
    """Over which the words of killed processes are counted."""


Values = tuple[float | None, ...]
Play = Callable[[Options], Awaitable[Values]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is done, and what is measured of it."""

    name: str
    done: str
    measures: tuple[Measure, ...]
    within_s: float
    alone: bool
    """It measures delays: nothing else may run beside it."""
    play: Play


SCENARIOS: list[Scenario] = []
"""All, in the order of the table."""


def scenario(
    name: str, done: str, *measures: Measure, within_s: float = 90.0, alone: bool = False
) -> Callable[[Play], Play]:
    """Register what is decorated."""

    def register(play: Play) -> Play:
        SCENARIOS.append(Scenario(name, done, measures, within_s, alone, play))
        return play

    return register
