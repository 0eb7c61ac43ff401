"""The simulated endpoint as a client sees it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from simulators.network import Path
from simulators.realtime import AgentScript, RealtimeSimulator
from simulators.realtime.faults import EventFault, RandomFaults
from simulators.realtime.script import Drop, Reply, Speak, say
from simulators.speech import spoken
from tests.simulators.realtime.drive import pcmu_session

SCRIPT = AgentScript(replies=(say("Yes, of course."),), first_text_ms=20, first_audio_ms=30)


def open_session(realtime: RealtimeSimulator, key: str = "sk-test") -> connect:
    return connect(
        f"{realtime.url}?model=gpt-realtime-2.1",
        additional_headers={"Authorization": f"Bearer {key}"},
        compression=None,
        proxy=None,
    )


async def until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Events up to the first of that type."""
    events = []
    async with asyncio.timeout(10):
        while True:
            events.append(json.loads(await socket.recv()))
            if events[-1]["type"] == kind:
                return events


async def test_a_reply_over_the_wire() -> None:
    async with RealtimeSimulator(SCRIPT) as realtime, open_session(realtime) as socket:
        assert (await until(socket, "session.created"))[0]["type"] == "session.created"
        await socket.send(json.dumps(pcmu_session()))
        await socket.send('{"type": "response.create"}')
        events = await until(socket, "rate_limits.updated")
    audio = b"".join(
        base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta"
    )
    assert audio == spoken("Yes, of course.").ulaw
    assert realtime.sessions[0].agent_items[0].audio == audio
    assert realtime.sessions[0].ending == "client_closed"


async def test_bad_key_opens_and_then_closes_3000() -> None:
    async with RealtimeSimulator(SCRIPT, api_key="sk-right") as realtime:
        async with open_session(realtime, "sk-right") as socket:
            await until(socket, "session.created")
        async with open_session(realtime, "sk-wrong") as socket:
            with pytest.raises(ConnectionClosedError) as caught:
                await socket.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 3000
    assert caught.value.rcvd.reason == "invalid_request_error.invalid_api_key"
    assert len(realtime.sessions) == 1


async def test_expiry_is_an_error_and_then_close_1001() -> None:
    script = AgentScript(expires_after_ms=50)
    async with RealtimeSimulator(script) as realtime, open_session(realtime) as socket:
        events = await until(socket, "error")
        assert events[-1]["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1001
        assert socket.close_reason == "Your session hit the maximum duration of 60 minutes."


async def test_scripted_drop_happens_in_as_many_sessions_as_it_says() -> None:
    reply = Reply((Speak("Yes, of course."),), drop=Drop(after_audio_ms=250))
    script = AgentScript(replies=(reply,), first_text_ms=0, first_audio_ms=0)
    async with RealtimeSimulator(script) as realtime:
        async with open_session(realtime) as socket:
            await socket.send('{"type": "response.create"}')
            with pytest.raises(ConnectionClosedError):
                await until(socket, "response.done")
            assert socket.close_code == 1006
        async with open_session(realtime) as socket:
            await socket.send('{"type": "response.create"}')
            await until(socket, "response.done")
    assert [s.ending for s in realtime.sessions] == ["dropped", "client_closed"]


async def test_delay_holds_events_back_but_keeps_their_order() -> None:
    slow = RealtimeSimulator(SCRIPT, to_server=Path(60, 20), from_server=Path(60, 20), seed=3)
    loop = asyncio.get_running_loop()
    async with slow as realtime, open_session(realtime) as socket:
        await until(socket, "session.created")
        began = loop.time()
        await socket.send('{"type": "response.cancel", "event_id": "a"}')
        await socket.send('{"type": "response.cancel", "event_id": "b"}')
        events = [json.loads(await socket.recv()) for _ in range(2)]
        assert loop.time() - began >= 0.119
    assert [e["error"]["event_id"] for e in events] == ["a", "b"]


async def test_many_sessions_at_once_are_apart() -> None:
    async def one(realtime: RealtimeSimulator) -> str:
        async with open_session(realtime) as socket:
            await socket.send('{"type": "response.create"}')
            events = await until(socket, "response.done")
            return str(events[-1]["response"]["id"])

    async with RealtimeSimulator(SCRIPT) as realtime:
        responses = await asyncio.gather(*(one(realtime) for _ in range(50)))
    assert len(set(responses)) == 50
    assert sorted(s.responses[0][0] for s in realtime.sessions) == sorted(responses)


async def test_frame_that_is_no_event_goes_out_as_it_stands() -> None:
    script = AgentScript(events=(EventFault("response.created", frame='{"type": "respon'),))
    async with RealtimeSimulator(script) as realtime, open_session(realtime) as socket:
        await until(socket, "session.created")
        await socket.send('{"type": "response.create"}')
        assert await socket.recv() == '{"type": "respon'


async def test_each_session_has_its_own_draws_and_the_same_ones_another_time() -> None:
    script = AgentScript(faults=RandomFaults(seed=5, refuse=0.5))
    answers: list[list[str]] = []
    for _ in range(2):
        async with RealtimeSimulator(script) as realtime:
            for _ in range(12):
                async with open_session(realtime) as socket:
                    await until(socket, "session.created")
                    await socket.send('{"type": "response.create"}')
                    await socket.recv()
        answers.append([session.requests[0].answer for session in realtime.sessions])
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"created", "refused"}
