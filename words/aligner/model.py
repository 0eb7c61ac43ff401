"""The acoustic model inside the pocketsphinx wheel, read with NumPy.

The wheel carries Alpha Cephei's ``en-us`` phonetically tied model (BSD-2): 42 phones, each with a
codebook of 128 Gaussians in each of three feature streams (cepstra, their first and second
differences), and for each state of a phone (a *senone*) one weight a Gaussian. We use only the 126
context-independent senones: with context the word times measured no better (reference measurements:
docs/words.md), and without it the whole model is a few matrices.

A senone's score is the sum over the streams of log(sum of weight x Gaussian). Its Gaussians with the
greatest weights carry nearly all of that sum, so the others are dropped when the model is read.

File formats: sphinxbase's S3 binary format (header of text lines, byte order mark 0x11223344, then
counts and little-endian values) and its binary model definition (``BMDF``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

STATES = 3
"""States of a phone, left to right."""

STREAM_SIZE = 13
"""Features in a stream."""

_BYTE_ORDER_MARK = 0x11223344
_SENDUMP_LOG_BASE = np.log(1.0001)
_SENDUMP_SHIFT = 1024
"""Mixture weights are stored as -log(weight) in units of 1024 steps of log base 1.0001."""

_VARIANCE_FLOOR = 1e-4


class ModelError(RuntimeError):
    """The acoustic model in the pocketsphinx package is missing or not the one we know."""


@dataclass(frozen=True)
class AcousticModel:
    """Context-independent senones of the wheel's model."""

    phones: tuple[str, ...]
    """Names of the phones in the model's order: ARPAbet, ``SIL`` and noises in ``+…+``."""

    means: tuple[npt.NDArray[np.float64], ...]
    """For each stream, shape (phones, Gaussians, 13)."""

    variances: tuple[npt.NDArray[np.float64], ...]
    """For each stream, shape (phones, Gaussians, 13)."""

    weights: tuple[npt.NDArray[np.float64], ...]
    """For each stream, shape (phones, states, Gaussians)."""


def model_directory() -> Path:
    """Where the wheel keeps its model, found without importing the package's compiled part."""
    from importlib.util import find_spec

    spec = find_spec("pocketsphinx")
    if spec is None or spec.origin is None:
        raise ModelError("package pocketsphinx is not installed; it carries the acoustic model")
    directory = Path(spec.origin).parent / "model" / "en-us"
    if not directory.is_dir():
        raise ModelError(f"no acoustic model at {directory}; reinstall the pocketsphinx wheel")
    return directory


def dictionary_path() -> Path:
    """The wheel's pronouncing dictionary (CMUdict, BSD-2)."""
    return model_directory() / "cmudict-en-us.dict"


@lru_cache(maxsize=1)
def acoustic_model() -> AcousticModel:
    """Read the model; some 20 ms, once a process."""
    directory = model_directory() / "en-us"
    try:
        phones, n_senones, senones = _read_phones((directory / "mdef").read_bytes())
        means = _read_gaussians((directory / "means").read_bytes())
        variances = _read_gaussians((directory / "variances").read_bytes())
        n_gaussians = means[0].shape[1]
        dump = (directory / "sendump").read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the acoustic model: {error}") from error
    # The weights are the last part of the file, one byte each: stream, Gaussian, senone.
    size = 3 * n_gaussians * n_senones
    raw = np.frombuffer(dump, np.uint8, size, len(dump) - size)
    raw = raw.reshape(3, n_gaussians, n_senones)
    weights = tuple(
        np.exp(raw[stream][:, senones].astype(np.float64) * -_SENDUMP_SHIFT * _SENDUMP_LOG_BASE)
        .transpose(1, 2, 0)
        .copy()
        for stream in range(3)
    )
    floored = tuple(np.maximum(v, _VARIANCE_FLOOR) for v in variances)
    return AcousticModel(phones, tuple(means), floored, weights)


def _read_phones(data: bytes) -> tuple[tuple[str, ...], int, npt.NDArray[np.int64]]:
    """Phone names, the number of senones, and the senones of each phone: (phones, states)."""
    if data[:4] != b"BMDF":
        raise ModelError("mdef: not a binary model definition")
    (format_size,) = struct.unpack_from("<i", data, 8)
    start = 12 + format_size
    (n_phones, n_all, n_states, _, n_senones, _, n_sequences, _, n_tree, _) = struct.unpack_from(
        "<10i", data, start
    )
    if n_states != STATES:
        raise ModelError(f"mdef: {n_states} states a phone, expected {STATES}")
    start += 40
    place = start
    names: list[str] = []
    for _ in range(n_phones):
        end = data.index(b"\0", place)
        names.append(data[place:end].decode("ascii"))
        place = end + 1
    place = start + (place - start + 3 & ~3) + 8 * n_tree
    record = np.dtype([("sequence", "<i4"), ("rest", "u1", 8)])
    sequence_of = np.frombuffer(data, record, n_all, place)["sequence"][:n_phones]
    place += record.itemsize * n_all + 4
    sequences = np.frombuffer(data, "<u2", n_sequences * STATES, place).reshape(-1, STATES)
    return tuple(names), n_senones, sequences[sequence_of].astype(np.int64)


def _read_gaussians(data: bytes) -> list[npt.NDArray[np.float64]]:
    """Parameters for each stream, shape (codebooks, Gaussians, 13)."""
    place = data.index(b"endhdr\n") + len(b"endhdr\n")
    mark, n_codebooks, n_streams, n_gaussians = struct.unpack_from("<4i", data, place)
    if mark != _BYTE_ORDER_MARK:
        raise ModelError("means or variances: foreign byte order")
    sizes = struct.unpack_from(f"<{n_streams}i", data, place + 16)
    place += 16 + 4 * n_streams
    (total,) = struct.unpack_from("<i", data, place)
    values = np.frombuffer(data, "<f4", total, place + 4).reshape(n_codebooks, -1)
    streams: list[npt.NDArray[np.float64]] = []
    offset = 0
    for size in sizes:
        part = values[:, offset : offset + n_gaussians * size]
        streams.append(part.reshape(n_codebooks, n_gaussians, size).astype(np.float64))
        offset += n_gaussians * size
    return streams
