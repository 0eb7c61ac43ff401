"""Who follows which call, when they are told, and at what pace.

Nobody gets more than ten states a second, and of long calls fewer: joins of one watched call may
take half a core, those of many a tenth each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

STATES_PER_S = 10
"""What a watcher gets at most: as many as a person can see."""

JOIN_SHARE = 0.5
"""Of one core, what joins of watched calls may take between them: longer joins come less often."""

MIN_JOIN_SHARE = 0.1
"""What joins of one watched call may take, however many are watched."""

POLL_S = 1.0
"""How often a watcher looks for facts that came through another service to a shared store."""


class Watches:
    """Wakes those who follow a call when something was stored for it."""

    def __init__(self) -> None:
        self._changes: dict[str, set[asyncio.Event]] = {}
        self._closing = asyncio.Event()

    @contextmanager
    def following(self, call_sid: str) -> Iterator[asyncio.Event]:
        """Follow a call; the event is set when it has changed. Clear it before looking."""
        changed = asyncio.Event()
        followers = self._changes.setdefault(call_sid, set())
        followers.add(changed)
        try:
            yield changed
        finally:
            followers.discard(changed)
            if not followers and self._changes.get(call_sid) is followers:
                del self._changes[call_sid]

    def is_followed(self, call_sid: str) -> bool:
        """Whether anybody follows this call."""
        return call_sid in self._changes

    def tell(self, call_sids: Iterable[str]) -> None:
        """Something was stored for these calls, or they are sealed, or deleted."""
        for call_sid in call_sids:
            for changed in self._changes.get(call_sid, ()):
                changed.set()

    @property
    def is_closing(self) -> bool:
        """Whether readers are to turn to another service."""
        return self._closing.is_set()

    async def pause(self, join_s: float) -> None:
        """Wait until a watcher may have its next state.

        Args:
            join_s: CPU that the last join of its call took, in seconds.
        """
        share = max(JOIN_SHARE / max(1, len(self._changes)), MIN_JOIN_SHARE)
        try:
            async with asyncio.timeout(max(1 / STATES_PER_S, join_s / share)):
                await self._closing.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Wake everybody, so that they turn to another service."""
        self._closing.set()
        self.tell(list(self._changes))
