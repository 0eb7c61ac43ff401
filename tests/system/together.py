"""Tests that mostly wait, run beside each other: calls take as long as people speak.

``@together`` on a coroutine makes a test of it. The first one that pytest comes to starts all that
were selected, a few at a time, on a loop in a thread of its own; each test then waits for its own
outcome, and fails with its own error. They may have parameters, and no fixtures.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

AT_ONCE = 4
"""Systems at a time: each has four processes, of which most sleep while somebody speaks."""

Test = Callable[..., Awaitable[None]]
Run = tuple[Test, tuple[tuple[str, Any], ...]]
"""A test with one set of parameters."""


class _Together:
    """Runs what was selected."""

    def __init__(self) -> None:
        self.selected: list[Run] = []
        """Set when pytest knows which tests it will run."""
        self._outcomes: dict[int, concurrent.futures.Future[None]] = {}

    def __call__(self, test: Test) -> Callable[..., None]:
        """Make a plain test of a coroutine."""

        @functools.wraps(test)
        def waits(**parameters: Any) -> None:
            if not self._outcomes:
                self._start()
            self._outcomes[self.selected.index((test, tuple(parameters.items())))].result()

        waits.together = test  # type: ignore[attr-defined]
        return waits

    def _start(self) -> None:
        self._outcomes = {index: concurrent.futures.Future() for index in range(len(self.selected))}
        thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="together")
        thread.daemon = True  # what hangs fails by its time-out, and keeps nobody from ending
        thread.start()

    async def _run(self) -> None:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(index: int) -> None:
            test, parameters = self.selected[index]
            async with places:
                try:
                    await test(**dict(parameters))
                except BaseException as error:
                    self._outcomes[index].set_exception(error)
                else:
                    self._outcomes[index].set_result(None)

        await asyncio.gather(*(one(index) for index in self._outcomes))


together = _Together()
