"""One suite for both halves: what each function takes, gives and leaves."""

from __future__ import annotations

import base64
import itertools

import pybase64
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.twilio.messages import (
    LATEST_MS,
    MAX_PAYLOAD_CHARS,
    Media,
    TwilioProtocolError,
    decode,
)
from tests.native.halves import HALVES, STREAM, Half, frame, media, message, needs_compiled


@pytest.fixture(scope="module", params=list(HALVES))
def half(request: pytest.FixtureRequest) -> Half:
    return HALVES[request.param]


@needs_compiled
def test_both_halves_are_tested() -> None:
    assert set(HALVES) == {"python", "compiled"}


FRAME = base64.b64encode(bytes(range(160)))
FIELDS = {
    b"event": b'"media"', b"sequenceNumber": b'"3"', b"streamSid": b'"%b"' % STREAM,
}  # fmt: skip
DETAILS = {b"track": b'"inbound"', b"chunk": b'"2"', b"timestamp": b'"20"', b"payload": b'"AAEC"'}


def written(fields: dict[bytes, bytes], details: dict[bytes, bytes]) -> bytes:
    """A media message with these fields; each field of `details` counts as one."""
    return message([*fields.items(), (b"media", message(list(details.items())))])


# --- read_media ---------------------------------------------------------------------------------


def test_it_reads_all_that_is_there_and_says_where_each_ends(half: Half) -> None:
    first, second = frame(media(b"20", FRAME)), frame(media(b"40", b"AA=="), mask=b"\xff\0\0\1")
    assert half.read_media(first + second, STREAM) == [
        (20, FRAME, 160, len(first)),
        (40, b"AA==", 1, len(first + second)),
    ]
    assert half.read_media(b"", STREAM) == []


def test_it_stops_where_a_frame_is_not_whole(half: Half) -> None:
    one = frame(media(payload=FRAME))
    for size in range(len(one)):
        assert half.read_media(one[:size], STREAM) == []
        assert half.read_media(one + one[:size], STREAM) == [(20, FRAME, 160, len(one))]


@pytest.mark.parametrize(
    "other",
    [
        frame(media(), first=0x01),  # a fragment
        frame(media(), first=0x80),  # the last one of some
        frame(media(), first=0x82),  # binary
        frame(media(), first=0xC1),  # compressed
        frame(b"", first=0x89),  # a ping
        frame(b"\x03\xe8", first=0x88),  # a close
        b"\x81" + bytes((len(media()) & 0x7F,)) + media(),  # not masked
        b"\x81\xff" + (len(media())).to_bytes(8, "big") + bytes(4) + media(),  # a length of eight bytes
        frame(b""),
        frame(b'{"event":"connected"}'),
        frame(media(stream_sid=b"MZ9")),
        frame(media(stream_sid=STREAM + b"0")),
    ],
)  # fmt: skip
def test_it_stops_at_whatever_else_comes(half: Half, other: bytes) -> None:
    one = frame(media())
    assert half.read_media(one + other + one, STREAM) == [(20, b"AAEC", 3, len(one))]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fields_come_in_any_order(half: Half, order: tuple[int, ...]) -> None:
    details = message([list(DETAILS.items())[i] for i in order])
    outer = [*FIELDS.items(), (b"media", details)]
    text = message([outer[i] for i in order])
    assert half.read_media(frame(text), STREAM) == [(20, b"AAEC", 3, len(frame(text)))]


@pytest.mark.parametrize("left_out", [*FIELDS, *DETAILS])
def test_what_may_be_left_out(half: Half, left_out: bytes) -> None:
    text = written(
        {name: value for name, value in FIELDS.items() if name != left_out},
        {name: value for name, value in DETAILS.items() if name != left_out},
    )
    taken = half.read_media(frame(text), STREAM)
    assert bool(taken) is (left_out in (b"sequenceNumber", b"track", b"chunk"))


@pytest.mark.parametrize("name", [*FIELDS, *DETAILS])
def test_a_field_that_comes_twice_is_not_for_it(half: Half, name: bytes) -> None:
    text = written(FIELDS, DETAILS)
    value = {**FIELDS, **DETAILS}[name]
    field = b'"%b":%b' % (name, value)
    assert half.read_media(frame(text.replace(field, b"%b,%b" % (field, field))), STREAM) == []
    assert half.read_media(frame(text), STREAM) != []


