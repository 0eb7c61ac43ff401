"""Acoustic scores: how well each 10 ms frame fits each state of each phone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from words.aligner.model import STATES, STREAM_SIZE, acoustic_model
from words.aligner.spelling import ANY_CONSONANT, ANY_VOWEL, VOWELS

KEPT_GAUSSIANS = 64
"""Gaussians kept of each codebook's 128: nine tenths of the weight, half of the work."""

ACOUSTIC_SCALE = 0.35
"""Neighbouring frames say nearly the same; about one in three is news."""

GARBAGE = "GARBAGE"
_GARBAGE_RANK = 6
_GARBAGE_BONUS = 0.0
"""The garbage column scores as the sixth best phone: sounds that no phone of the text fits prefer
it, speech that fits its text does not."""


class SenoneScorer:
    """Scores frames against all context-independent senones of the wheel's model.

    Columns: phone * 3 + state in the model's order of phones, then three for any vowel, three for any
    consonant (the best one in each state), then one for garbage.
    """

    def __init__(self) -> None:
        model = acoustic_model()
        self.phones = model.phones
        self.phone_number = {name: number for number, name in enumerate(model.phones)}
        self._n_senones = len(model.phones) * STATES
        self.n_columns = self._n_senones + 2 * STATES + 1
        self._matrix: list[npt.NDArray[np.float32]] = []
        self._constant: list[npt.NDArray[np.float32]] = []
        self._weights: list[npt.NDArray[np.float32]] = []
        for mean, variance, weight in zip(model.means, model.variances, model.weights, strict=True):
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
            matrix = matrix.reshape(-1, 2 * STREAM_SIZE).T
            self._matrix.append(np.ascontiguousarray(matrix, np.float32))
            self._constant.append(constant.reshape(-1).astype(np.float32))
            weights = weight / weight.sum(axis=2, keepdims=True)
            self._weights.append(np.ascontiguousarray(weights.transpose(0, 2, 1), np.float32))
        noises = {n for name, n in self.phone_number.items() if name == "SIL" or name[0] == "+"}
        self._speech = np.array([n for n in range(len(self.phones)) if n not in noises])
        vowels = {self.phone_number[name] for name in VOWELS}
        self._vowels = np.array(sorted(vowels))
        self._consonants = np.array(sorted(set(self._speech.tolist()) - vowels))

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
        n, n_phones = len(features), len(self.phones)
        out = np.zeros((n, self.n_columns), np.float32)
        total = np.zeros((n_phones, n, STATES), np.float32)
        for stream in range(3):
            x = features[:, stream * STREAM_SIZE : (stream + 1) * STREAM_SIZE]
            log = np.hstack([x * x, x]) @ self._matrix[stream]
            log += self._constant[stream]
            log = log.reshape(n, n_phones, KEPT_GAUSSIANS)
            top = log.max(axis=2, keepdims=True)
            log -= top
            np.exp(log, out=log)
            mixed = np.matmul(log.transpose(1, 0, 2), self._weights[stream])
            mixed += np.float32(1e-20)
            total += np.log(mixed, out=mixed)
            total += top.transpose(1, 0, 2)
        out[:, : self._n_senones] = total.transpose(1, 0, 2).reshape(n, -1)
        out[:, -7:-4] = total[self._vowels].max(axis=0)
        out[:, -4:-1] = total[self._consonants].max(axis=0)
        best = total[self._speech].max(axis=2)
        rank = len(self._speech) - _GARBAGE_RANK
        out[:, -1] = np.partition(best, rank, axis=0)[rank] + _GARBAGE_BONUS
        out *= ACOUSTIC_SCALE
        return out


@lru_cache(maxsize=1)
def senone_scorer() -> SenoneScorer:
    """The scorer of this process."""
    return SenoneScorer()
