"""Stored calls as readers see them, without a server (integration)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from asheard.v1.fact_pb2 import CallStarted, Fact
from asheard.v1.transcript_pb2 import Transcript
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound
from tests.transcript.call_facts import Writer, short_call
from transcript import calls as calls_module
from transcript.calls import Calls
from transcript.join import join
from transcript.metrics import TranscriptMetrics
from transcript.store import CallQuery, Store, StoredFacts
from transcript.store_sqlite import open_sqlite


def calls_of(store: Store) -> Calls:
    return Calls(store, TranscriptMetrics(CollectorRegistry()))


class Interposed:
    """A store in which something happens right before an entry of the index is written."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        return await self._store.read(call_sid, after=after)

    async def index(self, summary: CallSummary, revision: int) -> bool:
        started = Writer(summary.call_sid, "gateway/MZ2").write(call_started=CallStarted())
        await self._store.append([started])  # a repeat from the second time on
        return await self._store.index(summary, revision)


async def test_nobody_is_told_final_when_a_fact_comes_at_that_moment(tmp_path: Path) -> None:
    store = Interposed(open_sqlite(tmp_path / "facts.db"))
    calls = calls_of(store)
    await calls.append(short_call())
    transcript = await calls.get("CA1")
    assert not transcript.final
    assert transcript.revision == len(short_call()) + 1
    await store.close()


async def test_what_was_read_is_kept_and_only_news_are_read(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "facts.db")
    calls = calls_of(store)
    facts = short_call()
    await calls.append(facts[:4])
    first = await calls.get("CA1")
    assert await calls.get("CA1") is first  # not joined again
    await calls.append(facts[4:])
    assert (await calls.get("CA1")).revision == len(facts)
    await store.close()


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "CACHED_FACTS", 20)
    registry = CollectorRegistry()
    store = open_sqlite(tmp_path / "facts.db")
    calls = Calls(store, TranscriptMetrics(registry))
    for n in range(10):
        await calls.append(short_call(f"CA{n}"))
        await calls.get(f"CA{n}")
        cached = registry.get_sample_value("asheard_transcript_cached_facts")
        assert cached is not None
        assert cached <= 20
    assert (await calls.get("CA0")).final
    with pytest.raises(NotFound):
        await calls.get("CA404")
    await store.close()


async def test_a_finished_call_that_nobody_reads_does_not_stay_in_memory(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    store = open_sqlite(tmp_path / "facts.db")
    calls = Calls(store, TranscriptMetrics(registry))
    indexing = asyncio.create_task(calls.run())
    for n in range(3):
        await calls.append(short_call(f"CA{n}"))
    while len(await store.unindexed()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)  # what follows the entry
    assert registry.get_sample_value("asheard_transcript_cached_facts") == 0
    assert [call.final for call in await calls.list(CallQuery(limit=10))] == [True] * 3
    indexing.cancel()
    await store.close()


async def test_long_calls_are_joined_in_a_thread_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite(tmp_path / "facts.db")
    await store.append(short_call())
    direct = await calls_of(store).get("CA1")
    monkeypatch.setattr(calls_module, "THREAD_FROM_FACTS", 0)
    assert await calls_of(store).get("CA1") == direct
    await store.close()


async def test_a_long_text_is_joined_in_a_thread_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(facts: list[Fact], *rest: Any) -> Transcript:
        threads.append(threading.current_thread())
        return join(facts, *rest)

    monkeypatch.setattr(calls_module, "join", noted)
    store = open_sqlite(tmp_path / "facts.db")
    await store.append(short_call("CA1"))
    await store.append(short_call("CA2", text="a " * 10_000))
    await calls_of(store).get("CA1")
    await calls_of(store).get("CA2")
    await store.close()
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_call_that_cannot_be_joined_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_for_one(facts: list[Fact], known: object) -> Transcript:
        if facts[0].call_sid == "CA1":
            raise RuntimeError("a bug")
        return join(facts)

    monkeypatch.setattr(calls_module, "join", fails_for_one)
    store = open_sqlite(tmp_path / "facts.db")
    calls = calls_of(store)
    await calls.append([*short_call("CA1"), *short_call("CA2")])
    assert [call.call_sid for call in await calls.list(CallQuery(limit=9))] == ["CA2"]
    await store.close()


async def test_a_reader_that_leaves_during_a_join_leaves_no_old_state_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    store = open_sqlite(tmp_path / "facts.db")
    calls = calls_of(store)
    facts = short_call(ended=False)
    await calls.append(facts[:3])
    await calls.get("CA1")
    monkeypatch.setattr(calls_module, "THREAD_FROM_FACTS", 0)
    monkeypatch.setattr(calls_module, "join", slow)
    await calls.append(facts[3:])
    hasty = asyncio.create_task(calls.get("CA1"))
    await asyncio.to_thread(begun.wait, 20)
    hasty.cancel()
    patient = asyncio.create_task(calls.get("CA1"))
    await asyncio.sleep(0.05)
    go_on.set()
    assert (await patient).revision == len(facts)
    with pytest.raises(asyncio.CancelledError):
        await hasty
    await store.close()


async def test_signs_of_life_cost_no_transaction(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "facts.db")
    calls = calls_of(store)
    for _ in range(3):
        for n in range(calls_module.MAX_PROCESSES + 5):
            assert await calls.append([], f"p{n}") == []
    alive = calls.take_alive()
    assert len(alive) == calls_module.MAX_PROCESSES
    assert await store.processes() == {}
    await store.check(alive)
    assert len(await store.processes()) == len(alive) + 1  # and the service's own
    await store.close()
