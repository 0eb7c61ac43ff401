"""The caller's audio reaches the model whole, in order, and at the model's own pace."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.caller_input import KEPT_BYTES, KEPT_FRAMES, MAX_FRAME_BYTES, CallerInput
from session.realtime.input_clock import MAX_FILL_MS, STALL_FILL_MS, InputClock

BEGAN_UNIX_US = 1_750_000_000_000_000


@dataclass(frozen=True)
class Frame:
    """A frame as it comes from the gateway."""

    payload: bytes
    media_ms: int
    received_unix_us: int = BEGAN_UNIX_US


class Caller:
    """An input, and all that comes out of it."""

    def __init__(self) -> None:
        self.clock = InputClock()
        self.dropped: Counter[str] = Counter()
        self.filled_ms = 0
        self.messages: list[bytes] = []
        self.input = CallerInput(self.clock, on_drop=self._drop, on_fill=self._fill)
        self.now = 100.0

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def _fill(self, length_ms: int) -> None:
        self.filled_ms += length_ms

    def begin(self) -> int | None:
        return self.input.begin(self.messages.append, self.now)

    def receive(self, frame: Frame) -> bool:
        self.now += 0.02
        return self.input.receive(frame.payload, frame.media_ms, frame.received_unix_us, self.now)

    @property
    def audio(self) -> bytes:
        """What the model was given."""
        events = [json.loads(message) for message in self.messages]
        assert {event["type"] for event in events} <= {"input_audio_buffer.append"}
        return b"".join(base64.b64decode(event["audio"], validate=True) for event in events)


def frame(n: int, *, media_ms: int | None = None) -> Frame:
    """The caller's n-th, which can be told from others."""
    audio = n.to_bytes(4, "big") * 40
    return Frame(base64.b64encode(audio), 20 * n if media_ms is None else media_ms)


def audio_of(frames: Sequence[Frame]) -> bytes:
    return b"".join(base64.b64decode(frame.payload) for frame in frames)


# --- keeping ------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60))
def test_what_comes_before_the_session_is_configured_goes_first(before: int, after: int) -> None:
    caller, frames = Caller(), [frame(n) for n in range(before + after)]
    assert [caller.receive(kept) for kept in frames[:before]] == [False] * before
    assert caller.messages == [], "its format is not agreed yet"
    keeping = [caller.input.keeping]
    caller.begin()
    assert [*keeping, caller.input.keeping] == [True, False]
    assert [caller.receive(sent) for sent in frames[before:]] == [True] * after
    assert caller.audio == audio_of(frames)
    assert not caller.dropped


def test_the_oldest_that_was_kept_and_sent_is_said() -> None:
    caller = Caller()
    caller.receive(Frame(b"malformed", 0, BEGAN_UNIX_US))
    caller.receive(Frame(frame(1).payload, 0, BEGAN_UNIX_US + 1))
    caller.receive(Frame(frame(2).payload, 20, BEGAN_UNIX_US + 2))
    assert caller.begin() == BEGAN_UNIX_US + 1
    assert Caller().begin() is None


def test_of_too_many_the_oldest_give_way() -> None:
    caller = Caller()
    frames = [frame(n) for n in range(KEPT_FRAMES + 7)]
    for one in frames:
        caller.receive(one)
    caller.begin()
    assert caller.audio == audio_of(frames[7:])
    assert caller.dropped == {"overflow": 7}


