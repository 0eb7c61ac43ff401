"""Statistics that are too simple to be wrong, and are read by everybody."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from bench.soak import growth
from bench.spread import Spread, mean, microseconds, share, spread


def test_of_a_hundred_readings() -> None:
    assert spread(range(1, 101)) == Spread(100, 50, 99, 100)
    assert spread(range(1, 1001), scale=0.001) == Spread(1000, 0.5, 0.99, 1.0)


def test_of_nothing() -> None:
    assert spread([]) == Spread(0, None, None, None)
    assert share(0, 0) is None
    assert mean([]) is None


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_they_are_readings_and_in_order(readings: list[int]) -> None:
    found = spread(readings)
    assert found.median is not None and found.p99 is not None and found.most is not None
    assert found.median <= found.p99 <= found.most == max(readings)
    assert {found.median, found.p99} <= set(readings)
    assert sum(reading <= found.p99 for reading in readings) >= 0.99 * len(readings)


def test_packed_readings_come_back() -> None:
    assert list(microseconds(array("I", [1, 70_000]).tobytes())) == [1, 70_000]


def test_growth_is_that_of_the_second_half() -> None:
    assert growth([float(i) for i in range(40)]) == 20
    assert growth([50.0, 80.0, *([90.0] * 38)]) == 0
