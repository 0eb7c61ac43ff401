"""Stored calls as readers see them, without a server (integration)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asheard.v1.fact_pb2 import CallStarted, Fact
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound, Unavailable
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.one_service import Service, serving
from transcript import calls as calls_module
from transcript import joined
from transcript.join import join
from transcript.store import CallQuery, Store, StoredFacts
from transcript.store_health import MAX_PROCESSES
from transcript.store_sqlite import open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_sqlite(tmp_path / "facts.db")
    yield store
    await store.close()


@pytest.fixture
async def service(store: Store) -> AsyncIterator[Service]:
    async with serving(store) as service:
        yield service


class Interposed:
    """A store in which something happens right before an entry of the index is written."""

    def __init__(self, store: Store) -> None:
        self._inner = store
        self.shared = store.shared
        self.append = store.append
        self.add = store.add
        self.open_calls = store.open_calls
        self.processes = store.processes
        self.forget_processes = store.forget_processes
        self.unindexed = store.unindexed
        self.calls = store.calls
        self.delete = store.delete
        self.check = store.check
        self.close = store.close

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        return await self._inner.read(call_sid, after=after)

    async def index(self, summary: CallSummary, revision: int) -> bool:
        started = Writer(summary.call_sid, "gateway/MZ2").write(call_started=CallStarted())
        await self._inner.append([started])  # a repeat from the second time on
        return await self._inner.index(summary, revision)


async def test_nobody_is_told_final_when_a_fact_comes_at_that_moment(store: Store) -> None:
    async with serving(Interposed(store)) as service:
        await service.ingest.append(short_call())
        transcript = await service.calls.get("CA1")
    assert not transcript.final
    assert transcript.revision == len(short_call()) + 1


async def test_what_was_read_is_kept_and_only_news_are_read(service: Service) -> None:
    facts = short_call()
    await service.ingest.append(facts[:4])
    first = await service.calls.get("CA1")
    assert await service.calls.get("CA1") is first  # not joined again
    await service.ingest.append(facts[4:])
    assert (await service.calls.get("CA1")).revision == len(facts)


async def test_memory_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "MAX_CACHED_FACTS", 20)
    for n in range(10):
        await service.ingest.append(short_call(f"CA{n}"))
        await service.calls.get(f"CA{n}")
        cached = service.registry.get_sample_value("asheard_transcript_cached_facts")
        assert cached is not None
        assert cached <= 20
    assert (await service.calls.get("CA0")).final
    with pytest.raises(NotFound):
        await service.calls.get("CA404")


async def test_a_finished_call_that_nobody_reads_does_not_stay_in_memory(service: Service) -> None:
    for n in range(3):
        await service.ingest.append(short_call(f"CA{n}"))
    while len(await service.store.unindexed()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)  # what follows the entry
    assert service.registry.get_sample_value("asheard_transcript_cached_facts") == 0
    listed = await service.calls.list(CallQuery(limit=10))
    assert [call.final for call in listed] == [True] * 3


async def test_long_calls_are_joined_in_a_thread_to_the_same_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(short_call())
    direct = await Service.of(store).joined.get("CA1")
    monkeypatch.setattr(joined, "THREAD_FROM_FACTS", 0)
    assert (await Service.of(store).joined.get("CA1")).transcript == direct.transcript


async def test_a_long_text_is_joined_in_a_thread_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(facts: list[Fact], *rest: Any) -> Transcript:
        threads.append(threading.current_thread())
        return join(facts, *rest)

    monkeypatch.setattr(joined, "join", noted)
    await store.append(short_call("CA1"))
    await store.append(short_call("CA2", text="a " * 10_000))
    await Service.of(store).joined.get("CA1")
    await Service.of(store).joined.get("CA2")
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_call_that_cannot_be_joined_does_not_hide_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_for_one(facts: list[Fact], known: object) -> Transcript:
        if facts[0].call_sid == "CA1":
            raise RuntimeError("a bug")
        return join(facts)

    monkeypatch.setattr(joined, "join", fails_for_one)
    await service.ingest.append([*short_call("CA1"), *short_call("CA2")])
    listed = await service.calls.list(CallQuery(limit=9))
    assert [call.call_sid for call in listed] == ["CA2"]


async def test_a_reader_that_leaves_during_a_join_leaves_no_old_state(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    running = 0

    def slow(facts: list[Fact], known: object) -> Transcript:
        nonlocal running
        running += 1
        assert running == 1  # never two of one call
        begun.set()
        go_on.wait(20)
        running -= 1
        return join(facts)

    calls = service.calls
    facts = short_call(ended=False)
    await service.ingest.append(facts[:3])
    await calls.get("CA1")
    monkeypatch.setattr(joined, "THREAD_FROM_FACTS", 0)
    monkeypatch.setattr(joined, "join", slow)
    await service.ingest.append(facts[3:])
    hasty = asyncio.create_task(calls.get("CA1"))
    await asyncio.to_thread(begun.wait, 20)
    hasty.cancel()
    patient = asyncio.create_task(calls.get("CA1"))
    await asyncio.sleep(0.05)
    go_on.set()
    assert (await patient).revision == len(facts)
    with pytest.raises(asyncio.CancelledError):
        await hasty


async def test_signs_of_life_cost_no_transaction(service: Service) -> None:
    for _ in range(3):
        for n in range(MAX_PROCESSES + 5):
            assert await service.ingest.append([], f"p{n}") == []
    assert await service.store.processes() == {}
    assert await service.health.check() is None
    assert len(await service.store.processes()) == MAX_PROCESSES + 1  # and the service's own


# Readers write nothing


class NoWrites(Interposed):
    """A store whose entries cannot be written, and which says how often that was tried."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.tried = 0
        self.works = False

    async def index(self, summary: CallSummary, revision: int) -> bool:
        self.tried += 1
        if not self.works:
            raise Unavailable("the disk is full")
        return await self._inner.index(summary, revision)


