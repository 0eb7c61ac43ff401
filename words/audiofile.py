"""Reads a piece of speech from a file: WAV, or raw µ-law."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from words.energy import ULAW_TO_LINEAR

RATES_HZ = (8000, 16000, 24000)
_PCM, _ULAW, _EXTENSIBLE = 1, 7, 0xFFFE


class AudioFileError(ValueError):
    """The file is not audio that can be aligned; the message says why and what to do."""


@dataclass(frozen=True)
class Audio:
    """One channel of sound."""

    rate_hz: int
    samples: npt.NDArray[np.int16]
    """16-bit sample values."""


def read_audio(data: bytes, rates_hz: Collection[int] = RATES_HZ) -> Audio:
    """Read the bytes of a file.

    A file that does not begin like a WAV file is taken as raw mono µ-law at 8 kHz, as Twilio sends it.

    Args:
        data: The file.
        rates_hz: Those that are taken.

    Raises:
        AudioFileError: A WAV file that is broken, or of a kind that is not read here.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return Audio(8000, _from_ulaw(data))
    chunks = _chunks(data)
    if b"fmt " not in chunks or b"data" not in chunks or len(chunks[b"fmt "]) < 16:
        raise AudioFileError("WAV file without a format or without data")
    header, sound = chunks[b"fmt "], chunks[b"data"]
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", header)
    if kind == _EXTENSIBLE and len(header) >= 26:
        (kind,) = struct.unpack_from("<H", header, 24)
    if (kind, bits) not in ((_PCM, 16), (_ULAW, 8)):
        raise AudioFileError(
            f"WAV format {kind} with {bits} bits is not read here; convert it to 16-bit PCM"
        )
    if rate_hz not in rates_hz:
        *others, last = rates_hz
        taken = f"{', '.join(map(str, others))} or {last} Hz"
        raise AudioFileError(f"WAV file at {rate_hz} Hz; convert it to {taken}")
    if channels < 1:
        raise AudioFileError("WAV file without a channel")
    if kind == _ULAW:
        samples = _from_ulaw(sound)
    else:
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2").astype(np.int16)
    whole = len(samples) // channels * channels
    mixed = samples[:whole].reshape(-1, channels).mean(axis=1)
    return Audio(rate_hz, mixed.astype(np.int16))


def _from_ulaw(data: bytes) -> npt.NDArray[np.int16]:
    return ULAW_TO_LINEAR[np.frombuffer(data, np.uint8)].astype(np.int16)


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """The parts of a RIFF file; a last one cut short is taken as far as it goes."""
    chunks: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        chunks.setdefault(name, data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return chunks
