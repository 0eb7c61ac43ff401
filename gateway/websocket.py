"""aiohttp's WebSocket as the transport of a media socket.

What comes is read by :mod:`gateway.parser`, or else by aiohttp. Frames are written straight into the
TCP transport, many in one piece and at once.
So is the close frame, after which the reader goes on reading and throwing away until the peer has
closed too: a socket that is closed with audio unread would be reset by the kernel, and the peer
would never see the close code.
"""

from __future__ import annotations

import asyncio
import socket

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp._websocket.writer import WebSocketWriter

from gateway.barrier import guarded, report
from gateway.media_socket import MediaSocket
from gateway.parser import DirectParser
from gateway.twilio.frames import close_frame
from gateway.twilio.messages import MAX_MESSAGE_BYTES
from runtime.log import get_log

log = get_log(__name__)

CLOSE_WAIT_S = 2.0
"""How long the peer may take to answer a close frame."""

VANISHED_S = 20
"""A peer that vanished without a word is given up after so long, whether data is under way (it stays
unacknowledged) or not (probes of TCP's are not answered). A network that stands still for less loses
nothing, and half a minute is not reached."""


def _keepalive() -> list[tuple[int, int, int]]:
    """Socket options as (level, name, value): those that this system has, by the names it has."""
    tcp = socket.IPPROTO_TCP
    wanted = [
        # Twilio may send nothing for as long as a caller is silent, so silence itself proves nothing.
        (tcp, "TCP_KEEPIDLE", VANISHED_S // 2),
        (tcp, "TCP_KEEPALIVE", VANISHED_S // 2),  # the same on macOS
        (tcp, "TCP_KEEPINTVL", VANISHED_S // 4),
        (tcp, "TCP_KEEPCNT", 2),
        # Without it what was written and not acknowledged keeps the socket for a quarter of an hour.
        (tcp, "TCP_USER_TIMEOUT", VANISHED_S * 1000),
    ]
    known = [(level, getattr(socket, n), v) for level, n, v in wanted if hasattr(socket, n)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]


class WebSocketTransport:
    """What a media socket writes to: see :class:`gateway.media_socket.Transport`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.close_sent = False
        raw = transport.get_extra_info("socket")
        for level, option, value in _keepalive() if raw is not None else ():
            try:
                raw.setsockopt(level, option, value)
            except OSError:
                pass  # the peer is gone already, which will be known soon, or the system has none

    def write(self, frames: bytes) -> None:
        """Write whole frames; nothing follows a close frame."""
        if not self.close_sent and not self._transport.is_closing():
            self._transport.write(frames)

    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and let the reader wait for the answer, but not for ever."""
        if self.close_sent:
            return
        asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self._transport.abort)
        self.write(close_frame(code, reason))
        self.close_sent = True

    def abort(self) -> None:
        """Close at once and without a word."""
        self._transport.abort()


class DirectWebSocket(web.WebSocketResponse[bool]):
    """aiohttp's WebSocket, whose plain text messages go straight to their owner.

    aiohttp puts each message into a queue and wakes a task for it, fifty times a second and call:
    a quarter of the gateway's CPU. What is rare (binary, close, faults) takes that way, through
    :func:`pump`.
    """

    def _post_start(
        self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter
    ) -> None:
        # As aiohttp's own, but for the parser. The lock file pins the version that this was made
        # for, and the tests of bad input and of whole calls say when another one differs.
        self._ws_protocol = protocol
        self._writer = writer
        self._reader = WebSocketDataQueue(request.protocol, 2**16, loop=asyncio.get_running_loop())
        self._parser = self.direct = DirectParser(self._reader, MAX_MESSAGE_BYTES)
        request.protocol.set_parser(self.direct)
        request.protocol.keep_alive(False)


def new_response() -> DirectWebSocket:
    """A WebSocket without compression (Twilio offers none, audio has none to give), without pings
    of ours (TCP keepalive finds dead peers), with pongs for the pings of others."""
    return DirectWebSocket(
        timeout=CLOSE_WAIT_S,
        autoclose=False,
        autoping=True,
        heartbeat=None,
        compress=False,
        max_msg_size=MAX_MESSAGE_BYTES,
        decode_text=False,
    )


async def pump(response: DirectWebSocket, media_socket: MediaSocket) -> None:
    """Hand a socket's messages to its owner until it is closed. Raises for nothing that comes; that the
    socket is closed is for the caller to say."""
    try:
        response.direct.owner = media_socket
        response.direct.feed_data(b"")  # what had come before
        async for message in response:
            if message.type is WSMsgType.TEXT:
                media_socket.receive_text(message.data)
            elif message.type is WSMsgType.BINARY:
                media_socket.receive_binary()
            elif message.type is WSMsgType.ERROR:
                code = getattr(message.data, "code", WSCloseCode.PROTOCOL_ERROR)
                media_socket.receive_fault(f"no message that we take (close code {code})", code)
    except ConnectionResetError:
        pass  # a pong to a peer that has gone meanwhile
    except Exception as error:
        report(log, "fault while handling a media stream", error)
        guarded(log, media_socket.fail)
