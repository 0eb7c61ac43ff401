"""Reads what Twilio sends over a WebSocket: text messages, each in one masked frame.

Fifty of them a second and call are most of a gateway's work, and this way is shorter than a general
parser's. Every other kind of frame is left to aiohttp.
"""

from __future__ import annotations

from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

from gateway.barrier import FAULTS, report
from gateway.media_socket import MediaSocket
from gateway.turns import Seat
from runtime.log import get_log

log = get_log(__name__)

_FINAL_TEXT = 0x81
"""First byte of a frame (RFC 6455, 5.2): whole, not compressed, text."""
_MASKED = 0x80
_LENGTH_FOLLOWS = _MASKED | 126
"""Second byte: the length is in the next two."""


class DirectParser(WebSocketReader):
    """aiohttp's parser with a shorter way for text messages, which go straight to their owner.

    Twilio sends nothing but text in single frames until it closes. So with the first frame that is
    anything else aiohttp's way is taken for good, and the event loop reads the socket.

    Args:
        queue: Gets what is not text, or not plain.
        max_bytes: The longest message that is taken, in bytes.
    """

    def __init__(self, queue: WebSocketDataQueue, max_bytes: int) -> None:
        super().__init__(queue, max_bytes, compress=False, decode_text=False)
        self.owner: MediaSocket | None = None
        """Gets the messages. Until there is one, they wait."""
        self.seat: Seat | None = None
        """Where the socket is read, and told whether the owner's quick way is open."""
        self._rest = b""
        """The part of a frame that came."""
        self._all_is_text = True

    def feed_data(self, data: bytes | bytearray | memoryview) -> tuple[bool, bytes]:
        """Take what the socket gave; whether that is the end, and what of it was not read."""
        if not self._all_is_text:
            return super().feed_data(data)
        data = self._rest + data
        owner = self.owner
        if owner is None:
            self._rest = data
            return False, b""
        contents, end = read_texts(data)
        for content in contents:
            try:
                owner.receive_text(content)
            except FAULTS as error:
                report(log, "fault while handling a media stream", error)
                owner.fail()  # what that raises ends the socket, by its seat
        self._rest = data[end:]
        if not self._rest:
            if self.seat is not None:
                self.seat.quick = owner.quick
            return False, b""
        if self.seat is not None:
            self.seat.quick = None
        if may_be_text(self._rest):
            return False, b""
        self._all_is_text = False
        if self.seat is not None:
            # aiohttp answers pings, and holds the socket back when its queue is full: both only work
            # where the event loop reads.
            self.seat.end()
        return super().feed_data(self._rest)


def read_texts(data: bytes) -> tuple[list[bytearray], int]:
    """Read a client's text messages, as far as they are whole and each in one masked frame.

    Args:
        data: What a socket gave, from the beginning of a frame on.

    Returns:
        Their contents, and where in ``data`` the first frame begins that is not taken: it is not
        whole yet, or of another kind (:func:`may_be_text`), or ``data`` ends there.
    """
    contents: list[bytearray] = []
    at, size = 0, len(data)
    while size - at >= 6 and data[at] == _FINAL_TEXT:
        length = data[at + 1]
        if length == _LENGTH_FOLLOWS:
            begin = at + 8
            length = data[at + 2] << 8 | data[at + 3]
        elif _MASKED <= length < _LENGTH_FOLLOWS:
            begin = at + 6
            length -= _MASKED
        else:
            break
        if begin + length > size:
            break
        content = bytearray(data[begin : begin + length])
        websocket_mask(data[begin - 4 : begin], content)
        contents.append(content)
        at = begin + length
    return contents, at


def may_be_text(data: bytes) -> bool:
    """Whether a frame that begins so, and is not whole, is one that :func:`read_texts` will take.

    ``data`` is not empty.
    """
    return data[0] == _FINAL_TEXT and (len(data) < 2 or _MASKED <= data[1] <= _LENGTH_FOLLOWS)
