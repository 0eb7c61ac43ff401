"""The calls of this gateway: those that run, and how the latest ones ended.

Twilio also says by callbacks that a stream or a call is over. Then the socket was lost without our
noticing, or is held open by something in between; here is known whether it is one of ours.

How a stream ended is asked for right after it did: Twilio then requests the ``<Connect>`` verb's
action, and the answer depends on why the socket closed. Another replica may get that request; it
knows nothing, and answers with a new stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from asheard.v1 import fact_pb2
from gateway.barrier import surely
from runtime.log import get_log

log = get_log(__name__)

REMEMBERED_ENDINGS = 1_000
"""Of a minute and a half at ten calls a second. Twilio asks within about a second."""


class _Ending(NamedTuple):
    """How the newest stream of a call ended."""

    outcome: fact_pb2.CallOutcome.ValueType
    stream_sid: str
    stream_number: int
    told: bool


class RunningCall(Protocol):
    """What the registry wants of a call."""

    @property
    def stream_sid(self) -> str:
        """Of its media stream; empty before that has started."""

    @property
    def stream_number(self) -> int:
        """Which stream of its call it is, from 1; 0: not known."""

    @property
    def told(self) -> bool:
        """The caller heard in words that the call ends; known once it has."""

    def stream_stopped(self) -> None:
        """Twilio says that the stream is over."""

    def stream_failed(self) -> None:
        """Twilio says that the stream had an error; it may be over."""

    def call_over(self) -> None:
        """Twilio says that the call is over."""

    def supersede(self) -> None:
        """End: the same call has a newer stream."""

    def abort(self) -> None:
        """End: the process does."""

    def fail(self) -> None:
        """End: a fault of our own met this call."""

    def cut(self) -> None:
        """Lose the socket: whatever should have ended the call has raised."""


class Registry:
    """Running calls by socket and by CallSid, and the endings of those that are over."""

    def __init__(self) -> None:
        self._sockets: set[RunningCall] = set()
        self._by_call_sid: dict[str, RunningCall] = {}
        self._endings: dict[str, _Ending] = {}
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
        if older is not None:
            surely(log, older.supersede, older.fail, older.cut)

    def ended(
        self, call: RunningCall, call_sid: str, outcome: fact_pb2.CallOutcome.ValueType
    ) -> None:
        """A call that had started is over."""
        if self._by_call_sid.get(call_sid) is not call:
            return  # superseded: the newer stream's ending is the one that counts
        del self._by_call_sid[call_sid]
        self._endings[call_sid] = _Ending(outcome, call.stream_sid, call.stream_number, call.told)
        if len(self._endings) > REMEMBERED_ENDINGS:
            del self._endings[next(iter(self._endings))]

    def closed(self, call: RunningCall) -> None:
        """A socket is closed."""
        self._sockets.discard(call)
        if not self._sockets:
            self._empty.set()

    def ending(self, call_sid: str) -> fact_pb2.CallOutcome.ValueType | None:
        """How the newest stream of a call ended; None when this process does not know."""
        ending = self._endings.get(call_sid)
        return None if ending is None else ending.outcome

    def was_told(self, call_sid: str) -> bool:
        """Whether the caller heard in words that the call ends; False when this process does not
        know."""
        ending = self._endings.get(call_sid)
        return ending is not None and ending.told

    # -- what Twilio's callbacks say -----------------------------------------------------------

    def stream_stopped(self, call_sid: str, stream_sid: str, *, failed: bool = False) -> bool:
        """A media stream is over; whether it was one of ours, or is known to be over.

        One that is not the call's newest here is over already.

        Args:
            call_sid: The call.
            stream_sid: The media stream.
            failed: It had an error; it is over only if nothing more comes.
        """
        running = self._by_call_sid.get(call_sid)
        if running is None:
            ending = self._endings.get(call_sid)
            return ending is not None and ending.stream_sid == stream_sid
        if running.stream_sid != stream_sid:
            return False
        over = running.stream_failed if failed else running.stream_stopped
        surely(log, over, running.fail, running.cut)
        return True

    def call_over(self, call_sid: str, attempt: int) -> bool:
        """A call is over, and with it its newest stream; whether that was one of ours.

        Args:
            call_sid: The call.
            attempt: The number of that stream.
        """
        running = self._by_call_sid.get(call_sid)
        if running is None:
            ending = self._endings.get(call_sid)
            return ending is not None and ending.stream_number >= attempt
        surely(log, running.call_over, running.fail, running.cut)
        return True

    def stream_lost(self, call_sid: str, attempt: int) -> None:
        """A media stream is over, and its call goes on: it will have another one.

        Args:
            call_sid: The call.
            attempt: The number of the stream that is over. A newer one is left alone.
        """
        running = self._by_call_sid.get(call_sid)
        if running is None or running.stream_number != attempt:
            return
        surely(log, running.supersede, running.fail, running.cut)

    async def wait_empty(self) -> None:
        """Wait until no socket is open."""
        await self._empty.wait()