def test_media_that_comes_twice_is_not_for_it(half: Half) -> None:
    details = message(list(DETAILS.items()))
    text = message([*FIELDS.items(), (b"media", details), (b"media", details)])
    assert half.read_media(frame(text), STREAM) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"event", b'"mark"'),
        (b"event", b'"Media"'),
        (b"sequenceNumber", b"3"),
        (b"sequenceNumber", b'"\\u0033"'),
        (b"sequenceNumber", b'"\xc3\xa4"'),
        (b"sequenceNumber", b'"\x1f"'),
        (b"sequenceNumber", b'"\x7f"'),
        (b"sequenceNumber", b"null"),
        (b"strange", b'"1"'),
        (b"track", b'"outbound"'),
        (b"track", b"null"),
        (b"chunk", b"2"),
        (b"chunk", b'"\n"'),
        (b"timestamp", b"20"),
        (b"timestamp", b'""'),
        (b"timestamp", b'"-1"'),
        (b"timestamp", b'"020"'),
        (b"timestamp", b'"2e1"'),
        (b"timestamp", b'" 20"'),
        (b"timestamp", b'"%d"' % LATEST_MS),
        (b"timestamp", b'"9999999999"'),
        (b"timestamp", b'"' + b"9" * 5000 + b'"'),
        (b"payload", b'""'),
        (b"payload", b'"AAE"'),
        (b"payload", b'"AAE\\"'),
        (b"payload", b'"AA\\u0045="'),
        (b"payload", b'"AAE\xff"'),
        (b"payload", b'"AAE\x00"'),
        (b"payload", b'"' + b"A" * (MAX_PAYLOAD_CHARS + 4) + b'"'),
    ],
)
def test_what_is_odd_is_not_for_it(half: Half, field: bytes, value: bytes) -> None:
    fields, details = dict(FIELDS), dict(DETAILS)
    (details if field in DETAILS else fields)[field] = value
    assert half.read_media(frame(written(fields, details)), STREAM) == []


@pytest.mark.parametrize("timestamp_ms", [0, 1, 20, LATEST_MS - 1])
def test_timestamps_to_the_last(half: Half, timestamp_ms: int) -> None:
    one = frame(media(b"%d" % timestamp_ms))
    assert half.read_media(one, STREAM) == [(timestamp_ms, b"AAEC", 3, len(one))]


def test_payloads_to_the_longest(half: Half) -> None:
    payload = b"A" * MAX_PAYLOAD_CHARS
    one = frame(media(payload=payload))
    assert half.read_media(one, STREAM) == [(20, payload, MAX_PAYLOAD_CHARS // 4 * 3, len(one))]


def test_space_between_fields_and_what_follows_is_not_for_it(half: Half) -> None:
    """Twilio writes none; the decoder takes it."""
    for old, new in ((b",", b", "), (b":", b": "), (b"{", b"{ "), (b"}", b" }"), (b"}", b"}\n")):
        assert half.read_media(frame(media().replace(old, new, 1)), STREAM) == []
    for rest in (b" ", b"}", b"x", media()):
        assert half.read_media(frame(media() + rest), STREAM) == []
    assert half.read_media(frame(media()[:-1] + b",}"), STREAM) == []
    assert half.read_media(frame(media().replace(b'"},"str', b'",},"str')), STREAM) == []


# --- what comes of a mutated message --------------------------------------------------------------

_ODD = (
    b'"', b"\\", b",", b":", b"{", b"}", b" ", b"=", b"==", b"\0", b"\x7f", b"\xff", b'":"', b'","',
    b'"media"', b'"event":"media",', b'"track":"inbound",', b'"chunk":"2",', b'"timestamp":"0",', b"null",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A media message with some of it cut, doubled or replaced."""
    text = media(
        b"%d" % draw(st.integers(0, 2 * LATEST_MS)), draw(st.sampled_from([FRAME, b"AA=="]))
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 20)))
        piece = draw(
            st.one_of(st.sampled_from(_ODD), st.binary(max_size=3), st.just(text[at:end] * 2))
        )
        text = text[:at] + piece + text[end:]
    return text


@given(mutated())
@example(media(payload=b"AAE\xff"))
@example(media(payload=b"===="))
def test_what_it_takes_the_decoder_takes_too(text: bytes) -> None:
    for half in HALVES.values():
        for timestamp_ms, payload, audio_bytes, end in half.read_media(frame(text), STREAM):
            decoded = decode(text)
            assert isinstance(decoded, Media)
            assert end == len(frame(text))
            assert decoded.stream_sid.encode() == STREAM
            assert decoded.media.timestamp == timestamp_ms
            assert decoded.media.track == "inbound"
            assert decoded.media.payload.encode() == payload
            assert audio_bytes > 0
            assert not {*payload} & {*b'"\\', *range(0x20), *range(0x7F, 0x100)}
            try:
                assert decoded.media.audio() == (payload, audio_bytes)
            except TwilioProtocolError:
                assert half.append_message(payload) is None, "the proof stands where it is pasted"


@needs_compiled
@given(st.lists(mutated(), max_size=4), st.binary(max_size=400), st.binary(min_size=4, max_size=4))
def test_both_halves_read_the_same_media(texts: list[bytes], rest: bytes, mask: bytes) -> None:
    data = b"".join(frame(text, mask=mask) for text in texts) + rest
    answers = [half.read_media(data, STREAM) for half in HALVES.values()]
    assert answers.count(answers[0]) == len(answers)


# --- read_text ------------------------------------------------------------------------------------


@st.composite
def socket_data(draw: st.DrawFn) -> bytes:
    """Frames of a client's, some of them mutated, or cut."""
    data = b""
    for _ in range(draw(st.integers(0, 2))):
        content = draw(st.binary(max_size=300))
        first = draw(st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x80, 0x82, 0x89, 0xC1]))
        mask = draw(st.binary(min_size=4, max_size=4))
        data += frame(content, mask=mask, first=first)
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.binary(max_size=3))
@example(b"x" * 65_535, b"\0\1\2\3", b"")
@example(b"", b"\0\1\2\3", b"")
def test_a_text_frame_of_a_client_is_read(content: bytes, mask: bytes, rest: bytes) -> None:
    one = frame(content, mask=mask)
    for half in HALVES.values():
        assert half.read_text(one + rest) == (content, len(one))
        assert half.read_text(one[:-1]) is None


