"""The compiled part of the load sends and finds the same frames as the Python part."""

from __future__ import annotations

import base64
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load import tag
from bench.load.kernel import Kernel, kernel
from bench.load.received import Received, Window
from tests.kernels import needs

found = kernel()
pytestmark = needs("bench/load")


def compiled() -> Kernel:
    assert found is not None
    return found


MIDDLE = b'","streamSid":"MZ0","media":{"track":"inbound","chunk":"'
BEGIN = b'{"event":"media","sequenceNumber":"'

_NUMBERS = st.integers(0, 2**31)


@given(_NUMBERS, _NUMBERS, _NUMBERS, st.integers(0, 3), st.integers(0, tag.MAX_CALLS - 1))
def test_a_frame_is_the_message_that_python_writes(
    sequence: int, number: int, timestamp_ms: int, flags: int, call: int
) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        unsent = compiled().send_frame(
            ours.fileno(), BEGIN, MIDDLE, sequence, number, timestamp_ms, flags, call
        )
        assert unsent is None
        data = peer.recv(4096)
    assert data[:2] == b"\x81\xfe" and data[4:8] == bytes(4)
    assert int.from_bytes(data[2:4], "big") == len(data) - 8
    message = json.loads(data[8:])
    payload = message["media"].pop("payload").encode()
    assert message == {
        "event": "media",
        "sequenceNumber": str(sequence),
        "streamSid": "MZ0",
        "media": {"track": "inbound", "chunk": str(number + 1), "timestamp": str(timestamp_ms)},
    }
    read = tag.read_one(payload)
    assert read is not None and read[:3] == (flags, call, number)
    assert payload == tag.payload(*read)


def test_what_a_full_socket_does_not_take_comes_back() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        taken = 0
        while True:
            unsent = compiled().send_frame(ours.fileno(), BEGIN, MIDDLE, 1, 2, 40, 0, 3)
            if unsent is not None:
                break
            taken += 1
        assert taken
        peer.setblocking(False)
        data = b""
        while len(data) % 65536 == 0 or data[-3:] != b'"}}':
            try:
                data += peer.recv(1 << 20)
            except BlockingIOError:
                break
        whole = data + unsent
        length = 8 + int.from_bytes(whole[2:4], "big")
        assert len(whole) == (taken + 1) * length


def event(payload: bytes, *, spaced: bool) -> bytes:
    message = {"type": "input_audio_buffer.append", "audio": payload.decode()}
    return json.dumps(message, separators=None if spaced else (",", ":")).encode()


_TAGS = st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([7, 7, 7, 8]),
                  st.sampled_from([1, 1, 1, 1, 0, 2, 3]), st.sampled_from([-1, 0, 1, 100, 101]))  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(_TAGS, st.booleans(), st.sampled_from(["", "short", "foreign"]))))
def test_what_is_received_is_counted_alike(
    frames: list[tuple[tuple[int, int, int, int], bool, str]],
) -> None:
    windows = Window(), Window()
    by_python, by_both = (Received(window) for window in windows)
    now_ns = time.monotonic_ns()
    for window in windows:
        window.begin_ns, window.end_ns = now_ns - 100, now_ns
    number = 0
    for (flags, call, step, ago_ns), spaced, fault in frames:
        sent_ns = now_ns - ago_ns
        number = max(0, number - 1 + step)
        payload = tag.payload(flags, call, number, sent_ns)
        if fault == "short":
            payload = payload[:-4]
        elif fault == "foreign":
            payload = base64.b64encode(bytes(160))
        read = tag.read_one(payload) if not fault else None
        data = event(payload, spaced=spaced)
        before = snapshot(by_both)
        if compiled().receive(by_both, data):
            assert read is not None and read[0] == 0
        else:
            assert snapshot(by_both) == before
            if read is not None:
                by_both.take(read, now_ns)
        if read is not None:
            by_python.take(read, now_ns)
    assert snapshot(by_both) == snapshot(by_python)
    assert len(windows[0].forward_us) == len(windows[1].forward_us)


def snapshot(received: Received) -> tuple[object, ...]:
    return (
        received.call, received.next_number, received.frames, received.n_bytes,
        set(received.missing), received.repeated, received.reordered, received.strangers,
    )  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"type":"input_audio_buffer.append"', b'{"audio":"' + b"A" * 300]
)
def test_no_append_is_left_alone(data: bytes) -> None:
    assert compiled().receive(Received(Window()), data) is False


def test_regular_frames_are_counted_without_python() -> None:
    received = Received(Window())
    received.call = 7
    for number in range(5):
        assert compiled().receive(received, event(tag.payload(0, 7, number, 1), spaced=False))
    assert snapshot(received)[:4] == (7, 5, 5, 5 * tag.FRAME_BYTES)
