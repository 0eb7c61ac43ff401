"""The load's frames: what Twilio's end sends is a media message, and the model's end finds the audio."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

import native
from bench.load import tag
from bench.load.frames import AppendedAudio, MediaMessages, send_text
from bench.load.received import Received, Window

STREAM = "MZ" + "0" * 32
_NUMBERS = st.integers(0, 2**31)


@given(_NUMBERS, _NUMBERS, _NUMBERS, st.integers(0, 3), st.integers(0, tag.MAX_CALLS - 1))
def test_a_frame_is_a_media_message(
    sequence: int, number: int, timestamp_ms: int, flags: int, call: int
) -> None:
    written = MediaMessages(STREAM, call).write(sequence, flags, number, timestamp_ms, 12345)
    message = json.loads(written)
    payload = message["media"].pop("payload").encode()
    assert message == {
        "event": "media",
        "sequenceNumber": str(sequence),
        "streamSid": STREAM,
        "media": {"track": "inbound", "chunk": str(number + 1), "timestamp": str(timestamp_ms)},
    }
    assert tag.read_one(payload) == (flags, call, number, 12345)


def test_a_frame_is_one_that_the_bridge_takes_on_its_fast_path() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        message = MediaMessages(STREAM, 7).write(3, 0, 5, 100, 12345)
        assert send_text(ours.fileno(), message) == b""
        data = peer.recv(4096)
    assert native.read_text(data) == (message, len(data))
    payload = tag.payload(0, 7, 5, 12345)
    assert native.read_media(data, STREAM.encode()) == [(100, payload, tag.FRAME_BYTES, len(data))]


def test_what_a_full_socket_does_not_take_comes_back() -> None:
    ours, peer = socket.socketpair()
    message = MediaMessages(STREAM, 3).write(1, 0, 2, 40, 12345)
    with ours, peer:
        ours.setblocking(False)
        taken = 0
        while not (unsent := send_text(ours.fileno(), message)):
            taken += 1
        ours.shutdown(socket.SHUT_WR)
        data = b""
        while more := peer.recv(1 << 20):
            data += more
    [frame] = {(data + unsent)[at : at + 8 + len(message)]
               for at in range(0, len(data + unsent), 8 + len(message))}  # fmt: skip
    assert taken and len(data + unsent) == (taken + 1) * len(frame)
    assert native.read_text(frame) == (message, len(frame))


def test_a_peer_that_has_gone_is_left_to_the_event_loop() -> None:
    ours, peer = socket.socketpair()
    peer.close()
    with ours:
        assert send_text(ours.fileno(), b"x" * 200) == b""


def event(payload: bytes, *, spaced: bool, event_id: str = "") -> bytes:
    """An append, as asheard or as another bridge writes it."""
    message = {"type": "input_audio_buffer.append", "audio": payload.decode()}
    if event_id:
        message = {"event_id": event_id, **message}
    return json.dumps(message, separators=None if spaced else (",", ":")).encode()


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["", "event_1", "event_2"]), st.booleans()))
)
def test_audio_is_found_however_an_append_begins(
    appends: list[tuple[bool, str, bool]],
) -> None:
    audio = AppendedAudio()
    for number, (spaced, event_id, other) in enumerate(appends):
        if other:
            assert audio.find(b'{"type":"response.create"}') == -1
        payload = tag.payload(0, 7, number, 1)
        data = event(payload, spaced=spaced, event_id=event_id)
        at = audio.find(data)
        assert data[at:].startswith(payload + b'"')
        assert tag.read_one(data, at) == (0, 7, number, 1)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"type":"input_audio_buffer.append"', b'{"audio":"' + b"A" * 300,
             b'{"type":"input_audio_buffer.append","audio":7}']
)  # fmt: skip
def test_what_is_no_append_has_no_audio(data: bytes) -> None:
    audio = AppendedAudio()
    assert audio.find(data) == -1
    audio.find(event(tag.payload(0, 7, 1, 1), spaced=False))
    assert audio.find(data) == -1


def test_frames_are_counted_for_what_they_are() -> None:
    window = Window()
    window.begin_ns, window.end_ns = 100, 200
    received = Received(window)
    for call, number, sent_ns in (
        (7, 0, 99),
        (7, 1, 100),
        (7, 4, 199),
        (7, 2, 200),
        (7, 2, 150),
        (8, 5, 1),
    ):
        received.take((0, call, number, sent_ns), 1_000_100)
    assert (received.call, received.frames, received.missing) == (7, 4, {3})
    assert (received.reordered, received.repeated, received.strangers) == (1, 1, 1)
    assert list(window.forward_us) == [1000, 999, 999]
    assert received.n_bytes == 6 * tag.FRAME_BYTES
