"""The Realtime WebSocket, behind an interface that another library can fill.

Sending is synchronous: the caller's audio goes out fifty times a second, and neither a task nor a
queue hop is worth having for each. What keeps that bounded is the transport, which says when it
holds more than :data:`STALLED_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from session.realtime.bounds import MAX_MESSAGE_BYTES

OPEN_S = 10.0
"""Deadline of TCP, TLS and the handshake: 0.5 to 0.75 s is usual."""

CLOSE_S = 2.0
"""How long the closing handshake may take; the call is over, nobody waits for it."""

PING_S = 4.5
"""After so long a silence the model's server is asked for a sign of life, and has as long to give
one: a dead socket is noticed within two of these, 9 s. Its pongs cost next to nothing."""

UNACKNOWLEDGED_MS = 9_000
"""A socket whose peer has acknowledged nothing of what was sent for so long is dead: the system,
left to itself, waits some 15 minutes. ``TCP_USER_TIMEOUT``, where there is one."""

STALLED_BYTES = 1024 * 1024
"""With more unsent audio than this the socket is taken for dead: about a minute and a half."""

AUTHENTICATION_FAILED = 3000
"""Close code of a bad key, after a handshake that succeeded."""

GOING_AWAY = 1001
"""Close code of an expired session; ours for a socket without a sign of life."""

TOO_MUCH = 1008
"""Our close code for a flood of events."""

TOO_LARGE = 1009
"""Our close code for an event that is larger than any can be."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How the socket ended. Every end that we did not ask for is a failure, 1000 and 1001 too."""

    code: int
    """1006 when there was no closing handshake."""
    reason: str
    by_us: bool = False
    """We closed it, for the reason that the code says."""

    def explain(self) -> str:
        """In words for an engineer."""
        if self.by_us and self.code == TOO_LARGE:
            return f"the model sent an event of more than {MAX_MESSAGE_BYTES >> 20} MiB"
        if self.by_us and self.code == TOO_MUCH:
            return "the model sent more events at once than are taken"
        if self.by_us and self.code == GOING_AWAY:
            return f"the model gave no sign of life for {2 * PING_S:.0f} s"
        if self.code == AUTHENTICATION_FAILED:
            return "the model refused the key (close 3000): check OPENAI_API_KEY"
        if self.code == GOING_AWAY:
            return "the model ended the session (close 1001): it lasts 60 minutes at most"
        return f"the model's socket closed with code {self.code}"


class RealtimeConnection(Protocol):
    """An open socket."""

    def send(self, data: bytes) -> None:
        """Send one text frame, at once and in order. Does nothing once the socket has closed."""
        ...

    async def run(self, on_message: Callable[[bytes], None]) -> Closed:
        """Pass on each message until the socket ends; called once."""
        ...

    async def close(self) -> None:
        """End it; :meth:`run` returns."""
        ...

    def abort(self) -> None:
        """Drop it at once, without a word."""
        ...


class Connect(Protocol):
    """Opens a socket."""

    async def __call__(self, url: str, *, model: str, key: str | None) -> RealtimeConnection:
        """Open a socket.

        Args:
            url: The endpoint, without the ``model`` query.
            model: For the query.
            key: For the Authorization header; None: no header.

        Raises:
            Unavailable: The endpoint cannot be reached, or refused the handshake.
        """
        ...
