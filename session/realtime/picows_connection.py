"""The Realtime WebSocket by picows, at half the CPU of ``websockets``.

picows hands over frames from a callback and sends from the caller's own stack, so fifty frames a
second cost neither a task nor a queue hop. What a message is (fragments), how a close is answered
and what an end means is said here; frames, masking and pings are the library's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from runtime.config import is_loopback
from runtime.errors import Unavailable
from session.realtime import connection
from session.realtime.bounds import MAX_MESSAGE_BYTES
from session.realtime.connection import (
    CLOSE_S,
    OPEN_S,
    STALLED_BYTES,
    UNACKNOWLEDGED_MS,
    Closed,
    RealtimeConnection,
)

MAX_FRAGMENTS = 1024
"""Frames a message: also empty ones take room."""

TURN_MESSAGES = 64
"""Messages that are passed on in one turn of the event loop: some 3 ms of the oddest. More wait for
the next turn, so that a model that floods its call is no pause of the others'."""

MAX_WAITING = 4096
"""Messages that may wait so, and twice the largest message in bytes: a quarter of an hour of
deltas. With more the socket is dropped."""

TEXT = WSMsgType.TEXT

_BY_PICOWS = (WSCloseCode.MESSAGE_TOO_BIG, WSCloseCode.GOING_AWAY)
"""With what it closes by itself: a frame too large, no sign of life. We use neither."""

NO_CLOSE_FRAME = 1006
NO_CLOSE_CODE = 1005

# What it logs of a lost connection is in `Closed` too, and reaches the call's own log line.
logging.getLogger("picows").setLevel(logging.CRITICAL)


async def connect_picows(url: str, *, model: str, key: str | None) -> RealtimeConnection:
    """Open a socket; see :class:`~session.realtime.connection.Connect`."""
    joint = "&" if urlsplit(url).query else "?"
    host = urlsplit(url).hostname or ""
    headers = {"User-Agent": "asheard"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    opened = PicowsConnection()
    try:
        async with asyncio.timeout(OPEN_S):
            transport, _ = await ws_connect(
                lambda: opened,
                f"{url}{joint}model={quote(model)}",
                disconnect_on_exception=False,  # the connection keeps the exception for `run`
                websocket_handshake_timeout=OPEN_S,
                enable_auto_ping=True,
                auto_ping_idle_timeout=connection.PING_S,
                auto_ping_reply_timeout=connection.PING_S,
                max_frame_size=MAX_MESSAGE_BYTES,
                extra_headers=headers,
                max_redirects=0,
                proxy=_proxy(url, host),
            )
    except WSInvalidStatusError as error:
        status = error.response.status if error.response is not None else HTTPStatus.BAD_GATEWAY
        hint = ": check OPENAI_API_KEY" if status in (401, 403) else ""
        raise Unavailable(f"the Realtime endpoint answered HTTP {int(status)}{hint}") from error
    except TimeoutError as error:
        raise Unavailable(f"the Realtime endpoint did not answer in {OPEN_S:.0f} s") from error
    except (OSError, WSError, WSHandshakeError) as error:
        raise Unavailable(
            f"the Realtime endpoint at {host} cannot be reached: {type(error).__name__}; "
            "check ASHEARD_REALTIME_URL"
        ) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # it is closed already, as `run` will say
            transport.underlying_transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS
            )
    return opened


def _proxy(url: str, host: str) -> str | None:
    """The environment's proxy for ``url``; None on loopback, or when there is none."""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get("https" if url.startswith("wss:") else "http")


