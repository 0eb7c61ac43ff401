"""The links to session workers, and the search for one, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import link, links
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from tests.gateway.linked import COMPLETED, FULL, Faulty, Listener, linked, placed
from tests.gateway.peers import ScriptedWorker, until


@pytest.mark.usefixtures("impatient")
async def test_the_least_loaded_worker_is_asked_and_the_next_when_it_refuses() -> None:
    busy, idle = ScriptedWorker(), ScriptedWorker()
    busy.load = session_service_pb2.LoadReport(active_calls=5, max_calls=10)
    async with linked(busy, idle) as pool:
        _, listener = await placed(pool)
        assert idle.opened and not busy.opened
        idle.refuses = FULL
        _, listener = await placed(pool, "CA2")
        assert listener.heard == [("accepted", f"session/{busy.port}-1")]
        busy.refuses = session_service_pb2.REFUSAL_REASON_DRAINING
        _, listener = await placed(pool, "CA3")
        assert listener.kinds == ["refused"]
        assert (len(idle.opened), len(busy.opened)) == (3, 2)


async def test_a_worker_that_does_not_answer_is_told_so_and_the_next_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "OPEN_ANSWER_S", 1.0)
    silent, other = ScriptedWorker(), ScriptedWorker()
    silent.answers = False
    other.load = session_service_pb2.LoadReport(active_calls=5, max_calls=10)
    async with linked(silent, other) as pool:
        _, listener = await placed(pool)
        assert listener.heard == [("accepted", f"session/{other.port}-1")]
        await until(lambda: silent.closed, "the withdrawal")
        assert silent.closed == {1: fact_pb2.CALL_OUTCOME_REFUSED}


@pytest.mark.usefixtures("impatient")
async def test_a_call_that_nobody_answers_and_that_is_broken_too_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "OPEN_ANSWER_S", 0.02)
    silent = ScriptedWorker()
    silent.answers = False
    async with linked(silent) as pool:
        lane = pool.place(Faulty("session_refused", "session_lost"), "CA1", "MZ1")
        await until(lambda: lane.outcome is not None, "its end")


@pytest.mark.usefixtures("impatient")
async def test_room_is_what_workers_report_and_what_they_were_given_since() -> None:
    worker = ScriptedWorker()
    worker.load = session_service_pb2.LoadReport(active_calls=0, max_calls=1)
    async with linked(worker) as pool:
        await placed(pool)
        await until(lambda: not pool.has_room, "no room")
        _, listener = await placed(pool, "CA2")
        assert listener.kinds == ["refused"]
        worker.say(call=0, load_report=session_service_pb2.LoadReport(max_calls=1))
        await until(lambda: pool.has_room, "room again")
        worker.say(call=0, load_report=session_service_pb2.LoadReport(max_calls=1, draining=True))
        await until(lambda: not pool.has_room, "no room on a draining worker")


async def test_a_lost_link_is_told_to_every_call_on_it_and_comes_back_for_new_ones() -> None:
    worker, other = ScriptedWorker(), ScriptedWorker()
    other.load = session_service_pb2.LoadReport(active_calls=9, max_calls=10)
    async with linked(worker, other) as pool:
        _, one = await placed(pool, "CA1")
        _, two = await placed(pool, "CA2")
        assert [sid for _, sid, _ in worker.opened] == ["CA1", "CA2"]
        port = worker.port
        await worker.stop()
        await until(lambda: "lost" in one.kinds and "lost" in two.kinds, "the loss")
        assert pool.up == 1
        _, three = await placed(pool, "CA3")
        assert three.heard == [("accepted", f"session/{other.port}-1")]
        await worker.start(port)
        await until(lambda: pool.up == 2, "the link again")
        _, four = await placed(pool, "CA4")
        assert four.heard == [("accepted", f"session/{port}-3")], "no handle is used again"


async def test_a_call_under_way_to_a_worker_that_dies_goes_to_the_next() -> None:
    worker, other = ScriptedWorker(), ScriptedWorker()
    worker.answers = False
    other.load = session_service_pb2.LoadReport(active_calls=9, max_calls=10)
    async with linked(worker, other) as pool:
        listener = Listener()
        pool.place(listener, "CA1", "MZ1")
        await until(lambda: worker.opened, "the offer")
        await worker.stop()
        await until(lambda: listener.heard, "an answer")
        assert listener.heard == [("accepted", f"session/{other.port}-1")]


async def test_without_any_worker_a_call_waits_for_one_and_is_refused_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "RECONNECT_S", 0.1)
    pool = Links(["127.0.0.1:1"], GatewayMetrics(CollectorRegistry()))
    began = time.monotonic()
    _, listener = await placed(pool)
    assert listener.heard == [("refused", "no session worker is up")]
    assert time.monotonic() - began >= 0.05
    lane = pool.place(Faulty("session_refused", "session_lost"), "CA2", "MZ1")
    await until(lambda: lane.outcome is not None, "the end of one that cannot hear it")


async def test_a_call_that_comes_while_the_link_is_away_waits_for_it_and_is_not_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "RECONNECT_S", 20.0)  # on a machine that is busy with something else
    monkeypatch.setattr(link, "RECONNECT_S", 20.0)
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, one = await placed(pool, "CA1")
        port = worker.port
        await worker.stop()
        await until(lambda: "lost" in one.kinds, "the loss")
        assert (pool.up, pool.has_room) == (0, True), "its worker will be back"
        two = Listener()
        lane = pool.place(two, "CA2", "MZ2")
        for ms in range(5):
            lane.send_audio(b"AAAA", ms, 1)
        await asyncio.sleep(0.3)
        assert two.kinds == []
        await worker.start(port)
        await until(lambda: two.kinds == ["accepted"], "the worker, back again")
        await until(lambda: len(worker.audio.get(2, ())) == 5, "what the caller said meanwhile")


async def test_a_worker_that_is_gone_for_longer_has_no_room(impatient: None) -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        await worker.stop()
        await until(lambda: not pool.has_room, "no room")


async def test_a_call_that_waits_is_taken_by_the_first_worker_that_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "RECONNECT_S", 20.0)
    worker = ScriptedWorker()
    worker.refuses = FULL
    async with linked(worker) as pool:
        one, gone = Listener(), Listener()
        pool.place(one, "CA1", "MZ1")
        lane = pool.place(gone, "CA2", "MZ2")
        await until(lambda: len(worker.opened) == 2, "the refusals")
        lane.close(COMPLETED)
        worker.refuses = None
        worker.say(call=0, load_report=worker.load)
        await until(lambda: one.kinds == ["accepted"], "the call, taken after all")
        assert gone.kinds == []


async def test_links_part_when_the_worker_has_heard_the_last_word() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        lane, _ = await placed(pool)
        lane.send_audio(b"AAAA", 0, 1)
        lane.close(COMPLETED)
        await pool.close(5.0)
        assert worker.closed == {1: COMPLETED}
        assert len(worker.audio[1]) == 1
        assert not pool.has_room


async def test_a_name_is_followed_to_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = ScriptedWorker()
    await worker.start()
    addresses = {"127.0.0.1"}

    broken = True

    async def resolve(name: str, port: int) -> set[str]:
        nonlocal broken
        if broken:
            broken = False
            raise RuntimeError("a bug, survived")
        assert name == "workers.example"
        return {f"{address}:{port}" for address in addresses}

    monkeypatch.setattr(links, "resolve", resolve)
    monkeypatch.setattr(links, "REFRESH_S", 0.02)
    monkeypatch.setattr(links, "REFRESH_WHEN_NONE_S", 0.02)
    pool = Links([f"dns:///workers.example:{worker.port}"], GatewayMetrics(CollectorRegistry()))
    task = asyncio.create_task(pool.run())
    try:
        await until(lambda: pool.up == 1, "the first address")
        lane, listener = await placed(pool)
        addresses.clear()
        await until(lambda: not pool.has_room, "the address is gone")
        worker.speak("item1", 20)
        await until(lambda: listener.kinds == ["accepted", "audio"], "its call goes on")
        addresses.add("127.0.0.1")
        await until(lambda: pool.has_room and worker.links == 2, "the address is back")
        lane.close(COMPLETED)
        lane.close(COMPLETED)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await worker.stop()


async def test_names_are_looked_up_for_all_their_addresses() -> None:
    assert "127.0.0.1:50061" in (await links.resolve("localhost", 50061) or ())
    assert await links.resolve("name.that.does.not.exist.invalid", 1) is None


async def test_a_swallowed_cancellation_still_ends_the_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """gRPC swallows a cancellation that meets the end of its opening a stream."""
    reached = asyncio.Event()

    @contextlib.asynccontextmanager
    async def swallow(*_: object, **__: object) -> AsyncIterator[None]:
        try:
            reached.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None
        yield

    monkeypatch.setattr(link, "channel", swallow)
    task = asyncio.create_task(Links(["h:1"], GatewayMetrics(CollectorRegistry())).run())
    await reached.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
