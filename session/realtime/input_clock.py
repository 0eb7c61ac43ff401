"""The map from the model's input buffer to Twilio's media clock. Pure.

The model tells when the caller spoke in milliseconds of audio *appended* to its input buffer. The
call's clock is Twilio's ``media.timestamp``. They differ: the stream begins at any timestamp, the
telephone network may leave out silence, timestamps may go back, and silence that we append
ourselves moves the model's clock and not Twilio's.

Rules:

1. The map is a list of segments; within one, both clocks run at the same rate. A new segment begins
   where a timestamp is a frame or more off what the segment predicts. Less is jitter of the
   timestamps: Twilio rounds them.
2. A timestamp later than predicted is omitted silence. It is filled with µ-law silence, so that
   the model's voice detection sees the end of speech: at most 10 s a gap. The fill is inside the
   segment as far as it goes.
3. A timestamp earlier than predicted starts a new segment and changes nothing in the audio.
4. While the caller speaks and no media came for 750 ms, 1 s of silence is appended once, or voice
   detection would wait for ever for the end of the speech.
5. Beside the media clock, the gateway's wall clock at receipt is kept for the last ten seconds of
   frames: latency figures count from the onset of speech.

2 to 4 follow what OpenAI's own Twilio transport does, since reports about omitted silence differ.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass

import pybase64

from runtime.units import BYTES_PER_MS, FRAME_MS

MAX_FILL_MS = 10_000
"""A longer gap is no omitted silence but a fault; filling it would flood the model."""

STALL_MS = 750
"""No media for so long while the caller speaks: the network leaves out silence."""

STALL_FILL_MS = 1_000
"""More than any ``silence_duration_ms`` in use; ends the speech for server voice detection."""

_KEPT_SEGMENTS = 64
"""Old ones are forgotten: where speech began is asked within seconds of its audio."""

_KEPT_FRAMES = 512
"""Ten seconds; semantic voice detection waits eight at most."""

_SILENCE = -(1 << 63)
"""In place of a time of receipt: nobody received it, it is silence of ours."""

_EARLY_MS = -FRAME_MS

_NO_LEAD = -(1 << 62)
"""Before the first frame any timestamp is far later than predicted."""


def audio_bytes(payload: bytes) -> int | None:
    """Length of the audio in a base64 payload; None when it is not base64."""
    try:
        return len(pybase64.b64decode(payload, None, True))
    except ValueError:
        return None


def silence_payload(length_ms: int) -> bytes:
    """Base64 of µ-law silence (0xFF, which base64 spells as a run of slashes)."""
    whole, rest = divmod(length_ms * BYTES_PER_MS, 3)
    return b"/" * (4 * whole) + (b"", b"/w==", b"//8=")[rest]


@dataclass(frozen=True, slots=True)
class _Segment:
    """From ``buffer_ms`` on, where the media clock says ``media_ms``, both run in step."""

    buffer_ms: int
    media_ms: int


class InputClock:
    """Follows what is appended to the model's input buffer; see the module for the rules.

    The shell calls :meth:`receive` for every frame *before* it appends it, and :meth:`stalled`
    when :meth:`next_timer` is due; both say how much silence to append first. Everything that is
    appended must pass through here, or the clocks part.
    """

    __slots__ = (  # of each call, and looked at fifty times a second
        "_appended_bytes", "_lead_ms", "_last_media_at", "_lengths", "_received_unix_us",
        "_n_appended", "_segments", "_speech_active", "_filled_after", "filled_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self._appended_bytes = 0
        self._segments: list[_Segment] = []
        self._lead_ms = _NO_LEAD
        """The media clock less the buffer's, in the newest segment."""
        self._lengths: deque[int] = deque(maxlen=_KEPT_FRAMES)
        """Of what was appended last, frames and silence, in bytes."""
        self._received_unix_us = array("q", bytes(8 * _KEPT_FRAMES))
        """When the gateway received each of them, at its number modulo the length: a call keeps
        these ten seconds as long as it lasts, and a list of numbers takes five times the room."""
        self._n_appended = 0
        """Frames and silences so far."""
        self._speech_active = False
        self._last_media_at: float | None = None
        self._filled_after: float | None = None
        """:attr:`_last_media_at` when a stall was filled: one fill for each."""
        self.filled_ms = 0
        """Silence appended so far."""

    @property
    def appended_ms(self) -> int:
        """Length of the model's input buffer since the session began, floored."""
        return self._appended_bytes // BYTES_PER_MS

    def receive(self, n_bytes: int, media_ms: int, received_unix_us: int, now: float) -> int:
        """Take note of a frame that is about to be appended.

        Args:
            n_bytes: Length of its audio.
            media_ms: Twilio's timestamp of its beginning.
            received_unix_us: The gateway's wall clock at receipt.
            now: Monotonic seconds.

        Returns:
            How many milliseconds of silence to append before it; 0 as a rule.
        """
        self._last_media_at = now
        fill_ms = 0
        late_ms = media_ms - self._lead_ms - self._appended_bytes // BYTES_PER_MS
        if not _EARLY_MS < late_ms < FRAME_MS:
            fill_ms = self._part_from_prediction(media_ms, late_ms)
        self._appended_bytes += n_bytes
        self._lengths.append(n_bytes)
        self._received_unix_us[self._n_appended % _KEPT_FRAMES] = received_unix_us
        self._n_appended += 1
        return fill_ms

    def speech(self, active: bool) -> None:
        """Whether the model's voice detection says that the caller is speaking."""
        self._speech_active = active

    def next_timer(self) -> float | None:
        """When :meth:`stalled` wants to be called, in monotonic seconds; None: not now."""
        if not self._speech_active or self._last_media_at == self._filled_after:
            return None
        if self._last_media_at is None:
            return None
        return self._last_media_at + STALL_MS / 1000

    def stalled(self, *, now: float) -> int:
        """Silence to append because no media came in mid-speech; 0 when it is not due."""
        due = self.next_timer()
        if due is None or now < due:
            return 0
        self._filled_after = self._last_media_at
        self._fill(STALL_FILL_MS)
        return STALL_FILL_MS

    def media_at(self, buffer_ms: int) -> int | None:
        """The call's clock at a place in the model's input buffer.

        A place beyond what was appended is taken for its end. None when the place is older than
        what is remembered, or nothing was appended yet.
        """
        buffer_ms = min(buffer_ms, self.appended_ms)
        for segment in reversed(self._segments):
            if segment.buffer_ms <= buffer_ms:
                return segment.media_ms + buffer_ms - segment.buffer_ms
        return None

    def media_now(self, now: float) -> int | None:
        """The call's clock now: where its newest frame is, and what passed since it came.

        Args:
            now: Monotonic seconds.

        Returns:
            None when nothing was appended yet.
        """
        at_ms = self.media_at(self.appended_ms)
        if at_ms is None or self._last_media_at is None:
            return at_ms
        return at_ms + max(0, int((now - self._last_media_at) * 1000))

    def received_at(self, buffer_ms: int) -> int | None:
        """The gateway's wall clock, in microseconds, when it received a place in the buffer.

        None when no frame that is remembered reaches it.
        """
        found: int | None = None
        end_bytes = self._appended_bytes
        for back, length in enumerate(reversed(self._lengths), start=1):
            if end_bytes // BYTES_PER_MS < buffer_ms:
                return found
            received = self._received_unix_us[(self._n_appended - back) % _KEPT_FRAMES]
            if received != _SILENCE:
                found = received
            end_bytes -= length
        # The oldest frame remembered holds the place only if it is the very first one.
        return None if end_bytes else found

    def _part_from_prediction(self, media_ms: int, late_ms: int) -> int:
        """Rules 2 and 3; how much silence to append."""
        if not self._segments or late_ms < 0:
            self._begin_segment(media_ms)
            return 0
        fill_ms = min(late_ms, MAX_FILL_MS)
        self._fill(fill_ms)
        if late_ms > MAX_FILL_MS:
            self._begin_segment(media_ms)
        return fill_ms

    def _begin_segment(self, media_ms: int) -> None:
        self._segments.append(_Segment(self.appended_ms, media_ms))
        self._lead_ms = media_ms - self.appended_ms
        del self._segments[:-_KEPT_SEGMENTS]

    def _fill(self, fill_ms: int) -> None:
        self._appended_bytes += fill_ms * BYTES_PER_MS
        self._lengths.append(fill_ms * BYTES_PER_MS)
        self._received_unix_us[self._n_appended % _KEPT_FRAMES] = _SILENCE
        self._n_appended += 1
        self.filled_ms += fill_ms
