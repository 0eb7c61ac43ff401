"""What Twilio's side may send: how fast, how much, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket

import pytest

from asheard.v1 import fact_pb2
from gateway import evidence, media_connection
from gateway.caller_path import CallerPath
from gateway.playout.echoes import MAX_NAME_CHARS, MAX_UNEXPECTED
from gateway.playout.positions import TraceEvent, TraceKind
from gateway.playout.trace import LONG_TRACE, MAX_MEDIA_TRACED
from tests.gateway.call.stage import Stage
from tests.gateway.conftest import World, WorldMaker
from tests.gateway.peers import TwilioEnd, until
from tests.gateway.wire import PING, frame

FACT_BYTES = 64 * 1024


async def still_heard(end: TwilioEnd, here: World, handle: int) -> None:
    before = len(here.worker.audio.get(handle, ()))
    await end.media()
    await until(lambda: len(here.worker.audio.get(handle, ())) == before + 1, "a frame")


@pytest.mark.parametrize("regular", [True, False])
async def test_audio_that_outruns_time_is_not_taken_in(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch, regular: bool
) -> None:
    if not regular:
        monkeypatch.setattr(CallerPath, "take", lambda path, data, at: data)
    async with make_world() as here:
        other = await here.connect()
        other.stream_sid = "MZ_other"
        await other.start(call_sid="CA_other")
        await until(lambda: here.worker.opened, "the other call")
        end = await here.call()
        for _ in range(25 * 50):  # what a network that stood still has kept
            await end.media()

        def taken_in() -> float:
            dropped = here.metric("asheard_caller_frames_dropped_total")  # none waits so long
            return len(here.worker.audio.get(2, ())) + dropped

        await until(lambda: taken_in() == 25 * 50, "25 seconds")
        with contextlib.suppress(ConnectionError):
            for _ in range(60 * 50):
                await end.media()
        assert await end.close_code() == 1008
        await here.ended()
        assert here.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR
        assert here.metric("asheard_twilio_limits_exceeded_total", limit="pace") == 1
        assert 25 <= taken_in() / 50 < 45, "half a minute ahead, and no more"
        await still_heard(other, here, 1)


@pytest.mark.parametrize("step_ms", [0, 1, 11])
async def test_timestamps_do_not_hide_how_much_audio_comes(running: World, step_ms: int) -> None:
    end = await running.call()
    payload = base64.b64encode(b"\xff" * 8000).decode()
    with contextlib.suppress(ConnectionError):
        for number in range(200):  # seconds
            await end.media(20 + step_ms * number, payload)
    assert await end.close_code() == 1008
    await until(lambda: running.worker.closed, "the worker knows, after all that it gets")
    assert len(running.worker.audio.get(1, ())) < 70


async def test_messages_that_outrun_time_end_their_stream(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_connection, "MESSAGES_AT_ONCE", 50)
    end = await running.call()
    with contextlib.suppress(ConnectionError):
        for _ in range(5000):
            await end.send("made-up")
    assert await end.close_code() == 1008
    assert running.metric("asheard_twilio_limits_exceeded_total", limit="messages") == 1


async def test_nobody_presses_so_many_keys(running: World) -> None:
    end = await running.call()
    for _ in range(300):
        await end.send("dtmf", dtmf={"track": "inbound_track", "digit": "1"})
    await still_heard(end, running, 1)
    await end.stop()
    await running.ended()
    passed_on = len(running.transcript.all("key_pressed"))
    assert len(running.worker.keys) == passed_on
    dropped = running.metric("asheard_twilio_limits_exceeded_total", limit="keys")
    assert 100 <= passed_on < 300 and passed_on + dropped == 300


async def test_a_number_of_five_thousand_digits_is_an_unknown_mark(running: World) -> None:
    end = await running.call()
    for name in ("p" + "9" * 5000, "p\u0661", "", "s" * 60_000):
        await end.echo(name)
    await still_heard(end, running, 1)
    await end.stop()
    await running.ended()
    assert running.metric("asheard_twilio_odd_echoes_total", kind="unknown") == 4


async def test_marks_that_nobody_sent_are_counted_and_kept_within_bounds() -> None:
    stage = Stage()
    for number in range(20_000):
        stage.call.receive_mark(f"{number}" + "x" * 2000, stage.now())
    stage.speak(100)
    (_, first) = stage.sink.marks
    for _ in range(500):
        stage.call.receive_mark(first, stage.now())
    stage.call.receive_stop(stage.now())
    events = [event for fact in stage.outbox.facts for event in fact.playout_traced.events]
    echoed = [event for event in events if event.kind == fact_pb2.PLAYOUT_EVENT_KIND_ECHOED]
    assert MAX_UNEXPECTED <= len(echoed) <= MAX_UNEXPECTED + 2
    assert max(len(event.mark) for event in echoed) <= MAX_NAME_CHARS
    counted = stage.registry.get_sample_value
    assert counted("asheard_twilio_odd_echoes_total", {"kind": "unknown"}) == 20_000
    assert counted("asheard_twilio_odd_echoes_total", {"kind": "repeated"}) == 499


async def test_ragged_media_is_traced_in_facts_of_a_bounded_size_and_not_for_ever() -> None:
    stage = Stage()
    stage.media(0)
    stage.shift_us = 10**10  # all of it is in time
    for number in range(MAX_MEDIA_TRACED):
        stage.media(20 + 100 * number)
        if number % 1_000 == 999:
            assert stage.events_traced >= min(2 * number, MAX_MEDIA_TRACED) - LONG_TRACE
    assert sum(kind == "playout_traced" for kind in stage.outbox.kinds) > 5, "as it goes on"
    stage.call.receive_stop(stage.now())
    traces = [fact for fact in stage.outbox.facts if fact.HasField("playout_traced")]
    assert max(fact.ByteSize() for fact in traces) < FACT_BYTES
    assert MAX_MEDIA_TRACED <= stage.events_traced < MAX_MEDIA_TRACED + 10


def test_a_trace_of_any_length_is_cut_between_its_events() -> None:
    trace = [
        TraceEvent(kind=TraceKind.ECHOED, now_us=n, media_ms=n, media_us=n, mark=f"p{n}" * 40)
        for n in range(3_000)
    ]
    pieces = list(evidence.playout_traced(trace))
    assert len(pieces) > 10
    assert max(piece.ByteSize() for piece in pieces) < FACT_BYTES
    assert [evidence.trace_event(event) for piece in pieces for event in piece.events] == trace
    assert list(evidence.playout_traced([])) == []


async def test_pings_that_are_not_waited_for_fill_no_memory(running: World) -> None:
    """Their pongs cannot leave, so that after a while no more pings are read."""
    end = await running.call()
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    peer.setblocking(False)
    await loop.sock_connect(peer, ("127.0.0.1", running.gateway.port))
    key = base64.b64encode(os.urandom(16)).decode()
    await loop.sock_sendall(
        peer,
        (
            "GET /twilio/media HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode(),
    )
    assert b" 101 " in await loop.sock_recv(peer, 4096)
    pings = frame(PING, b"p" * 125) * 500
    sent, stuck = 0, 0
    while stuck < 50 and sent < 200_000_000:
        try:
            sent += peer.send(pings)
            stuck = 0
        except BlockingIOError:
            stuck += 1
        await asyncio.sleep(0.005)
    peer.close()
    assert sent < 100_000_000
    await still_heard(end, running, 1)
