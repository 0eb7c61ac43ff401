"""Audio to the features that the acoustic model was trained on, as audio arrives.

The model wants 13 mel cepstra each 10 ms, from 25.6 ms windows of speech at 16 kHz, filters from
130 to 6800 Hz. Instead of resampling, the spectrum is taken at the audio's own rate with a bin every
31.25 Hz, which is the same grid at 8, 16 and 24 kHz; pre-emphasis becomes a gain for each bin.

Telephone speech stops at 4 kHz, so seven of the model's 25 filters see nothing. Their part of the
cepstra is *inferred*: the model itself says how cepstra vary (mean and covariance over all its
Gaussians), so the cepstra are the most probable ones given the filters that did see something. That
is one 13-row matrix, computed when the process starts; no speech data went into it.

Each item's average is taken off its cepstra (the model was trained so). While an item is young its
average is not known well, so the average starts from a usual one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from words.aligner.model import acoustic_model

FRAME_MS = 10
CEPSTRA = 13
CONTEXT_FRAMES = 3
"""Frames on either side that a frame's differences look at."""

FRAME_CENTRE_MS = 8
"""Frame t stands for the 10 ms around t * 10 + 12.8; it begins 5 ms earlier."""

_FILTERS = 25
_LOWEST_HZ, _HIGHEST_HZ = 130.0, 6800.0
_MODEL_RATE_HZ = 16000
_BIN_HZ = 31.25
_WINDOW_S = 0.025625
_PRE_EMPHASIS = 0.97
_LIFTER = 22
_NOISE_FLOOR = 50.0
"""Added to each filter's power (16-bit samples): keeps digital silence from looking like a signal."""

_BAND_NOISE = 1.0
"""Variance of a filter's log power that 13 of 25 cepstra do not explain. More than the model alone
would say: telephone speech is not what it was trained on."""


@dataclass(frozen=True)
class FrontEnd:
    """Everything that turns samples at one rate to cepstra."""

    rate_hz: int
    window: int
    """Samples a frame is made of."""

    hop: int
    cosines: npt.NDArray[np.float32]
    sines: npt.NDArray[np.float32]
    """Half a window to the bins of the usable filters: the cosines of what is even about its middle, the
    sines of what is odd. With so few bins a product is cheaper than a Fourier transform."""

    filters: npt.NDArray[np.float32]
    """Bins to usable filters."""

    to_cepstra: npt.NDArray[np.float32]
    """Log filter powers to liftered cepstra."""


