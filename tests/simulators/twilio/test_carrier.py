"""The simulated carrier, driven by hand in virtual time."""

from __future__ import annotations

import base64
import json

import pytest

from simulators.speech import spoken
from simulators.speech.g711 import SILENCE
from simulators.twilio.carrier import Carrier
from simulators.twilio.stream_truth import Flush, Stretch
from tests.simulators.twilio.drive import SID, clear, mark, marks, media, media_of, quiet_carrier


def test_stream_opens_with_connected_and_start() -> None:
    carrier = Carrier(stream_sid=SID, parameters={"nonce": "5b1e"})
    connected, start = (json.loads(o.text) for o in carrier.take())
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": SID,
        "start": {
            "streamSid": SID,
            "accountSid": "AC00000000000000000000000000000001",
            "callSid": "CA00000000000000000000000000000001",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"nonce": "5b1e"},
        },
    }


def test_caller_frames_come_every_20_ms_with_numbers_as_strings() -> None:
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=63)
    carrier.take()
    carrier.advance(130)
    frames = carrier.take()
    assert [o.at_ms for o in frames] == [83, 103, 123]
    payload = base64.b64encode(SILENCE * 160).decode()
    assert [o.message for o in frames] == [
        {
            "event": "media",
            "sequenceNumber": str(number + 1),
            "streamSid": SID,
            "media": {
                "track": "inbound",
                "chunk": str(number),
                "timestamp": str(43 + 20 * number),
                "payload": payload,
            },
        }
        for number in (1, 2, 3)
    ]


def test_caller_speaks_from_the_next_frame_on() -> None:
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=63)
    speech = spoken("Yes.")
    line = carrier.speak(speech, now=200)
    carrier.advance(200 + speech.duration_ms + 100)
    sent = {
        int(o.message["media"]["timestamp"]): base64.b64decode(o.message["media"]["payload"])
        for o in carrier.take()
        if o.message["event"] == "media"
    }
    assert line.start_ms == 203
    assert line.onset_ms == 203 + speech.onset_ms
    assert line.end_ms == 203 + speech.words[0].end_ms
    heard = b"".join(sent[t] for t in range(203, 203 + speech.duration_ms, 20))
    assert heard == speech.ulaw
    assert sent[183] == SILENCE * 160


def test_mark_with_nothing_before_it_is_echoed_at_once() -> None:
    carrier = quiet_carrier()
    carrier.receive(mark("start"), 107)
    assert marks(carrier.take()) == [("start", 107)]


def test_marks_are_echoed_when_the_audio_before_them_has_played() -> None:
    carrier = quiet_carrier()
    carrier.receive(mark("start"), 100)
    carrier.receive(media(2_000), 101)  # Playing begins at the next grid point, 120.
    carrier.receive(mark("a"), 101)
    carrier.receive(mark("a2"), 101)
    carrier.receive(media(1_004), 102)
    carrier.receive(mark("b"), 102)
    carrier.advance(2_000)
    assert marks(carrier.take()) == [("start", 100), ("a", 370), ("a2", 370), ("b", 496)]
    assert carrier.truth.played == [Stretch(0, 3_004, 120)]
    assert carrier.last_played_ms == 496
    assert not carrier.playing


def test_position_is_exact_at_every_ms() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(800), 99)
    for now in range(100, 260):
        carrier.advance(now)
        assert carrier.position == min(800, 8 * (now - 100))
        assert carrier.played_bytes() == carrier.position


def test_late_audio_waits_for_the_grid_and_makes_a_new_stretch() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(400), 0)  # 50 ms: the third frame is half empty.
    carrier.receive(media(160), 65)  # After that frame was taken, before it is over.
    carrier.advance(200)
    assert carrier.truth.played == [Stretch(0, 400, 20), Stretch(400, 560, 80)]


def test_underrun_of_less_than_a_ms_is_an_underrun() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(157), 0)
    carrier.receive(media(160), 30)
    carrier.advance(100)
    assert carrier.truth.played == [Stretch(0, 157, 20), Stretch(157, 317, 40)]


def test_clear_silences_at_once_and_returns_pending_marks_in_one_burst() -> None:
    carrier = quiet_carrier()
    for index in range(4):
        carrier.receive(media(2_000), 0)
        carrier.receive(mark(f"m{index}"), 0)
    carrier.advance(300)
    assert marks(carrier.take()) == [("m0", 270)]
    carrier.receive(clear(), 307)
    carrier.receive(mark("fence"), 307)
    assert marks(carrier.take()) == [("m1", 307), ("m2", 307), ("m3", 307), ("fence", 307)]
    assert carrier.truth.played == [Stretch(0, 287 * 8, 20)]
    assert carrier.truth.flushes == [Flush(307, 287 * 8, 8_000, ("m1", "m2", "m3"))]
    assert [e.flushed for e in carrier.truth.echoes] == [False, True, True, True, False]
    carrier.receive(media(160), 308)
    carrier.advance(400)
    assert carrier.truth.played[-1] == Stretch(8_000, 8_160, 320)


def test_audio_that_comes_on_a_grid_point_waits_for_the_next() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(160), 40)
    carrier.advance(100)
    assert carrier.truth.played == [Stretch(0, 160, 60)]


def test_clear_of_an_empty_buffer_does_nothing() -> None:
    carrier = quiet_carrier()
    carrier.receive(clear(), 50)
    assert carrier.truth.flushes == [Flush(50, 0, 0, ())]
    assert marks(carrier.take()) == []


