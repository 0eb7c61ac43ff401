"""How far a word may lie from its time, by the way the time was found.

Refined times decide as they are: they are right to some 10 ms, and where a word's middle lies within
40 ms of the position, it is marked as uncertain. An *estimate* can be a second or more off, and then
a word that looks as if it had been played was not. So estimates come with a bound: no more than one
word in 1,000 sounds later than its time and the bound say (``late_*``), and no more than one sounds
earlier (``early_*``). Whether a word was heard is decided by its middle, so the bound is that of the
middle.

The numbers are measured, by ``bench/estimated_times.py``, on 3,705 words of 219 pieces of speech in
English, Spanish and German: synthesizers with their own times, part of them stretched and squeezed to
0.72 to 1.4 of their length, two neural voices with labels, and 40 pieces by OpenAI's voices, timed by
our aligner with all text and audio available. Where audio or text was cut off, it was so at random moments.

==========================  =====  ======================================  ===========================
true middle - estimate, ms  words  median, 99 %, 99.9 %, latest, earliest  beyond the bound, of 1,000
==========================  =====  ======================================  ===========================
``WHOLE``                   3,705   -74,   711, 1,235, 1,328, -1,545       0.3 late, 0.3 early
``CUT_OFF``                 7,956   118, 2,605, 4,758, 7,166, -2,456       0.8, 0.0
the same, pauses known      7,023   -81, 1,190, 2,164, 2,367, -5,534       0.0, 0.0
``FOLLOWED``                8,145     1,   899, 1,618, 1,926,   -490       0.9, 0.0
==========================  =====  ======================================  ===========================

In cuts at random moments, 18 of 1,000 claimed words (``WHOLE``), 86 (``CUT_OFF``) and 13
(``FOLLOWED``) were not heard when the estimate was taken for the truth; with the bound 0.00, 0.02 and
0.01. What that costs: 3.1 of 12 heard words a cut are not claimed, 4.6 of 8, 3.4 of 8. They are
marked as uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doubt:
    """A bound on the error of word times; grows with the time from the start of the audio."""

    late_ms: float
    late_share: float
    early_ms: float
    early_share: float

    def late(self, at_ms: float) -> float:
        """How much later than ``at_ms`` the middle of a word may lie."""
        return self.late_ms + self.late_share * at_ms

    def early(self, at_ms: float) -> float:
        """How much earlier than ``at_ms`` the middle of a word may lie."""
        return self.early_ms + self.early_share * at_ms


EXACT = Doubt(0, 0, 0, 0)
"""Refined times, and a provider's own."""

WHOLE = Doubt(late_ms=1_300, late_share=0, early_ms=1_500, early_share=0)
"""Characters in proportion, all text and audio there: both ends are fixed, so that the error stays.
Pauses are not known; knowing them halves the usual error and doubles the worst."""

CUT_OFF = Doubt(late_ms=1_000, late_share=0.8, early_ms=200, early_share=0.5)
"""Characters at a usual rate, while the text may run past the audio: the error grows with time, as
speech may be nearly half as fast as usual, pauses included."""

FOLLOWED = Doubt(late_ms=1_700, late_share=0, early_ms=600, early_share=0)
"""Aligned before all text and audio were there: right to some 10 ms, but for the last second or so,
in which words are laid out at the rate of speech."""
