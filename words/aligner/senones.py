"""Acoustic scores: how well each 10 ms frame fits each state of each phone."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from words.aligner import layout
from words.aligner.kernel import kernel
from words.aligner.layout import GARBAGE_RANK, KEPT_GAUSSIANS
from words.aligner.model import STATES, STREAM_SIZE, acoustic_model
from words.aligner.spelling import ANY_CONSONANT, ANY_VOWEL, VOWELS

ACOUSTIC_SCALE = 0.3
"""Neighbouring frames say nearly the same; about one in three is news."""

_MIN_DENSITY = 1e-12
"""Relative to its best Gaussian, a mixture is never worse: one stray feature must not decide."""

GARBAGE = "GARBAGE"

_NOISE, _VOWEL, _CONSONANT = 0, 1, 2


def _kind(phone: str) -> int:
    if phone == "SIL":
        return _NOISE
    return _VOWEL if phone in VOWELS else _CONSONANT


class SenoneScorer:
    """Scores frames against the context-independent senones of the wheel's model, but for its noises,
    which stand in no text.

    Columns: phone * 3 + state in the model's order of phones, then three for any vowel, three for any
    consonant (the best one in each state), then one for garbage.
    """

    def __init__(self) -> None:
        model = acoustic_model()
        spoken = [number for number, name in enumerate(model.phones) if name[0] != "+"]
        self.phones = tuple(model.phones[number] for number in spoken)
        self.phone_number = {name: number for number, name in enumerate(self.phones)}
        self._n_senones = len(self.phones) * STATES
        self.n_columns = self._n_senones + 2 * STATES + 1
        matrices, constants, weights = [], [], []
        for mean, variance, weight in zip(model.means, model.variances, model.weights, strict=True):
            mean, variance, weight = mean[spoken], variance[spoken], weight[spoken]
            # Kept: what matters to any of the phone's states.
            kept = np.argsort(-weight.max(axis=1), axis=1)[:, :KEPT_GAUSSIANS, None]
            mean = np.take_along_axis(mean, kept, axis=1)
            variance = np.take_along_axis(variance, kept, axis=1)
            weight = np.take_along_axis(weight, kept.transpose(0, 2, 1), axis=2)
            precision = 1 / variance
            log_norm = np.log(2 * np.pi * variance).sum(axis=2)
            constant = -0.5 * (log_norm + (mean**2 * precision).sum(axis=2))
            # log Gaussian = constant + [x*x, x] @ matrix, for all Gaussians in one product.
            matrix = np.concatenate([-0.5 * precision, mean * precision], axis=2)
            matrices.append(matrix.transpose(0, 2, 1))
            constants.append(constant)
            weights.append(weight / weight.sum(axis=2, keepdims=True))
        # Shapes (streams, phones, inputs or states, Gaussians): what the C loop walks through.
        self._matrix = np.ascontiguousarray(matrices, np.float32)
        self._constant = np.ascontiguousarray(constants, np.float32)
        self._weights = np.ascontiguousarray(weights, np.float32)
        self._kinds = np.array([_kind(name) for name in self.phones], np.int8)
        self._c_model = layout.Model(
            self._matrix.ctypes.data, self._constant.ctypes.data, self._weights.ctypes.data,
            self._kinds.ctypes.data, len(self.phones), ACOUSTIC_SCALE,
        )  # fmt: skip

    def columns(self, phone: str) -> list[int]:
        """The columns of the three states of a phone, of ANY_VOWEL, ANY_CONSONANT or GARBAGE."""
        if phone == GARBAGE:
            return [self.n_columns - 1] * STATES
        if phone == ANY_VOWEL:
            first = self._n_senones
        elif phone == ANY_CONSONANT:
            first = self._n_senones + STATES
        else:
            first = self.phone_number[phone] * STATES
        return [first, first + 1, first + 2]

    def scores(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scaled log likelihoods, shape (frames, columns), of features, shape (frames, 39)."""
        features = np.ascontiguousarray(features, np.float32)
        out = np.empty((len(features), self.n_columns), np.float32)
        library = kernel()
        if library is None:
            self._mixtures_numpy(features, out)
            self._summaries_numpy(out)
        else:
            library.scores(
                ctypes.byref(self._c_model), features.ctypes.data, len(features),
                out.ctypes.data, self.n_columns,
            )  # fmt: skip
        return out

    def _summaries_numpy(self, out: npt.NDArray[np.float32]) -> None:
        """Fill in the columns after the senones; ``scores`` in kernel.c does the same."""
        by_phone = out[:, : self._n_senones].reshape(len(out), -1, STATES)
        out[:, -7:-4] = by_phone[:, self._kinds == _VOWEL].max(axis=1)
        out[:, -4:-1] = by_phone[:, self._kinds == _CONSONANT].max(axis=1)
        best = by_phone[:, self._kinds != _NOISE].max(axis=2)
        rank = best.shape[1] - GARBAGE_RANK
        out[:, -1] = np.partition(best, rank, axis=1)[:, rank]

    def _mixtures_numpy(
        self, features: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
    ) -> None:
        """Fill in the senones' columns; ``scores`` in kernel.c does the same."""
        total = np.zeros((len(self.phones), len(features), STATES), np.float32)
        for stream in range(3):
            x = features[:, stream * STREAM_SIZE : (stream + 1) * STREAM_SIZE]
            log = np.matmul(np.hstack([x * x, x]), self._matrix[stream])
            log += self._constant[stream][:, None]
            top = log.max(axis=2, keepdims=True)
            log -= top
            np.exp(log, out=log)
            mixed = np.matmul(log, self._weights[stream].transpose(0, 2, 1))
            mixed += np.float32(_MIN_DENSITY)
            total += np.log(mixed, out=mixed)
            total += top
        total *= np.float32(ACOUSTIC_SCALE)
        out[:, : self._n_senones] = total.transpose(1, 0, 2).reshape(len(features), -1)


@lru_cache(maxsize=1)
def senone_scorer() -> SenoneScorer:
    """The scorer of this process."""
    return SenoneScorer()
