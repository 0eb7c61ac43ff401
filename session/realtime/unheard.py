"""What the caller did not hear of a sentence that was cut off, and how the model is told. Pure.

The model is told in words, since it knows none of its own: the server removes the text of what was
truncated. The place to go on from is the beginning of a word: by the times that an aligner found, or
where there are none, by laying out the text over its audio by its characters
(:mod:`words.proportional`).

Which word is a choice between two faults: a word that is said twice is a stumble, and a word that is
never said may have been the price. So a word counts as heard only when it ended well before the
position: that is :data:`MARGIN_MS` for estimates. Measured on 181 labelled pieces of speech, 20 cuts
at random moments in each:

==============================  ====================  =============================
text and audio                  cuts that lose words  words said twice, on average
==============================  ====================  =============================
all there                       0.25 %                1.8
cut off, the text 0.2 to 6 s    0.7 %                 3.1
ahead of the audio
==============================  ====================  =============================

Without a margin 6 % of the cuts of whole pieces lose words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from words.proportional import proportional_times
from words.tokenize import is_spoken, tokenize

MARGIN_MS = 500
"""How long before the position an estimated word must have ended to count as heard."""

TIMED_MARGIN_MS = 50
"""The same of a word that an aligner has timed: that is right to some 10 ms, a position to 40."""

CUT_OFF_MARGIN_SHARE = 0.25
"""The same in addition, as a share of the position, while the text may run past its audio: speech
may be that much slower than usual."""

TAIL_MS = 200
TAIL_SHARE = 0.1
"""The end of a whole part, the shorter of both: speech ends in silence, so that a cut so close to
the end took no word away."""

MAX_QUOTED_CHARS = 2_000
"""Of what was not heard: two minutes of speech. What comes after that the model has to know."""

HEARD_WORDS = 12
"""Of the end of what was heard: enough to find the place by."""

OVERLAP_WORDS = 2
"""How many words a continuation may have begun before the place where it was to begin."""


TimedWord = tuple[int, int]
"""Where a word begins in the text, and where it ends in the audio, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of what the agent said, and how much of it was heard."""

    text: str
    audio_ms: int
    heard_ms: int
    complete: bool
    """All text and audio are there; False: the text may run past the audio."""
    timed: Sequence[TimedWord] = ()
    """Its words, as an aligner found them. Empty: it has not."""


@dataclass(frozen=True, slots=True)
class Unheard:
    """What is left of something that was cut off."""

    heard: str
    """The text that was heard, as far as that is certain."""
    text: str
    """The text that was not; begins with a word."""
    unfinished: bool
    """The model had more to say than the text."""
    call_broken_off: bool = False
    """A function call was cut off with it, and not carried out."""

    @property
    def nothing_heard(self) -> bool:
        """Not one word was."""
        return not is_spoken(self.heard)

    @property
    def nothing_known(self) -> bool:
        """Whatever is missing, there is no text of it."""
        return not is_spoken(self.text)

    @property
    def nothing_left(self) -> bool:
        """All was heard."""
        return self.nothing_known and not self.unfinished and not self.call_broken_off

    def after(self, words: int) -> Unheard:
        """What is left when so many words of the text have been said since."""
        tokens = tokenize(self.text)
        words = max(0, words - OVERLAP_WORDS)
        start = tokens[words].char_start if words < len(tokens) else len(self.text)
        return Unheard(
            _joined(self.heard, self.text[:start]),
            self.text[start:],
            self.unfinished,
            self.call_broken_off,
        )


def unheard(pieces: Sequence[Piece], *, unfinished: bool, call_broken_off: bool = False) -> Unheard:
    """What is left of pieces that were to be heard one after the other."""
    heard = left = ""
    for piece in pieces:
        chars = 0 if left else heard_chars(piece)
        heard = _joined(heard, piece.text[:chars])
        left = _joined(left, piece.text[chars:])
    return Unheard(heard, left.strip(), unfinished, call_broken_off)


def heard_chars(piece: Piece) -> int:
    """How many characters of a piece were heard for certain; the next is the first of a word."""
    if piece.heard_ms <= 0 or not piece.text:
        return 0
    if piece.complete and piece.heard_ms >= piece.audio_ms - min(
        TAIL_MS, TAIL_SHARE * piece.audio_ms
    ):
        return len(piece.text)
    tokens = tokenize(piece.text)
    if piece.timed:
        certain_ms: float = piece.heard_ms - TIMED_MARGIN_MS
        timed = piece.timed
    else:
        share = 0.0 if piece.complete else CUT_OFF_MARGIN_SHARE
        certain_ms = piece.heard_ms * (1 - share) - MARGIN_MS
        estimate = proportional_times(tokens, piece.audio_ms, complete=piece.complete)
        timed = [(word.char_start, word.end_ms) for word in estimate.words]
    last = -1
    for start, end_ms in timed:
        if end_ms > certain_ms:
            return start
        last = start
    # Text that came after it was timed.
    return next((token.char_start for token in tokens if token.char_start > last), len(piece.text))


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(tokenize(text))


def continuation_instructions(
    left: Unheard, *, functions: bool = False, by_noise: bool = True
) -> str:
    """Tell the model to go on; in English, whatever it speaks.

    Args:
        left: With what.
        functions: Some are at work or have answered; the model may find results when it speaks.
        by_noise: It was cut off by a noise. False: it broke off by itself.
    """
    lines = [
        "A noise on the line cut you off in the middle of what you were saying. The caller said"
        " nothing: do not answer the noise, do not mention it, do not apologise and do not greet"
        " again."
        if by_noise
        else "You were broken off in the middle of what you were saying, and the caller still waits:"
        " do not mention it, do not apologise and do not greet again. If you were about to call a"
        " function, then call it now."
    ]
    if left.nothing_heard:
        lines.append("The caller has heard none of it.")
    else:
        lines.append(f"The last words that the caller heard: {_quoted(_last_words(left.heard))}")
    if left.nothing_known:
        lines.append("Go on with what you still had to say, in the language that you spoke.")
    else:
        text, shortened = _beginning(left.text)
        lines.append(f"What the caller has not heard: {_quoted(text)}")
        more = left.unfinished or shortened
        lines.append(
            "Say that now, in these words and in this language, from its first word on; go back by"
            " a word or two at most."
            + (" Then go on with what you still had to say." if more else " Then stop.")
        )
    if functions:
        lines.append("If a function has answered by now, then speak of its result after that.")
    if left.call_broken_off:
        lines.append(
            "A function call of yours was broken off with it and not carried out: make it again if"
            " it is still needed."
        )
    return "\n".join(lines)


def _beginning(text: str) -> tuple[str, bool]:
    """As much of a text as is quoted, and whether that is less than all."""
    if len(text) <= MAX_QUOTED_CHARS:
        return text.rstrip(), False
    end = 0
    for token in tokenize(text[: MAX_QUOTED_CHARS + 1])[:-1]:  # the last may be half a word
        end = token.char_end
    return text[: end or MAX_QUOTED_CHARS], True


def _last_words(text: str) -> str:
    tokens = tokenize(text)[-HEARD_WORDS:]
    return text[tokens[0].char_start :].rstrip() if tokens else ""


def _quoted(text: str) -> str:
    return "«" + " ".join(text.split()) + "»"


def _joined(before: str, after: str) -> str:
    """Two texts as one; what is there is not changed."""
    if not before or not after:
        return before or after
    return before + after if before[-1].isspace() or after[0].isspace() else f"{before} {after}"
