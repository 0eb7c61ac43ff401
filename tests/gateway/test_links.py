"""The links to session workers, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import link, links
from gateway.instant import Instant
from gateway.link import KEPT_FRAMES, Lane, LaneListener
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from tests.gateway.peers import ScriptedWorker, until

FULL = session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED
COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED


class Listener:
    """A call that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def session_accepted(self, session_writer: str) -> None:
        self.heard.append(("accepted", session_writer))

    def session_refused(self, reason: str, at: Instant) -> None:
        self.heard.append(("refused", reason))

    def session_lost(self, reason: str, at: Instant) -> None:
        self.heard.append(("lost", reason))

    def session_finished(self, finished: session_service_pb2.CallFinished, at: Instant) -> None:
        self.heard.append(("finished", finished.outcome))

    def agent_audio(
        self, item_id: str, content_index: int, payload: bytes, last: bool, at: Instant
    ) -> None:
        self.heard.append(("audio", (item_id, last)))

    def interrupted(self, interrupt: session_service_pb2.Interrupt, at: Instant) -> None:
        self.heard.append(("interrupted", interrupt.interrupt_id))

    def stream_stopped(self, at: Instant) -> None:
        self.heard.append(("stopped", None))

    def call_over(self, at: Instant) -> None:
        self.heard.append(("over", None))

    def cut(self) -> None:
        self.heard.append(("cut", None))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.heard]


@contextlib.asynccontextmanager
async def linked(
    *workers: ScriptedWorker, up: int | None = None, registry: CollectorRegistry | None = None
) -> AsyncIterator[Links]:
    """Links to workers, of which ``up`` (all) come up."""
    for worker in workers:
        if not worker.port:
            await worker.start()
    metrics = GatewayMetrics(registry or CollectorRegistry())
    pool = Links([worker.target for worker in workers], metrics)
    task = asyncio.create_task(pool.run())
    await until(lambda: pool.up == (len(workers) if up is None else up), "links up")
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for worker in workers:
            await worker.stop()


async def placed(pool: Links, call_sid: str = "CA1") -> tuple[Lane, Listener]:
    listener = Listener()
    lane = pool.place(listener, call_sid, "MZ1")
    await until(lambda: listener.heard, "an answer")
    return lane, listener


async def test_a_call_is_accepted_and_audio_given_before_that_is_not_lost() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        listener = Listener()
        lane = pool.place(listener, "CA1", "MZ1")
        for ms in range(5):
            lane.send_audio(b"AAAA", ms, 1)
        await until(lambda: len(worker.audio.get(1, ())) == 5, "the audio")
        assert listener.heard == [("accepted", f"session/{worker.port}-1")]
        assert [audio.media_ms for audio in worker.audio[1]] == list(range(5))


async def test_control_overtakes_audio_and_the_end_of_a_call_goes_behind_it() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        lane, _ = await placed(pool)
        for ms in range(25):
            lane.send_audio(b"AAAA", ms, 1)
        lane.send(
            session_service_pb2.GatewayControl(
                key_pressed=session_service_pb2.CallerKeyPressed(digit="1")
            )
        )
        lane.close(COMPLETED)
        await until(lambda: worker.closed, "the end of the call")
        assert worker.closed == {1: COMPLETED}
        assert len(worker.audio[1]) == 25
        bodies = [[c.WhichOneof("body") for c in request.control] for request in worker.requests]
        key = bodies.index(["key_pressed"])
        assert worker.requests[key].caller_audio.call, "in one message with the audio, ahead of it"
        close = bodies.index(["close_call"])
        assert close > key, "in a later message"
        assert not worker.requests[close].caller_audio.call


async def test_a_busy_link_sends_many_frames_in_a_message() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        lanes = [(await placed(pool, f"CA{n}"))[0] for n in range(8)]
        before = len(worker.requests)
        for ms in range(50):
            for lane in lanes:
                lane.send_audio(b"AAAA", ms, 1)
            await asyncio.sleep(0)
        await until(lambda: sum(map(len, worker.audio.values())) == 400, "all audio")
        assert len(worker.requests) - before < 100, "not a message per frame"
        for frames in worker.audio.values():
            assert [frame.media_ms for frame in frames] == list(range(50)), "in order"


