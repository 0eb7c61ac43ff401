"""How wrong estimated word times are: the bounds of ``words/doubt.py``, measured.

    python bench/estimated_times.py SETS [--untimed DIRECTORY]

SETS is a directory of labelled sets, each a directory of ``NNN.json`` (``words``, ``times`` in ms,
``language``) and ``NNN.ulaw``, as ``bench/alignment_sets.py`` makes them; speech is not part of this
repository. DIRECTORY holds such pieces without ``times`` (recordings of real voices): they are
timed by our aligner, which is right to some 10 ms, with all text and audio available.

The error is the true middle of a word minus its estimated middle: above 0, the word sounds later than
estimated, and would be claimed before it was heard. For each kind of estimate there is one line with
the errors, one with the tightest bound ``ms + share x estimate`` that no more than one word in 1,000
exceeds, and one with what the bound in force costs: of the words claimed in cuts at random moments how
many were not heard, and how many heard words per cut are not claimed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from words.aligner.item import ItemAligner
from words.doubt import CUT_OFF, EXACT, FOLLOWED, WHOLE, Doubt
from words.energy import audible_spans
from words.proportional import proportional_times
from words.scored import align
from words.timing import WordTimes
from words.tokenize import tokenize

CUTS = 4
"""Of each piece, where audio and text are cut off."""

AHEAD_MS = (200, 6_000)
"""How far the text runs ahead of the audio: OpenAI's does so by seconds."""

ONE_IN = 1_000
MAX_MS = 12_000
"""The tightest bound is the one that is smallest on average up to here: few items are longer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of speech and its words."""

    words: list[str]
    times: list[tuple[float, float]]
    language: str
    ulaw: bytes

    @property
    def audio_ms(self) -> int:
        return len(self.ulaw) // 8

    def middles(self) -> list[float]:
        return [(start + end) / 2 for start, end in self.times]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Word times of a piece, or of its beginning, and the truth."""

    estimated_ms: list[float]
    true_ms: list[float]
    audio_ms: int
    """How much audio there is to be heard."""


def pieces_in(sets: Path, untimed: Path | None) -> Iterator[Piece]:
    """Read all pieces."""
    files = sorted(sets.glob("*/*.json")) + (sorted(untimed.glob("*.json")) if untimed else [])
    for path in files:
        facts = json.loads(path.read_text("utf-8"))
        ulaw = path.with_suffix(".ulaw").read_bytes()
        words, language = facts["words"], facts["language"]
        if [token.text for token in tokenize(" ".join(words))] == words:
            times = facts["times"] if "times" in facts else align(ulaw, words, language)
            yield Piece(words, [(start, end) for start, end in times], language, ulaw)


def estimates(pieces: list[Piece]) -> dict[str, list[Estimate]]:
    """Estimate everything in every way."""
    found: dict[str, list[Estimate]] = {
        name: [] for name in ("whole", "whole, pauses known", "cut off", "cut off, pauses known",
                              "followed", "refined, cut off")
    }  # fmt: skip
    chance = random.Random(11)

    def add(name: str, times: WordTimes, piece: Piece, audio_ms: int) -> None:
        middles = [(word.start_ms + word.end_ms) / 2 for word in times.words]
        found[name].append(Estimate(middles, piece.middles()[: len(middles)], audio_ms))

    for piece in pieces:
        tokens = tokenize(" ".join(piece.words))
        length_ms, spans = piece.audio_ms, audible_spans(piece.ulaw)
        add("whole", proportional_times(tokens, length_ms, complete=True), piece, length_ms)
        add(
            "whole, pauses known",
            proportional_times(tokens, length_ms, complete=True, audible=spans),
            piece,
            length_ms,
        )
        for _ in range(CUTS):
            audio_ms = chance.randint(min(300, length_ms - 1), length_ms)
            text_ms = audio_ms + chance.uniform(*AHEAD_MS)
            count = max(1, sum(start < text_ms for start, _ in piece.times))
            text, ulaw = " ".join(piece.words[:count]), piece.ulaw[: audio_ms * 8]
            known = tokenize(text)
            add("cut off", proportional_times(known, audio_ms, complete=False), piece, audio_ms)
            add(
                "cut off, pauses known",
                proportional_times(known, audio_ms, complete=False, audible=audible_spans(ulaw)),
                piece,
                audio_ms,
            )
            aligner = ItemAligner(piece.language)
            aligner.add_audio(ulaw)
            aligner.add_text(text)
            while aligner.work(1_000):
                pass
            add("followed", aligner.estimate(), piece, audio_ms)
            add("refined, cut off", aligner.finish(False), piece, audio_ms)
    return found  # fmt: skip


def errors(found: list[Estimate]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Errors of the words that are estimated to have audio, and where they are estimated to be."""
    pairs = [
        (true - estimated, estimated)
        for estimate in found
        for estimated, true in zip(estimate.estimated_ms, estimate.true_ms, strict=True)
        if estimated <= estimate.audio_ms
    ]
    both = np.array(pairs)
    return both[:, 0], both[:, 1]


