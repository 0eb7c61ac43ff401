"""Text to words, each with its exact place in the text.

A word is what a reader sees as one:

* in scripts that put spaces between words, everything between two spaces, punctuation included:
  ``$9.05,`` is one word, and so is a lone dash;
* in scripts that do not (Chinese, Japanese, Thai, Lao, Khmer, Burmese), the smallest piece that can
  be told apart without a dictionary: a Han character, a hiragana, a run of katakana, a Thai
  syllable-like cluster. Punctuation clings to the piece before it; an opening bracket to the piece
  after it.

The pieces follow the word boundary rules of Unicode (UAX 29) as far as those need no dictionary.
White space belongs to no word, so the text can always be put together again from the offsets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Token:
    """One displayed word and its place in the text."""

    text: str
    char_start: int
    char_end: int


# Ranges of the scripts written without spaces: hiragana, katakana, Han with its extensions,
# Thai, Lao, Burmese, Khmer. Halfwidth katakana is at FF66.
_HIRAGANA = "\u3041-\u309f"
_KATAKANA = "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_SPACELESS = re.compile(f"[{_HIRAGANA}{_KATAKANA}{_HAN}{_SOUTH_EAST_ASIAN}]")

# Thai and Lao vowels that are written before the consonant they follow in speech.
_PREPOSED_VOWELS = "\u0e40-\u0e44\u0ec0-\u0ec4"
_PIECE = re.compile(
    f"[{_KATAKANA}]+"
    f"|[{_HIRAGANA}][\u3041\u3043\u3045\u3047\u3049\u3063\u3083\u3085\u3087\u3093\u30fc]*"
    f"|[{_HAN}]"
    f"|[{_PREPOSED_VOWELS}]?[{_SOUTH_EAST_ASIAN}]"
    # A run of another script in between, with the points and hyphens inside numbers and names.
    f"|[^\\W{_HIRAGANA}{_KATAKANA}{_HAN}{_SOUTH_EAST_ASIAN}]+"
    f"(?:[.,:'’-][^\\W{_HIRAGANA}{_KATAKANA}{_HAN}{_SOUTH_EAST_ASIAN}]+)*"
    r"|[^\n]"
)
_WHITE_SPACE_FREE = re.compile(r"\S+")


def tokenize(text: str) -> tuple[Token, ...]:
    """Split text into words; their offsets cover all characters that are not white space."""
    tokens: list[Token] = []
    for match in _WHITE_SPACE_FREE.finditer(text):
        chunk, start = match.group(), match.start()
        if _SPACELESS.search(chunk) is None:
            tokens.append(Token(chunk, start, match.end()))
            continue
        for piece_start, piece_end in _spaceless_pieces(chunk):
            tokens.append(
                Token(chunk[piece_start:piece_end], start + piece_start, start + piece_end)
            )
    return tuple(tokens)


def is_spoken(word: str) -> bool:
    """Whether any character of the word could sound: a letter, a digit, a symbol read aloud.

    A dash, an ellipsis, an emoji or a quotation mark is displayed but not spoken.
    """
    return any(_sounds(char) for char in word)


@lru_cache(maxsize=4096)
def _sounds(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Sc" or char in "%@&+=#°"


def _spaceless_pieces(chunk: str) -> Iterator[tuple[int, int]]:
    """Offsets of the words of a chunk without white space in a script without spaces."""
    pieces: list[tuple[int, int]] = []
    glue_next = False
    for match in _PIECE.finditer(chunk):
        start, end = match.span()
        first = chunk[start]
        category = unicodedata.category(first)
        clings_back = category[0] in "MPSCZ" and category not in ("Ps", "Pi", "Sc")
        if pieces and (clings_back or glue_next):
            pieces[-1] = (pieces[-1][0], end)
            glue_next = glue_next and category in ("Ps", "Pi", "Sc")
            continue
        pieces.append((start, end))
        glue_next = category in ("Ps", "Pi", "Sc")
    return iter(pieces)


class TextJoiner:
    """Joins transcript deltas to words as they arrive, without losing a character of the text.

    Deltas are pieces of words: "choc", "olate ca", "ke." A word is *settled* once white space
    follows it; the last one may still grow.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._settled: list[Token] = []
        self._pending = ""
        self._pending_start = 0

    def add(self, delta: str) -> tuple[Token, ...]:
        """Add a delta, which may be empty, and return the words it settled."""
        if not delta:
            return ()
        self._parts.append(delta)
        self._pending += delta
        cut = _last_white_space(self._pending)
        if cut < 0:
            return ()
        new = tuple(
            Token(t.text, t.char_start + self._pending_start, t.char_end + self._pending_start)
            for t in tokenize(self._pending[:cut])
        )
        self._pending_start += cut
        self._pending = self._pending[cut:]
        self._settled.extend(new)
        return new

    @property
    def text(self) -> str:
        """All deltas, exactly as they came."""
        return "".join(self._parts)

    @property
    def settled(self) -> tuple[Token, ...]:
        """Words that can no longer change."""
        return tuple(self._settled)

    def unsettled(self) -> tuple[Token, ...]:
        """Words of the text after the last white space, which may still grow."""
        return tuple(
            Token(t.text, t.char_start + self._pending_start, t.char_end + self._pending_start)
            for t in tokenize(self._pending)
        )


def _last_white_space(text: str) -> int:
    """Index of the last white space character, or -1."""
    for index in range(len(text) - 1, -1, -1):
        if text[index].isspace():
            return index
    return -1
