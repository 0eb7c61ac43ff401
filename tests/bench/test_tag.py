"""The tags in a bench's caller frames: what is written is read, whatever lies between."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from bench.load import tag

_FRAME = st.tuples(
    st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.integers(0, 2**63)
)


@given(_FRAME)
def test_a_frame_tells_what_was_written(fields: tuple[int, int, int, int]) -> None:
    payload = tag.payload(*fields)
    assert len(base64.b64decode(payload)) == tag.FRAME_BYTES
    assert len(payload) == tag.FRAME_CHARS
    assert tag.read_one(payload) == fields


@given(st.lists(_FRAME, max_size=5), st.integers(0, 40))
def test_frames_are_found_behind_foreign_audio(
    frames: list[tuple[int, int, int, int]], silence_ms: int
) -> None:
    audio = b"".join(
        b"\xff" * 8 * silence_ms + base64.b64decode(tag.payload(*fields)) for fields in frames
    )
    tags, foreign_bytes = tag.read_all(base64.b64encode(audio))
    assert tags == frames
    assert foreign_bytes == 8 * silence_ms * len(frames)


def test_silence_is_no_frame() -> None:
    assert tag.read_one(base64.b64encode(b"\xff" * tag.FRAME_BYTES)) is None
