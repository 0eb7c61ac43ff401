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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import ConfigurationError, NotFound, Unavailable
from runtime.log import get_log
from transcript.join import KnownTurns, join
from transcript.metrics import TranscriptMetrics
from transcript.store import LISTED, CallQuery, Outcome, Store, StoreOverloaded

log = get_log(__name__)

CACHED_FACTS = 100_000
"""Facts kept in memory, some 100 MB at most: thirty hours of calls."""

THREAD_FROM_FACTS = 200
"""Joins of more facts than this run in a thread: they take more than about 2 ms."""

THREAD_FROM_BYTES = 20_000
"""And joins of larger ones: as many short words as one text may hold take two seconds."""

STATES_PER_S = 10
"""The most states a watcher gets: as many as a person can see."""

JOIN_SHARE = 0.5
"""Of one core, what joins of watched calls may take between them: longer joins come less often."""

MIN_JOIN_SHARE = 0.1
"""What joins of one watched call may take, however many are watched."""

POLL_S = 1.0
"""How often a watcher looks for facts that came through another service to a shared store."""

MAX_PROCESSES = 10_000
"""The most processes whose signs of life wait to be stored. There are some dozens."""

REMEMBERED = 10_000
"""Calls of which it is remembered that something was said in the log, so that it is said once."""


class JoinFailed(Exception):
    """A fault of ours in one call, which is in the log. Nobody else is concerned."""


