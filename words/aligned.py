"""Forced alignment as a source of word times, in this process."""

from __future__ import annotations

from words.aligner.item import ItemAligner
from words.proportional import ProportionalSource
from words.provider import ProviderSource
from words.timing import Speech, WordTimes, WordTimeSource


class AlignedSource:
    """Aligns a whole item at once; has no answer when there is nothing to align."""

    def word_times(self, speech: Speech) -> WordTimes | None:
        """Return the times of every word, or None for silence or text without a spoken word."""
        aligner = ItemAligner(speech.language)
        aligner.add_text(speech.text)
        aligner.add_audio(speech.ulaw)
        times = aligner.finish(speech.complete)
        return times if times.confidence > 0 else None


SOURCES: tuple[WordTimeSource, ...] = (ProviderSource(), AlignedSource(), ProportionalSource())
"""All there are, best first, for :func:`words.timing.best_word_times`."""
