"""Word times that a speech provider sent with its audio.

OpenAI Realtime sends none today; other providers (and its text to speech siblings) do. Their words
rarely equal the displayed ones: punctuation is missing, a number is spelled out. So their letters
and digits are matched with the text's, in order, and a displayed word takes the time from the first
to the last provider word that touches it. When too little matches, the provider's times are not
used at all: a wrong answer would carry the highest rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from words.timing import Method, ProviderWord, Speech, WordTime, WordTimes
from words.tokenize import tokenize

VERSION = "provider/1"

_LEAST_MATCH = 0.8
"""Share of the provider's characters that must be found in the text."""


class ProviderSource:
    """Uses ``Speech.provider_words``; has no answer when there are none or they do not fit."""

    def word_times(self, speech: Speech) -> WordTimes | None:
        """Return the provider's times joined to the displayed words, or None."""
        sent = speech.provider_words
        if not sent:
            return None
        owners = _owners(speech.text, sent)
        if owners is None:
            return None
        words: list[WordTime] = []
        cursor_ms = 0
        for token in tokenize(speech.text):
            own = [o for o in owners[token.char_start : token.char_end] if o is not None]
            if own:
                start_ms = max(cursor_ms, sent[own[0]].start_ms)
                end_ms = max(start_ms, sent[own[-1]].end_ms)
            elif any(o is not None for o in owners[token.char_end :]):
                start_ms = end_ms = cursor_ms
            else:
                start_ms = end_ms = max(cursor_ms, speech.audio_ms)
            words.append(WordTime(token.text, token.char_start, token.char_end, start_ms, end_ms))
            cursor_ms = end_ms
        return WordTimes(Method.PROVIDER, VERSION, 1.0, speech.audio_ms, tuple(words))


def _owners(text: str, sent: Sequence[ProviderWord]) -> list[int | None] | None:
    """For each character of the text the provider word it belongs to, or None if they differ."""
    places = [i for i, char in enumerate(text) if char.isalnum()]
    ours = [text[i].casefold()[0] for i in places]
    theirs: list[str] = []
    their_word: list[int] = []
    for index, word in enumerate(sent):
        for char in word.text:
            if char.isalnum():
                theirs.append(char.casefold()[0])
                their_word.append(index)
    if not theirs:
        return None
    owners: list[int | None] = [None] * len(text)
    matched = 0
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    for a, b, size in matcher.get_matching_blocks():
        matched += size
        for k in range(size):
            owners[places[a + k]] = their_word[b + k]
    return owners if matched >= _LEAST_MATCH * len(theirs) else None