def test_long_ones_that_are_kept_are_bounded_in_bytes() -> None:
    caller = Caller()
    long = base64.b64encode(bytes(MAX_FRAME_BYTES * 3 // 4))
    for n in range(12):
        caller.receive(Frame(long, 6144 * n))
    caller.begin()
    assert len(caller.messages) == KEPT_BYTES // len(long)
    assert caller.dropped == {"overflow": 12 - KEPT_BYTES // len(long)}


def test_it_begins_once() -> None:
    caller = Caller()
    caller.receive(frame(0))
    caller.begin()
    caller.begin()
    assert caller.audio == audio_of([frame(0)])


@pytest.mark.parametrize("configured", [False, True])
def test_after_the_models_end_frames_are_dropped(configured: bool) -> None:
    caller = Caller()
    caller.receive(frame(0))
    if configured:
        caller.begin()
    sent = list(caller.messages)
    caller.input.stop()
    assert caller.receive(frame(1)) is False
    assert caller.begin() is None
    assert caller.receive(frame(2)) is False
    caller.clock.speech(True)
    caller.input.fill_stall(caller.now + 100)
    assert caller.messages == sent
    assert caller.filled_ms == 0


# --- appending ----------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", [False, True])
def test_a_frame_that_is_too_long_is_dropped_alone(configured: bool) -> None:
    caller = Caller()
    if configured:
        caller.begin()
    for one in (frame(0), Frame(b"A" * (MAX_FRAME_BYTES + 4), 20), frame(1)):
        caller.receive(one)
    caller.begin()
    assert caller.audio == audio_of([frame(0), frame(1)])
    assert caller.dropped == {"too_long": 1}


@pytest.mark.parametrize(
    "payload", [b'"}{"', b"A", b"AAA", b"AA==AAAA", b"AA\nA", b"\xff\xfe\xfd\xfc"]
)
def test_what_is_not_base64_is_dropped_and_moves_no_clock(payload: bytes) -> None:
    caller = Caller()
    caller.begin()
    caller.receive(frame(0))
    assert caller.receive(Frame(payload, 5_000)) is False
    assert caller.receive(frame(1))
    assert caller.audio == audio_of([frame(0), frame(1)])
    assert caller.dropped == {"malformed": 1}


def test_silence_that_the_network_left_out_is_filled_in_before_the_frame_that_follows() -> None:
    caller = Caller()
    caller.begin()
    caller.receive(frame(1, media_ms=0))
    caller.receive(frame(2, media_ms=120))
    assert caller.audio == audio_of([frame(1)]) + b"\xff" * 800 + audio_of([frame(2)])
    assert caller.filled_ms == 100


def test_a_stall_in_speech_is_filled_once() -> None:
    caller = Caller()
    caller.begin()
    caller.receive(frame(0))
    caller.clock.speech(True)
    caller.input.fill_stall(caller.now + 0.7)
    assert caller.audio == audio_of([frame(0)])
    caller.input.fill_stall(caller.now + 0.8)
    caller.input.fill_stall(caller.now + 9.0)
    assert caller.audio == audio_of([frame(0)]) + b"\xff" * 8 * STALL_FILL_MS
    assert caller.filled_ms == STALL_FILL_MS


def test_what_sending_raises_comes_out() -> None:
    def broken(message: bytes) -> None:
        raise OSError

    caller = Caller()
    caller.input.begin(broken, 0.0)
    with pytest.raises(OSError):
        caller.receive(frame(0))


payloads = st.one_of(
    st.binary(max_size=400).map(base64.b64encode),
    st.just(frame(5).payload),
    st.binary(max_size=9),
    st.sampled_from([b"", b"AA==", b"AAA=", b"AB==", b"A", b"AAA", b"AA=A", b"====", b"AA-_"]),
)
paces_ms = st.one_of(st.integers(0, 45), st.integers(-3_000, 25_000))


@given(st.lists(st.tuples(payloads, paces_ms, st.booleans()), max_size=60), st.integers(0, 60))
def test_the_model_gets_what_was_received_in_order_and_silence_between(
    steps: list[tuple[bytes, int, bool]], configured_at: int
) -> None:
    """And its clock is as long as what it got, wherever the session is configured."""
    caller, expected, malformed, media_ms = Caller(), [], 0, 0
    for number, (payload, pace_ms, stalls) in enumerate(steps):
        if number == configured_at:
            caller.begin()
        media_ms = max(0, media_ms + pace_ms)
        caller.receive(Frame(payload, media_ms))
        if stalls and number >= configured_at:
            caller.clock.speech(True)
            caller.now += 1.0
            caller.input.fill_stall(caller.now)
        try:
            audio = base64.b64decode(payload, validate=True)
        except ValueError:
            malformed += 1
        else:
            expected.append(audio)
    caller.begin()
    pieces = [base64.b64decode(json.loads(message)["audio"]) for message in caller.messages]
    silence = b"".join(left_over(pieces, expected))
    assert set(silence) <= {0xFF}
    assert len(silence) == 8 * caller.filled_ms == 8 * caller.clock.filled_ms
    assert caller.clock.appended_ms == len(b"".join(pieces)) // 8
    assert caller.dropped["malformed"] == malformed
    assert all(len(piece) <= 8 * MAX_FILL_MS for piece in pieces)


def left_over(pieces: Sequence[bytes], expected: Sequence[bytes]) -> list[bytes]:
    """Of what was sent, all but what was received: which must be there, whole and in order."""
    rest, wanted = [], list(expected)
    for piece in pieces:
        if wanted and piece == wanted[0]:
            wanted.pop(0)
        else:
            rest.append(piece)
    assert wanted == []
    return rest
