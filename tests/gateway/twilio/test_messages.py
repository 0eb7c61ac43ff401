"""What Twilio sends is understood, what we send has exactly the fields that Twilio knows."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.twilio import messages
from gateway.twilio.messages import Encoder, Media, Start, TwilioProtocolError, decode

SID = "MZ" + "6e0d" * 8

START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": SID,
    "start": {
        "streamSid": SID,
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"nonce": "n", "odd": 7},
    },
}
PAYLOAD = base64.b64encode(b"\xff" * 160).decode()
MEDIA = {
    "event": "media",
    "sequenceNumber": "2",
    "streamSid": SID,
    "media": {"track": "inbound", "chunk": "1", "timestamp": "63", "payload": PAYLOAD},
}


def test_the_documented_messages_are_understood() -> None:
    assert isinstance(
        decode('{"event":"connected","protocol":"Call","version":"1.0.0"}'), messages.Connected
    )
    start = decode(json.dumps(START))
    assert isinstance(start, Start)
    assert (start.stream_sid, start.start.call_sid, start.start.account_sid) == (SID, "CA1", "AC1")
    assert start.start.parameter("nonce") == "n"
    media = decode(json.dumps(MEDIA))
    assert isinstance(media, Media)
    assert media.media.timestamp == 63
    assert media.media.payload == PAYLOAD
    assert media.media.audio()[1] == 160
    mark = decode(json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": "m1"}}))
    assert isinstance(mark, messages.Mark) and mark.mark.name == "m1"
    dtmf = decode(
        json.dumps(
            {"event": "dtmf", "streamSid": SID, "dtmf": {"track": "inbound_track", "digit": "4"}}
        )
    )
    assert isinstance(dtmf, messages.Dtmf) and dtmf.dtmf.digit == "4"
    assert "4" not in repr(dtmf.dtmf), "a digit may be a card's"
    stop = decode(
        json.dumps({"event": "stop", "streamSid": SID, "stop": {"accountSid": "a", "callSid": "c"}})
    )
    assert isinstance(stop, messages.Stop)


def test_numbers_may_come_as_numbers_and_the_event_last() -> None:
    media = decode(
        f'{{"streamSid":"{SID}","media":{{"payload":"","timestamp":40}},"event":"media"}}'
    )
    assert isinstance(media, Media) and media.media.timestamp == 40
    assert media.media.audio() == (b"", 0)


def test_a_start_with_the_least_that_we_need_is_enough() -> None:
    start = decode(f'{{"event":"start","streamSid":"{SID}","start":{{"callSid":"CA1"}}}}')
    assert isinstance(start, Start)
    assert start.start.parameter("nonce") == ""
    assert start.start.media_format.sample_rate == 8000


def test_a_parameter_that_is_not_text_counts_as_missing() -> None:
    start = decode(json.dumps(START))
    assert isinstance(start, Start) and start.start.parameter("odd") == ""


@pytest.mark.parametrize("event", ["connectedd", "Media", "x" * 100, ""])
def test_an_event_that_we_do_not_know_is_named_and_not_an_error(event: str) -> None:
    unknown = decode(json.dumps({"event": event, "streamSid": SID, "x": [1, {"y": None}]}))
    assert unknown == messages.Unknown(event[:40])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ('{"event":"media"', "not JSON"),
        ("[]", "event name"),
        ('"media"', "event name"),
        ("{}", "event name"),
        ('{"event":7}', "event name"),
        ('{"event":"media","streamSid":"MZ1"}', "media"),
        ('{"event":"media","streamSid":"MZ1","media":{"timestamp":"x","payload":""}}', "timestamp"),
        (
            '{"event":"media","streamSid":"MZ1","media":{"timestamp":"-1","payload":""}}',
            "timestamp",
        ),
        ('{"event":"media","streamSid":"MZ1","media":{"timestamp":"1"}}', "payload"),
        ('{"event":"mark","streamSid":"MZ1","mark":{}}', "name"),
        ('{"event":"start","streamSid":"MZ1","start":{}}', "callSid"),
        ('{"event":"stop"}', "streamSid"),
    ],
)
def test_a_malformed_message_is_an_error_that_names_the_fault(
    text: str | bytes, named: str
) -> None:
    with pytest.raises(TwilioProtocolError, match=named) as caught:
        decode(text)
    assert caught.value.close_code == 1007


@pytest.mark.parametrize("payload", ['AAA"', "AAA", "A===", "AA=A", "ÄÄÄÄ", "AA A", 'AA","x":"'])
def test_a_payload_that_could_end_its_quotes_or_is_no_base64_is_refused(payload: str) -> None:
    media = decode(
        json.dumps(
            {"event": "media", "streamSid": SID, "media": {"timestamp": "0", "payload": payload}}
        )
    )
    assert isinstance(media, Media)
    with pytest.raises(TwilioProtocolError, match="payload") as caught:
        media.media.audio()
    assert payload not in str(caught.value)


def test_our_messages_have_exactly_the_documented_fields() -> None:
    encoder = Encoder(SID)
    assert json.loads(encoder.media(b"fn9+")) == {
        "event": "media",
        "streamSid": SID,
        "media": {"payload": "fn9+"},
    }
    assert json.loads(encoder.mark('i"1.é')) == {
        "event": "mark",
        "streamSid": SID,
        "mark": {"name": 'i"1.é'},
    }
    assert json.loads(encoder.clear()) == {"event": "clear", "streamSid": SID}


def test_a_stream_sid_cannot_break_out_of_our_json() -> None:
    sid = 'MZ","event":"x'
    assert json.loads(Encoder(sid).clear()) == {"event": "clear", "streamSid": sid}


@given(st.binary(max_size=5000))
def test_pieces_are_base64_of_the_same_audio_in_order(audio: bytes) -> None:
    pieces = list(messages.split(base64.b64encode(audio)))
    decoded = [base64.b64decode(piece, validate=True) for piece, _ in pieces]
    assert b"".join(decoded) == audio
    assert [len(piece) for piece in decoded] == [audio_bytes for _, audio_bytes in pieces]
    assert all(len(piece) == 960 for piece in decoded[:-1]), "120 ms each but the last"
    assert all(piece for piece in decoded), "no empty message"
