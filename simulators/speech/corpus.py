"""The speech both simulators speak, with the exact time of each word.

A recorded line is ``lines/NAME.ulaw`` beside ``lines/NAME.json``. For a text without a recording
:func:`spoken` makes tones (see ``tones.py``), so that any line of a script can be spoken, and both
simulators, each in its own process, make the same bytes of the same text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from simulators.speech import tones
from simulators.speech.g711 import BYTES_PER_MS

LINES = Path(__file__).parent / "lines"
"""Where the recordings are."""


class Word(NamedTuple):
    """One word as written, with its times in the speech it belongs to."""

    text: str
    """The word with its punctuation, as between two spaces."""
    start_ms: int
    end_ms: int
    """Half-open: the word sounds from ``start_ms`` until just before ``end_ms``."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One spoken line: mono µ-law at 8 kHz and when each of its words sounds."""

    name: str
    """Name in the corpus; ``tones:`` and the text for a line made of tones."""
    text: str
    words: tuple[Word, ...]
    ulaw: bytes
    voice: str
    """Voice of the engine that spoke it, or ``tones``."""

    @property
    def duration_ms(self) -> int:
        """Length in whole ms, rounded down."""
        return len(self.ulaw) // BYTES_PER_MS

    @property
    def onset_ms(self) -> int:
        """When the first word begins; 0 when there is none."""
        return self.words[0].start_ms if self.words else 0

    def word_end_ms(self, word: str, occurrence: int = 1) -> int:
        """When the n-th occurrence of a word ends; compared with and then without punctuation.

        Raises:
            ValueError: The text has no such word.
        """
        for same in (_exact, _bare):
            ends = [w.end_ms for w in self.words if same(w.text) == same(word)]
            if len(ends) >= occurrence:
                return ends[occurrence - 1]
        raise ValueError(f"occurrence {occurrence} of {word!r} is not in the line {self.text!r}")


def _exact(word: str) -> str:
    return word


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()").casefold()


@functools.cache
def corpus() -> Mapping[str, Speech]:
    """Every recorded line by name."""
    lines = {}
    for path in sorted(LINES.glob("*.json")):
        about = json.loads(path.read_text())
        lines[about["name"]] = Speech(
            name=about["name"],
            text=about["text"],
            words=tuple(Word(*word) for word in about["words"]),
            ulaw=path.with_suffix(".ulaw").read_bytes(),
            voice=about["voice"],
        )
    return lines


@functools.cache
def _by_text() -> Mapping[str, Speech]:
    return {_key(speech.text): speech for speech in corpus().values()}


def _key(text: str) -> str:
    return " ".join(text.split())


@functools.lru_cache(maxsize=4096)
def spoken(text: str) -> Speech:
    """A line's speech: the recording if there is one, else tones.

    Args:
        text: The line; runs of white space count as one space.
    """
    key = _key(text)
    recorded = _by_text().get(key)
    if recorded is not None:
        return recorded
    ulaw, words = tones.speak(key)
    return Speech(f"tones:{key}", key, tuple(Word(*w) for w in words), ulaw, "tones")
