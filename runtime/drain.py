"""Draining: what a service has begun is finished, within limits, before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runtime.log import get_log
from runtime.process import Stop

log = get_log(__name__)

STILL_DRAINING_EVERY_S = 30.0
"""How often a drain that lasts is logged."""


async def until_drained(
    stop: Stop,
    idle: Awaitable[object],
    *,
    drain_s: float | None = None,
    calls: Callable[[], int] | None = None,
) -> bool:
    """Wait until nothing is under way, the second signal, or the deadline.

    What ``idle`` raises is logged and no more: what follows a drain (the last facts, say) has to
    follow in any case.

    Args:
        stop: Knows of the second signal.
        idle: Returns once nothing is under way. It is cancelled when it is not waited for any
            longer.
        drain_s: The deadline, in seconds from now. None: as long as it takes.
        calls: How many calls are left, for the log. None: the service has none.

    Returns:
        Whether ``idle`` returned.
    """
    loop = asyncio.get_running_loop()
    deadline = float("inf") if drain_s is None else loop.time() + drain_s
    log.info("draining", deadline_s=drain_s, **_left(calls))
    finished = asyncio.ensure_future(idle)
    hurried = asyncio.create_task(stop.now.wait(), name="second signal")
    try:
        while True:
            wait_s = max(0.0, min(deadline - loop.time(), STILL_DRAINING_EVERY_S))
            done, _ = await asyncio.wait(
                [finished, hurried], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done or loop.time() >= deadline:
                break
            log.info("still draining", **_left(calls))
        if not finished.done():
            why = "second signal" if hurried.done() else "deadline"
            log.warning("not all was finished", why=why, **_left(calls))
            return False
        if finished.cancelled():
            return False
        if (error := finished.exception()) is not None:
            log.error("drain failed", exc_info=error)
            return False
        return True
    finally:
        finished.cancel()
        hurried.cancel()
        await asyncio.gather(finished, hurried, return_exceptions=True)


def _left(calls: Callable[[], int] | None) -> dict[str, int]:
    return {} if calls is None else {"calls": calls()}
