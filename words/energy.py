"""Where a piece of µ-law speech is audible, and where it pauses. Cheap: no model, one pass.

Levels are taken each 10 ms. A frame is silent when it lies far below the loud parts of the same
item, so the rule does not depend on the level of the voice. Gaps too short to be a pause (the
closure of a plosive lasts 50 to 80 ms) count as speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRAME_MS = 10
_FRAME_SAMPLES = 80

_QUIETER_BY_DB = 32.0
"""A frame this far below the loudest twentieth of an item is silence: speech spans about 30 dB."""

_ALWAYS_SILENT_DB = 25.0
"""Below this level µ-law has one or two quantization steps left: silence, whatever the rest is."""

_MIN_PAUSE_FRAMES = 9
_MIN_SOUND_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an item's audio, half-open."""

    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        """How long it lasts."""
        return self.end_ms - self.start_ms


def _linear_table() -> npt.NDArray[np.float32]:
    """The 256 µ-law codes as 16-bit sample values (ITU-T G.711, table 2a)."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((((code & 0x0F).astype(np.int32) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.float32)


ULAW_TO_LINEAR = _linear_table()
"""Look-up table: µ-law code to 16-bit sample value, as float32."""

_ULAW_TO_POWER = ULAW_TO_LINEAR**2


def levels_db(ulaw: bytes) -> npt.NDArray[np.float32]:
    """Level of each 10 ms of mono µ-law at 8 kHz; a last partial frame counts as a frame."""
    power = _ULAW_TO_POWER[np.frombuffer(ulaw, dtype=np.uint8)]
    frames = -(-len(power) // _FRAME_SAMPLES)
    if frames == 0:
        return np.empty(0, np.float32)
    power = np.pad(power, (0, frames * _FRAME_SAMPLES - len(power)))
    mean = power.reshape(frames, _FRAME_SAMPLES).mean(axis=1)
    levels: npt.NDArray[np.float32] = (10.0 * np.log10(mean + 1.0)).astype(np.float32)
    return levels


def audible_spans(ulaw: bytes) -> tuple[Span, ...]:
    """Stretches of speech between pauses, in order; empty for silence."""
    levels = levels_db(ulaw)
    if len(levels) == 0:
        return ()
    loud = float(np.percentile(levels, 95))
    threshold = max(loud - _QUIETER_BY_DB, min(_ALWAYS_SILENT_DB, loud - 12.0), 8.0)
    spans: list[tuple[int, int]] = []
    for start, end in _runs(levels > threshold):
        if spans and start - spans[-1][1] < _MIN_PAUSE_FRAMES:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    length_ms = len(ulaw) // 8
    return tuple(
        Span(start * FRAME_MS, min(end * FRAME_MS, length_ms))
        for start, end in spans
        if end - start >= _MIN_SOUND_FRAMES
    )


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open index ranges in which flags are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
