"""G.711 companding, as tables: what one byte of mono 8 kHz telephone audio means.

A µ-law byte is sign, exponent and mantissa, all inverted (ITU-T G.711, table 2a). Everything the
simulators do with sound (loudness, silence, conversion to the model's other formats) is a look-up
in one of these tables, which keeps hundreds of calls cheap.
"""

from __future__ import annotations

import sys
from array import array

BYTES_PER_MS = 8
"""Mono, one byte a sample, 8,000 samples a second."""

SILENCE = b"\xff"
"""Digital silence in µ-law: positive zero."""

_BIAS = 0x84


def _expand(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS) << ((code >> 4) & 0x07)
    return _BIAS - magnitude if code & 0x80 else magnitude - _BIAS


ULAW_TO_LINEAR: tuple[int, ...] = tuple(_expand(code) for code in range(256))
"""16-bit sample of each µ-law byte."""

LOUDNESS_STEP = 32
"""One unit of :data:`ULAW_TO_LOUDNESS` in 16-bit sample values (-60 dB below full scale)."""

ULAW_TO_LOUDNESS: bytes = bytes(min(255, abs(v) // LOUDNESS_STEP) for v in ULAW_TO_LINEAR)
"""Absolute sample value of each µ-law byte in steps of 32, for ``bytes.translate``.

It saturates at a quarter of full scale: enough to tell speech from silence, and its mean over a
window costs one ``sum``.
"""


def _alaw_of(sample: int) -> int:
    """A-law byte of a 16-bit sample (ITU-T G.711, table 1a, even bits inverted)."""
    sign = 0x80 if sample >= 0 else 0x00
    magnitude = min(abs(sample) >> 4, 0x7FF)
    exponent = max(0, magnitude.bit_length() - 4)
    mantissa = (magnitude >> max(0, exponent - 1)) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55


ULAW_TO_ALAW: bytes = bytes(_alaw_of(v) for v in ULAW_TO_LINEAR)
"""A-law byte of each µ-law byte, for ``bytes.translate``."""


def _alaw_to_ulaw() -> bytes:
    table = bytearray(256)
    for ulaw, alaw in enumerate(ULAW_TO_ALAW):
        table[alaw] = ulaw
    for alaw in set(range(256)) - set(ULAW_TO_ALAW):
        table[alaw] = table[alaw ^ 0x01]  # No µ-law byte is just there: the neighbouring step.
    return bytes(table)


ALAW_TO_ULAW: bytes = _alaw_to_ulaw()
"""µ-law byte nearest to each A-law byte, for ``bytes.translate``."""


def linear_to_ulaw(sample: int) -> int:
    """µ-law byte of a 16-bit sample; values beyond the code's range are clipped."""
    magnitude = min(abs(sample), 32635) + _BIAS
    exponent = magnitude.bit_length() - 8
    code = exponent << 4 | (magnitude >> (exponent + 3)) & 0x0F
    return ~(code | (0x80 if sample < 0 else 0)) & 0xFF


LINEAR12_TO_ULAW: bytes = bytes(linear_to_ulaw((i - 2048) << 4) for i in range(4096))
"""µ-law byte of a sample's upper 12 bits plus 2048; near enough to judge loudness by."""


def ulaw_to_pcm24k(ulaw: bytes) -> bytes:
    """16-bit little-endian PCM at 24 kHz of µ-law at 8 kHz, each sample held three times.

    Crude to the ear, exact in time: byte ``i`` of the input is bytes ``6i`` to ``6i + 6``.
    """
    samples = array("h", (ULAW_TO_LINEAR[b] for b in ulaw for _ in range(3)))
    if samples.itemsize != 2:  # pragma: no cover - no such platform is known
        raise AssertionError("array('h') is not 16 bits wide here")
    return _little_endian(samples).tobytes()


def pcm24k_to_ulaw(pcm: bytes) -> bytes:
    """µ-law at 8 kHz of 16-bit little-endian PCM at 24 kHz: every third sample, 12 bits of it."""
    samples = array("h")
    samples.frombytes(pcm[: len(pcm) // 2 * 2])
    return bytes(LINEAR12_TO_ULAW[(v >> 4) + 2048] for v in _little_endian(samples)[::3])


def _little_endian(samples: array[int]) -> array[int]:
    if sys.byteorder == "big":  # pragma: no cover
        samples.byteswap()
    return samples
