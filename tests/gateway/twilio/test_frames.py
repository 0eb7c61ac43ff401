"""Our frames are read by an independent WebSocket implementation."""

from __future__ import annotations

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from gateway.twilio.frames import close_frame, text_frame


def parse(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False)
    try:
        next(parser)
    except StopIteration as done:
        frame = done.value
        assert isinstance(frame, Frame)
        return frame
    raise AssertionError("the frame is not complete")


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_text_of_any_length_is_one_frame(length: int) -> None:
    content = b"x" * length
    frame = parse(text_frame(content))
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, content, True)


def test_a_close_frame_carries_code_and_reason_cut_between_characters() -> None:
    close = Close.parse(parse(close_frame(1008, "ä" * 100)).data)
    assert (close.code, close.reason) == (1008, "ä" * 61)
