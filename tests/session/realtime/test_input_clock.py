"""The map from the model's input buffer to Twilio's clock."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.realtime.input_clock import (
    MAX_FILL_MS,
    STALL_FILL_MS,
    InputClock,
    audio_bytes,
    silence_payload,
)

FRAME_BYTES = 160


def feed(clock: InputClock, media_ms: int, *, now: float = 0.0, received_us: int = 0) -> int:
    return clock.receive(FRAME_BYTES, media_ms, received_us, now=now)


@given(st.binary(max_size=500))
def test_the_length_of_audio_is_that_of_its_bytes(audio: bytes) -> None:
    assert audio_bytes(base64.b64encode(audio)) == len(audio)


@pytest.mark.parametrize("payload", [b"A", b"AAA", b'AA"A', b"AA\\A", b"A===", b"AA\nA", b"=AAA"])
def test_what_is_not_base64_has_no_length(payload: bytes) -> None:
    assert audio_bytes(payload) is None


@given(st.integers(0, 3000))
def test_silence_is_all_ones(length_ms: int) -> None:
    payload = silence_payload(length_ms)
    assert base64.b64decode(payload, validate=True) == b"\xff" * (8 * length_ms)
    assert audio_bytes(payload) == 8 * length_ms


def test_the_first_timestamp_is_not_zero() -> None:
    clock = InputClock()
    assert clock.media_at(0) is None
    for n in range(10):
        assert feed(clock, 63 + 20 * n) == 0
    assert clock.appended_ms == 200
    assert clock.media_at(0) == 63
    assert clock.media_at(110) == 173
    assert clock.media_at(200) == 263
    assert clock.media_at(9999) == 263, "beyond the end is the end"


def test_jitter_of_timestamps_is_no_gap() -> None:
    clock = InputClock()
    assert [feed(clock, ms) for ms in (5, 26, 44, 65, 84, 106)] == [0] * 6


def test_a_slow_drift_is_filled_in_the_end() -> None:
    clock = InputClock()
    fills = [feed(clock, 21 * n) for n in range(60)]
    assert sum(fills) == 40
    assert clock.media_at(clock.appended_ms) == pytest.approx(21 * 59 + 20, abs=20)


def test_omitted_silence_is_filled() -> None:
    clock = InputClock()
    feed(clock, 100)
    assert feed(clock, 520) == 400
    assert clock.appended_ms == 440
    assert clock.media_at(20) == 120
    assert clock.media_at(200) == 300, "inside the filled silence"
    assert clock.media_at(420) == 520
    assert clock.filled_ms == 400


def test_a_long_gap_is_filled_in_part() -> None:
    clock = InputClock()
    feed(clock, 0)
    assert feed(clock, 60_000) == MAX_FILL_MS
    assert clock.media_at(20 + MAX_FILL_MS) == 60_000
    assert clock.media_at(clock.appended_ms) == 60_020


def test_a_timestamp_that_goes_back_changes_no_audio() -> None:
    clock = InputClock()
    for ms in (1000, 1020, 1040):
        feed(clock, ms)
    assert feed(clock, 500) == 0
    assert clock.appended_ms == 80
    assert clock.media_at(59) == 1059
    assert clock.media_at(70) == 510


def test_a_stream_that_stalls_in_speech_gets_silence_once() -> None:
    clock = InputClock()
    feed(clock, 0, now=10.0)
    assert clock.next_timer() is None, "the caller is silent"
    clock.speech(True)
    assert clock.next_timer() == pytest.approx(10.75)
    assert clock.stalled(now=10.7) == 0
    assert clock.stalled(now=10.75) == STALL_FILL_MS
    assert clock.next_timer() is None
    assert clock.stalled(now=20.0) == 0
    # The media that comes after 3 s of omitted silence lacks only what was not filled.
    assert feed(clock, 3020, now=13.0) == 2000
    assert clock.media_at(3020) == 3020


def test_arrival_is_the_frames_that_reached_the_place() -> None:
    clock = InputClock()
    assert clock.received_at(0) is None
    for n in range(5):
        feed(clock, 20 * n, received_us=1_000_000 + n)
    assert clock.received_at(1) == 1_000_000
    assert clock.received_at(20) == 1_000_000
    assert clock.received_at(21) == 1_000_001
    assert clock.received_at(100) == 1_000_004
    assert clock.received_at(101) is None, "not received yet"


def test_only_the_newest_frames_arrivals_are_kept() -> None:
    clock = InputClock()
    for n in range(600):
        feed(clock, 20 * n, received_us=n)
    assert clock.received_at(10) is None
    assert clock.received_at(11_990) == 599


@given(
    st.lists(st.tuples(st.integers(-2000, 15_000), st.integers(0, 400), st.booleans()), max_size=60)
)
def test_whatever_timestamps_do(steps: list[tuple[int, int, bool]]) -> None:
    """All appended audio is counted, and the newest place maps to the newest timestamp."""
    clock = InputClock()
    media_ms, now, total_bytes, filled_ms = 5000, 0.0, 0, 0
    for step_ms, n_bytes, speaking in steps:
        media_ms = max(0, media_ms + step_ms)
        now += 0.5
        clock.speech(speaking)
        filled_ms += clock.stalled(now=now)
        fill_ms = clock.receive(n_bytes, media_ms, int(now * 1e6), now=now)
        assert 0 <= fill_ms <= MAX_FILL_MS
        filled_ms += fill_ms
        total_bytes += n_bytes
        assert clock.filled_ms == filled_ms
        assert clock.appended_ms == (total_bytes + 8 * filled_ms) // 8
        end_ms = clock.media_at(clock.appended_ms)
        assert end_ms is not None
        assert abs(end_ms - (media_ms + n_bytes / 8)) <= 21
        for buffer_ms in (0, clock.appended_ms // 2):
            place = clock.media_at(buffer_ms)
            assert place is None or place >= 0


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from([20, 20, 20, 0, 700]), st.booleans()),
        max_size=700,
    )
)
def test_a_place_was_received_with_the_first_frame_that_reached_it(
    steps: list[tuple[int, int, bool]],
) -> None:
    clock = InputClock()
    ends_ms: list[int] = []
    media_ms = 0
    for number, (n_bytes, step_ms, stalls) in enumerate(steps):
        media_ms += step_ms
        clock.receive(n_bytes, media_ms, number, now=float(number))
        ends_ms.append(clock.appended_ms)
        clock.speech(stalls)
        clock.stalled(now=number + 0.9)
    for place_ms in {1, *(end + delta for end in ends_ms[-300:] for delta in (-1, 0, 1))}:
        first = next((n for n, end in enumerate(ends_ms) if end >= place_ms), None)
        found = clock.received_at(place_ms)
        if first is None or len(steps) < 200 or place_ms > ends_ms[-200]:
            assert found == first
        else:  # longer ago than is remembered, perhaps
            assert found in (None, first)