async def test_a_call_that_ended_is_read_while_the_store_takes_no_writes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "SEAL_WAIT_S", 0.05)
    facts = short_call()
    stuck = NoWrites(store)
    service = Service.of(stuck)  # and nobody writes entries
    await service.ingest.append(facts)
    told = await service.calls.get("CA1")
    assert told.turns[0].heard_text == "Hello there."
    # What stood before the fact that was the last to be missing: one revision, one transcript.
    assert (told.final, told.revision) == (False, len(facts) - 1)
    assert told == join(facts[:-1])
    assert await service.calls.get("CA1") is told
    assert [call.final for call in await service.calls.list(CallQuery(limit=9))] == [False]
    states = service.calls.watch("CA1")
    assert await anext(states) == told
    assert stuck.tried == 0  # readers write nothing, whatever they find
    with pytest.raises(Unavailable):
        await service.index.write("CA1")
    assert not (await store.read("CA1")).final

    stuck.works = True
    await service.index.write("CA1")
    last = await anext(states)
    assert (last.final, last.revision) == (True, len(facts))
    assert await service.calls.get("CA1") == last
    assert [call.final for call in await service.calls.list(CallQuery(limit=9))] == [True]


async def test_a_reader_waits_until_a_call_that_ended_is_sealed(store: Store) -> None:
    service = Service.of(store)
    await service.ingest.append(short_call())
    reading = asyncio.create_task(service.calls.get("CA1"))
    listing = asyncio.create_task(service.calls.list(CallQuery(limit=9)))
    await asyncio.sleep(0.05)
    assert not reading.done()
    await service.index.write("CA1")
    assert (await reading).final
    assert [call.final for call in await listing] == [True]


async def test_what_nobody_indexed_is_found_in_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash, or when another service on this store has died."""
    monkeypatch.setattr("transcript.index.LOOK_EVERY_S", 0.01)
    await store.append(short_call("CA1"))
    async with serving(store):
        while await store.unindexed():
            await asyncio.sleep(0.01)
        await store.append(short_call("CA2"))
        while await store.unindexed():
            await asyncio.sleep(0.01)
    assert (await store.read("CA1")).final
    assert (await store.read("CA2")).final