def tightest(late: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The bound (ms, share of the estimate) that one word in 1,000 exceeds."""
    usual = at[at <= MAX_MS]
    bounds = []
    for share in np.arange(0, 1.01, 0.05):
        ms = max(0.0, float(np.quantile(late - share * at, 1 - 1 / ONE_IN)))
        bounds.append((float(np.mean(ms + share * usual)), ms, float(share)))
    _, ms, share = min(bounds)
    return ms, share


def claims(found: list[Estimate], doubt: Doubt) -> tuple[float, float, float]:
    """Claimed and not heard per 1,000 claimed; heard and not claimed per cut; heard per cut."""
    claimed = false = missing = heard = cuts = 0
    for estimate in found:
        late = [at + doubt.late(at) for at in estimate.estimated_ms]
        for position_ms in range(100, estimate.audio_ms + 1, 100):
            said = sum(at <= position_ms for at in late)
            true = sum(at <= position_ms for at in estimate.true_ms)
            cuts += 1
            claimed += said
            heard += true
            false += max(0, said - true)
            missing += max(0, true - said)
    return 1000 * false / max(1, claimed), missing / cuts, heard / cuts


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path, help="a directory of labelled sets")
    parser.add_argument("--untimed", type=Path, help="pieces without times")
    arguments = parser.parse_args()
    pieces = list(pieces_in(arguments.sets, arguments.untimed)) if arguments.sets.is_dir() else []
    if not pieces:
        print(
            f"no labelled speech in {arguments.sets}: it is not part of this repository; "
            "make some with bench/alignment_sets.py",
            file=sys.stderr,
        )
        return 1
    print(f"{len(pieces)} pieces, {sum(len(piece.words) for piece in pieces)} words")
    doubts = {"whole": WHOLE, "cut off": CUT_OFF, "cut off, pauses known": CUT_OFF,
              "followed": FOLLOWED}  # fmt: skip
    for name, found in estimates(pieces).items():
        late, at = errors(found)
        half, most, thousandth = np.quantile(late, [0.5, 0.99, 1 - 1 / ONE_IN])
        print(
            f"\n{name}: {len(late)} words; error median {half:.0f}, 99 % {most:.0f}, "
            f"99.9 % {thousandth:.0f}, latest {late.max():.0f}, earliest {late.min():.0f} ms"
        )
        late_ms, late_share = tightest(late, at)
        early_ms, early_share = tightest(-late, at)
        print(
            f"  one in {ONE_IN}: later than {late_ms:.0f} ms + {late_share:.2f} x estimate, "
            f"earlier than {early_ms:.0f} ms + {early_share:.2f} x estimate"
        )
        doubt = doubts.get(name, EXACT)
        beyond = np.array([doubt.late(where) for where in at]) < late
        before = np.array([doubt.early(where) for where in at]) < -late
        for shown, used in (("as if exact", EXACT), ("with its bound", doubt)):
            false, missing, heard = claims(found, used)
            print(
                f"  {shown}: {false:.2f} of 1,000 claimed words were not heard; "
                f"{missing:.1f} of {heard:.1f} heard words a cut are not claimed"
            )
        if doubt is not EXACT:
            print(
                f"  beyond the bound: {1000 * beyond.mean():.1f} of 1,000 words, "
                f"before it {1000 * before.mean():.1f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
