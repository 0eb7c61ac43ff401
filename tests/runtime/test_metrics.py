"""The histogram of the frame path shows what prometheus_client's own would; the event loop's lag."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from runtime.metrics import LAG_PERIOD_S, MAX_APART_US, FrameHistogram, LoopLag, passed_us

BUCKETS = (0.001, 0.01, 5.0)


def scrape(values: list[float], *, own: bool) -> str:
    registry = CollectorRegistry()
    kind = FrameHistogram if own else Histogram
    histogram = kind("asheard_x_seconds", "What it is.", buckets=BUCKETS, registry=registry)
    for value in values:
        histogram.observe(value)
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if "_created" not in line)


@pytest.mark.parametrize("values", [[], [0.0005, 0.001, 0.0011, 4.0, 5.0, 5.1, 100.0]])
def test_it_is_scraped_like_any_other(values: list[float]) -> None:
    assert scrape(values, own=True) == scrape(values, own=False)


def test_what_is_not_known_is_counted_beside_it() -> None:
    registry = CollectorRegistry()
    histogram = FrameHistogram(
        "asheard_x_seconds", "What it is.", buckets=BUCKETS, registry=registry,
        left_out=("asheard_y", "What it was not."),
    )  # fmt: skip
    histogram.observe(0.005)
    histogram.leave_out()
    histogram.leave_out()
    assert registry.get_sample_value("asheard_y_total") == 2
    assert registry.get_sample_value("asheard_x_seconds_count") == 1
    with pytest.raises(ValueError, match="asheard_y"):
        Counter("asheard_y_total", "Another.", registry=registry)


@pytest.mark.parametrize("passed", [0, 1, MAX_APART_US])
def test_a_difference_of_clocks_is_time_that_passed(passed: int) -> None:
    assert passed_us(5, 5 + passed) == passed


@pytest.mark.parametrize("passed", [-3_600_000_000, -1, MAX_APART_US + 1, 3_600_000_000])
def test_or_it_is_not(passed: int) -> None:
    assert passed_us(5, 5 + passed) is None


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    FrameHistogram("asheard_x_seconds", "One.", buckets=BUCKETS, registry=registry)
    with pytest.raises(ValueError, match="asheard_x_seconds"):
        Histogram("asheard_x_seconds", "Two.", buckets=BUCKETS, registry=registry)


async def test_a_hiccup_is_seen_and_is_not_what_is_usual() -> None:
    lag = LoopLag(CollectorRegistry())
    reading = asyncio.create_task(lag.run())
    await asyncio.sleep(0)  # it waits for its first reading
    time.sleep(LAG_PERIOD_S + 0.3)
    await asyncio.sleep(2 * LAG_PERIOD_S)
    assert lag.recent_s >= 0.3
    assert lag.usual_s < 0.3
    reading.cancel()


async def test_a_loop_that_is_always_late_is_usually_late() -> None:
    lag = LoopLag(CollectorRegistry())
    reading = asyncio.create_task(lag.run())
    for _ in range(7):
        await asyncio.sleep(0)
        time.sleep(LAG_PERIOD_S + 0.05)
        await asyncio.sleep(0.001)
    assert lag.usual_s >= 0.05
    reading.cancel()