class PicowsConnection(WSListener):
    """One socket: what comes is kept until :meth:`run` takes it, and passed on from then on."""

    __slots__ = (  # a subclass of a compiled class finds what is in a dictionary half as fast
        "_transport", "_waiting", "_waiting_bytes", "_turn_messages", "_paused", "_loop",
        "_fragments", "_fragment_bytes", "_on_message", "_closed", "_ended",
    )  # fmt: skip

    def __init__(self) -> None:
        self._transport: WSTransport | None = None
        """None: not connected yet, or not any more."""
        self._waiting: deque[bytes] = deque()
        """What came and is not passed on: nobody listens yet, or this turn has had its share."""
        self._waiting_bytes = 0
        self._turn_messages = 0
        """Passed on in this turn of the event loop."""
        self._paused = False
        """Nothing more is read until what waits is passed on."""
        self._loop = asyncio.get_running_loop()
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._on_message: Callable[[bytes], None] | None = None
        """None: nobody listens yet."""
        self._closed: Closed | None = None
        self._ended: asyncio.Future[Closed] = self._loop.create_future()

    # -- RealtimeConnection --------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None:
            transport.send(TEXT, data)  # drops what comes after our close frame

    async def run(self, on_message: Callable[[bytes], None]) -> Closed:
        self._on_message = on_message
        self._next_turn()
        try:
            return await asyncio.shield(self._ended)
        finally:
            # picows keeps us until the garbage collector comes; we do not keep the call.
            self._on_message = _ignore
            self._waiting.clear()

    async def close(self) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            async with asyncio.timeout(CLOSE_S):
                await transport.wait_disconnected()
        except (TimeoutError, WSError):
            pass  # it has ended, or is ended here
        finally:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # -- WSListener ----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=STALLED_BYTES)

    def pause_writing(self) -> None:
        """The network has long stopped taking what is sent: drop the socket."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self._on_message is _ignore and kind is not WSMsgType.CLOSE:
            return
        if kind is TEXT or kind is WSMsgType.BINARY or kind is WSMsgType.CONTINUATION:
            message = frame.get_payload_as_bytes()
            if self._fragments or not frame.fin:
                self._fragments.append(message)
                self._fragment_bytes += len(message)
                if self._fragment_bytes > MAX_MESSAGE_BYTES or len(self._fragments) > MAX_FRAGMENTS:
                    self._refuse(WSCloseCode.MESSAGE_TOO_BIG)
                    return
                if not frame.fin:
                    return
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._fragment_bytes = 0
            if self._on_message is None or self._waiting or self._turn_messages >= TURN_MESSAGES:
                self._let_wait(message)
                return
            if not self._turn_messages:
                self._loop.call_soon(self._next_turn)
            self._pass_on(message)
        elif kind is WSMsgType.CLOSE:
            self._closed = _read_close(frame.get_payload_as_bytes())
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        handshake = transport.close_handshake
        code = handshake.sent.code if handshake is not None and handshake.sent is not None else None
        if code is not None and code in _BY_PICOWS:
            self._closed = Closed(code.value, "", by_us=True)  # the peer may have answered since
        self._closed = self._closed or Closed(NO_CLOSE_FRAME, "")
        if not self._waiting:
            self._end()

    # -- passing on ----------------------------------------------------------------------------

    def _pass_on(self, message: bytes) -> None:
        self._turn_messages += 1
        if self._on_message is not None:
            try:
                self._on_message(message)
            except Exception as error:
                self._fail(error)

    def _next_turn(self) -> None:
        """A turn of the event loop begins: what waits comes first."""
        self._turn_messages = 0
        while self._waiting and self._turn_messages < TURN_MESSAGES:
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._pass_on(message)
        if self._turn_messages:
            self._loop.call_soon(self._next_turn)
        if not self._waiting:
            if self._paused and self._transport is not None:
                with contextlib.suppress(RuntimeError):  # it is closing
                    self._transport.underlying_transport.resume_reading()
            self._paused = False
            if self._closed is not None and self._transport is None:
                self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(self._closed or Closed(NO_CLOSE_FRAME, ""))

    def _let_wait(self, message: bytes) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            with contextlib.suppress(RuntimeError):  # it is closing
                self._transport.underlying_transport.pause_reading()
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > 2 * MAX_MESSAGE_BYTES:
            self._refuse(WSCloseCode.POLICY_VIOLATION)

    def _refuse(self, code: WSCloseCode) -> None:
        """The model sends more than is taken: drop the socket, with the reason."""
        self._on_message = _ignore
        self._fragments.clear()
        self._waiting.clear()
        self._closed = Closed(code.value, "", by_us=True)
        self._end()
        if self._transport is not None:
            self._transport.send_close(code)
            self._transport.disconnect(graceful=False)

    def _fail(self, error: Exception) -> None:
        self._on_message = _ignore
        self._waiting.clear()
        if not self._ended.done():
            self._ended.set_exception(error)
        if self._transport is not None:
            self._transport.disconnect(graceful=False)


def _ignore(_message: bytes) -> None:
    """What comes after the end."""


def _read_close(payload: bytes) -> Closed:
    """RFC 6455, 5.5.1: two bytes of code, then a reason; both may be missing."""
    if len(payload) < 2:
        return Closed(NO_CLOSE_CODE, "")
    return Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace"))
