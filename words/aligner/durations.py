"""How long phones last, and what a path pays for lasting longer or shorter."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from words.aligner.features import FRAME_MS
from words.aligner.spelling import ANY_CONSONANT, ANY_VOWEL

USUAL_MS = {
    "AA": 110, "AE": 115, "AH": 65, "AO": 115, "AW": 150, "AY": 150, "EH": 90, "ER": 95, "EY": 125,
    "IH": 65, "IY": 95, "OW": 125, "OY": 160, "UH": 65, "UW": 100, "B": 65, "D": 55, "G": 65, "P": 85,
    "T": 70, "K": 80, "CH": 105, "JH": 90, "F": 95, "V": 60, "TH": 85, "DH": 45, "S": 100, "Z": 80,
    "SH": 110, "ZH": 80, "HH": 60, "M": 70, "N": 60, "NG": 75, "L": 65, "R": 65, "W": 60, "Y": 55,
    ANY_VOWEL: 95, ANY_CONSONANT: 75,
}  # fmt: skip
"""Mean lengths in fluent read speech, rounded; common knowledge of phonetics."""

_MAX_FRAMES = 80
_LAST_SURVIVED_FRAMES = 85
"""By then the odds of every phone are down to the least."""

_SPREAD = 0.35
"""Standard deviation of the logarithm of a phone's length, given the rate of speech."""

_SHARE = 1.0
"""How much of the log probability counts, against that of the sound."""

_MAX_DEVIATIONS_SQUARED = 8.0
"""Costs stop growing here: a drawled vowel is odd, not impossible."""

_MIN_SURVIVAL = 1e-6

_NUMBER = {phone: number for number, phone in enumerate(USUAL_MS, 1)}


def duration_row(phone: str) -> int:
    """Row of a phone in the table; 0 for pauses and garbage, which may last any time."""
    return _NUMBER.get(phone, 0)


@lru_cache(maxsize=1)
def duration_table() -> npt.NDArray[np.float64]:
    """Cost of each length in frames, shape (rows, frames); the last also stands for longer ones."""
    frames = np.maximum(np.arange(_MAX_FRAMES), 1)
    table = np.zeros((len(USUAL_MS) + 1, _MAX_FRAMES))
    for phone, row in _NUMBER.items():
        deviation = np.log(frames * FRAME_MS / USUAL_MS[phone]) / _SPREAD
        table[row] = -_SHARE * 0.5 * np.minimum(deviation**2, _MAX_DEVIATIONS_SQUARED)
    return table


@lru_cache(maxsize=1)
def survival_table() -> npt.NDArray[np.float64]:
    """Log probability of lasting at least so many frames, laid out as the table of costs."""
    table = np.zeros((len(USUAL_MS) + 1, _LAST_SURVIVED_FRAMES + 1))
    for phone, row in _NUMBER.items():
        for frames in range(table.shape[1]):
            deviation = math.log(max(frames * FRAME_MS, 1) / USUAL_MS[phone]) / _SPREAD
            survival = 0.5 * math.erfc(deviation / math.sqrt(2))
            table[row, frames] = math.log(max(survival, _MIN_SURVIVAL))
    return table
