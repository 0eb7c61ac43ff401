"""Server VAD on the audio that really came: energy per window, with the API's three settings. Pure.

The live service judges windows of 32 ms: in recordings ``audio_start_ms`` plus the padding and
``audio_end_ms`` are multiples of 32. All positions are ms of audio written since the session began,
never wall time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators.speech.g711 import BYTES_PER_MS, LOUDNESS_STEP, ULAW_TO_LOUDNESS

WINDOW_MS = 32
_WINDOW_BYTES = WINDOW_MS * BYTES_PER_MS
_ONSET_WINDOWS = 2
"""Loud windows in a row that make a voice; one alone may be a click."""

_EAGERNESS_MS = {"low": 1_000, "medium": 600, "auto": 600, "high": 350}
"""Silence that ends a turn under semantic_vad, which this simulator knows only by its pace."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak."""

    audio_start_ms: int
    """Onset less the prefix padding, as the API reports it."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller has been silent for long enough."""

    audio_end_ms: int
    """End of the silence that decided it, as the API reports it."""


class Vad:
    """Listens to one session's input, mono µ-law at 8 kHz."""

    def __init__(self) -> None:
        self._threshold = 0
        self._padding_ms = 0
        self._silence_ms = 0
        self._rest = b""
        self._at_ms = 0
        self._loud_windows = 0
        self._quiet_ms = 0
        self.speaking = False
        """A turn of the caller is under way."""

    def configure(self, turn_detection: Mapping[str, Any]) -> None:
        """Take over the session's settings.

        ``threshold`` is a share of loudness: 0 is 60 dB below full scale, 1 is 20 dB below, so 0.5
        lets a voice on a telephone line through and its background not.
        """
        threshold_db = -60 + 40 * float(turn_detection.get("threshold", 0.5))
        level = 32_768 * math.pow(10, threshold_db / 20) / LOUDNESS_STEP
        self._threshold = int(level * _WINDOW_BYTES)
        self._padding_ms = int(turn_detection.get("prefix_padding_ms", 300))
        self._silence_ms = int(
            turn_detection.get(
                "silence_duration_ms",
                _EAGERNESS_MS[turn_detection.get("eagerness", "auto")],
            )
        )

    def forget(self) -> None:
        """Drop a turn under way: the input buffer was cleared or committed."""
        self.speaking = False
        self._loud_windows = self._quiet_ms = 0

    def feed(self, ulaw: bytes, *, listen: bool) -> list[SpeechStarted | SpeechStopped]:
        """Take audio.

        Args:
            ulaw: What was appended, in order.
            listen: Judge it; False only counts it, while turn detection is off.
        """
        found: list[SpeechStarted | SpeechStopped] = []
        audio = self._rest + ulaw
        at = 0
        while at + _WINDOW_BYTES <= len(audio):
            window = audio[at : at + _WINDOW_BYTES]
            at += _WINDOW_BYTES
            self._at_ms += WINDOW_MS
            if listen:
                loud = sum(window.translate(ULAW_TO_LOUDNESS)) >= self._threshold
                event = self._judge(loud)
                if event is not None:
                    found.append(event)
        self._rest = audio[at:]
        return found

    def _judge(self, loud: bool) -> SpeechStarted | SpeechStopped | None:
        if loud:
            self._quiet_ms = 0
            self._loud_windows += 1
            if not self.speaking and self._loud_windows == _ONSET_WINDOWS:
                self.speaking = True
                onset_ms = self._at_ms - _ONSET_WINDOWS * WINDOW_MS
                return SpeechStarted(max(0, onset_ms - self._padding_ms))
            return None
        self._loud_windows = 0
        if self.speaking:
            self._quiet_ms += WINDOW_MS
            if self._quiet_ms >= self._silence_ms:
                self.forget()
                return SpeechStopped(self._at_ms)
        return None
