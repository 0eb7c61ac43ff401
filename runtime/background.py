"""What a service runs beside its work, from its start to its end.

There are two kinds of such tasks. One that should never end: what it raises is a bug, and ends the
process, which is started anew. And one that goes on after a fault (:func:`restarted`), since what
the service does for everybody matters more than what this task adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from runtime.log import get_log
from runtime.process import Stop

log = get_log(__name__)

RESTARTED_AFTER_S = 1.0
"""A task that failed is started again after this."""


class Background:
    """The background tasks of one service."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, run: Coroutine[Any, Any, None]) -> None:
        """Start a task; ``name`` is for people."""
        self._tasks.append(asyncio.create_task(run, name=name))

    async def until_stopped(self, stop: Stop, *ends: asyncio.Event) -> None:
        """Wait for the first signal, for one of ``ends``, or for a background task to end.

        Raises:
            Exception: What a background task raised.
        """
        waits = [
            asyncio.create_task(event.wait(), name="until stopped")
            for event in (stop.draining, *ends)
        ]
        try:
            await asyncio.wait([*waits, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for task in self._tasks:
            if task.done():
                task.result()

    async def close(self) -> None:
        """End all tasks. Raises nothing of theirs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def restarted(
    name: str,
    run: Callable[[], Awaitable[None]],
    *,
    on_failure: Callable[[str], None] = lambda name: None,
    expected: tuple[type[Exception], ...] = (),
) -> None:
    """Run a task until it returns; after whatever it raises it is started again.

    Args:
        name: For the log and ``on_failure``.
        run: The task.
        on_failure: Counts a failure.
        expected: What it raises when something else is at fault, which is neither logged nor
            counted.
    """
    while True:
        try:
            await run()
            return
        except expected:
            pass
        except Exception as error:
            log.error("task failed", task=name, exc_info=error)
            on_failure(name)
        await asyncio.sleep(RESTARTED_AFTER_S)
