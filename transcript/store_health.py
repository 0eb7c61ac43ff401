"""Whether the store works, and which processes live.

At its own pace something small is written to the store and read from it: the signs of life of the
processes that write facts, in one commit. So a full disk, or a database that has become a replica,
is found out before anybody's facts are refused; an append that fails has the store checked at once.

| append      | check   | the store counts as                                  |
|-------------|---------|------------------------------------------------------|
| –           | fails   | lost, until a check passes                           |
| failed      | passes  | lost, for APPEND_FAULT_S from then, or one that works |
| works       | passes  | working                                              |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runtime.errors import ConfigurationError, Unavailable
from runtime.log import get_log
from transcript.store import Store

log = get_log(__name__)

CHECK_EVERY_S = 5.0
"""How often the store is checked while it works. A request that cannot be stored asks at once."""

CHECK_LOST_EVERY_S = 1.0
"""The same while it does not work, so that everybody goes on soon."""

APPEND_FAULT_S = 10.0
"""How long the store counts as lost after an append that failed while checks pass: a damaged file
may take some writes and not others. Writers try again every five seconds at least."""

MAX_PROCESSES = 10_000
"""Processes whose signs of life wait to be stored. There are some dozens."""


class StoreHealth:
    """Checks the store.

    Args:
        store: The store.
        lost_s: ``ASHEARD_WRITER_LOST_SECONDS``.
    """

    def __init__(self, store: Store, *, lost_s: float) -> None:
        self._store = store
        # Four signs of life at least until a process counts as lost.
        self._check_every_s = min(CHECK_EVERY_S, lost_s / 4)
        self._alive: set[str] = set()
        self._append_failed = asyncio.Event()
        self._append_fault: str | None = None
        self._append_failed_at = float("-inf")
        self._checked = False
        self.trouble: str | None = None
        """Why the store does not work; None while it does, or was not asked yet."""
        self.unusable = asyncio.Event()
        """This version cannot use the store."""
        self.fault: ConfigurationError | None = None
        """Why."""

    def note_alive(self, process: str) -> None:
        """A process gave a sign of life. "" is none."""
        if process and len(self._alive) < MAX_PROCESSES:
            self._alive.add(process)

    def note_append_failed(self, reason: str) -> None:
        """Facts could not be stored: the store is checked at once."""
        self._append_fault = reason
        self._append_failed.set()

    def note_appended(self) -> None:
        """Facts were stored."""
        self._append_fault = None

    async def run(self, on_checked: Callable[[str | None], Awaitable[None]]) -> None:
        """Check the store until cancelled.

        Args:
            on_checked: Told after each check why the store does not work; None: it does.
        """
        while True:
            reason = await self.check()
            if reason is not None and reason != self.trouble:
                log.error("store lost", reason=reason)
            elif reason is None and (self.trouble is not None or not self._checked):
                log.info("store ready")
            self._checked = True
            self.trouble = reason
            await on_checked(reason)
            if reason is not None:
                await asyncio.sleep(CHECK_LOST_EVERY_S)
                continue
            try:
                async with asyncio.timeout(self._check_every_s):
                    await self._append_failed.wait()
            except TimeoutError:
                pass

    async def check(self) -> str | None:
        """Why the store does not work; None when it does."""
        alive, self._alive = self._alive, set()
        loop = asyncio.get_running_loop()
        if self._append_failed.is_set():
            self._append_failed.clear()
            self._append_failed_at = loop.time()
        try:
            await self._store.check(alive)
        except (Unavailable, ConfigurationError) as error:
            self._alive |= alive
            self._append_failed_at = float("-inf")  # the check knows: it will know the end, too
            if isinstance(error, ConfigurationError):
                self.fault = error
                self.unusable.set()
            return str(error)
        except Exception as error:
            self._alive |= alive
            log.error("store check failed", exc_info=error)
            return f"the store check failed, a fault of ours ({type(error).__name__})"
        if loop.time() < self._append_failed_at + APPEND_FAULT_S:
            return self._append_fault
        return None
