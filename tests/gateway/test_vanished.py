"""Twilio is gone, and nobody said so: by its callbacks, by TCP, by nothing that comes any more."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2
from gateway import media_sink, presence
from gateway.media_sink import MediaSink
from tests.gateway.conftest import World, WorldMaker
from tests.gateway.peers import CALL_SID, STREAM_SID, until
from tests.gateway.test_server import PUBLIC, TOKEN, signed

ROOT = Path(__file__).parents[2]

COMPLETED = fact_pb2.CALL_OUTCOME_COMPLETED
DROPPED = fact_pb2.CALL_OUTCOME_DROPPED


async def post(here: World, path: str, **form: str) -> str:
    async with here.http.post(
        here.url + path, data={"CallSid": CALL_SID, "AccountSid": "AC1"} | form
    ) as response:
        assert response.status in (200, 204)
        return await response.text()


def announced(here: World) -> list[tuple[str, str]]:
    """What workers were told of streams that this gateway does not have."""
    return [
        (control.stream_stopped.call_sid, control.stream_stopped.stream_sid)
        for request in here.worker.requests
        for control in request.control
        if control.HasField("stream_stopped")
    ]


@pytest.mark.parametrize("event", ["stream-stopped", "stream-error"])
async def test_a_stream_callback_ends_its_stream(
    running: World, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """The socket is held open by a proxy: no stop, no close, no media."""
    monkeypatch.setattr(presence, "STOP_WAIT_US", 100_000)
    end = await running.call()
    running.worker.speak("item1", 400)
    await end.receive_audio(400)
    await post(running, "/twilio/status", StreamEvent="stream-started", StreamSid=STREAM_SID)
    await post(running, "/twilio/status", StreamEvent=event, StreamSid="MZ_old")
    await end.media()
    await until(lambda: running.worker.audio.get(1), "another stream's end is not this one's")
    await post(running, "/twilio/status", StreamEvent=event, StreamSid=STREAM_SID)
    assert await end.close_code() == 1000
    await running.ended()
    outcome = running.transcript.only("call_ended").outcome
    assert outcome == DROPPED, "nobody said that the call is over: it may go on in another stream"
    assert running.transcript.only("position_fixed").cause == fact_pb2.POSITION_CAUSE_DROPPED
    await until(lambda: running.worker.closed, "the worker knows")
    await until(lambda: announced(running), "the others are told of the old one")
    assert announced(running) == [(CALL_SID, "MZ_old")]


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
async def test_the_end_of_a_call_ends_its_stream_at_once(running: World, status: str) -> None:
    end = await running.connect()
    await end.start({"stream": "1"})
    await until(lambda: running.worker.opened, "the call")
    assert "<Response/>" in await post(running, "/twilio/voice?attempt=1", CallStatus=status)
    assert await end.close_code() == 1000
    await running.ended()
    assert running.transcript.only("call_ended").outcome == COMPLETED
    await post(running, "/twilio/voice?attempt=1", CallStatus=status)
    assert announced(running) == [], "who had the stream need not ask"


async def test_a_call_that_goes_on_without_its_stream_gets_another(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "STOP_WAIT_US", 10_000_000)
    end = await running.connect()
    await end.start({"stream": "1"})
    await until(lambda: running.worker.opened, "the call")
    await post(running, "/twilio/status", StreamEvent="stream-stopped", StreamSid=STREAM_SID)
    text = await post(running, "/twilio/voice?attempt=1", CallStatus="in-progress")
    assert "<Stream " in text and 'name="stream" value="2"' in text
    assert await end.close_code() == 1008
    await running.ended()
    assert running.transcript.only("call_ended").outcome == DROPPED
    again = await running.connect()
    again.stream_sid = "MZ_second"
    await again.start({"stream": "2"})
    await until(lambda: len(running.worker.opened) == 2, "the second stream")
    await post(running, "/twilio/voice?attempt=1", CallStatus="in-progress")
    await again.media()
    await until(lambda: running.worker.audio.get(2), "a late question does not end it")
    numbers = [started.stream_number for started in running.transcript.all("call_started")]
    assert numbers == [1] or numbers == [1, 2]


async def test_a_stream_of_another_gateway_is_announced_to_it(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "STOP_WAIT_US", 50_000)
    await post(running, "/twilio/status", StreamEvent="stream-stopped", StreamSid="MZ9")
    await post(running, "/twilio/voice?attempt=1", CallStatus="completed")
    await post(running, "/twilio/status", StreamEvent="stream-stopped")  # of no stream
    await until(lambda: len(announced(running)) == 2, "the announcements")
    assert announced(running) == [(CALL_SID, "MZ9"), (CALL_SID, "")]
    end = await running.call()  # and the other way round: a worker tells this gateway
    running.worker.say(call=1, stream_stopped={"call_sid": CALL_SID, "stream_sid": STREAM_SID})
    running.worker.say(call=1, stream_stopped={"call_sid": CALL_SID})
    assert await end.close_code() == 1000
    await running.ended()
    assert running.transcript.only("call_ended").outcome == COMPLETED


async def test_only_twilio_ends_calls(make_world: WorldMaker) -> None:
    async with make_world(auth_token=TOKEN, public_url=PUBLIC) as here:
        form = {"CallSid": CALL_SID, "StreamSid": STREAM_SID, "StreamEvent": "stream-stopped"}
        with capture_logs():
            for path in ("/twilio/status", "/twilio/voice?attempt=1"):
                async with here.http.post(here.url + path, data=form) as response:
                    assert response.status == 403
        assert announced(here) == []
        async with here.http.post(
            f"{here.url}/twilio/status", data=form, headers=signed(f"{PUBLIC}/twilio/status", form)
        ) as response:
            assert response.status == 204
        await until(lambda: announced(here), "the announcement")


async def test_twilios_socket_is_watched_by_tcp() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    MediaSink(transport)
    its = transport.get_extra_info("socket")

    def option(name: str) -> int:
        value: int = its.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        return value

    assert its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle_s = option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
    assert idle_s <= 30
    assert option("TCP_USER_TIMEOUT") <= 25_000
    transport.close()
    server.close()


async def test_a_system_without_these_options_and_without_epoll_serves_calls(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name, raising=False)
    monkeypatch.delattr(select, "epoll")
    monkeypatch.delattr(os, "eventfd")
    async with make_world() as here:
        end = await here.call()
        await end.media()
        await until(lambda: here.worker.audio.get(1), "a frame")
        await end.stop()
        assert await end.close_code() == 1000


# -- in a network of its own, which is switched off -----------------------------------------------


def test_a_peer_that_vanishes_without_a_word_is_noticed_with_and_without_data_under_way() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, of Linux")
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", CUT_OFF],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip("needs root that may make network namespaces")
    assert done.returncode == 0, done.stderr
    idle_s, busy_s = map(float, done.stdout.split())
    # Patient four seconds there, and five times as patient in production.
    assert 1 < idle_s < 10 and 1 < busy_s < 10, (idle_s, busy_s, time.monotonic() - began)
    assert media_sink.VANISHED_S == 20


CUT_OFF = """
import asyncio, fcntl, socket, struct, time
import uvloop
from gateway import media_sink

media_sink.VANISHED_S = 4

def loopback(up):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\\0")
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", name, 0x1 if up else 0, b""))

class Ours(asyncio.Protocol):
    def __init__(self, all_):
        all_.append(self)
        self.lost = asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        self.way = media_sink.MediaSink(transport)
    def connection_lost(self, error):
        self.lost.set_result(time.monotonic())

async def run():
    loopback(True)
    loop = asyncio.get_running_loop()
    ours = []
    server = await loop.create_server(lambda: Ours(ours), "127.0.0.1", 0)
    peers = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(2)]
    while len(ours) < 2:
        await asyncio.sleep(0.01)
    ours[1].way.write(b"x" * 1000)
    await asyncio.sleep(0.1)
    cut = time.monotonic()
    loopback(False)
    ours[1].way.write(b"x" * 81_000)
    async with asyncio.timeout(30):
        for each in ours:
            await each.lost
    print(*(each.lost.result() - cut for each in ours))

uvloop.run(run())
"""
