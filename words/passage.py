"""Was this passage heard? A price, a disclosure, a question, in what the agent said in a call.

The passage is looked for as a sequence of words in each agent turn. Case, punctuation, accents of
typing (curly quotes) and the form of numbers do not matter: ``$9.05`` is found as "nine dollars and
five cents" and the other way round. The small words that number forms differ in ("and", the name of a
currency where the other side leaves it out) may be missing on either side.

The answer is the best over all turns: heard in full somewhere beats partly heard, which beats said
but not heard, which beats not said.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from words.aligner.readings import forms
from words.heard import Heard
from words.tokenize import tokenize


class PassageResult(enum.Enum):
    """The answer; the names match ``asheard.v1.PassageResult``."""

    HEARD = "PASSAGE_RESULT_HEARD"
    PARTLY_HEARD = "PASSAGE_RESULT_PARTLY_HEARD"
    UNHEARD = "PASSAGE_RESULT_UNHEARD"
    NOT_SAID = "PASSAGE_RESULT_NOT_SAID"


@dataclass(frozen=True, slots=True)
class SaidWord:
    """One word of an agent turn."""

    text: str
    heard: Heard
    counts: bool
    """Whether it is part of the turn's heard text."""


@dataclass(frozen=True, slots=True)
class PassageAnswer:
    """Whether and where a passage was heard."""

    result: PassageResult
    turns: tuple[int, ...]
    """Indices of the turns in which the passage was said, in order."""

    share: float
    """Share of the passage's words heard where it was heard best, 0 to 1."""


def check_heard(
    passage: str, turns: Sequence[Sequence[SaidWord]], language: str = "en"
) -> PassageAnswer:
    """Look for a passage in agent turns.

    Args:
        passage: What is looked for, as a person would write it.
        turns: The words of each agent turn, in order.
        language: BCP 47 tag of what the agent speaks; for the forms of numbers.

    Raises:
        ValueError: The passage has no word in it.
    """
    primary = language.lower().partition("-")[0]
    wanted = _units([token.text for token in tokenize(passage)], primary)
    if not wanted:
        raise ValueError("passage must contain at least one word")
    said_in: list[int] = []
    best = -1.0
    for index, turn in enumerate(turns):
        share = _best_share(wanted, turn, primary)
        if share is not None:
            said_in.append(index)
            best = max(best, share)
    if not said_in:
        return PassageAnswer(PassageResult.NOT_SAID, (), 0.0)
    if best >= 1.0:
        result = PassageResult.HEARD
    else:
        result = PassageResult.PARTLY_HEARD if best > 0 else PassageResult.UNHEARD
    return PassageAnswer(result, tuple(said_in), best)


@dataclass(frozen=True, slots=True)
class _Unit:
    """One displayed word: the spoken forms it may be matched by, as letters without spaces."""

    readings: tuple[str, ...]


_MAX_FORMS = 24

_USUAL_CHARACTERS = 40
"""The longest words people use have as many; what is longer is not worth the memory."""


def _units(words: Sequence[str], language: str) -> list[_Unit]:
    """Words that can be matched; punctuation alone is left out."""
    units = [_Unit(_spoken(word, language)) for word in words]
    return [unit for unit in units if unit.readings]


def _spoken(word: str, language: str) -> tuple[str, ...]:
    """Plain spoken forms of one displayed word; those of usual words are remembered."""
    if len(word) <= _USUAL_CHARACTERS:
        return _spoken_usually(word, language)
    return _spoken_forms(word, language)


@lru_cache(maxsize=4096)
def _spoken_usually(word: str, language: str) -> tuple[str, ...]:
    return _spoken_forms(word, language)


def _spoken_forms(word: str, language: str) -> tuple[str, ...]:
    """Plain spoken forms of one displayed word.

    Spaces are left out: whether it is "siebenunddreißig" or three words is a matter of spelling.
    """
    found: dict[str, None] = {}
    if any(char.isdecimal() or char in "$€£%&@+" for char in word):
        for form in forms(word, language):
            heads = [""]
            for slot in form:
                options = ["".join(_plain(part) for part in option) for option in slot]
                heads = [head + option for head in heads for option in options][:_MAX_FORMS]
            found.update(dict.fromkeys(heads))
        found[_figures(word)] = None
    else:
        found[_plain(word)] = None
    return tuple(reading for reading in found if reading)


def _figures(word: str) -> str:
    """The digits of a number, with its decimal mark: equal for ``$9.05`` and ``9,05``."""
    whole, mark, part = (
        re.sub(r"[^\d.,]", "", word).strip(".,").rpartition("." if "." in word else ",")
    )
    if mark and len(part) <= 2:
        return re.sub(r"\D", "", whole) + "." + part
    return re.sub(r"\D", "", whole + part)


def _plain(word: str) -> str:
    """Letters and digits only, case folded."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(char for char in folded if char.isalnum())


def _best_share(wanted: Sequence[_Unit], turn: Sequence[SaidWord], language: str) -> float | None:
    """Share of the passage that was heard at its best occurrence; None: it does not occur."""
    said = [(word, _Unit(_spoken(word.text, language))) for word in turn]
    said = [(word, unit) for word, unit in said if unit.readings]
    units = [unit for _, unit in said]
    best: float | None = None
    for start in range(len(said)):
        end = _match_end(wanted, units, start)
        if end is None:
            continue
        covered = [word for word, _ in said[start:end]]
        share = sum(word.counts for word in covered) / len(covered)
        best = share if best is None else max(best, share)
    return best


def _match_end(wanted: Sequence[_Unit], said: Sequence[_Unit], start: int) -> int | None:
    """Where the passage ends in the turn if it begins at ``start``, or None if it does not.

    Both sides are expanded word by word; the states are places in both, with what one side has said
    ahead of the other.
    """
    seen: set[tuple[int, int, str, bool]] = set()
    stack: list[tuple[int, int, str, bool]] = [(0, start, "", True)]
    best: int | None = None
    while stack:
        state = stack.pop()
        if state in seen:
            continue
        seen.add(state)
        i, j, ahead, wanted_is_behind = state
        if not ahead and i == len(wanted):
            best = j if best is None else min(best, j)
            continue
        if not ahead:
            if j == len(said) or i == len(wanted):
                continue
            # Take the next word of the turn, and let the passage catch up.
            stack.extend((i, j + 1, reading, True) for reading in said[j].readings)
            continue
        side, place = (wanted, i) if wanted_is_behind else (said, j)
        if place == len(side):
            continue
        for reading in side[place].readings:
            following = _remaining(ahead, reading)
            if following is None:
                continue
            rest, same_side = following
            next_i, next_j = (i + 1, j) if wanted_is_behind else (i, j + 1)
            behind = wanted_is_behind if same_side else not wanted_is_behind
            stack.append((next_i, next_j, rest, behind))
    return best


def _remaining(ahead: str, reading: str) -> tuple[str, bool] | None:
    """What is left when one reading meets what the other side has said ahead.

    Returns the rest and whether the same side is still ahead; None when they differ.
    """
    if ahead.startswith(reading):
        return ahead[len(reading) :], True
    if reading.startswith(ahead):
        return reading[len(ahead) :], False
    return None