async def test_lanes_take_turns() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        loud, _ = await placed(pool, "CA1")
        quiet, _ = await placed(pool, "CA2")
        for ms in range(KEPT_FRAMES):
            loud.send_audio(b"AAAA", ms, 1)
        quiet.send_audio(b"AAAA", 0, 1)
        await until(lambda: 2 in worker.audio and len(worker.audio[1]) == KEPT_FRAMES, "all audio")
        handles = next(
            list(request.caller_audio.call)
            for request in worker.requests
            if request.caller_audio.call
        )
        assert handles.index(2) <= link.TURN_FRAMES


async def test_a_worker_that_does_not_take_audio_loses_the_oldest_of_that_call() -> None:
    worker = ScriptedWorker()
    worker.answers = False
    async with linked(worker) as pool:
        lane = pool.place(Listener(), "CA1", "MZ1")
        kept = [lane.send_audio(b"AAAA", ms, 1) for ms in range(KEPT_FRAMES + 3)]
        assert kept == [True] * KEPT_FRAMES + [False] * 3
        await until(lambda: worker.opened, "the offer")
        worker.say(
            call=1, call_accepted=session_service_pb2.CallAccepted(session_writer="session/1")
        )
        await until(lambda: len(worker.audio.get(1, ())) == KEPT_FRAMES, "the audio")
        assert worker.audio[1][0].media_ms == 3
        assert worker.audio[1][-1].media_ms == KEPT_FRAMES + 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits for a worker."""
    monkeypatch.setattr(links, "RECONNECT_S", 0.0)
    monkeypatch.setattr(link, "RECONNECT_S", 0.0)


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


async def test_what_the_worker_says_reaches_its_call_and_no_other() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, one = await placed(pool, "CA1")
        two_lane, two = await placed(pool, "CA2")
        worker.speak("item1", 400, call=1, last=True)
        worker.interrupt(7, call=1)
        worker.finish(call=1)
        worker.speak("stray", 20, call=99)
        await until(lambda: "finished" in one.kinds, "the end")
        assert one.kinds == ["accepted", "audio", "interrupted", "finished"]
        assert one.heard[1] == ("audio", ("item1", True))
        assert two.kinds == ["accepted"]
        two_lane.close(COMPLETED)
        worker.speak("late", 20, call=2)
        worker.speak("item2", 20, call=1)
        await until(lambda: one.kinds[-1] == "audio", "audio behind")
        assert two.kinds == ["accepted"], "nothing after its end"


@pytest.mark.usefixtures("impatient")
async def test_what_a_worker_of_another_version_says_is_taken_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, one = await placed(pool, "CA1")
        worker.answers = False
        two = Listener()
        pool.place(two, "CA2", "MZ2")
        await until(lambda: len(worker.opened) == 2, "the offer")
        finished: list[session_service_pb2.CallFinished] = []
        monkeypatch.setattr(one, "session_finished", lambda said, at: finished.append(said))
        with capture_logs() as lines:
            for _ in range(3):
                worker.say(call=1)  # a body that is not known here
            worker.finish(call=1, outcome=cast(Any, 99))
            finish = session_service_pb2.CallFinished(detail="x" * 100_000)
            worker.say(call=1, call_finished=finish)
            refused = session_service_pb2.CallRefused(reason=cast(Any, 99), detail="x" * 100_000)
            worker.say(call=2, call_refused=refused)
            await until(lambda: two.kinds == ["refused"], "the refusal")
        assert [f.outcome for f in finished] == [fact_pb2.CALL_OUTCOME_MODEL_FAILED] * 2
        assert max(len(str(line)) for line in (*lines, *finished, *two.heard)) < 2000
        unknown = [line for line in lines if "unknown control" in line["event"]]
        assert len(unknown) == 1
        assert one.kinds == ["accepted"], "and it goes on"


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


class Faulty(Listener):
    """A call that has a bug in everything, and in its own end another one."""

    _faults = itertools.cycle((RuntimeError, ZeroDivisionError, asyncio.CancelledError))

    def __init__(self, *callbacks: str) -> None:
        super().__init__()
        self._callbacks = callbacks

    def __getattribute__(self, name: str) -> Any:
        if name in LISTENED and name in self._callbacks:
            return self._fault
        return super().__getattribute__(name)

    def _fault(self, *_: object) -> None:
        self.heard.append(("fault", None))
        raise next(self._faults)("a bug")


LISTENED = [name for name in vars(LaneListener) if not name.startswith("_") and name != "cut"]
"""All but the last resort."""


@pytest.mark.usefixtures("impatient")
async def test_whatever_one_call_raises_ends_that_call_and_neither_the_link_nor_another() -> None:
    worker = ScriptedWorker()
    worker.load.max_calls = 1000
    registry = CollectorRegistry()
    async with linked(worker, registry=registry) as pool:
        _, good = await placed(pool, "CAgood")
        assert {"agent_audio", "session_lost", "stream_stopped", "call_over"} < set(LISTENED)
        number = 1
        for once in (True, False):  # then a second time, in the call's end
            for name in LISTENED:
                call = Faulty(name) if once else Faulty(name, "session_lost")
                worker.refuses = FULL if name == "session_refused" else None
                lane = pool.place(call, f"CA{number}", "MZ1")
                number += 1
                if name not in ("session_accepted", "session_refused"):
                    await until(lambda c=call: c.kinds == ["accepted"], "the call")  # type: ignore[misc]
                match name:
                    case "agent_audio":
                        worker.speak("item", 20, call=number)
                    case "interrupted":
                        worker.interrupt(1, call=number)
                    case "session_finished":
                        worker.finish(call=number)
                    case "stream_stopped":
                        worker.say(call=number, stream_stopped={"stream_sid": "MZ1"})
                    case "call_over":
                        worker.say(call=number, stream_stopped={})
                    case "session_lost":
                        link.end_lost(lane, pool._metrics, "told so")
                await until(lambda lane=lane: lane.outcome is not None, f"its end, by {name}")  # type: ignore[misc]
                assert ("lost" in call.kinds) is (once and name != "session_lost"), name
                assert ("cut" in call.kinds) is ("lost" not in call.kinds), name
                if name != "session_refused":
                    await until(lambda n=number: n in worker.closed, "the worker knows")  # type: ignore[misc]
        assert registry.get_sample_value("asheard_link_faults_total", {"where": "call"}) == 14
        assert registry.get_sample_value("asheard_link_faults_total", {"where": "cleanup"}) == 9
        assert (worker.links, pool.up) == (1, 1)
        worker.speak("item", 20, call=1)
        await until(lambda: good.kinds == ["accepted", "audio"], "the neighbour goes on")

        worst = [Faulty(*LISTENED) for _ in range(3)]
        worker.answers = False
        for number, call in enumerate(worst):
            pool.place(call, f"CAworst{number}", "MZ1")
        await until(lambda: len(worker.opened) >= number + 3, "the offers")
        await worker.stop()
        await until(lambda: "lost" in good.kinds, "the loss, told to the one that listens")
        await until(lambda: all(call.heard for call in worst), "and to those that cannot")


async def test_a_fault_of_a_link_itself_is_survived_and_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, one = await placed(pool, "CA1")
        for place in ("_dispatch", "_next_message"):
            right = getattr(link.Link, place)

            def wrong(*_: object, place: str = place, right: Any = right) -> None:
                monkeypatch.setattr(link.Link, place, right)
                raise RuntimeError("a bug")

            monkeypatch.setattr(link.Link, place, wrong)
            worker.say(call=0, load_report=worker.load)
            if place == "_next_message":
                pool.announce_stopped("CA9", "MZ9")
                await until(lambda: getattr(link.Link, "_next_message") is not wrong, "the bug")  # noqa: B009
            else:
                await until(lambda: "lost" in one.kinds, "the loss")
            await until(lambda: pool.up == 1, "the link, again")
            _, again = await placed(pool, "CA2")
            assert again.kinds == ["accepted"]


async def test_a_writer_that_breaks_ends_its_connection_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = link.Link._write

    async def wrong(self: link.Link, stream: link.Stream) -> None:
        monkeypatch.setattr(link.Link, "_write", right)
        raise RuntimeError("a bug")

    monkeypatch.setattr(link.Link, "_write", wrong)
    async with linked(ScriptedWorker(), up=0) as pool:
        await until(lambda: link.Link._write is right and pool.up, "the link")
        _, one = await placed(pool)
        assert one.kinds == ["accepted"]


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

    async def swallow(self: link.Link) -> str:
        try:
            reached.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None
        return ""

    monkeypatch.setattr(link.Link, "_serve", swallow)
    task = asyncio.create_task(Links(["h:1"], GatewayMetrics(CollectorRegistry())).run())
    await reached.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
