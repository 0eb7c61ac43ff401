"""Brings recorded speech onto a telephone line: 8 kHz, one loudness, µ-law. Pure.

Everything here runs once, when a worker starts or when the shipped sentences are made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.units import BYTES_PER_MS

RATE_HZ = 8_000

BAND_HZ = 3_400
"""What a telephone passes."""

TARGET_RMS = 2_600
"""-22 dB below full scale, the usual level of speech on a telephone line."""

LOUDEST = 32_000
"""Of a 16-bit sample, with a little room below the code's end."""

EDGE_MS = 60
"""Silence left before the first sound and after the last."""

_TAPS = 32
"""Zero crossings of the low-pass on either side."""

_BLOCK = 4_096
"""Output samples at a time, so that a long recording takes no more memory than a short one."""

_AUDIBLE = 0.01
"""Of the loudest sample: 40 dB below it nothing of a word is left."""

Samples = npt.NDArray[np.floating[Any]]


def at_telephone_rate(samples: Samples, rate_hz: int) -> Samples:
    """Bring samples to 8 kHz behind a windowed-sinc low-pass at 3.4 kHz, without delay.

    Args:
        samples: One channel.
        rate_hz: 8,000 or more. At 8,000 they are returned as they are.
    """
    if rate_hz == RATE_HZ:
        return samples
    cutoff = 2 * BAND_HZ / rate_hz  # of the half of the rate
    reach = math.ceil(_TAPS / cutoff)
    padded = np.pad(samples, (reach, reach + 1))
    length = len(samples) * RATE_HZ // rate_hz
    out = np.empty(length)
    around = np.arange(-reach, reach + 1)
    for begin in range(0, length, _BLOCK):
        at = np.arange(begin, min(begin + _BLOCK, length)) * (rate_hz / RATE_HZ)
        nearest = np.floor(at).astype(np.int64)
        distance = around[None, :] - (at - nearest)[:, None]
        window = 0.54 + 0.46 * np.cos(np.pi * np.clip(distance / reach, -1, 1))
        taps = cutoff * np.sinc(cutoff * distance) * window
        out[begin : begin + len(at)] = (taps * padded[nearest[:, None] + around + reach]).sum(
            axis=1
        )
    return out


def trimmed(samples: Samples) -> Samples:
    """Speech at 8 kHz with 60 ms of silence before and after it; empty when nothing is audible."""
    magnitude = np.abs(samples)
    audible = np.flatnonzero(magnitude > _AUDIBLE * magnitude.max(initial=0))
    if not len(audible):
        return samples[:0]
    edge = np.zeros(EDGE_MS * BYTES_PER_MS)
    return np.concatenate([edge, samples[audible[0] : audible[-1] + 1], edge])


def at_telephone_level(samples: Samples) -> Samples:
    """Bring 16-bit speech to the usual loudness of a line, judged where it is audible."""
    audible = samples[np.abs(samples) > 200]
    if not len(audible):
        return samples
    level = float(np.sqrt(np.mean(np.square(audible))))
    return samples * (TARGET_RMS / level)


def ulaw_of(samples: Samples) -> bytes:
    """µ-law of 16-bit samples, clipped where they are beyond it; whole frames of 20 ms."""
    clipped = np.clip(np.rint(samples), -LOUDEST, LOUDEST).astype(np.int32)
    magnitude = np.abs(clipped) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    code = exponent << 4 | (magnitude >> (exponent + 3)) & 0x0F
    ulaw: bytes = (~(code | np.where(clipped < 0, 0x80, 0)) & 0xFF).astype(np.uint8).tobytes()
    return ulaw + b"\xff" * (-len(ulaw) % (20 * BYTES_PER_MS))
