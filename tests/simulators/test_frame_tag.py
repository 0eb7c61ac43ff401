"""Tags in caller frames: always found, never heard, never imagined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulators import frame_tag
from simulators.speech import corpus
from simulators.speech.g711 import SILENCE, ULAW_TO_LINEAR

FRAMES = st.binary(min_size=160, max_size=160)


@given(FRAMES, st.integers(0, 2**32 - 1), st.integers(0, 2**24 - 1))
def test_what_is_stamped_is_read(frame: bytes, call: int, number: int) -> None:
    stamped = frame_tag.stamp(frame, call, number)
    assert len(stamped) == 160
    assert frame_tag.read(stamped) == (call, number)


@given(FRAMES)
def test_stamp_changes_only_the_lowest_bits(frame: bytes) -> None:
    stamped = frame_tag.stamp(frame, 123, 456)
    assert all(a | 1 == b | 1 for a, b in zip(frame, stamped, strict=True))


def test_stamped_silence_is_still_silence() -> None:
    stamped = frame_tag.stamp(SILENCE * 160, 0xFFFFFFFF, 0xFFFFFF)
    assert max(abs(ULAW_TO_LINEAR[b]) for b in stamped) <= 8


def test_speech_and_silence_without_tags_have_none() -> None:
    for speech in corpus().values():
        found = frame_tag.scan(speech.ulaw)
        assert found.frames == [] and found.foreign_bytes == len(speech.ulaw)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=12))
def test_frames_are_found_between_filled_in_silence(parts: list[tuple[int, int]]) -> None:
    audio = b""
    wanted = []
    for number, (call, gap_ms) in enumerate(parts):
        audio += SILENCE * (8 * gap_ms) + frame_tag.stamp(SILENCE * 160, call, number)
        wanted.append((call, number))
    found = frame_tag.scan(audio)
    assert list(found.frames) == wanted
    assert found.foreign_bytes == sum(8 * gap for _, gap in parts)
    assert [audio[o : o + 160] for o in found.offsets] == [
        frame_tag.stamp(SILENCE * 160, *tag) for tag in wanted
    ]


def test_a_frame_that_was_cut_off_does_not_swallow_the_next() -> None:
    # Its last eight bits are the first of the next one's, and those are 0 as a rule.
    cut_off = next(
        stamped
        for number in range(10_000)
        if frame_tag.read(
            (stamped := frame_tag.stamp(SILENCE * 160, 29, number))[:80] + b"\xfe" * 80
        )
    )
    whole = [frame_tag.stamp(SILENCE * 160, 6, number) for number in range(2)]
    found = frame_tag.scan(cut_off[:80] + b"".join(whole))
    assert found.frames == [(6, 0), (6, 1)]
    assert found.offsets == [80, 240]
    assert found.foreign_bytes == 80
