"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry

from runtime.metrics import LAG_PERIOD_S, LoopLag


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