@lru_cache(maxsize=4)
def front_end(rate_hz: int) -> FrontEnd:
    """Build the front end for 8, 16 or 24 kHz audio."""
    if rate_hz not in (8000, 16000, 24000):
        raise ValueError(f"rate_hz must be 8000, 16000 or 24000, got {rate_hz}")
    n_fft = round(rate_hz / _BIN_HZ)
    bins_hz = np.arange(n_fft // 2 + 1, dtype=np.float64) * _BIN_HZ
    filters, upper_edges_hz = _mel_filters(bins_hz)
    usable = upper_edges_hz <= rate_hz / 2 + _BIN_HZ
    emphasis = np.abs(1 - _PRE_EMPHASIS * np.exp(-2j * np.pi * bins_hz / _MODEL_RATE_HZ)) ** 2
    scale = (_MODEL_RATE_HZ / rate_hz) ** 2
    filters = filters[:, usable] * (emphasis * scale)[:, None]
    seen = filters.any(axis=1)
    window = np.hamming(round(_WINDOW_S * rate_hz))
    half = window[: (len(window) + 1) // 2]
    if len(window) % 2:
        half[-1] /= 2  # the middle is folded onto itself
    from_middle = np.arange(len(half)) - (len(window) - 1) / 2
    angles = 2 * np.pi / rate_hz * from_middle[:, None] * bins_hz[seen]
    return FrontEnd(
        rate_hz=rate_hz,
        window=len(window),
        hop=rate_hz * FRAME_MS // 1000,
        cosines=(half[:, None] * np.cos(angles)).astype(np.float32),
        sines=(half[:, None] * np.sin(angles)).astype(np.float32),
        filters=filters[seen].astype(np.float32),
        to_cepstra=_cepstra_given(usable).astype(np.float32),
    )


def _mel_filters(
    bins_hz: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Triangular filters of unit area as sphinxbase has them, shape (bins, filters), and where
    each ends."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    mels = low + np.arange(_FILTERS + 2) * (high - low) / (_FILTERS + 1)
    edges = 700 * (10 ** (mels / 2595) - 1)
    edges = np.floor(edges / _BIN_HZ + 0.5) * _BIN_HZ
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hz = bins_hz[:, None]
    rising, falling = (hz - left) / (centre - left), (right - hz) / (right - centre)
    filters = np.clip(np.minimum(rising, falling), 0, None) * 2 / (right - left)
    return filters, right


def _cosines() -> npt.NDArray[np.float64]:
    """Orthonormal cosine transform, shape (cepstra, filters)."""
    k, n = np.arange(CEPSTRA)[:, None], np.arange(_FILTERS)[None]
    table: npt.NDArray[np.float64] = np.sqrt(2 / _FILTERS) * np.cos(
        np.pi * k * (n + 0.5) / _FILTERS
    )
    table[0] *= np.sqrt(0.5)
    return table


def _lifter() -> npt.NDArray[np.float64]:
    lifter: npt.NDArray[np.float64] = 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / _LIFTER)
    return lifter


def _cepstra_given(usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The matrix from usable filters to the most probable liftered cepstra."""
    cosines, lifter = _cosines(), _lifter()
    if usable.all():
        return cosines * lifter[:, None]
    model = acoustic_model()
    share = model.weights[0].mean(axis=1)[:, :, None]
    share = share / share.sum()
    means, variances = model.means[0], model.variances[0]
    mean = (share * means).sum(axis=(0, 1))
    centred = (means - mean).reshape(-1, CEPSTRA)
    between = (centred * share.reshape(-1, 1)).T @ centred
    within = np.diag((share * variances).sum(axis=(0, 1)))
    covariance = (between + within) / np.outer(lifter, lifter)
    seen = cosines[:, usable]
    gain = covariance @ seen
    noisy = seen.T @ gain + _BAND_NOISE * np.eye(int(usable.sum()))
    return np.linalg.solve(noisy, gain.T).T * lifter[:, None]


class CepstrumStream:
    """Cepstra of audio that arrives in pieces."""

    def __init__(self, rate_hz: int = 8000) -> None:
        self._front_end = front_end(rate_hz)
        self._pieces: list[npt.NDArray[np.float32]] = []
        self._n_samples = 0
        """Of the pieces."""

    @property
    def n_waiting(self) -> int:
        """How many frames :meth:`take` would return."""
        return max((self._n_samples - self._front_end.window) // self._front_end.hop + 1, 0)

    def add_samples(self, samples: npt.NDArray[np.float32]) -> None:
        """Add 16-bit sample values."""
        self._pieces.append(samples)
        self._n_samples += len(samples)

    def take(self) -> npt.NDArray[np.float32]:
        """The cepstra of the frames that were completed since the last time."""
        fe, n_frames = self._front_end, self.n_waiting
        if n_frames == 0:
            return np.empty((0, CEPSTRA), np.float32)
        samples = np.concatenate(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        rest = samples[n_frames * fe.hop :]
        self._pieces, self._n_samples = [rest], len(rest)
        frames = np.lib.stride_tricks.as_strided(
            samples, (n_frames, fe.window), (fe.hop * samples.itemsize, samples.itemsize)
        )
        left, right = frames[:, : len(fe.cosines)], frames[:, : -len(fe.cosines) - 1 : -1]
        even, odd = (left + right) @ fe.cosines, (left - right) @ fe.sines
        power = np.square(even, out=even)
        power += np.square(odd, out=odd)
        bands: npt.NDArray[np.float32] = np.log(power @ fe.filters + np.float32(_NOISE_FLOOR))
        return bands @ fe.to_cepstra.T


def differences(cepstra: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Append first and second differences, shape (frames, 39); the edges repeat.

    Sphinx's own windows: c(t+2) - c(t-2), and the change of that over two frames.
    """
    n, context = len(cepstra), CONTEXT_FRAMES
    around = np.empty((n + 2 * context, CEPSTRA), np.float32)
    around[:context], around[context:-context], around[-context:] = cepstra[0], cepstra, cepstra[-1]
    at = [around[k : k + n] for k in range(2 * context + 1)]
    features = np.empty((n, 3 * CEPSTRA), np.float32)
    features[:, :CEPSTRA] = cepstra
    np.subtract(at[5], at[1], out=features[:, CEPSTRA : 2 * CEPSTRA])
    np.subtract(at[6] - at[2], at[4] - at[0], out=features[:, 2 * CEPSTRA :])
    return features
