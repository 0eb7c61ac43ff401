"""Word times by counting characters: the fallback, and the first estimate at barge-in.

The theory, in order:

1. A word takes time in proportion to its *weight*: about its letters, more for a digit (read as a
   word) and for a character of a script that writes a syllable with it.
2. Only audible stretches carry words. When the whole item is there, all its weight fills all its
   audible time. When it is not, text runs ahead of the audio (OpenAI's transcript does, by
   seconds), so the weight is *never* squeezed into the audio: a usual rate of speech decides how
   far the audio got, and the rest of the text lies after the end of the audio.
3. A pause in the audio is where the text has punctuation. Each pause is matched with the nearest
   punctuation, which corrects the rate as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from words.energy import Span, audible_spans
from words.timing import Method, Speech, WordTime, WordTimes
from words.tokenize import Token, is_spoken, tokenize

VERSION = "characters/1"

USUAL_MS_PER_WEIGHT = 66.0
"""Audible time of one letter at a usual rate: 15 letters a second (reference rates of speech are
13 to 17 in the languages we serve)."""

_RATE_PRIOR_WEIGHT = 40.0
"""How many letters of evidence the usual rate is worth against what pauses show."""

_DIGIT_WEIGHT = 4.0
_SYMBOL_WEIGHT = 5.0
_SYLLABIC_WEIGHT = 3.0
_PAUSE_MS = 140
"""A gap this long is a pause that a speaker makes at punctuation."""

_SEARCH_SHARE = 0.35
"""How far from its expected place punctuation may lie to be matched, as a share of the weight since
the last match."""

_COMPLETE_CONFIDENCE = 0.5
_PARTIAL_CONFIDENCE = 0.25
"""Shares of cuts decided right by this method, measured on our alignment sets: see docs/words.md."""


class ProportionalSource:
    """The source of last resort: answers for any text and any audio, with low confidence."""

    def word_times(self, speech: Speech) -> WordTimes:
        """Return proportional times for every word of the text."""
        return proportional_times(
            tokenize(speech.text),
            speech.audio_ms,
            complete=speech.complete,
            audible=audible_spans(speech.ulaw),
        )


def proportional_times(
    tokens: Sequence[Token],
    audio_ms: int,
    *,
    complete: bool,
    audible: Sequence[Span] | None = None,
) -> WordTimes:
    """Spread words over audio in proportion to their weight.

    Args:
        tokens: The words, as :func:`words.tokenize.tokenize` gives them.
        audio_ms: Length of the audio known so far.
        complete: Text and audio are whole; False: the text may run past the audio.
        audible: Where the audio is audible, from :func:`words.energy.audible_spans`; None when
            nobody looked, and then all of it counts as audible.
    """
    if audio_ms < 0:
        raise ValueError(f"audio_ms must be 0 or more, got {audio_ms}")
    spans = [Span(0, audio_ms)] if audible is None else list(audible)
    spans = [span for span in spans if span.length_ms > 0]
    weights = [weight(token.text) for token in tokens]
    clock = _AudibleClock(spans, audio_ms)
    anchors = _anchors(tokens, weights, spans, complete=complete)
    words: list[WordTime] = []
    before = 0.0
    start_ms = 0
    for token, own in zip(tokens, weights, strict=True):
        after = before + own
        # A word after a pause starts after it; a word before one ends before it.
        start_ms = max(start_ms, clock.real_ms(_interpolate(anchors, before), after=own > 0))
        end_ms = max(start_ms, clock.real_ms(_interpolate(anchors, after), after=False))
        words.append(WordTime(token.text, token.char_start, token.char_end, start_ms, end_ms))
        start_ms = end_ms
        before = after
    confidence = _COMPLETE_CONFIDENCE if complete else _PARTIAL_CONFIDENCE
    return WordTimes(
        Method.PROPORTIONAL, VERSION, confidence if spans else 0.0, audio_ms, tuple(words)
    )


def weight(word: str) -> float:
    """How long a word takes to say, in letters; 0 for what is not spoken."""
    if not is_spoken(word):
        return 0.0
    total = 1.0  # short words take longer than their letters
    for char in word:
        if char.isdecimal():
            total += _DIGIT_WEIGHT
        elif char in "$€£¥%@&+=#°":
            total += _SYMBOL_WEIGHT
        elif char.isalpha():
            total += _SYLLABIC_WEIGHT if "\u2e80" <= char <= "\ud7ff" else 1.0
    return total


class _AudibleClock:
    """Maps time that counts only audible stretches to time in the audio."""

    def __init__(self, spans: Sequence[Span], audio_ms: int) -> None:
        self._spans = spans
        self._audio_ms = audio_ms

    def real_ms(self, audible_ms: float, *, after: bool) -> int:
        """Place in the audio; at the very edge of a pause, after it or before it.

        Time beyond the last audible stretch goes on after the end of the audio.
        """
        left = audible_ms
        for span in self._spans:
            if left < span.length_ms or (left == span.length_ms and not after):
                return span.start_ms + round(left)
            left -= span.length_ms
        return self._audio_ms + round(max(left, 0.0))


Anchor = tuple[float, float]
"""Weight of the text before a place, and audible milliseconds before the same place."""


def _anchors(
    tokens: Sequence[Token], weights: Sequence[float], spans: Sequence[Span], *, complete: bool
) -> list[Anchor]:
    """Places where text and audio are taken to meet, ascending; the last reaches the text's end."""
    total = sum(weights)
    audible_ms = float(sum(span.length_ms for span in spans))
    anchors: list[Anchor] = [(0.0, 0.0)]
    if total == 0.0:
        return [*anchors, (1.0, 0.0)]
    whole = complete and audible_ms > 0
    prior_rate = audible_ms / total if whole else USUAL_MS_PER_WEIGHT
    stops = _punctuation_places(tokens, weights)
    elapsed = 0.0
    for span, following in zip(spans, spans[1:], strict=False):
        elapsed += span.length_ms
        if following.start_ms - span.end_ms < _PAUSE_MS:
            continue
        weight_before, ms_before = anchors[-1]
        since_ms = elapsed - ms_before
        expected = since_ms / _rate(anchors[-1], prior_rate)
        reach = max(expected * _SEARCH_SHARE, 3.0)
        near = [
            stop
            for stop in stops
            if weight_before < stop < total and abs(stop - weight_before - expected) <= reach
        ]
        if near:
            anchors.append((min(near, key=lambda s: abs(s - weight_before - expected)), elapsed))
    weight_before, ms_before = anchors[-1]
    rest_ms = (total - weight_before) * _rate(anchors[-1], prior_rate)
    return [*anchors, (total, audible_ms if whole else ms_before + rest_ms)]


def _rate(anchor: Anchor, prior_rate: float) -> float:
    """Milliseconds a weight: what was seen so far, pulled toward what is usual."""
    seen_weight, seen_ms = anchor
    return (seen_ms + _RATE_PRIOR_WEIGHT * prior_rate) / (seen_weight + _RATE_PRIOR_WEIGHT)


def _punctuation_places(tokens: Sequence[Token], weights: Sequence[float]) -> list[float]:
    """Weight of the text up to each mark at which a speaker may pause."""
    places: list[float] = []
    before = 0.0
    for token, own in zip(tokens, weights, strict=True):
        before += own
        if token.text.rstrip("\"'”’)]»")[-1:] in ",.;:!?…—–、。，！？；：" and before > 0:
            places.append(before)
    return places


def _interpolate(anchors: Sequence[Anchor], weight_before: float) -> float:
    """Audible milliseconds before a place in the text."""
    for (w0, ms0), (w1, ms1) in zip(anchors, anchors[1:], strict=False):
        if weight_before <= w1:
            return ms0 if w1 == w0 else ms0 + (ms1 - ms0) * (weight_before - w0) / (w1 - w0)
    return anchors[-1][1]
