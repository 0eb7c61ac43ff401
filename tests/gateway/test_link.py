"""What is said over one link, and who hears what comes, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import link
from gateway.lane import KEPT_FRAMES, MAX_CONTROLS, TURN_FRAMES
from gateway.metrics import GatewayMetrics
from gateway.outgoing import Outgoing
from tests.gateway.linked import COMPLETED, FULL, LISTENED, Faulty, Listener, linked, placed
from tests.gateway.peers import ScriptedWorker, until


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


async def test_control_overtakes_audio_and_the_end_of_a_call_goes_after_it() -> None:
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
        assert worker.requests[key].caller_audio.call, "in one message with the audio, before it"
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
        assert handles.index(2) <= TURN_FRAMES


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
        await until(lambda: one.kinds[-1] == "audio", "audio after that")
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


@pytest.mark.usefixtures("impatient")
async def test_whatever_one_call_raises_ends_that_call_and_neither_the_link_nor_another() -> None:
    worker = ScriptedWorker()
    worker.load.max_calls = 1000
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    async with linked(worker, metrics=metrics) as pool:
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
                        link.end_lost(lane, metrics, "told so")
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


@pytest.mark.usefixtures("impatient")
async def test_a_frame_that_cannot_be_sent_ends_its_call_and_the_others_go_on() -> None:
    worker = ScriptedWorker()
    registry = CollectorRegistry()
    async with linked(worker, metrics=GatewayMetrics(registry)) as pool:
        good, bad, ugly = [await placed(pool, f"CA{number}") for number in range(3)]
        good[0].send_audio(b"AAAA", 1, 1)
        bad[0].send_audio(b"AAAA", 2**70, 1)
        bad[0].send_audio(b"AAAA", 2, 1)
        ugly[0].send_audio(cast(bytes, "AAAA\ud800"), 1, 1)
        good[0].send_audio(b"AAAA", 2, 1)
        await until(lambda: "lost" in bad[1].kinds and "lost" in ugly[1].kinds, "their ends")
        good[0].send_audio(b"AAAA", 3, 1)
        await until(lambda: len(worker.audio.get(1, ())) == 3, "the audio of the good one")
        assert [frame.media_ms for frame in worker.audio[1]] == [1, 2, 3]
        assert set(worker.audio) == {1}
        assert good[1].kinds == ["accepted"]
        await until(lambda: set(worker.closed) == {2, 3}, "the worker knows")
        assert registry.get_sample_value("asheard_caller_frames_dropped_total") == 3


@pytest.mark.usefixtures("impatient")
async def test_a_call_ends_whose_positions_are_dropped_and_not_one_that_presses_too_many_keys() -> (
    None
):
    worker = ScriptedWorker()
    registry = CollectorRegistry()
    key = session_service_pb2.CallerKeyPressed(digit="1")
    fixed = session_service_pb2.PositionsFixed()
    async with linked(worker, metrics=GatewayMetrics(registry)) as pool:
        pressing, saying = [await placed(pool, f"CA{number}") for number in range(2)]
        for _ in range(MAX_CONTROLS + 3):
            pressing[0].send(session_service_pb2.GatewayControl(key_pressed=key))
        for _ in range(MAX_CONTROLS + 1):
            saying[0].send(session_service_pb2.GatewayControl(positions_fixed=fixed))
        await until(lambda: "lost" in saying[1].kinds, "the end of the call")
        assert pressing[1].kinds == ["accepted"]
        assert registry.get_sample_value("asheard_link_controls_dropped_total") == 4


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_refuses_a_call_that_it_took_has_lost_it() -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, listener = await placed(pool)
        worker.say(call=1, call_accepted=session_service_pb2.CallAccepted(session_writer="twice"))
        worker.say(call=1, call_refused=session_service_pb2.CallRefused(reason=FULL))
        await until(lambda: "lost" in listener.kinds, "its end")
        assert listener.kinds == ["accepted", "lost"]


async def test_a_fault_in_reading_a_link_is_survived_and_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = ScriptedWorker()
    async with linked(worker) as pool:
        _, one = await placed(pool, "CA1")
        with monkeypatch.context() as patch:
            patch.setattr(link, "in_call", fail)
            worker.interrupt(1, call=1)
            await until(lambda: "lost" in one.kinds, "the loss")
        await until(lambda: pool.up == 1, "the link, again")
        _, again = await placed(pool, "CA2")
        assert again.kinds == ["accepted"]


async def test_a_fault_in_making_a_message_costs_that_message_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = ScriptedWorker()
    registry = CollectorRegistry()
    async with linked(worker, metrics=GatewayMetrics(registry)) as pool:
        _, one = await placed(pool, "CA1")
        with monkeypatch.context() as patch:
            patch.setattr(Outgoing, "next_message", fail)
            pool.announce_stopped("CA9", "MZ9")
            await until(lambda: faults_of_links(registry), "the bug")
        _, again = await placed(pool, "CA2")
        assert (one.kinds, again.kinds) == (["accepted"], ["accepted"])
        assert worker.links == 1


async def test_a_writer_that_breaks_ends_its_connection_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = ScriptedWorker()
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    async with linked(worker, metrics=metrics) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(metrics.link_messages, "inc", fail)
            pool.announce_stopped("CA9", "MZ9")
            await until(lambda: faults_of_links(registry), "the bug")
        await until(lambda: worker.links == 2 and pool.up, "the link, again")
        _, one = await placed(pool)
        assert one.kinds == ["accepted"]


def fail(*_: object) -> None:
    raise RuntimeError("a bug")


def faults_of_links(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("asheard_link_faults_total", {"where": "link"})
