"""The values of this package: when each word of one agent item sounds, and how we know.

Rules:

1. Times are integers in milliseconds from the start of the item's audio. They never fall: each
   word starts at or after the start of the word before it, and ends at or after its own start.
2. Offsets are half-open ranges of Python string indices (code points) into the text exactly as
   generated. Words cover every character that is not white space, in order, without overlap.
3. A word that has no audio starts at or after ``audio_ms``. A word that was being spoken when the
   audio stops ends after ``audio_ms``, where it would have ended.
4. Every answer names its method, its version and its confidence, so that it can be stored as a
   fact: a better method of tomorrow does not change what the record of an old call means.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runtime.units import BYTES_PER_MS


class Method(enum.StrEnum):
    """How word times were found, best first."""

    PROVIDER = "provider"
    """The speech provider sent them with the audio."""

    ALIGNED = "aligned"
    """Forced alignment of the audio with the text."""

    PROPORTIONAL = "proportional"
    """Characters in proportion to audible time. A guess, and it says so in its confidence."""


@dataclass(frozen=True, slots=True)
class WordTime:
    """One displayed word and when it sounds."""

    text: str
    """As displayed: ``$9.05,`` with its punctuation; never empty."""

    char_start: int
    """Where the word begins in the item's text."""

    char_end: int
    """Where the word ends in the item's text, exclusive."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class WordTimes:
    """The word times of one item, with their provenance."""

    method: Method
    version: str
    """Names the exact rules and model behind the numbers, for instance ``phone-hmm/1``."""

    confidence: float
    """From 0, a guess, to 1, measured: roughly the share of words right to a tenth of a second."""

    audio_ms: int
    """Length of the audio that was known when the times were found."""

    words: tuple[WordTime, ...]


@dataclass(frozen=True, slots=True)
class Speech:
    """One item of agent speech as far as it was received: what a source works from."""

    text: str
    """All text received, exactly as generated. May run ahead of the audio."""

    ulaw: bytes
    """All audio received: mono µ-law at 8 kHz, one byte a sample."""

    language: str = "en"
    """BCP 47 tag of what the agent speaks; only the primary language counts."""

    complete: bool = True
    """Text and audio are whole. False: generation was cut off, so the text may have no audio."""

    @property
    def audio_ms(self) -> int:
        """Length of the audio, rounded down."""
        return len(self.ulaw) // BYTES_PER_MS
