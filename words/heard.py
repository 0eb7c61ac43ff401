"""From a playback position to the words the caller heard.

Rules:

1. A word counts as heard when at least half of it was played. ``heard_text`` is the text up to
   the end of the last word that counts: an exact prefix, punctuation and spacing kept.
2. The word that the position falls into is ``PARTIAL`` and carries the fraction played, whether it
   counts or not. Words before it are ``FULL``, words behind it ``NONE``.
3. A word whose middle, the deciding boundary, lies within 40 ms of the position is ``uncertain``:
   word times are good to about that, and the position to one or two frames of 20 ms.
4. A word without audio is unheard, whatever the position: nothing of it was ever generated.
5. An item whose generation was complete and which was played to its end is heard in full,
   whatever the word times say.
6. What is displayed but not spoken (a dash, an emoji) lasts no time and goes with the word before.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from words.timing import WordTime, WordTimes

UNCERTAIN_WITHIN_MS = 40
"""Issue 4 asks for 40 ms; see rule 3."""


class Heard(enum.Enum):
    """How much of one word was played; the names match ``asheard.v1.Word.heard``."""

    NONE = "HEARD_NONE"
    PARTIAL = "HEARD_PARTIAL"
    FULL = "HEARD_FULL"


@dataclass(frozen=True, slots=True)
class Position:
    """How far into an item's audio the caller got: a range that contains the truth."""

    low_ms: int
    best_ms: int
    high_ms: int

    def __post_init__(self) -> None:
        """Refuse a range that is not one."""
        if not 0 <= self.low_ms <= self.best_ms <= self.high_ms:
            raise ValueError(
                f"position must satisfy 0 <= low_ms <= best_ms <= high_ms, "
                f"got {self.low_ms}, {self.best_ms}, {self.high_ms}"
            )

    @staticmethod
    def exactly(position_ms: int) -> Position:
        """Return a position without doubt."""
        return Position(position_ms, position_ms, position_ms)


@dataclass(frozen=True, slots=True)
class HeardWord:
    """One word of an item and what the caller got of it."""

    text: str
    char_start: int
    char_end: int
    start_ms: int
    end_ms: int
    heard: Heard
    fraction: float
    """Share of the word that was played, 0 to 1."""

    counts: bool
    """Whether the word is part of ``heard_text``."""

    uncertain: bool
    """The decision whether it counts could have gone the other way."""


@dataclass(frozen=True, slots=True)
class HeardText:
    """What the caller heard of one item."""

    words: tuple[HeardWord, ...]
    heard_text: str
    """An exact prefix of the generated text, cut at the end of a word."""

    words_heard: int
    """How many words count at the best position."""

    words_heard_low: int
    """How many would count at the low end of the position."""

    words_heard_high: int
    """How many would count at the high end of the position."""


def heard(text: str, times: WordTimes, position: Position, *, played_to_end: bool) -> HeardText:
    """Join one item's word times with how far it was played.

    Args:
        text: The generated text that ``times`` was made for. Text behind the last timed word (a
            delta that came later) is unheard.
        times: From any source of word times.
        position: How much of the item's audio was played.
        played_to_end: Generation was complete and all of its audio was played.

    Raises:
        ValueError: A word of ``times`` is not at its place in ``text``: the times belong to another
            text.
    """
    for word in times.words:
        if text[word.char_start : word.char_end] != word.text:
            raise ValueError(
                f"times.words do not belong to this text: characters {word.char_start} to "
                f"{word.char_end} differ; pass the text the times were made for"
            )
    if played_to_end:
        words = tuple(_word(word, Heard.FULL, 1.0, True, False) for word in times.words)
        return HeardText(words, text, len(words), len(words), len(words))

    counted = _count(times, position.best_ms)
    words = tuple(
        _word(
            word,
            *_extent(word, times.audio_ms, position.best_ms),
            index < counted,
            _is_uncertain(word, times.audio_ms, position.best_ms),
        )
        for index, word in enumerate(times.words)
    )
    end = times.words[counted - 1].char_end if counted else 0
    return HeardText(
        words=words,
        heard_text=text[:end],
        words_heard=counted,
        words_heard_low=_count(times, position.low_ms),
        words_heard_high=_count(times, position.high_ms),
    )


def _word(
    word: WordTime, state: Heard, fraction: float, counts: bool, uncertain: bool
) -> HeardWord:
    return HeardWord(
        word.text, word.char_start, word.char_end, word.start_ms, word.end_ms,
        state, fraction, counts, uncertain,
    )  # fmt: skip


def _extent(word: WordTime, audio_ms: int, position_ms: int) -> tuple[Heard, float]:
    """How much of a word lies before the position."""
    length_ms = word.end_ms - word.start_ms
    if length_ms == 0:
        sounded = position_ms > 0 and word.end_ms <= min(position_ms, audio_ms)
        return (Heard.FULL, 1.0) if sounded else (Heard.NONE, 0.0)
    played_ms = min(position_ms, audio_ms) - word.start_ms
    if played_ms <= 0:
        return Heard.NONE, 0.0
    if played_ms >= length_ms:
        return Heard.FULL, 1.0
    return Heard.PARTIAL, played_ms / length_ms


def _counts(word: WordTime, audio_ms: int, position_ms: int) -> bool:
    return _extent(word, audio_ms, position_ms)[1] >= 0.5


def _count(times: WordTimes, position_ms: int) -> int:
    """Words in the heard prefix: the last word that counts closes it."""
    return max(
        (
            index + 1
            for index, word in enumerate(times.words)
            if _counts(word, times.audio_ms, position_ms)
        ),
        default=0,
    )


def _is_uncertain(word: WordTime, audio_ms: int, position_ms: int) -> bool:
    if word.start_ms >= audio_ms:
        return False
    middle_ms = (word.start_ms + word.end_ms) / 2
    return abs(middle_ms - position_ms) <= UNCERTAIN_WITHIN_MS
