"""The aligner with the scorer's interface: words in, times out.

python score_alignment.py words.scored
"""

from __future__ import annotations

from words.aligner.item import ItemAligner


def align(
    pcm_mulaw: bytes, words: list[str], language: str, complete: bool = True
) -> list[tuple[int, int]]:
    """Start and end of each word, in ms; a word without audio starts at or after its end."""
    aligner = ItemAligner(language)
    aligner.add_words(words)
    aligner.add_audio(pcm_mulaw)
    return [(word.start_ms, word.end_ms) for word in aligner.finish(complete).words]
