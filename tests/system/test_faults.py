"""What breaks, breaks alone: bad peers, bad input, killed processes; other calls go on."""

from __future__ import annotations

import asyncio
import io
import json

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asheard.v1 import transcript_pb2
from cli.local import LocalSystem, local_system
from session.notices.book import SHIPPED, shipped_texts
from simulators.realtime import RealtimeSimulator
from simulators.realtime.script import bakery as bakery_agent
from simulators.twilio import TwilioCaller
from simulators.twilio.script import AgentPlayed, CallerScript, HangUp, Step
from simulators.twilio.script import bakery as bakery_caller
from tests.system.judge import agent_turns, assert_right, truly_heard
from tests.system.together import together

STREAM = "MZ" + "0" * 32
CONNECTED = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
START = json.dumps(
    {
        "event": "start", "sequenceNumber": "1", "streamSid": STREAM,
        "start": {
            "streamSid": STREAM, "accountSid": "AC1", "callSid": "CAbad", "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        },
    }
)  # fmt: skip


def media(stream: str = STREAM) -> str:
    payload = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "//8="}
    body = {"event": "media", "sequenceNumber": "2", "streamSid": stream, "media": payload}
    return json.dumps(body)


BAD_STREAMS: dict[str, tuple[list[str | bytes], int]] = {
    "malformed JSON": ([CONNECTED, START, '{"event": '], 1007),
    "a binary frame": ([CONNECTED, START, b"\xff\xff"], 1003),
    "another stream's sid": ([CONNECTED, START, media("MZ" + "9" * 32)], 1008),
    "media before start": ([CONNECTED, media()], 1008),
}


async def closes_with(system: LocalSystem, frames: list[str | bytes]) -> int | None:
    async with connect(system.media_url, compression=None, proxy=None) as socket:
        try:
            for frame in frames:
                await socket.send(frame)
            async with asyncio.timeout(20):
                async for _ in socket:
                    pass  # What the agent says meanwhile.
        except ConnectionClosed:
            pass
        return socket.close_code


@together
async def test_bad_streams_end_alone_each_with_one_clear_line() -> None:
    logs = io.StringIO()
    async with local_system(bakery_agent(), logs) as system:
        good = asyncio.create_task(TwilioCaller(system.voice_url, bakery_caller()).run())
        await asyncio.sleep(1)
        codes = {}
        for name, (frames, _) in BAD_STREAMS.items():
            before = logs.getvalue().count("[warning")
            codes[name] = await closes_with(system, frames)
            await asyncio.sleep(0.1)
            assert logs.getvalue().count("[warning") - before == 1, (name, logs.getvalue())
        call = await good
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
    assert codes == {name: code for name, (_, code) in BAD_STREAMS.items()}
    assert_right(transcript, heard, call)
    assert "Traceback" not in logs.getvalue()


@together
async def test_an_unknown_event_is_passed_over() -> None:
    logs = io.StringIO()
    unknown = json.dumps({"event": "weather", "sequenceNumber": "2", "streamSid": STREAM})
    async with (
        local_system(bakery_agent(), logs) as system,
        connect(system.media_url, compression=None, proxy=None) as socket,
    ):
        for frame in (CONNECTED, START, unknown, unknown):
            await socket.send(frame)
        async with asyncio.timeout(20):
            said = [json.loads(await socket.recv())["event"] for _ in range(3)]
    assert "media" in said
    assert logs.getvalue().count("weather") == 1


@together
async def test_signatures_are_demanded_when_there_is_a_token() -> None:
    logs = io.StringIO()
    settings = {"TWILIO_AUTH_TOKEN": "the-token", "ASHEARD_TWILIO_VALIDATE": "on"}
    async with local_system(bakery_agent(), logs, settings=settings) as system:
        stranger = await TwilioCaller(system.voice_url, bakery_caller()).run()
        assert stranger.ending == "failed"
        assert [request.status for request in stranger.requests] == [403]
        async with aiohttp.ClientSession() as http, http.get(system.media_url) as response:
            assert response.status == 403
        call = await TwilioCaller(system.voice_url, bakery_caller(), auth_token="the-token").run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
    assert_right(transcript, heard, call)
    assert transcript.from_number == call.from_number
    assert call.from_number not in logs.getvalue()
    assert "the-token" not in logs.getvalue()


