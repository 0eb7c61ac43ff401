"""The caller's audio on its way to the model: kept, appended, filled or dropped. Pure.

Nothing may be appended before the model has agreed to its format; until then frames are kept.

| state     | a frame                                | ``begin``                 | ``stop`` |
|-----------|----------------------------------------|---------------------------|----------|
| keeping   | is kept; the oldest give way to it     | append what was kept: appending | stopped |
| appending | is appended, after silence if need be  | –                         | stopped  |
| stopped   | is dropped                             | –                         | –        |

Whatever is appended is told to the :class:`~session.realtime.input_clock.InputClock` first, or it
would no longer know which moment of the call the model speaks of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from native import append_message
from session.realtime.input_clock import InputClock, silence_payload

KEPT_FRAMES = 1_100
"""Caller's audio kept while the socket opens: 22 s, longer than both deadlines together, 350 KB."""

KEPT_BYTES = 512 * 1024
"""The same in base64 text, for frames that are longer than Twilio's 20 ms."""

MAX_FRAME_BYTES = 64 * 1024
"""The longest of the caller's frames that is taken, 6 s: what a gateway passes on at most."""


class CallerInput:
    """See the module for the states.

    Args:
        clock: The model's input buffer against the call's clock.
        on_drop: Counts a frame that will never reach the model: ``overflow``, ``malformed``,
            ``too_long``.
        on_fill: Counts silence that was appended, in milliseconds.
    """

    __slots__ = ("_clock", "_send", "_kept", "_kept_bytes", "_on_drop", "_on_fill")

    def __init__(
        self, clock: InputClock, *, on_drop: Callable[[str], None], on_fill: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._on_drop = on_drop
        self._on_fill = on_fill
        self._send: Callable[[bytes], None] | None = None
        """Set while appending."""
        self._kept: deque[tuple[bytes, int, int]] | None = deque()
        """Set while keeping."""
        self._kept_bytes = 0

    @property
    def keeping(self) -> bool:
        """Whether frames are kept: the session is not configured yet."""
        return self._kept is not None

    def receive(self, payload: bytes, media_ms: int, received_unix_us: int, now: float) -> bool:
        """Take the caller's next frame: all that the worker does fifty times a second.

        Args:
            payload: Base64 of µ-law at 8 kHz, as Twilio sent it; it may be anything.
            media_ms: Twilio's ``media.timestamp``.
            received_unix_us: The gateway's wall clock at receipt, in microseconds.
            now: Monotonic seconds.

        Returns:
            Whether it went to the model.
        """
        send = self._send
        if send is None or len(payload) > MAX_FRAME_BYTES:
            self._keep(payload, media_ms, received_unix_us)
            return False
        made = append_message(payload)
        if made is None:
            self._on_drop("malformed")
            return False
        message, n_bytes = made
        fill_ms = self._clock.receive(n_bytes, media_ms, received_unix_us, now)
        if fill_ms:
            self._append_silence(fill_ms)
        send(message)
        return True

    def begin(self, send: Callable[[bytes], None], now: float) -> int | None:
        """The session is configured: append what was kept, and from now on every frame.

        Args:
            send: Sends a text frame to the model.
            now: Monotonic seconds.

        Returns:
            When the gateway received the oldest of the kept frames that went to the model just now,
            in microseconds of its wall clock. None: there was none.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        self._send = send
        oldest_unix_us: int | None = None
        for payload, media_ms, received_unix_us in kept:
            sent = self.receive(payload, media_ms, received_unix_us, now)
            if sent and oldest_unix_us is None:
                oldest_unix_us = received_unix_us
        return oldest_unix_us

    def stop(self) -> None:
        """There is no model any more."""
        self._kept = None
        self._send = None

    def fill_stall(self, now: float) -> None:
        """Append silence if no media came in mid-speech for too long; see the clock's rule 4."""
        fill_ms = self._clock.stalled(now=now)
        if fill_ms:
            self._append_silence(fill_ms)

    def _append_silence(self, length_ms: int) -> None:
        made = append_message(silence_payload(length_ms))
        if made is None:
            raise AssertionError("silence is base64")
        if self._send is not None:
            self._send(made[0])
            self._on_fill(length_ms)

    def _keep(self, payload: bytes, media_ms: int, received_unix_us: int) -> None:
        """What becomes of a frame that is not appended."""
        if len(payload) > MAX_FRAME_BYTES:
            self._on_drop("too_long")
            return
        if self._kept is None:
            return
        self._kept.append((payload, media_ms, received_unix_us))
        self._kept_bytes += len(payload)
        while len(self._kept) > KEPT_FRAMES or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[0])
            self._on_drop("overflow")
