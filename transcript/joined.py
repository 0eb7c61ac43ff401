"""Stored calls, joined. Nothing here writes.

Whoever asks, asks the store what is new since the revision that is known, so nothing here has to be
told what was stored, and several services may share a store. What was read stays in memory for a
while, and so a watched call costs the store one short read for each change.

A join of a long call takes a few milliseconds, which the event loop would owe to those who append;
long joins run in a thread.

Whether a call is final, its facts and its row in the store say:

| by its facts | in the store | it is                      | its readers are told            |
|--------------|--------------|----------------------------|---------------------------------|
| not final    | not final    | open                       | the join                        |
| final        | not final    | to be sealed (``is_ended``)| the last state that was open    |
| either       | final        | sealed, for good           | the join, and that it is final  |
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Transcript
from runtime.errors import NotFound
from runtime.log import get_log
from transcript.join import KnownTurns, join
from transcript.metrics import TranscriptMetrics
from transcript.once import Once
from transcript.store import Store
from transcript.unsealed import last_open

log = get_log(__name__)

T = TypeVar("T")

MAX_CACHED_FACTS = 100_000
"""Facts kept in memory, some 100 MB: thirty hours of calls."""

THREAD_FROM_FACTS = 200
"""Joins of more facts than this run in a thread: they take more than about 2 ms."""

THREAD_FROM_BYTES = 20_000
"""And joins of larger ones: as many short words as one text may hold take two seconds."""


class JoinFailed(Exception):
    """A fault of ours in one call, which is in the log. Nobody else is concerned."""


@dataclass(frozen=True, slots=True)
class JoinedCall:
    """A call as it stands. Treat all of it as read only: others hold it too."""

    transcript: Transcript
    """Of all its facts. It says that it is final when its facts say so, or the store does."""
    revision: int
    """Of the facts."""
    indexed: int
    """Revision up to which the call's entry in the index holds."""
    sealed: bool
    """The store holds it final."""
    join_s: float
    """CPU that its last join took."""
    stored: Sequence[Fact]
    """All facts that are known of the call by now, which may be more."""

    @property
    def is_ended(self) -> bool:
        """It is final by its facts, and remains to be sealed."""
        return self.transcript.final and not self.sealed

    @property
    def facts(self) -> Sequence[Fact]:
        """Those that were joined, in the order of their storing."""
        return self.stored[: self.revision]  # facts are only ever added


@dataclass(slots=True)
class _Cached:
    """What is known of one call."""

    facts: list[Fact] = field(default_factory=list)
    revision: int = 0
    """Of the facts."""
    known: KnownTurns = field(default_factory=KnownTurns)
    transcript: Transcript | None = None
    joined: int = 0
    """Revision that the transcript was joined at, or that could not be joined."""
    failed: bool = False
    """Whether it could not."""
    indexed: int = 0
    sealed: bool = False
    join_s: float = 0.0
    last_open: tuple[int, Transcript] | None = None
    """For which revision, and what it is."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class JoinedCalls:
    """Reads calls and joins them.

    Args:
        store: Where the facts are.
        metrics: What is counted.
    """

    def __init__(self, store: Store, metrics: TranscriptMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._cached_facts = 0
        self._said = Once()

    async def get(self, call_sid: str) -> JoinedCall:
        """A call as it stands.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        cached = self._cache.setdefault(call_sid, _Cached())
        self._cache.move_to_end(call_sid)
        async with cached.lock:
            before = len(cached.facts)
            try:
                call = await self._refresh(call_sid, cached)
            except NotFound:
                self.drop(call_sid)
                raise
            finally:
                if self._cache.get(call_sid) is cached:  # it may have been dropped meanwhile
                    self._cached_facts += len(cached.facts) - before
        self._shrink()
        return call

    async def get_last_open(self, call: JoinedCall) -> Transcript:
        """What readers are told of a call that remains to be sealed."""
        cached = self._cache.get(call.transcript.call_sid)
        if cached is not None and cached.last_open and cached.last_open[0] == call.revision:
            return cached.last_open[1]
        facts = call.facts
        if _is_long(facts):
            transcript = await _in_thread(lambda: last_open(facts))
        else:
            transcript = last_open(facts)
        if cached is not None:
            cached.last_open = call.revision, transcript
        return transcript

    def drop(self, call_sid: str) -> None:
        """Keep nothing of a call in memory."""
        cached = self._cache.pop(call_sid, None)
        if cached is not None:
            self._cached_facts -= len(cached.facts)
            self._metrics.cached_facts.set(self._cached_facts)

    async def _refresh(self, call_sid: str, cached: _Cached) -> JoinedCall:
        """Bring a call up to date; under its lock."""
        news = await self._store.read(call_sid, after=cached.revision)
        cached.facts.extend(news.facts)
        cached.revision = news.revision
        cached.indexed = max(cached.indexed, news.indexed)
        cached.sealed = cached.sealed or news.final
        transcript = cached.transcript
        if cached.joined != cached.revision:
            transcript = await self._join(call_sid, cached)
        elif cached.failed or transcript is None:
            raise JoinFailed(call_sid)
        if cached.sealed and not transcript.final:
            # Final was said of it, by another service or an earlier version, and stays said.
            transcript = cached.transcript = _made_final(transcript)
        return JoinedCall(
            transcript, cached.revision, cached.indexed, cached.sealed, cached.join_s, cached.facts
        )

    async def _join(self, call_sid: str, cached: _Cached) -> Transcript:
        started = time.perf_counter()
        revision = cached.revision
        try:
            if _is_long(cached.facts):
                transcript, cpu_s = await _in_thread(
                    lambda: _timed_join(cached.facts, cached.known)
                )
            else:
                transcript, cpu_s = _timed_join(cached.facts, cached.known)
        except Exception as error:
            # A bug, or facts that nobody foresaw. It is not tried again before there are more.
            cached.failed = True
            cached.joined = revision
            self._metrics.joins_failed.inc()
            if self._said.first("cannot be joined", call_sid):
                log.error("call cannot be joined", call=call_sid, exc_info=error)
            raise JoinFailed(call_sid) from None
        cached.join_s = cpu_s
        cached.transcript = transcript
        cached.failed = False
        cached.joined = revision
        self._metrics.join_seconds.observe(time.perf_counter() - started)
        return transcript

    def _shrink(self) -> None:
        """Drop what was read longest ago; never the call that was read last."""
        while self._cached_facts > MAX_CACHED_FACTS and len(self._cache) > 1:
            self.drop(next(iter(self._cache)))
        self._metrics.cached_facts.set(self._cached_facts)


def _is_long(facts: Sequence[Fact]) -> bool:
    """Whether joining them would hold up the event loop."""
    if len(facts) > THREAD_FROM_FACTS:
        return True
    return sum(fact.ByteSize() for fact in facts) > THREAD_FROM_BYTES


def _timed_join(facts: Sequence[Fact], known: KnownTurns) -> tuple[Transcript, float]:
    """The transcript, and the CPU that it took: a busy machine must not slow watchers twice."""
    started = time.thread_time()
    transcript = join(facts, known)
    return transcript, time.thread_time() - started


async def _in_thread(run: Callable[[], T]) -> T:
    """Run in a thread. A reader that is cancelled waits for it: nobody else may begin before."""
    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # its reader is gone; the next one finds the same
        raise


def _made_final(transcript: Transcript) -> Transcript:
    final = Transcript()
    final.CopyFrom(transcript)
    final.final = True
    return final
