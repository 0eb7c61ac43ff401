"""Calls as readers see them: got, followed, listed, deleted.

Reading writes nothing. A call that has just ended is final only once it is sealed, which
:mod:`transcript.index` does as soon as its last fact is stored; readers who come in between wait
for that, so that they find final what was final when they asked. Should it not be sealed in time,
since the store takes no writes, they are told what stood before the last fact.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound, Unavailable
from transcript.joined import JoinedCall, JoinedCalls, JoinFailed
from transcript.listing import page, summary_of
from transcript.metrics import TranscriptMetrics
from transcript.store import CallQuery, Store
from transcript.watches import POLL_S, Watches

SEAL_WAIT_S = 1.0
"""How long a reader waits for a call to be sealed. Milliseconds as a rule: two threads' turns and
one commit."""

SEAL_POLL_S = 0.05
"""How often it looks whether another service has done it, on a shared store."""


class Calls:
    """What readers may ask.

    Args:
        store: Where the calls are.
        joined: The same, joined.
        watches: Who tells when something has changed.
        metrics: What is counted.
    """

    def __init__(
        self, store: Store, joined: JoinedCalls, watches: Watches, metrics: TranscriptMetrics
    ) -> None:
        self._store = store
        self._joined = joined
        self._watches = watches
        self._metrics = metrics

    async def get(self, call_sid: str) -> Transcript:
        """The transcript as it stands. Treat it as read only: others hold it too.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        transcript, _ = await self._told(call_sid, SEAL_WAIT_S)
        return transcript

    async def get_with_facts(self, call_sid: str) -> tuple[Transcript, Sequence[Fact]]:
        """The transcript as it stands, and the facts it was joined from; both read only.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        transcript, call = await self._told(call_sid, SEAL_WAIT_S)
        return transcript, call.facts[: transcript.revision]

    async def watch(self, call_sid: str) -> AsyncIterator[Transcript]:
        """The present state, then the newest after each change, until it is final.

        Raises:
            NotFound: There is no such call, or it was deleted meanwhile.
            Unavailable: The store cannot be reached, or the service drains.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        seen = 0
        with (
            self._watches.following(call_sid) as changed,
            self._metrics.watchers.track_inprogress(),
        ):
            while True:
                changed.clear()
                transcript, call = await self._told(call_sid, SEAL_WAIT_S)
                if transcript.revision > seen:
                    seen = transcript.revision
                    yield transcript
                if transcript.final:
                    return
                await self._watches.pause(call.join_s)
                await self._wait(changed, POLL_S)
                if self._watches.is_closing:
                    raise Unavailable("the service is draining; watch again")

    async def list(self, query: CallQuery) -> list[CallSummary]:
        """List calls, newest first, as of now.

        Raises:
            Unavailable: The store cannot be reached.
        """
        newer: list[CallSummary] = []
        old = await self._store.unindexed()
        loop = asyncio.get_running_loop()
        wait_until = loop.time() + SEAL_WAIT_S  # for all of them together
        for call_sid in old:
            # Gone meanwhile; or a fault in one call, whose entry stays as it is.
            with suppress(NotFound, JoinFailed):
                transcript, _ = await self._told(call_sid, wait_until - loop.time())
                newer.append(summary_of(transcript))
        stored = await self._store.calls(replace(query, limit=query.limit + len(newer)))
        return page(stored, newer, query)

    async def delete(self, call_sid: str) -> None:
        """Forget everything about a call; its watchers get NotFound.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
        """
        await self._store.delete(call_sid)
        self._joined.drop(call_sid)
        self._watches.tell([call_sid])

    async def _told(self, call_sid: str, wait_s: float) -> tuple[Transcript, JoinedCall]:
        """What a reader is told of a call, and the call as it is.

        A call that has ended is waited for, until it is sealed or goes on, but not for ever.
        """
        with self._watches.following(call_sid) as changed:
            call = await self._joined.get(call_sid)
            if call.is_ended and wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        while call.is_ended:
                            await self._wait(changed, SEAL_POLL_S)
                            changed.clear()
                            call = await self._joined.get(call_sid)
        if call.is_ended:
            return await self._joined.get_last_open(call), call
        return call.transcript, call

    async def _wait(self, changed: asyncio.Event, poll_s: float) -> None:
        """Wait for a change; on a shared store, in which other services write, not for longer than
        this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_s if self._store.shared else None):
                await changed.wait()