class Once:
    """What was said before, as far as memory goes."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], None] = OrderedDict()

    def first(self, what: str, call_sid: str) -> bool:
        """Whether this is the first time."""
        if (what, call_sid) in self._said:
            return False
        self._said[what, call_sid] = None
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        return True


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
    final: bool = False
    """Whether the store holds it final."""
    join_s: float = 0.0
    """CPU that the last join took."""
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
        self._alive: set[str] = set()
        self._said = Once()
        self.trouble: str | None = None
        """Why the store cannot be written to, when that is so. Kept by whoever checks it."""
        self.append_failed = asyncio.Event()
        """The last append could not be stored: the store should be checked."""
        self.append_fault: str | None = None
        """Why."""

    async def append(self, facts: Sequence[Fact], process: str = "") -> list[Outcome]:
        """Make facts durable; what became of each, in their order.

        Args:
            facts: Of any number of calls; none: the process says that it lives.
            process: Which process writes them; "" when it does not say.

        Raises:
            Unavailable: Nothing is promised; hand them in again.
        """
        if process and len(self._alive) < MAX_PROCESSES:
            self._alive.add(process)
        if not facts:
            # A sign of life costs no transaction: the next check of the store writes it. While the
            # store takes nothing, whoever asks should know.
            if self.trouble is not None:
                raise Unavailable(self.trouble)
            return []
        started = time.perf_counter()
        try:
            outcomes = await self._store.append(facts, process)
        except StoreOverloaded:
            raise
        except (Unavailable, ConfigurationError) as error:
            self.append_fault = str(error)
            self.append_failed.set()
            raise
        self.append_fault = None
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        changed: set[str] = set()
        for fact, outcome in zip(facts, outcomes, strict=True):
            if outcome is Outcome.STORED:
                changed.add(fact.call_sid)
                if fact.WhichOneof("body") in LISTED:
                    self._to_index.add(fact.call_sid)
            elif outcome in _SAID and self._said.first(outcome.value, fact.call_sid):
                log.warning(_SAID[outcome], call=fact.call_sid, writer=fact.writer)
        if self._to_index:
            self._index_wanted.set()
        self._notify(changed)
        return outcomes

    def take_alive(self) -> set[str]:
        """Processes that gave a sign of life since this was asked last."""
        alive, self._alive = self._alive, set()
        return alive

    def give_back_alive(self, processes: set[str]) -> None:
        """They could not be stored: next time."""
        self._alive |= processes

    async def get(self, call_sid: str) -> Transcript:
        """The transcript as it stands. Treat it as read only: others hold it too.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        transcript, _ = await self._get(call_sid)
        return transcript

    async def get_with_facts(self, call_sid: str) -> tuple[Transcript, Sequence[Fact]]:
        """The transcript as it stands, and the facts it was joined from; both read only.

        Raises:
            NotFound: There is no such call.
            Unavailable: The store cannot be reached.
            JoinFailed: It cannot be joined, by a fault of ours.
        """
        transcript, cached = await self._get(call_sid)
        # Facts are only ever added, and the transcript's revision counts them.
        return transcript, cached.facts[: transcript.revision]

    async def _get(self, call_sid: str) -> tuple[Transcript, _Cached]:
        cached = self._cache.setdefault(call_sid, _Cached())
        self._cache.move_to_end(call_sid)
        async with cached.lock:
            before = len(cached.facts)
            try:
                transcript = await self._refresh(call_sid, cached)
            except NotFound:
                self._drop(call_sid)
                raise
            finally:
                if self._cache.get(call_sid) is cached:  # it may have been dropped meanwhile
                    self._cached_facts += len(cached.facts) - before
        self._shrink()
        return transcript, cached

    async def refresh(self, call_sid: str) -> None:
        """Bring a call's entry in the index up to date, and tell its watchers.

        Raises:
            Unavailable: The store cannot be reached.
        """
        await self._index(call_sid)
        self._notify([call_sid])

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
                share = max(JOIN_SHARE / len(self._watchers), MIN_JOIN_SHARE)
                await self._pause(max(1 / STATES_PER_S, join_s / share))
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
        except (NotFound, JoinFailed):
            pass  # Deleted meanwhile; or a fault in one call, of which the log knows.
        except Unavailable:
            raise
        except Exception as error:
            # A bug, in one call; the list of all others must not suffer from it.
            if self._said.first("cannot be indexed", call_sid):
                log.error("call cannot be indexed", call=call_sid, exc_info=error)

    async def _refresh(self, call_sid: str, cached: _Cached) -> Transcript:
        """Bring a call up to date; under its lock."""
        while True:
            news = await self._store.read(call_sid, after=cached.revision)
            cached.facts.extend(news.facts)
            cached.revision = news.revision
            cached.indexed = max(cached.indexed, news.indexed)
            cached.final = cached.final or news.final
            transcript = cached.transcript
            if cached.joined != cached.revision:
                transcript = await self._join(call_sid, cached)
            elif cached.failed or transcript is None:
                raise JoinFailed(call_sid)
            if cached.final and not transcript.final:
                # Final was said of it, by another service or an earlier version, and stays said.
                transcript = cached.transcript = _made_final(transcript)
            if not transcript.final or await self._write_index(cached):
                return transcript
            # More facts came between reading and sealing: it was not final after all.

    async def _join(self, call_sid: str, cached: _Cached) -> Transcript:
        started = time.perf_counter()
        revision = cached.revision
        try:
            if _is_long(cached.facts):
                transcript, cpu_s = await _in_thread(cached.facts, cached.known)
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

    async def _write_index(self, cached: _Cached) -> bool:
        """Write a call's entry, which makes it final when it is; whether it still held."""
        transcript = cached.transcript
        sealing = transcript is not None and transcript.final and not cached.final
        if transcript is None or (cached.indexed == cached.revision and not sealing):
            return True
        if not await self._store.index(_summary(transcript), cached.revision):
            return False
        cached.indexed = cached.revision
        if sealing:
            cached.final = True
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


_SAID = {
    Outcome.LATE: "facts of a final call thrown away",
    Outcome.SURPLUS: "call holds as much as a call may: facts thrown away",
}
"""What is said in the log, once for each call, of facts that are thrown away."""


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


async def _in_thread(facts: Sequence[Fact], known: KnownTurns) -> tuple[Transcript, float]:
    """Join in a thread. A reader that is cancelled waits for it: nobody else may begin before."""
    joining = asyncio.ensure_future(asyncio.to_thread(_timed_join, facts, known))
    try:
        return await asyncio.shield(joining)
    except asyncio.CancelledError:
        while not joining.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([joining])
        joining.exception()  # its reader is gone; the next one finds the same
        raise


def _made_final(transcript: Transcript) -> Transcript:
    final = Transcript()
    final.CopyFrom(transcript)
    final.final = True
    return final


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
