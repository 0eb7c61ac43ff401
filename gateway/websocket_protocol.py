"""The WebSocket protocol (RFC 6455), by the ``websockets`` library without its sockets. Pure.

A stream of Twilio needs its handshake, and seldom more: what Twilio sends are plain text frames,
which :mod:`native` reads, until it closes. :class:`AllFrames` reads whatever else a peer may send.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

_FINAL_TEXT = 0x81
"""First byte of a frame (RFC 6455, 5.2): final, not compressed, text."""
_MASKED = 0x80
_LENGTH_FOLLOWS = 126
"""In the second byte: the length is in the next two."""

_HEADERS = frozenset({"connection", "upgrade", "sec-websocket-key", "sec-websocket-version"})
"""Of a handshake that negotiates nothing."""


def handshake(method: str, headers: Iterable[tuple[str, str]]) -> tuple[HTTPStatus, bytes]:
    """Answer a request for a WebSocket, without compression: audio has none to give.

    Args:
        method: Of the request.
        headers: Its names and values.

    Returns:
        101, and what is to be written; 426 when the request is for something else; 400 when it
        cannot be understood.
    """
    protocol = ServerProtocol()
    try:
        # Others may be odd: the signature, say, is judged where it is looked at.
        ours = Headers(entry for entry in headers if entry[0].lower() in _HEADERS)
    except InvalidHandshake:
        return HTTPStatus.BAD_REQUEST, b""
    response = protocol.accept(Request("/", ours, method))
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        protocol.send_response(response)
        return HTTPStatus.SWITCHING_PROTOCOLS, b"".join(protocol.data_to_send())
    if response.status_code == HTTPStatus.UPGRADE_REQUIRED:
        return HTTPStatus.UPGRADE_REQUIRED, b""
    return HTTPStatus.BAD_REQUEST, b""


def may_be_plain(data: bytes) -> bool:
    """Whether a frame that begins so, and is not whole, will be taken by :func:`native.read_text`.

    ``data`` is not empty.
    """
    if data[0] != _FINAL_TEXT:
        return False
    return len(data) < 2 or _MASKED <= data[1] <= _MASKED | _LENGTH_FOLLOWS


class Kind(enum.Enum):
    """What a peer sent."""

    TEXT = "text"
    """A message, whole."""
    BINARY = "binary"
    """The beginning of a message, or all of it."""
    PING = "ping"
    CLOSE = "close"
    """It closes. Nothing follows."""
    FAULT = "fault"
    """It broke the protocol. Nothing follows."""


class Received(NamedTuple):
    """One thing that came."""

    kind: Kind
    content: bytes = b""
    """Of a text, not proved to be UTF-8; of a ping, the pong that answers it, as a frame."""
    close_code: int = 0
    """Of a fault: what the peer is to be told."""


class AllFrames:
    """Reads frames of every kind, and puts messages together that come in pieces.

    Args:
        max_bytes: The longest message that is taken.
    """

    def __init__(self, max_bytes: int) -> None:
        self._protocol = ServerProtocol(state=State.OPEN, max_size=max_bytes)
        self._pieces: list[bytes] = []
        """Of a text that is not whole."""
        self._in_text = False
        self._over = False

    def receive(self, data: bytes) -> list[Received]:
        """Take what the socket gave next; what came with it, in order."""
        if self._over:
            return []
        protocol = self._protocol
        protocol.receive_data(data)
        received = [
            entry
            for frame in protocol.events_received()
            if isinstance(frame, Frame) and (entry := self._entry(frame)) is not None
        ]
        # What it would answer is not sent: pongs are in `received`, and the close is the call's.
        protocol.data_to_send()
        if protocol.parser_exc is not None and protocol.close_sent is not None:
            received.append(Received(Kind.FAULT, close_code=protocol.close_sent.code))
            self._over = True
        return received

    def _entry(self, frame: Frame) -> Received | None:
        match frame.opcode:
            case Opcode.TEXT:
                self._in_text = True
                return self._piece(frame)
            case Opcode.CONT if self._in_text:
                return self._piece(frame)
            case Opcode.BINARY:
                self._in_text = False
                return Received(Kind.BINARY)
            case Opcode.PING:
                pong = Frame(Opcode.PONG, frame.data).serialize(mask=False)
                return Received(Kind.PING, pong)
            case Opcode.CLOSE:
                self._over = True
                return Received(Kind.CLOSE)
            case _:
                return None

    def _piece(self, frame: Frame) -> Received | None:
        self._pieces.append(bytes(frame.data))
        if not frame.fin:
            return None
        text = b"".join(self._pieces)
        self._pieces.clear()
        return Received(Kind.TEXT, text)
