"""Median, 99 % and maximum of readings: how a bench sums up what it measured. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """A sum of readings, in the readings' unit. All None when there were none."""

    count: int
    median: float | None
    p99: float | None
    most: float | None


def share(part: int, whole: int) -> float | None:
    """A share, to four places; None of nothing."""
    return round(part / whole, 4) if whole else None


def mean(readings: Sequence[float]) -> float | None:
    """The mean, to three places; None of nothing."""
    return round(sum(readings) / len(readings), 3) if readings else None


def spread(readings: Iterable[float], *, scale: float = 1.0) -> Spread:
    """Sum up readings; a percentile is the least reading that so many do not exceed.

    Args:
        readings: In any order.
        scale: What each is multiplied with first, as from microseconds to ms.
    """
    ordered = sorted(readings)
    if not ordered:
        return Spread(0, None, None, None)

    def at(percent: int) -> float:
        return round(ordered[math.ceil(len(ordered) * percent / 100) - 1] * scale, 3)

    return Spread(len(ordered), at(50), at(99), at(100))


def microseconds(packed: bytes) -> array[int]:
    """Readings as the load processes hand them over."""
    readings = array("I")
    readings.frombytes(packed)
    return readings
