"""The index of calls, which is what the list shows, and the one place where a call is made final.

A call's entry holds up to a revision. Facts that change what the list shows leave it old; a task
writes such entries soon after, one call at a time. It looks in the store, too, for entries that are
old although nobody said so: after a crash, or of another service that has died. Readers never wait
for entries: where one is old, they join the call themselves.

A call that is final by its facts is sealed with its entry: from then on its row takes no fact (ADR
9), and only then is anybody told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from runtime.errors import ConfigurationError, NotFound, Unavailable
from runtime.log import get_log
from transcript.joined import JoinedCall, JoinedCalls, JoinFailed
from transcript.listing import summary_of
from transcript.metrics import TranscriptMetrics
from transcript.once import Once
from transcript.store import Store
from transcript.watches import Watches

log = get_log(__name__)

LOOK_EVERY_S = 5.0
"""How often the store is asked for old entries: a call whose service died after its last fact is
sealed by another that much later."""


class Index:
    """Writes entries, and seals calls.

    Args:
        store: Where they are written.
        joined: What is written.
        watches: Those who are told that a call is final.
        metrics: What is counted.
    """

    def __init__(
        self, store: Store, joined: JoinedCalls, watches: Watches, metrics: TranscriptMetrics
    ) -> None:
        self._store = store
        self._joined = joined
        self._watches = watches
        self._metrics = metrics
        self._old: dict[str, None] = {}
        """Calls with an old entry, those that waited longest first."""
        self._wanted = asyncio.Event()
        self._said = Once()

    def note(self, call_sids: Iterable[str]) -> None:
        """The entries of these calls are old: the task writes them."""
        self._old.update(dict.fromkeys(call_sids))
        if self._old:
            self._wanted.set()

    async def run(self) -> None:
        """Keep entries up to date until cancelled.

        Raises:
            Unavailable: The store cannot be reached. It knows which entries are old.
        """
        loop = asyncio.get_running_loop()
        while True:
            self.note(await self._store.unindexed())
            look_at = loop.time() + LOOK_EVERY_S
            while (left_s := look_at - loop.time()) > 0:
                while self._old:
                    call_sid = next(iter(self._old))
                    del self._old[call_sid]
                    await self.write(call_sid)
                self._wanted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._wanted.wait()

    async def write(self, call_sid: str) -> None:
        """Write a call's entry where it is old, and seal the call where nothing is missing.

        What goes wrong in one call is logged, and concerns no other.

        Raises:
            Unavailable: The store cannot be reached.
        """
        try:
            call = await self._joined.get(call_sid)
            if call.is_ended:
                await self._seal(call)
            elif call.indexed < call.revision:
                await self._write_entry(call)
            if call.transcript.final and not self._watches.is_followed(call_sid):
                # Read for the index alone. Who reads a finished call does it seldom, and a service
                # that keeps each of them grows with every call.
                self._joined.drop(call_sid)
        except (NotFound, JoinFailed):
            pass  # Deleted meanwhile; or a fault in one call, of which the log knows.
        except (Unavailable, ConfigurationError):
            raise
        except Exception as error:
            # A bug, in one call; the list of all others must not suffer from it.
            if self._said.first("cannot be indexed", call_sid):
                log.error("call cannot be indexed", call=call_sid, exc_info=error)

    async def _seal(self, call: JoinedCall) -> None:
        """Make a call final in the store, at the revision that was joined, and tell readers."""
        if await self._write_entry(call):
            self._metrics.calls_finished.inc()
        # Else it goes on: those who waited for the seal look again in either case.
        self._watches.tell([call.transcript.call_sid])

    async def _write_entry(self, call: JoinedCall) -> bool:
        """Whether it still held. If not, more facts came meanwhile, and the task judges anew."""
        holds = await self._store.index(summary_of(call.transcript), call.revision)
        if not holds:
            self.note([call.transcript.call_sid])
        return holds
