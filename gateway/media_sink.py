"""Twilio's end of a media stream, for those who write to it.

Frames are written straight into the TCP transport, many in one piece and at once. So is the close
frame, after which the reader goes on reading and throwing away until the peer has closed too: a
socket that is closed with audio unread would be reset by the kernel, and the peer would never see
the close code.
"""

from __future__ import annotations

import asyncio
import socket

from gateway.twilio.frames import close_frame

CLOSE_WAIT_S = 2.0
"""How long the peer may take to answer a close frame."""

VANISHED_S = 20
"""A peer that vanished without a word is given up after so long, whether data is under way (it
stays unacknowledged) or not (probes of TCP's are not answered). A network that stands still for
less loses nothing, and half a minute is not reached."""


def _keepalive() -> list[tuple[int, int, int]]:
    """Socket options as (level, name, value): those that this system has, by the names it has."""
    tcp = socket.IPPROTO_TCP
    wanted = [
        # Twilio may send nothing while a caller is silent, so silence itself proves nothing.
        (tcp, "TCP_KEEPIDLE", VANISHED_S // 2),
        (tcp, "TCP_KEEPALIVE", VANISHED_S // 2),  # the same on macOS
        (tcp, "TCP_KEEPINTVL", VANISHED_S // 4),
        (tcp, "TCP_KEEPCNT", 2),
        # Without it what is not acknowledged keeps the socket for a quarter of an hour.
        (tcp, "TCP_USER_TIMEOUT", VANISHED_S * 1000),
    ]
    known = [(level, getattr(socket, n), v) for level, n, v in wanted if hasattr(socket, n)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]


class MediaSink:
    """Writes whole WebSocket frames. Nothing here waits.

    Args:
        transport: Open, in clear text.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._close_sent = False
        raw = transport.get_extra_info("socket")
        for level, option, value in _keepalive() if raw is not None else ():
            try:
                raw.setsockopt(level, option, value)
            except OSError:
                pass  # the peer is gone already, which will be known soon, or the system has none

    def write(self, frames: bytes) -> None:
        """Write whole frames; nothing follows a close frame."""
        if not self._close_sent and not self._transport.is_closing():
            self._transport.write(frames)

    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the answer, but not for ever. Repeats are ignored."""
        if self._close_sent:
            return
        asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self._transport.abort)
        self.write(close_frame(code, reason))
        self._close_sent = True

    def peer_closed(self) -> None:
        """The peer's close frame came: the connection is over when ours has left."""
        if self._close_sent:
            self._transport.close()
        else:
            self._transport.abort()

    def abort(self) -> None:
        """Close at once and without a word. Repeats are ignored."""
        self._transport.abort()
