"""Pieces of synthetic speech whose word times are known, and sounds that are not speech."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from words.energy import ULAW_TO_LINEAR

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Piece:
    """A piece of speech and the truth about it."""

    language: str
    words: list[str]
    times: list[tuple[float, float]]
    ulaw: bytes

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def until(self, ms: float) -> bytes:
        """The audio up to a moment."""
        return self.ulaw[: round(ms * 8)]


def piece(name: str) -> Piece:
    """Load one of the pieces in ``data``."""
    facts = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    times = [(a, b) for a, b in facts["times"]]
    return Piece(facts["language"], facts["words"], times, (DATA / f"{name}.ulaw").read_bytes())


PIECES = ("en_card", "es_balance", "it_calm")

_ULAW_ORDER = np.argsort(ULAW_TO_LINEAR, kind="stable")


def ulaw_of(samples: npt.ArrayLike) -> bytes:
    """Sample values to the nearest µ-law codes."""
    values = np.asarray(samples, np.float64)
    ordered = ULAW_TO_LINEAR[_ULAW_ORDER]
    right = np.clip(np.searchsorted(ordered, values), 1, 255)
    left_is_nearer = values - ordered[right - 1] < ordered[right] - values
    return bytes(_ULAW_ORDER[np.where(left_is_nearer, right - 1, right)].astype(np.uint8))


def silence(ms: int) -> bytes:
    return b"\xff" * (8 * ms)


def noise(ms: int, level: float = 2000.0) -> bytes:
    return ulaw_of(np.random.default_rng(7).normal(0, level, 8 * ms))


def music(ms: int) -> bytes:
    """Chords that change four times a second."""
    t = np.arange(8 * ms) / 8000
    roots = np.array([220.0, 261.6, 329.6, 196.0])[(t * 4).astype(int) % 4]
    return ulaw_of(sum(2500 * np.sin(2 * np.pi * roots * k * t) for k in (1, 1.25, 1.5, 2)))