def test_clear_on_a_grid_point_undoes_the_frame_just_taken() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(160), 15)
    carrier.receive(clear(), 20)
    assert carrier.truth.played == []
    assert carrier.truth.flushes == [Flush(20, 0, 160, ())]


def test_ten_minutes_are_buffered_and_no_more() -> None:
    carrier = quiet_carrier()
    minute = media_of(bytes(60 * 8_000))
    for _ in range(10):
        carrier.receive(minute, 0)
    assert not carrier.truth.warnings
    carrier.receive(media(100), 0)
    carrier.receive(media(100), 0)
    assert [(w.code, w.reported) for w in carrier.truth.warnings] == [
        (31931, True),
        (31931, False),
    ]
    assert carrier.received_bytes == 600 * 8_000
    carrier.receive(media(100), 1_000)  # A second has been played: there is room again.
    assert carrier.received_bytes == 600 * 8_000 + 100


@pytest.mark.parametrize(
    ("message", "code", "detail"),
    [
        (b"{}", 31950, "binary frame"),
        ("{", 31951, "not JSON"),
        ("[]", 31951, "not a JSON object"),
        ('{"event": "stop"}', 31951, "none of media, mark, clear"),
        (clear(sid="MZ2"), 31951, "streamSid"),
        (json.dumps({"event": "clear"}), 31951, "lacks streamSid"),
        (
            json.dumps({"event": "clear", "streamSid": SID, "sequenceNumber": "1"}),
            31951,
            "unknown sequenceNumber",
        ),
        (
            json.dumps(
                {"event": "media", "streamSid": SID, "media": {"payload": "//8=", "chunk": "1"}}
            ),
            31951,
            "unknown chunk",
        ),
        (
            json.dumps({"event": "media", "streamSid": SID, "media": {"payload": "/w"}}),
            31951,
            "not base64",
        ),
        (json.dumps({"event": "media", "streamSid": SID, "media": "/w=="}), 31951, "not an object"),
        (json.dumps({"event": "mark", "streamSid": SID, "mark": {}}), 31951, "lacks name"),
        (
            json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": 1}}),
            31951,
            "not a string",
        ),
        (json.dumps({"event": "mark", "streamSid": SID}), 31951, "lacks mark"),
    ],
)
def test_what_twilio_does_not_know_is_ignored_with_its_warning(
    message: str | bytes, code: int, detail: str
) -> None:
    carrier = quiet_carrier()
    carrier.take()
    carrier.receive(message, 10)
    assert [w.code for w in carrier.truth.warnings] == [code]
    assert detail in carrier.truth.warnings[0].detail
    assert carrier.take() == []
    assert not carrier.ended
    strict = quiet_carrier(close_on_violation=True)
    strict.receive(message, 10)
    assert strict.ended and strict.close_wanted


def test_warning_is_reported_once_per_stream() -> None:
    carrier = quiet_carrier()
    carrier.receive("{", 1)
    carrier.receive("}", 2)
    assert [w.reported for w in carrier.truth.warnings] == [True, False]


def test_omitted_silence_makes_timestamps_jump() -> None:
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=63, omit_silence=True)
    carrier.take()
    speech = spoken("Stop.")
    carrier.speak(speech, 500)
    carrier.advance(500 + speech.duration_ms + 500)
    frames = [o.message["media"] for o in carrier.take()]
    assert [f["chunk"] for f in frames] == [str(1 + i) for i in range(len(frames))]
    assert frames[0]["timestamp"] == "503"
    assert len(frames) == speech.duration_ms // 20
    assert carrier.truth.frames_omitted > 30


def test_timestamps_can_jump_and_go_back() -> None:
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=0)
    carrier.take()
    carrier.shift_timestamps(1_000, 25)
    carrier.shift_timestamps(-1_500, 45)
    carrier.advance(80)
    assert [o.message["media"]["timestamp"] for o in carrier.take()] == [
        "0",
        "1020",
        "-460",
        "-440",
    ]


def test_dtmf_and_stop_are_numbered_with_all_else() -> None:
    carrier = Carrier(stream_sid=SID, first_timestamp_ms=0)
    carrier.take()
    carrier.press("4", 25)
    carrier.receive(mark("m"), 26)
    carrier.hang_up(30)
    assert [o.message for o in carrier.take()][1:] == [
        {
            "event": "dtmf",
            "sequenceNumber": "3",
            "streamSid": SID,
            "dtmf": {"track": "inbound_track", "digit": "4"},
        },
        {"event": "mark", "sequenceNumber": "4", "streamSid": SID, "mark": {"name": "m"}},
        {
            "event": "stop",
            "sequenceNumber": "5",
            "streamSid": SID,
            "stop": {
                "accountSid": "AC00000000000000000000000000000001",
                "callSid": "CA00000000000000000000000000000001",
            },
        },
    ]
    carrier.advance(500)
    carrier.receive(media(160), 600)
    assert carrier.take() == []


def test_hang_up_in_mid_sentence_ends_what_was_played() -> None:
    carrier = quiet_carrier()
    carrier.receive(media(8_000), 0)
    carrier.receive(mark("never"), 0)
    carrier.take()
    carrier.hang_up(333)
    assert carrier.truth.played == [Stretch(0, 313 * 8, 20)]
    assert carrier.truth.ended_ms == 333
    assert marks(carrier.take()) == []


def test_time_does_not_go_back() -> None:
    carrier = quiet_carrier()
    carrier.advance(100)
    with pytest.raises(ValueError, match="before the last call"):
        carrier.advance(99)
