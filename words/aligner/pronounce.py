"""From a spoken word to the ways it may sound, as phones of the model.

English words are looked up in the dictionary of the pocketsphinx wheel (CMUdict); what is not in
there, and all other languages, go by the rules of :mod:`words.aligner.spelling`. A letter that is
spelled out ("b.") has its name.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from words.aligner.model import dictionary_path
from words.aligner.spelling import ANY_CONSONANT, ANY_VOWEL, VOWELS, phones_by_rule

Phones = tuple[str, ...]

_MAX_VARIANTS = 3

_LETTERS = {
    "en": (
        "EY|B IY|S IY|D IY|IY|EH F|JH IY|EY CH|AY|JH EY|K EY|EH L|EH M|EH N|OW|P IY|K Y UW|AA R|"
        "EH S|T IY|Y UW|V IY|D AH B AH L Y UW|EH K S|W AY|Z IY"
    ),
    "es": (
        "AA|B EH|S EH|D EH|EH|EH F EH|HH EH|AA CH EH|IY|HH OW T AA|K AA|EH L EH|EH M EH|EH N EH|OW|"
        "P EH|K UW|EH R EH|EH S EH|T EH|UW|UW B EH|UW B EH D OW B L EH|EH K IY S|IY G R IY EH G AA|"
        "S EH T AA"
    ),
    "de": (
        "AA|B EY|T S EY|D EY|EY|EH F|G EY|HH AA|IY|Y AO T|K AA|EH L|EH M|EH N|OW|P EY|K UW|EH R|"
        "EH S|T EY|UW|F AW|V EY|IH K S|UH P S IH L AO N|T S EH T"
    ),
    "fr": (
        "AA|B EY|S EY|D EY|ER|EH F|ZH EY|AA SH|IY|ZH IY|K AA|EH L|EH M|EH N|OW|P EY|K UW|EH R|"
        "EH S|T EY|UW|V EY|D UW B L V EY|IY K S|IY G R EH K|Z EH D"
    ),
    "it": (
        "AA|B IY|CH IY|D IY|EH|EH F EH|JH IY|AA K AA|IY|IY L UW NG G AA|K AA P AA|EH L EH|EH M EH|"
        "EH N EH|OW|P IY|K UW|EH R EH|EH S EH|T IY|UW|V UW|D OW P Y AA V UW|IY K S|IY P S IH L AO N|"
        "D Z EH T AA"
    ),
    "pt": (
        "AA|B EY|S EY|D EY|EY|EH F IY|ZH EY|AA G AA|IY|ZH AO T AA|K AA|EH L IY|EH M IY|EH N IY|AO|"
        "P EY|K EY|EH R IY|EH S IY|T EY|UW|V EY|D AA B L Y UW|SH IY SH|IY P S IH L AO N|Z EY"
    ),
    "nl": (
        "AA|B EY|S EY|D EY|EY|EH F|HH EY|HH AA|IY|Y EY|K AA|EH L|EH M|EH N|OW|P EY|K UW|EH R|"
        "EH S|T EY|UW|V EY|V EY|IH K S|EY|Z EH T"
    ),
}  # fmt: skip


@lru_cache(maxsize=16)
def _letter_names(language: str) -> dict[str, Phones]:
    names = _LETTERS.get(language, _LETTERS["en"]).split("|")
    return {chr(ord("a") + k): tuple(name.split()) for k, name in enumerate(names)}


class _Dictionary:
    """The wheel's dictionary, kept as the bytes of its file.

    A Python dictionary of its 134,000 lines would take longer to build than everything else at the
    start of a worker, and a quarter of the memory a worker may have.
    """

    def __init__(self) -> None:
        data = dictionary_path().read_bytes()
        self._data = data if data.endswith(b"\n") else data + b"\n"
        breaks = np.flatnonzero(np.frombuffer(self._data, np.uint8) == ord("\n"))
        self._starts = np.concatenate([[0], breaks[:-1] + 1]).astype(np.int32)
        # The file is sorted but for a few lines, so a line is found by its first bytes' bucket.
        codes = np.frombuffer(self._data, np.uint8)
        bucket = codes[self._starts].astype(np.int32) << 8 | codes[self._starts + 1]
        self._order = np.argsort(bucket, kind="stable").astype(np.int32)
        self._buckets = bucket[self._order]

    def look_up(self, word: str) -> list[Phones]:
        """All pronunciations of a word in small letters, usual ones first; empty: not there."""
        key = word.encode()
        if len(key) == 0:
            return []
        # Of the buckets' type: for a plain integer NumPy would convert them all.
        code = np.int32(key[0] << 8 | (key[1] if len(key) > 1 else ord(" ")))
        low = int(np.searchsorted(self._buckets, code, "left"))
        high = int(np.searchsorted(self._buckets, code, "right"))
        if low == high:
            return []
        start = int(self._starts[self._order[low]])
        last = int(self._starts[self._order[high - 1]])
        end = self._data.index(b"\n", last)
        found: list[Phones] = []
        needle, variant = b"\n" + key + b" ", b"\n" + key + b"("
        place = self._data.find(needle, max(start - 1, 0), end)
        if place < 0:
            return []
        while place >= 0 and len(found) < _MAX_VARIANTS:
            stop = self._data.index(b"\n", place + 1)
            found.append(tuple(self._data[place + 1 : stop].decode("ascii").split()[1:]))
            place = stop if self._data.startswith(variant, stop) else -1
        return found


@lru_cache(maxsize=1)
def dictionary() -> _Dictionary:
    """The dictionary of this process."""
    return _Dictionary()


@lru_cache(maxsize=8192)
def pronunciations(word: str, language: str) -> tuple[Phones, ...]:
    """Ways a spoken word may sound; empty for one without sound.

    Args:
        word: In small letters; ``x.`` is the name of the letter x.
        language: Primary language, such as ``en``.
    """
    if len(word) == 2 and word[1] == ".":
        name = _letter_names(language).get(word[0])
        if name:
            return (name,)
        word = word[0]
    if language == "en":
        found = _english(word)
        if found:
            return tuple(found)
    phones = _checked(phones_by_rule(word, language))
    return (phones,) if phones else ()


def _english(word: str) -> list[Phones]:
    """From the dictionary, with the endings it does not list."""
    look_up = dictionary().look_up
    found = look_up(word) or look_up(word.strip("'"))
    if found:
        return found
    for ending, sound in (("'s", ("Z",)), ("s'", ("Z",)), ("'ll", ("AH", "L")), ("'d", ("D",))):
        if word.endswith(ending):
            stem = look_up(word.removesuffix(ending))
            if stem:
                return [phones + sound for phones in stem[:2]]
    return []


def _checked(phones: Phones) -> Phones:
    """A word of consonants alone gets a vowel: nothing can be said without."""
    if phones and not any(p in VOWELS or p == ANY_VOWEL for p in phones):
        if all(p == ANY_CONSONANT for p in phones):
            return (*phones, ANY_VOWEL)
        return (*phones[:1], "AH", *phones[1:])
    return phones