@pytest.mark.parametrize("fault", ["unreachable", "bad key"])
@together
async def test_a_model_that_cannot_be_had_fails_the_call_with_one_clear_error(fault: str) -> None:
    logs = io.StringIO()
    settings = {"OPENAI_API_KEY": "sk-wrong-secret"}
    if fault == "unreachable":
        settings["ASHEARD_REALTIME_URL"] = "ws://127.0.0.1:1/v1/realtime"
    model = RealtimeSimulator(bakery_agent(), api_key="sk-right")
    async with local_system(bakery_agent(), logs, settings=settings, realtime=model) as system:
        call = await TwilioCaller(system.voice_url, bakery_caller()).run()
        transcript = await system.final_transcript(call.call_sid)
    assert call.ending == "server_closed" and call.warnings == []
    assert [request.kind for request in call.requests if request.kind != "status"] == [
        "voice",
        "action",
    ]
    assert "answer=hang_up" in logs.getvalue(), "the carrier does not say it once more"
    [stream] = call.streams
    goodbye = (SHIPPED / "en-goodbye.ulaw").read_bytes()
    assert bytes(stream.audio) == goodbye
    assert call.played_ms == len(goodbye) // 8, "the caller heard it to its end"
    assert transcript.state == transcript_pb2.CALL_STATE_FAILED
    [turn] = transcript.turns
    assert turn.notice and turn.role == transcript_pb2.ROLE_AGENT
    assert turn.heard_text == shipped_texts()["en"]["goodbye"]
    assert turn.heard_audio_ms == turn.generated_audio_ms == len(goodbye) // 8
    errors = [line for line in logs.getvalue().splitlines() if "[error" in line]
    assert len(errors) == 1, logs.getvalue()
    named = "close 3000" if fault == "bad key" else "ASHEARD_REALTIME_URL"
    assert named in errors[0]
    assert "secret" not in logs.getvalue()
    assert "Traceback" not in logs.getvalue()


@together
async def test_a_killed_worker_ends_its_calls_and_the_next_call_is_served() -> None:
    logs = io.StringIO()
    long_call = CallerScript(end=Step(HangUp(), AgentPlayed(60_000)))
    async with local_system(bakery_agent(), logs) as system:
        caller = TwilioCaller(system.media_url, long_call)
        doomed = asyncio.create_task(caller.run())
        async with asyncio.timeout(20):
            while not (caller.carrier and caller.carrier.played_bytes() > 8_000):
                await asyncio.sleep(0.02)
        system.supervisor.process("session-0").kill()
        call = await doomed
        assert call.ending == "server_closed"
        lost = await system.final_transcript(call.call_sid)
        await system.supervisor.ready()
        second = await TwilioCaller(system.voice_url, bakery_caller()).run()
        transcript = await system.final_transcript(second.call_sid)
        heard = await truly_heard([second], system.realtime.sessions)
    assert lost.state == transcript_pb2.CALL_STATE_FAILED
    assert_right(transcript, heard[0], second)


@together
async def test_the_transcript_service_may_die_in_the_middle_of_a_call() -> None:
    logs = io.StringIO()
    async with local_system(bakery_agent(), logs) as system:
        caller = TwilioCaller(system.voice_url, bakery_caller())
        calling = asyncio.create_task(caller.run())
        async with asyncio.timeout(20):
            while not (caller.carrier and caller.carrier.played_bytes() > 8_000):
                await asyncio.sleep(0.02)
        system.supervisor.process("transcript").kill()
        call = await calling
        await system.supervisor.ready()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
    assert_right(transcript, heard, call)
    assert len(agent_turns(transcript)) == 3
