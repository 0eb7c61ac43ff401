"""The caller's frames, from what a socket gave to the session worker's lane. Pure.

Fifty times a second and call Twilio sends 20 ms more, and nothing else happens: such a frame
follows the one before it, and goes on as the text that it is. This loop takes those. Whatever else
comes, a mark, a key, a frame after a gap, it leaves to
:class:`gateway.media_connection.MediaConnection`, which knows all rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.instant import Instant
from gateway.playout.clock import MediaClock
from native import read_media


class FrameLane(Protocol):
    """Where frames go: :class:`gateway.lane.Lane`."""

    def send_audio(self, payload: bytes, timestamp_ms: int, received_unix_us: int, /) -> bool:
        """Pass a frame on; False when audio was dropped, this frame or an older one."""


class CallerPath:
    """One stream's.

    Args:
        stream_sid: Twilio's identifier of the stream.
        started: When the call began: its clock is 0 then.
        clock: The stream's media clock.
        lane: To the session worker.
        count_dropped: Called for each frame that the lane dropped.
    """

    __slots__ = ("_clock", "_count_dropped", "_lane", "_started_us", "_stream_sid")

    def __init__(
        self,
        stream_sid: str,
        started: Instant,
        clock: MediaClock,
        lane: FrameLane,
        count_dropped: Callable[[], object] = lambda: None,
    ) -> None:
        self._stream_sid = stream_sid.encode()
        self._started_us = started.mono_us
        self._clock = clock
        self._lane = lane
        self._count_dropped = count_dropped

    def take(self, data: bytes, at: Instant) -> bytes:
        """Pass regular frames to the session worker; what is not, and all after it, comes back.

        Args:
            data: What the socket gave, from the beginning of a WebSocket frame on.
            at: When.
        """
        clock, lane = self._clock, self._lane
        if clock.awaited:
            return data  # whoever waits for the next frame is told of it by the call
        now_us, unix_us = at.mono_us - self._started_us, at.unix_us
        taken = 0
        for timestamp_ms, payload, audio_bytes, end in read_media(data, self._stream_sid):
            if not clock.receive_regular(timestamp_ms, audio_bytes, now_us):
                break
            if not lane.send_audio(payload, timestamp_ms, unix_us):
                self._count_dropped()
            taken = end
        return data[taken:]