@given(socket_data())
@example(b"\x81\xfe\x00\x02abcd\x00\x00")
def test_a_text_frame_is_what_websockets_says_it_is(data: bytes) -> None:
    answers = [half.read_text(data) for half in HALVES.values()]
    assert answers.count(answers[0]) == len(answers)
    if answers[0] is None:
        return
    content, end = answers[0]
    protocol = ServerProtocol(state=State.OPEN)
    protocol.receive_data(data[:end])
    [event] = protocol.events_received()
    assert isinstance(event, Frame)
    assert (event.opcode, event.fin, event.rsv1, bytes(event.data)) == (
        Opcode.TEXT,
        True,
        False,
        content,
    )


def test_other_frames_are_left(half: Half) -> None:
    for first in {*range(0x100)} - {0x81}:
        assert half.read_text(frame(b"x", first=first)) is None
    assert half.read_text(b"\x81\xff" + (70_000).to_bytes(8, "big") + bytes(4 + 70_000)) is None
    assert half.read_text(b"\x81\x01" + b"x" * 20) is None


# --- append_message -------------------------------------------------------------------------------

_BASE64 = st.binary(max_size=40).map(base64.b64encode)
_NEARLY = st.text('AZaz09+/=-_ \n"', max_size=12).map(str.encode)


@given(_BASE64 | _NEARLY | st.binary(max_size=12))
@example(b"")
@example(b"A===")
@example(b"====")
@example(b"AA=A")
@example(b"AB==")
@example(b"AA==AAAA")
def test_a_payload_is_what_pybase64_says_it_is(payload: bytes) -> None:
    expected: tuple[bytes, int] | None
    try:
        written = b'{"type":"input_audio_buffer.append","audio":"%b"}' % payload
        expected = written, len(pybase64.b64decode(payload, None, True))
    except ValueError:
        expected = None
    for half in HALVES.values():
        assert half.append_message(payload) == expected


@pytest.mark.parametrize("at", [0, 31, 62, 63])
def test_no_character_but_those_of_base64_passes(half: Half, at: int) -> None:
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    payload = bytearray(b"A" * 64)
    for code in range(256):
        payload[at] = code
        expected = code in digits or (code == ord("=") and at == 63)
        assert (half.append_message(bytes(payload)) is not None) is expected


def test_an_append_of_a_frame(half: Half) -> None:
    assert half.append_message(FRAME) == (
        b'{"type":"input_audio_buffer.append","audio":"' + FRAME + b'"}',
        160,
    )
