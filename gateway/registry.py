"""The calls of this gateway: those that run, and how the latest ones ended.

How a stream ended is asked for right after it did: Twilio then requests the ``<Connect>`` verb's
action, and the answer depends on why the socket closed. Another replica may get that request; it
knows nothing, and answers with a new stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from asheard.v1 import fact_pb2
from gateway.barrier import guarded
from runtime.log import get_log

log = get_log(__name__)

REMEMBERED_ENDINGS = 1_000
"""Of a minute and a half at ten calls a second. Twilio asks within about a second."""


class RunningCall(Protocol):
    """What the registry wants of a call."""

    def supersede(self) -> None:
        """End: the same call has a newer stream."""

    def abort(self) -> None:
        """End: the process does."""

    def fail(self) -> None:
        """End: a fault of our own met this call."""


class Registry:
    """Running calls by socket and by CallSid, and the endings of those that are over."""

    def __init__(self) -> None:
        self._sockets: set[RunningCall] = set()
        self._by_call_sid: dict[str, RunningCall] = {}
        self._endings: dict[str, fact_pb2.CallOutcome.ValueType] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[RunningCall]:
        return iter(list(self._sockets))

    def opened(self, call: RunningCall) -> None:
        """A socket was opened."""
        self._sockets.add(call)
        self._empty.clear()

    def started(self, call: RunningCall, call_sid: str) -> None:
        """A socket turned out to be of this call; an older socket of the same call is ended."""
        older = self._by_call_sid.get(call_sid)
        self._by_call_sid[call_sid] = call
        self._endings.pop(call_sid, None)
        # Whatever is wrong with the older one, the newer stream begins.
        if older is not None and not guarded(log, older.supersede):
            guarded(log, older.fail)

    def ended(
        self, call: RunningCall, call_sid: str, outcome: fact_pb2.CallOutcome.ValueType
    ) -> None:
        """A call that had started is over."""
        if self._by_call_sid.get(call_sid) is not call:
            return  # superseded: the newer stream's ending is the one that counts
        del self._by_call_sid[call_sid]
        self._endings[call_sid] = outcome
        if len(self._endings) > REMEMBERED_ENDINGS:
            del self._endings[next(iter(self._endings))]

    def closed(self, call: RunningCall) -> None:
        """A socket is closed."""
        self._sockets.discard(call)
        if not self._sockets:
            self._empty.set()

    def ending(self, call_sid: str) -> fact_pb2.CallOutcome.ValueType | None:
        """How the newest stream of a call ended; None when this process does not know."""
        return self._endings.get(call_sid)

    async def wait_empty(self) -> None:
        """Wait until no socket is open."""
        await self._empty.wait()
