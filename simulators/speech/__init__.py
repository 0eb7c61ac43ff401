"""Speech with known word times: recorded lines, and a tone for every word of any other text."""

from simulators.speech.corpus import Speech, Word, corpus, spoken

__all__ = ["Speech", "Word", "corpus", "spoken"]
