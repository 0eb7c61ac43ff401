"""From a playback position to the words the caller heard.

What is said to be heard is never more than the evidence. Two things may be in doubt: how far playback
got (:class:`Position`), and where a word lies in the audio (:class:`words.doubt.Doubt`). A word counts
when it does so on the cautious side of both, and words that count on the other side only are marked.

Rules:

1. A word counts as heard when at least half of it was played, that is, when its middle was.
   ``heard_text`` is the text up to the end of the last word that counts: an exact prefix,
   punctuation and spacing kept. All words before that one count too.
2. The position is ``best_ms`` where playback was timed or proven to an end, good to a frame or two.
   Else ``low_ms``, which is proven, decides, and words up to ``high_ms`` are ``uncertain``.
3. Word times that were measured (refined) decide as they are. Estimated ones are shifted as late as
   their bound allows before they decide; words that may lie before the position by the same bound
   are ``uncertain``.
4. A word is ``uncertain`` as well when its middle lies within 40 ms of the position (or of the bounds of
   rules 2 and 3): measured times are good to about that, and a timed position to one or two frames
   of 20 ms.
5. The word that the position falls into is ``PARTIAL`` and carries the fraction played, at least half
   of it exactly when it counts. Words before it are ``FULL``, words after it ``NONE``; all on the
   cautious side.
6. A word without audio is unheard, whatever the position: nothing of it was ever generated.
7. An item whose generation was complete and which was played to its end is heard in full,
   whatever the word times say.
8. What is displayed but not spoken (a dash, an emoji) lasts no time and goes with the word before.

So what counts, ``heard``, ``fraction`` and ``heard_text`` never contradict each other, and more played
never means less heard.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from words.doubt import EXACT, Doubt
from words.timing import WordTime, WordTimes

UNCERTAIN_WITHIN_MS = 40
"""See rule 4."""


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
    is_timed: bool = True
    """Whether ``best_ms`` is good to a frame or two: playback was timed on the carrier's clock, or
    proven to end there. False: it is a guess within the range."""

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

    @property
    def sure_ms(self) -> int:
        """What decides (rule 2)."""
        return self.best_ms if self.is_timed else self.low_ms

    @property
    def possible_ms(self) -> int:
        """Up to where words may have been heard (rule 2)."""
        return self.best_ms if self.is_timed else self.high_ms


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
    """Share of the word that was played, 0 to 1; at least so much, where times are estimated."""

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
    """How many words count; all others come after them."""


def heard(
    text: str,
    times: WordTimes,
    position: Position,
    *,
    played_to_end: bool,
    doubt: Doubt = EXACT,
) -> HeardText:
    """Join one item's word times with how far it was played.

    Args:
        text: The generated text that ``times`` was made for. Text after the last timed word (a
            delta that came later) is unheard.
        times: From any source of word times.
        position: How much of the item's audio was played.
        played_to_end: Generation was complete and all of its audio was played.
        doubt: The bound on the error of ``times``.

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
        return HeardText(words, text, len(words))

    judged: list[HeardWord] = []
    counted = 0
    sure_ms = min(position.sure_ms, times.audio_ms)
    start_ms = end_ms = 0
    for word in times.words:
        # Words follow each other. Times that say otherwise are at fault, and of two words that are
        # said to overlap the second is not over before the first.
        start_ms, end_ms = max(start_ms, word.start_ms), max(end_ms, word.end_ms)
        middle_ms = (start_ms + end_ms) / 2
        late_ms, early_ms = doubt.late(middle_ms), doubt.early(middle_ms)
        fraction = 0.0
        if start_ms < times.audio_ms:
            fraction = _fraction(start_ms + late_ms, end_ms - start_ms, sure_ms)
        counts = fraction >= 0.5
        state = Heard.NONE
        if fraction > 0:
            state = Heard.FULL if fraction >= 1 else Heard.PARTIAL
        may_sound = start_ms - early_ms < times.audio_ms and position.possible_ms > 0
        uncertain = (
            may_sound
            and middle_ms + late_ms >= sure_ms - UNCERTAIN_WITHIN_MS
            and middle_ms - early_ms <= position.possible_ms + UNCERTAIN_WITHIN_MS
        )
        counted += counts
        judged.append(_word(word, state, fraction, counts, uncertain))
    end = judged[counted - 1].char_end if counted else 0
    return HeardText(tuple(judged), text[:end], counted)


def _word(
    word: WordTime, state: Heard, fraction: float, counts: bool, uncertain: bool
) -> HeardWord:
    return HeardWord(
        word.text, word.char_start, word.char_end, word.start_ms, word.end_ms,
        state, fraction, counts, uncertain,
    )  # fmt: skip


def _fraction(start_ms: float, length_ms: int, played_ms: int) -> float:
    """How much of a word lies before the position."""
    beyond_ms = played_ms - start_ms
    if played_ms <= 0 or beyond_ms < 0:
        return 0.0
    if beyond_ms >= length_ms:
        return 1.0
    return beyond_ms / length_ms
