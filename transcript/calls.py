"""Calls as readers see them: stored facts, joined.

Readers ask the store what is new since the revision they know, so nothing here has to be told what
was stored, and several services may share a store. What was read stays in memory for a while, and
so a watched call costs the store one short read for each change.

A join of a long call takes a few milliseconds, which the event loop would owe to those who append;
long joins run in a thread, and no reader gets more than ten states a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound, Unavailable
from runtime.log import get_log
from transcript.join import join
from transcript.metrics import TranscriptMetrics
from transcript.store import CallQuery, Outcome, Store

log = get_log(__name__)

CACHED_FACTS = 100_000
"""Facts kept in memory, some 100 MB at most: thirty hours of calls."""

THREAD_FROM_FACTS = 200
"""Joins of more facts than this run in a thread: they take more than about 2 ms."""

STATES_PER_S = 10
"""The most states a watcher gets: as many as a person can see."""

JOIN_SHARE = 0.1
"""Of one core, what joins for one watcher may take: longer joins come less often."""

POLL_S = 1.0
"""How often a watcher looks for facts that came through another service to a shared store."""

INDEXED_AT_ONCE = frozenset({"call_started", "session_lost", "session_ended", "call_ended"})
"""Facts that change what the list of calls shows. All else is caught up with when it is read."""


@dataclass(slots=True)
class _Cached:
    """What is known of one call."""

    facts: list[Fact] = field(default_factory=list)
    revision: int = 0
    transcript: Transcript | None = None
    indexed: int = 0
    join_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Calls:
    """Stores facts and reads transcripts.

    Args:
        store: Where the facts are; the caller closes it.
        metrics: What is counted.
    """

    def __init__(self, store: Store, metrics: TranscriptMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._cached_facts = 0
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._to_index: set[str] = set()
        self._index_wanted = asyncio.Event()
        self._closing = asyncio.Event()

    async def append(self, facts: Sequence[Fact]) -> list[Outcome]:
        """Make facts durable; what became of each, in their order.

        Raises:
            Unavailable: Nothing is promised; hand them in again.
        """
        started = time.perf_counter()
        outcomes = await self._store.append(facts)
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        changed: set[str] = set()
        for fact, outcome in zip(facts, outcomes, strict=True):
            if outcome is Outcome.STORED:
                changed.add(fact.call_sid)
                if fact.WhichOneof("body") in INDEXED_AT_ONCE:
                    self._to_index.add(fact.call_sid)
        if self._to_index:
            self._index_wanted.set()
        self._notify(changed)
        return outcomes

    async def get(self, call_sid: str) -> Transcript:
        """The transcript as it stands. Treat it as read only: others hold it too.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
        """
        transcript, _ = await self.get_with_facts(call_sid)
        return transcript

    async def get_with_facts(self, call_sid: str) -> tuple[Transcript, Sequence[Fact]]:
        """The transcript as it stands, and the facts it was joined from; both read only.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
        """
        cached = self._cache.setdefault(call_sid, _Cached())
        self._cache.move_to_end(call_sid)
        async with cached.lock:
            before = len(cached.facts)
            try:
                transcript = await self._refresh(call_sid, cached)
                facts = tuple(cached.facts)
            except NotFound:
                self._drop(call_sid)
                raise
            finally:
                if self._cache.get(call_sid) is cached:  # it may have been dropped meanwhile
                    self._cached_facts += len(cached.facts) - before
        self._shrink()
        return transcript, facts

    async def watch(self, call_sid: str) -> AsyncIterator[Transcript]:
        """The present state, then the newest after each change, until it is final.

        Raises:
            NotFound: There is no such call, or it was deleted meanwhile.
            Unavailable: The store cannot be reached, or the service drains.
        """
        seen = 0
        with self._watching(call_sid) as changed:
            while True:
                changed.clear()
                transcript = await self.get(call_sid)
                if transcript.revision > seen:
                    seen = transcript.revision
                    yield transcript
                if transcript.final:
                    return
                cached = self._cache.get(call_sid)
                join_s = cached.join_s if cached else 0.0
                await self._pause(max(1 / STATES_PER_S, join_s / JOIN_SHARE))
                if not changed.is_set():
                    try:
                        async with asyncio.timeout(POLL_S if self._store.shared else None):
                            await changed.wait()
                    except TimeoutError:
                        pass  # Look whether something came through another service.
                if self._closing.is_set():
                    raise Unavailable("the service is draining; watch again")

    async def list(self, query: CallQuery) -> list[CallSummary]:
        """List calls, newest first, as of now.

        Raises:
            Unavailable: The store cannot be reached.
        """
        for call_sid in await self._store.unindexed():
            await self._index(call_sid)
        return await self._store.calls(query)

    async def delete(self, call_sid: str) -> None:
        """Forget everything about a call; its watchers get NotFound.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
        """
        await self._store.delete(call_sid)
        self._drop(call_sid)
        self._notify([call_sid])

    async def run(self) -> None:
        """Keep the index of calls up to date until cancelled."""
        while True:
            await self._index_wanted.wait()
            self._index_wanted.clear()
            while self._to_index:
                call_sid = self._to_index.pop()
                try:
                    await self._index(call_sid)
                except Unavailable:
                    # The store knows which entries are old; the next list brings them up to date.
                    self._to_index.clear()

    def close(self) -> None:
        """End all watches, so that their readers turn to another service."""
        self._closing.set()
        self._notify(list(self._watchers))

    async def _index(self, call_sid: str) -> None:
        try:
            await self.get(call_sid)  # writes the entry when it is final, and only then
            cached = self._cache.get(call_sid)
            if cached is not None and cached.transcript is not None:
                async with cached.lock:
                    await self._write_index(cached)
                if cached.transcript.final and call_sid not in self._watchers:
                    # Read for the index alone. Who reads a finished call does it seldom, and a
                    # service that keeps each of them grows with every call.
                    self._drop(call_sid)
        except NotFound:
            pass  # Deleted meanwhile.
        except Unavailable:
            raise
        except Exception:
            # A bug, in one call; the list of all others must not suffer from it.
            log.exception("call cannot be indexed", call=call_sid)

    async def _refresh(self, call_sid: str, cached: _Cached) -> Transcript:
        """Bring a call up to date; under its lock."""
        while True:
            news = await self._store.read(call_sid, after=cached.revision)
            if news.facts or cached.transcript is None:
                cached.facts.extend(news.facts)
                cached.revision = news.revision
                cached.transcript = await self._join(cached)
            cached.indexed = max(cached.indexed, news.indexed)
            if not cached.transcript.final or await self._write_index(cached):
                return cached.transcript
            # More facts came between reading and sealing: it was not final after all.

    async def _join(self, cached: _Cached) -> Transcript:
        started = time.perf_counter()
        if len(cached.facts) > THREAD_FROM_FACTS:
            transcript = await asyncio.to_thread(join, cached.facts)
        else:
            transcript = join(cached.facts)
        cached.join_s = time.perf_counter() - started
        self._metrics.join_seconds.observe(cached.join_s)
        return transcript

    async def _write_index(self, cached: _Cached) -> bool:
        """Write a call's entry, sealing its writers when it is final; whether it still held."""
        transcript = cached.transcript
        if transcript is None or cached.indexed == cached.revision:
            return True
        sealed = {fact.writer for fact in cached.facts} if transcript.final else set[str]()
        if transcript.final:
            sealed |= _named_sessions(cached.facts)
        if not await self._store.index(_summary(transcript), cached.revision, sealed):
            return False
        cached.indexed = cached.revision
        if transcript.final:
            self._metrics.calls_finished.inc()
        return True

    def _notify(self, call_sids: Iterable[str]) -> None:
        for call_sid in call_sids:
            for changed in self._watchers.get(call_sid, ()):
                changed.set()

    @contextmanager
    def _watching(self, call_sid: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(call_sid, set())
        watchers.add(changed)
        self._metrics.watchers.inc()
        try:
            yield changed
        finally:
            self._metrics.watchers.dec()
            watchers.discard(changed)
            if not watchers and self._watchers.get(call_sid) is watchers:
                del self._watchers[call_sid]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    def _drop(self, call_sid: str) -> None:
        cached = self._cache.pop(call_sid, None)
        if cached is not None:
            self._cached_facts -= len(cached.facts)
            self._metrics.cached_facts.set(self._cached_facts)

    def _shrink(self) -> None:
        """Drop what was read longest ago; never the call that was read last."""
        while self._cached_facts > CACHED_FACTS and len(self._cache) > 1:
            self._drop(next(iter(self._cache)))
        self._metrics.cached_facts.set(self._cached_facts)


def _named_sessions(facts: Iterable[Fact]) -> set[str]:
    """Sessions that a gateway names, whether they wrote anything or not."""
    names: set[str] = set()
    for fact in facts:
        body = fact.WhichOneof("body")
        if body == "session_assigned":
            names.add(fact.session_assigned.session_writer)
        elif body == "session_lost":
            names.add(fact.session_lost.session_writer)
    return names


def _summary(transcript: Transcript) -> CallSummary:
    summary = CallSummary(
        call_sid=transcript.call_sid,
        from_number=transcript.from_number,
        to_number=transcript.to_number,
        state=transcript.state,
        final=transcript.final,
    )
    if transcript.HasField("start_time"):
        summary.start_time.CopyFrom(transcript.start_time)
    if transcript.HasField("end_time"):
        summary.end_time.CopyFrom(transcript.end_time)
    return summary
