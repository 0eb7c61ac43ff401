"""What the caller's frames need of a call on their quick way from the socket to the link.

Fifty times a second and call Twilio sends 20 ms more, and nothing else happens. Such a frame needs no
more of its call than what is here, and :mod:`gateway.kernel` takes it without the interpreter. All
others go through :meth:`gateway.media_socket.MediaSocket.receive_text`, which knows the rules.
"""

from __future__ import annotations

from gateway.link import Lane
from gateway.playout.clock import MediaClock


class QuickWay:
    """One stream's. It is closed while its lane has no batch, or its clock is awaited.

    Args:
        stream_sid: Twilio's identifier of the stream.
        started_ns: When the call began, by the monotonic clock in nanoseconds.
        clock: The stream's media clock.
        lane: To the session worker.
    """

    __slots__ = ("clock", "lane", "started_ns", "stream_sid")

    def __init__(self, stream_sid: str, started_ns: int, clock: MediaClock, lane: Lane) -> None:
        self.stream_sid = stream_sid.encode()
        self.started_ns = started_ns
        self.clock = clock
        self.lane = lane
