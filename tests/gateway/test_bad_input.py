"""Bad input: each with one clear log line and one close code, and the other calls undisturbed."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2
from gateway import media_connection
from tests.gateway.conftest import World
from tests.gateway.peers import CALL_SID, STREAM_SID, RawEnd, TwilioEnd, until
from tests.gateway.wire import CLOSE, TEXT, frame

STARTED = "started"
OPEN = "open"


def media(**changed: object) -> str:
    details = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "////"} | changed
    return json.dumps({"event": "media", "streamSid": STREAM_SID, "media": details})


def other_stream(event: str, **fields: object) -> str:
    return json.dumps({"event": event, "streamSid": "MZ_other"} | fields)


def start(
    *, call_sid: str = "CA1", stream_sid: str = "MZ1", account_sid: str = "AC1",
    parameters: dict[str, str] | None = None,
) -> str:  # fmt: skip
    details = {"callSid": call_sid, "streamSid": stream_sid, "accountSid": account_sid}
    return json.dumps(
        {
            "event": "start",
            "streamSid": stream_sid,
            "start": details | {"customParameters": parameters or {}},
        }
    )


BAD = [
    ("malformed JSON", STARTED, '{"event":"media"', 1007, "not JSON"),
    ("no JSON at all", OPEN, "hello", 1007, "not JSON"),
    ("no object", STARTED, "[1]", 1007, "event name"),
    ("binary", STARTED, b"\x00\x01", 1003, "binary"),
    ("binary before start", OPEN, b"{}", 1003, "binary"),
    ("media before start", OPEN, media(), 1008, "media message"),
    ("mark before start", OPEN, other_stream("mark", mark={"name": "x"}), 1008, "mark message"),
    ("second connected", STARTED, '{"event":"connected"}', 1008, "connected message"),
    ("media of another stream", STARTED, other_stream("media", **json.loads(media())["media"] and {
        "media": json.loads(media())["media"]}), 1008, "another stream"),
    ("stop of another stream", STARTED, other_stream("stop"), 1008, "another stream"),
    ("bad base64", STARTED, media(payload='///"'), 1007, "payload"),
    ("cut base64", STARTED, media(payload="///"), 1007, "payload"),
    ("bad timestamp", STARTED, media(timestamp="soon"), 1007, "timestamp"),
    ("timestamp of no call", STARTED, media(timestamp="172800000"), 1007, "timestamp"),
    ("negative timestamp", STARTED, media(timestamp="-20"), 1007, "timestamp"),
    ("no payload", STARTED, media(payload=None), 1007, "payload"),
    ("a good beginning", STARTED, '{"event":"mediax","streamSid":"MZ","media":{"timestamp"', 1007,
     "not JSON"),
    ("an end too many", STARTED, media() + "}", 1007, "not JSON"),
    ("an unknown event cut off", STARTED, '{"event":"new","x":[1,2', 1007, "not JSON"),
    ("deep nesting", STARTED, '{"event":"new","x":' + "[" * 30_000 + "]" * 30_000 + "}", 1007,
     "nested"),
    ("deep nesting in start", OPEN, '{"event":"start","streamSid":"a","start":{"callSid":"b",'
     '"customParameters":{"a":' + "[" * 30_000 + "]" * 30_000 + "}}}", 1007, "nested"),
    ("half a surrogate", STARTED, other_stream("mark", mark={"name": "\ud800"}), 1007, "not JSON"),
    ("a quoted value", STARTED, '{"event":"hello","event":"media"}', 1007, "Invalid value …"),
    ("a long payload", STARTED, media(payload="/" * 21_340), 1009, "two seconds"),
    ("a long key", STARTED, other_stream("dtmf", dtmf={"digit": "1" * 9}), 1007, "digit"),
    ("a long CallSid", OPEN, start(call_sid="C" * 129), 1008, "callSid"),
    ("a CallSid of two lines", OPEN, start(call_sid="CA1\nCA2"), 1008, "callSid"),
    ("a streamSid in another script", OPEN, start(stream_sid="MZ\u0661"), 1008, "streamSid"),
    ("a long streamSid", OPEN, start(stream_sid="M" * 129), 1008, "streamSid"),
    ("a long accountSid", OPEN, start(account_sid="A" * 129), 1008, "accountSid"),
    ("many parameters", OPEN, start(parameters={str(n): "" for n in range(101)}), 1008,
     "parameters"),
    ("too large", STARTED, media(payload="/" * 400_000), 1009, "close code 1009"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "text", "close_code", "named"), [case[1:] for case in BAD], ids=[c[0] for c in BAD]
)
async def test_bad_input_ends_its_stream_and_no_other(
    running: World, state: str, text: str | bytes, close_code: int, named: str
) -> None:
    other = await running.connect()
    other.stream_sid = "MZ_good"
    await other.start(call_sid="CA_good")
    await until(lambda: len(running.worker.opened) == 1, "the good call")
    end = await running.connect()
    with capture_logs() as lines:
        if state == STARTED:
            await end.start()
            await until(lambda: len(running.worker.opened) == 2, "the bad call")
        if isinstance(text, bytes):
            await end.socket.send_bytes(text)
        else:
            await end.socket.send_str(text)
        assert await end.close_code() == close_code
        await until(lambda: any(line["log_level"] == "warning" for line in lines), "a log line")
    (line,) = [line for line in lines if line["log_level"] != "info"]
    assert line["event"] == "media stream broke its protocol"
    assert named in line["fault"]
    if state == STARTED:
        assert line["call"] == CALL_SID
        await running.ended()
        outcome = running.transcript.only("call_ended").outcome
        assert outcome == fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR
        await until(lambda: running.worker.closed, "the worker knows")
        assert running.worker.closed == {2: fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR}
        assert running.metric("asheard_calls_total", outcome="protocol_error") == 1
    assert running.metric("asheard_twilio_protocol_errors_total") == 1
    await _still_works(running, other)


async def test_text_that_is_not_utf_8_ends_its_stream(running: World) -> None:
    raw = await RawEnd.connect(running.gateway.port)
    with capture_logs() as lines:
        raw.writer.write(frame(TEXT, b'{"event":"\xff\xfe"}') + frame(CLOSE, b""))
        assert (await raw.rest())[2:4] == (1007).to_bytes(2, "big")
    raw.writer.close()
    assert [line["fault"] for line in lines if line["log_level"] != "info"] == [
        "the message is not JSON"
    ]


async def test_unknown_events_are_ignored_counted_and_said_once(running: World) -> None:
    end = await running.connect()
    with capture_logs() as lines:
        await end.send("hello", anything=[1, 2])
        await end.start()
        await end.send("transcription", text="secret words")
        await end.send("transcription", text="secret words")
        await until(lambda: len(running.worker.opened) == 1, "the call")
        await _still_works(running, end)
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert line["event_name"] == "hello"
    assert "secret" not in str(lines)
    assert running.metric("asheard_twilio_unknown_events_total") == 3


async def test_a_socket_that_never_starts_is_closed(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_connection, "START_DEADLINE_S", 0.05)
    end = await running.connect()
    await end.send("connected")
    with capture_logs() as lines:
        assert await end.close_code() == 1008
    assert [line["fault"] for line in lines] == ["no start message in time"]


async def test_a_ping_is_answered_and_a_fragmented_message_is_read(running: World) -> None:
    end = await running.call()
    await end.socket.ping()
    await _still_works(running, end)


async def test_audio_that_is_not_the_callers_is_not_passed_on(running: World) -> None:
    end = await running.call()
    await end.socket.send_str(media(track="outbound"))
    await end.socket.send_str(media(payload=""))
    await end.media(40)
    await until(lambda: running.worker.audio, "the caller's audio")
    assert [frame.media_ms for frame in running.worker.audio[1]] == [40]


async def test_no_log_line_of_a_call_has_a_number_or_a_digit_pressed(running: World) -> None:
    with capture_logs() as lines:
        end = await running.connect()
        await end.start({"from": "+15550100", "to": "+15550199"})
        await end.send("dtmf", dtmf={"track": "inbound_track", "digit": "7"})
        await until(lambda: running.worker.keys, "the key")
        await end.stop()
        await running.ended()
    assert [line["event"] for line in lines] == ["call started", "call ended"]
    assert "555" not in str(lines) and "'7'" not in str(lines)
    assert running.transcript.only("key_pressed").at_ms == 0


async def _still_works(running: World, end: TwilioEnd) -> None:
    """The first call that the worker got is heard."""
    before = len(running.worker.audio.get(1, ()))
    await end.media()
    await until(lambda: len(running.worker.audio.get(1, ())) == before + 1, "the caller is heard")
