"""How calls end, and how the gateway does."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2
from gateway import link, links, service
from gateway.call import Call
from gateway.config import GatewayConfig
from gateway.lane import Lane, LaneListener
from gateway.last_line import LastLine
from gateway.webhook import LINES_BUSY
from runtime.config import Address
from runtime.errors import ConfigurationError
from runtime.process import Stop
from tests.gateway.conftest import World, WorldMaker
from tests.gateway.peers import CALL_SID, until


async def test_a_dropped_socket_ends_the_call_and_a_new_one_goes_on_with_its_transcript(
    running: World,
) -> None:
    end = await running.call()
    running.worker.speak("item1", 400)
    await end.receive_audio(400)
    end.drop()
    await running.ended()
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_DROPPED
    assert running.transcript.only("position_fixed").cause == fact_pb2.POSITION_CAUSE_DROPPED
    await until(lambda: running.worker.closed, "the worker knows")

    again = await running.connect()
    again.stream_sid = "MZ_second"
    await again.start()
    await until(lambda: len(running.worker.opened) == 2, "the second stream")
    await again.stop()
    await running.ended(2)
    assert {fact.call_sid for fact in running.transcript.facts} == {CALL_SID}
    assert running.transcript.kinds("gateway/MZ_second")[0] == "call_started"
    assert running.metric("asheard_calls_total", outcome="dropped") == 1


async def test_a_close_without_stop_is_a_drop(running: World) -> None:
    end = await running.call()
    await end.socket.close()
    await running.ended()
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_DROPPED


async def test_a_second_socket_of_a_running_call_replaces_the_first(running: World) -> None:
    first = await running.call()
    second = await running.connect()
    second.stream_sid = "MZ_second"
    await second.start()
    assert await first.close_code() == 1008
    await until(lambda: len(running.worker.opened) == 2, "the second stream")
    await second.media()
    await until(lambda: running.worker.audio.get(2), "the caller is heard")


async def test_a_lost_worker_ends_its_calls_and_twilio_is_given_a_new_stream(
    running: World,
) -> None:
    end = await running.call()
    await until(lambda: "session_assigned" in running.transcript.kinds(), "the assignment")
    port = running.worker.port
    await running.worker.stop()
    assert await end.close_code() == 1011
    await running.ended()
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_SESSION_LOST
    lost = running.transcript.only("session_lost")
    assert lost.session_writer == running.transcript.only("session_assigned").session_writer
    assert running.gateway.not_ready() is not None
    await running.worker.start(port)
    await until(lambda: running.gateway.not_ready() is None, "the link again")
    async with running.http.post(
        f"{running.url}/twilio/voice?attempt=1",
        data={"CallSid": CALL_SID, "CallStatus": "in-progress"},
    ) as response:
        assert "<Stream " in await response.text()


async def test_a_call_that_comes_while_its_worker_is_away_for_a_moment_is_not_turned_away(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "RECONNECT_S", 20.0)  # a moment on a busy machine
    monkeypatch.setattr(links, "RECONNECT_S", 20.0)
    port = running.worker.port
    await running.worker.stop()
    await until(lambda: running.gateway.not_ready() is not None, "the loss")
    async with running.http.post(f"{running.url}/twilio/voice", data={"CallSid": CALL_SID}) as new:
        assert "<Stream " in await new.text()
    end = await running.connect()
    await end.start()
    await end.media()
    await running.worker.start(port)
    await until(lambda: running.worker.audio.get(1), "the caller is heard")


async def test_a_session_that_ends_the_call_closes_the_socket_and_hangs_up(running: World) -> None:
    end = await running.call()
    running.worker.speak("bye", 240, last=True)
    running.worker.finish()
    for name in await end.receive_audio(240):
        await end.echo(name)
    assert await end.close_code() == 1000
    await running.ended()
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT
    async with running.http.post(
        f"{running.url}/twilio/voice?attempt=1",
        data={"CallSid": CALL_SID, "CallStatus": "in-progress"},
    ) as response:
        assert "<Hangup/>" in await response.text()


async def test_drain_lets_calls_finish_and_takes_no_new_ones(running: World) -> None:
    end = await running.call()
    admin = f"http://127.0.0.1:{running.gateway.admin_port}"
    async with running.http.get(f"{admin}/readyz") as response:
        assert response.status == 200
    running.stop.request()
    await until(lambda: running.gateway.draining, "the drain")
    async with running.http.get(f"{admin}/readyz") as response:
        assert (response.status, await response.text()) == (503, "draining\n")
    async with running.http.get(f"{admin}/livez") as response:
        assert response.status == 200
    async with running.http.post(f"{running.url}/twilio/voice", data={"CallSid": "CA2"}) as busy:
        assert LINES_BUSY in await busy.text()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await running.connect()
    assert refused.value.status == 503

    await end.media()
    await until(lambda: running.worker.audio.get(1), "the call goes on")
    assert not running.task.done()
    await end.stop()
    assert await end.close_code() == 1000
    await asyncio.wait_for(running.task, 10)
    assert running.worker.closed == {1: fact_pb2.CALL_OUTCOME_COMPLETED}
    assert running.transcript.kinds()[-1] == "call_ended", "delivered before the exit"


async def test_a_call_whose_last_steps_raise_at_first_closes_its_socket_all_the_same(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = await running.call()
    abandon, raised = Call.abandon, 0

    def raise_once(self: Call, *args: Any) -> None:
        nonlocal raised
        raised += 1
        if raised == 1:
            raise ZeroDivisionError("ours")
        abandon(self, *args)

    monkeypatch.setattr(Call, "abandon", raise_once)
    running.worker.finish(call=1)  # nobody above its end would close the socket
    assert await end.close_code() == 1000
    await running.ended()
    assert running.metric("asheard_active_calls") == 0
    assert running.metric("asheard_calls_total", outcome="ended_by_agent") == 1


async def test_a_second_signal_cuts_calls_off_in_order(running: World) -> None:
    end = await running.call()
    running.stop.request()
    running.stop.request()
    assert await end.close_code() == 1001
    await asyncio.wait_for(running.task, 10)
    assert running.worker.closed == {1: fact_pb2.CALL_OUTCOME_DROPPED}
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_DROPPED


async def test_audio_does_not_wait_for_the_transcript_service(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FLUSH_NOW_S", 0.1)
    async with make_world() as here:
        await here.transcript.stop()
        end = await here.call()
        await end.media()
        await until(lambda: here.worker.audio.get(1), "the caller is heard")
        here.worker.speak("item1", 400)
        await end.receive_audio(400)
        await end.stop()
        assert await end.close_code() == 1000
        with capture_logs() as lines:
            here.stop.request()
            here.stop.request()
            await here.task
        assert "facts lost" in [line["event"] for line in lines]


async def test_a_port_in_use_is_an_error_that_names_it(running: World) -> None:
    config = GatewayConfig(
        listen=Address("127.0.0.1", running.gateway.port),
        admin=Address("127.0.0.1", 0),
        session_targets=("127.0.0.1:1",),
        ingest_target="127.0.0.1:1",
    )
    with pytest.raises(ConfigurationError, match="ASHEARD_GATEWAY_LISTEN=127.0.0.1"):
        await service.serve(config, Stop())


async def test_many_calls_at_once_each_hear_their_own(running: World) -> None:
    """Twenty calls; no frame lost, repeated or out of order, no audio in the wrong ear."""
    count, frames = 20, 25
    running.worker.load.max_calls = 100
    running.worker.say(call=0, load_report=running.worker.load)
    ends = []
    for number in range(count):
        end = await running.connect()
        end.stream_sid = f"MZ{number}"
        await end.start(call_sid=f"CA{number}")
        await until(lambda n=number: len(running.worker.opened) == n + 1, "the call")  # type: ignore[misc]
        ends.append(end)

    async def talk(number: int) -> None:
        for _ in range(frames):
            await ends[number].media()
            await asyncio.sleep(0)
        running.worker.speak(f"item{number}", 100 + number * 20, call=number + 1)
        await ends[number].receive_audio(100 + number * 20)

    await asyncio.gather(*(talk(number) for number in range(count)))
    await until(
        lambda: all(len(running.worker.audio.get(n + 1, ())) == frames for n in range(count)),
        "all frames",
    )
    for number in range(count):
        heard = [frame.media_ms for frame in running.worker.audio[number + 1]]
        assert heard == list(range(20, 20 * frames + 20, 20))
    assert running.metric("asheard_caller_frames_dropped_total") == 0


async def test_a_call_that_is_over_is_freed_without_the_garbage_collector(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It halts every call of the process for as long as it runs, and until then nothing is freed.
    calls: list[weakref.ref[LaneListener]] = []
    lanes: list[Lane] = []
    place = LastLine.place

    def placed(self: LastLine, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        lanes.append(place(self, listener, call_sid, stream_sid))
        calls.append(weakref.ref(listener))
        return lanes[-1]

    monkeypatch.setattr(LastLine, "place", placed)
    gc.collect()
    gc.disable()
    try:
        end = await running.call()
        running.worker.speak("item1", 400)
        await end.receive_audio(400)
        await end.media(400)
        assert isinstance(calls[0](), Call)
        await end.stop()
        await running.ended()
        await until(lambda: calls[0]() is None, "the call is freed")
        await until(lambda: sys.getrefcount(lanes[0]) == 2, "its lane too")
    finally:
        gc.enable()
