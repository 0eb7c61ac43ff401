"""The short way for text messages brings the same as aiohttp's parser would, however data are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.media_socket import MediaSocket
from gateway.parser import DirectParser

TEXT, PING, PONG, CONTINUED = 0x81, 0x89, 0x8A, 0x00
MAX_BYTES = 1 << 18
MASK = b"\x12\x34\x56\x78"


def frame(first_byte: int, content: bytes) -> bytes:
    """A client's frame."""
    length = len(content)
    if length < 126:
        head = bytes((first_byte, 0x80 | length))
    elif length < 65536:
        head = bytes((first_byte, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first_byte, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(content))


class Owner:
    """Writes down what it is given."""

    def __init__(self, fault: bytes | None = None) -> None:
        self.texts: list[bytes] = []
        self.failed = 0
        self._fault = fault

    def receive_text(self, text: bytearray) -> None:
        self.texts.append(bytes(text))
        if self.texts[-1] == self._fault:
            raise ZeroDivisionError("ours")

    def fail(self) -> None:
        self.failed += 1


class Ends:
    """A parser, its owner, and the queue of what it leaves to aiohttp."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fault: bytes | None = None) -> None:
        self.queue = WebSocketDataQueue(BaseProtocol(loop), 1 << 30, loop=loop)
        self.parser = DirectParser(self.queue, MAX_BYTES)
        self.owner = Owner(fault)

    def own(self) -> None:
        self.parser.owner = cast(MediaSocket, self.owner)

    def left(self) -> list[tuple[WSMsgType, bytes]]:
        """What aiohttp's parser made of the rest."""
        return [(message.type, bytes(message.data or b"")) for message, _ in self.queue._buffer]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


_CONTENTS = st.one_of(st.binary(max_size=200), st.sampled_from([125, 126, 127, 70_000]).map(bytes))
_FRAMES = st.lists(
    st.one_of(
        _CONTENTS.map(lambda content: (TEXT, content)),
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(_FRAMES, st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_messages_are_those_of_the_general_parser(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    loop = asyncio.new_event_loop()
    wire = b"".join(frame(first_byte, content) for first_byte, content in frames)
    alone, ends = Ends(loop), Ends(loop)
    ends.own()
    WebSocketReader(alone.queue, MAX_BYTES, compress=False, decode_text=False).feed_data(wire)
    at = place = 0
    while at < len(wire):
        step = cuts[place % len(cuts)]
        assert not ends.parser.feed_data(wire[at : at + step])[0]
        at, place = at + step, place + 1
    loop.close()
    direct = [(WSMsgType.TEXT, text) for text in ends.owner.texts]
    assert direct + ends.left() == alone.left()


def test_what_comes_before_there_is_an_owner_waits_for_it(loop: asyncio.AbstractEventLoop) -> None:
    ends = Ends(loop)
    ends.parser.feed_data(frame(TEXT, b"early"))
    ends.own()
    ends.parser.feed_data(b"")
    ends.parser.feed_data(frame(TEXT, b"late"))
    assert ends.owner.texts == [b"early", b"late"]


def test_a_fragmented_message_comes_whole_and_behind_what_was_before(
    loop: asyncio.AbstractEventLoop,
) -> None:
    ends = Ends(loop)
    ends.own()
    for data in (frame(TEXT, b"one"), frame(0x01, b"tw"), frame(0x80, b"o"), frame(TEXT, b"three")):
        ends.parser.feed_data(data)
    assert ends.owner.texts == [b"one"]
    assert ends.left() == [(WSMsgType.TEXT, b"two"), (WSMsgType.TEXT, b"three")]


@pytest.mark.parametrize(
    "bad", [b"\xc1\x80" + MASK, b"\x83\x80" + MASK, frame(CONTINUED, b"of nothing")]
)
def test_bad_frames_are_faults_to_the_general_parser(
    loop: asyncio.AbstractEventLoop, bad: bytes
) -> None:
    ends = Ends(loop)
    ends.own()
    over, _ = ends.parser.feed_data(frame(TEXT, b"good") + bad)
    assert over
    assert ends.owner.texts == [b"good"]


def test_a_fault_of_ours_fails_the_call_and_not_the_process(
    loop: asyncio.AbstractEventLoop,
) -> None:
    ends = Ends(loop, fault=b"hits a bug")
    ends.own()
    ends.parser.feed_data(frame(TEXT, b"hits a bug"))
    assert ends.owner.failed == 1
