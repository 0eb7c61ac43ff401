"""Which words count as heard, and what the caller's text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from words.doubt import CUT_OFF, EXACT, FOLLOWED, WHOLE, Doubt
from words.heard import Heard, Position, heard
from words.timing import Method, WordTime, WordTimes
from words.tokenize import tokenize

TEXT = "Your total is  $9.05, and — it's ready."
SPANS = [(100, 400), (400, 800), (800, 1000), (1000, 2000), (2200, 2400), (2400, 2400),
         (2400, 2600), (2600, 3000)]  # fmt: skip


def times(
    text: str = TEXT, spans: list[tuple[int, int]] = SPANS, audio_ms: int = 3200
) -> WordTimes:
    words = tuple(
        WordTime(t.text, t.char_start, t.char_end, a, b)
        for t, (a, b) in zip(tokenize(text), spans, strict=True)
    )
    return WordTimes(Method.ALIGNED, "test/1", 0.9, audio_ms, words)


def heard_at(ms: int) -> str:
    return heard(TEXT, times(), Position.exactly(ms), played_to_end=False).heard_text


@pytest.mark.parametrize(
    ("position_ms", "text"),
    [
        (0, ""),
        (249, ""),
        (250, "Your"),  # half of it was played
        (599, "Your"),
        (600, "Your total"),
        (999, "Your total is"),
        (1499, "Your total is"),
        (1500, "Your total is  $9.05,"),  # spacing and punctuation as generated
        (2300, "Your total is  $9.05, and"),
        (2400, "Your total is  $9.05, and —"),  # a dash goes with the word before it
        (2500, "Your total is  $9.05, and — it's"),
        (5000, TEXT),
    ],
)
def test_heard_text_is_cut_where_half_a_word_was_played(position_ms: int, text: str) -> None:
    assert heard_at(position_ms) == text


def test_the_boundary_word_carries_its_fraction() -> None:
    answer = heard(TEXT, times(), Position.exactly(1400), played_to_end=False)
    assert [word.heard for word in answer.words[:5]] == [
        Heard.FULL, Heard.FULL, Heard.FULL, Heard.PARTIAL, Heard.NONE,
    ]  # fmt: skip
    assert answer.words[3].fraction == pytest.approx(0.4)
    assert not answer.words[3].counts


@pytest.mark.parametrize(("position_ms", "uncertain"), [(1459, False), (1460, True), (1540, True),
                                                        (1541, False)])  # fmt: skip
def test_a_word_near_its_deciding_boundary_is_uncertain(position_ms: int, uncertain: bool) -> None:
    answer = heard(TEXT, times(), Position.exactly(position_ms), played_to_end=False)
    assert answer.words[3].uncertain is uncertain
    assert not any(word.uncertain for k, word in enumerate(answer.words) if k != 3)


def test_text_without_audio_is_unheard() -> None:
    # The audio ends within "$9.05,"; the text ran ahead.
    answer = heard(TEXT, times(audio_ms=1400), Position.exactly(1400), played_to_end=False)
    assert answer.heard_text == "Your total is"
    assert all(word.heard is Heard.NONE for word in answer.words[4:])
    assert not any(word.uncertain for word in answer.words[4:])


def test_an_item_played_to_its_end_is_heard_in_full() -> None:
    answer = heard(TEXT + " ", times(audio_ms=100), Position.exactly(90), played_to_end=True)
    assert answer.heard_text == TEXT + " "
    assert {word.heard for word in answer.words} == {Heard.FULL}


def test_a_position_without_a_date_counts_as_far_as_proven() -> None:
    position = Position(500, 900, 2300, is_timed=False)
    answer = heard(TEXT, times(), position, played_to_end=False)
    assert answer.heard_text == "Your"
    assert [word.heard for word in answer.words[:3]] == [Heard.FULL, Heard.PARTIAL, Heard.NONE]
    assert [word.uncertain for word in answer.words] == [False] + [True] * 4 + [False] * 3
    dated = heard(TEXT, times(), Position(500, 900, 2300), played_to_end=False)
    assert dated.heard_text == "Your total is"


def test_estimated_times_claim_only_what_their_bound_allows() -> None:
    doubt = Doubt(late_ms=100, late_share=0.1, early_ms=300, early_share=0)
    # The middle of "total" is at 600: it may lie at 760 at the latest, and at 300 at the earliest.
    for position_ms, counts, uncertain in (
        (259, False, False), (260, False, True), (759, False, True), (760, True, True),
        (800, True, True), (801, True, False),
    ):  # fmt: skip
        word = heard(
            TEXT, times(), Position.exactly(position_ms), played_to_end=False, doubt=doubt
        ).words[1]
        assert (word.counts, word.uncertain) == (counts, uncertain), position_ms
        assert counts == (word.fraction >= 0.5)


def test_where_nothing_was_played_nothing_is_in_doubt() -> None:
    answer = heard(TEXT, times(), Position.exactly(0), played_to_end=False, doubt=CUT_OFF)
    assert not any(word.uncertain for word in answer.words)


def test_a_bound_claims_no_word_without_audio() -> None:
    # The estimate puts "$9.05," behind the end of the audio. It may have sounded in it all the same.
    known = times(audio_ms=990)
    answer = heard(TEXT, known, Position.exactly(990), played_to_end=False, doubt=CUT_OFF)
    assert not answer.words[3].counts
    assert answer.words[3].uncertain


@st.composite
def _estimated(draw: DrawFn) -> tuple[str, WordTimes, list[float], Doubt]:
    """Words, estimated times in order, their bound, and true middles in order within it."""
    doubt = Doubt(draw(st.integers(0, 2000)), draw(st.floats(0, 1)), draw(st.integers(0, 2000)), 0)
    lengths = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 900)), max_size=12))
    spans, truth, at = [], [], 0
    least = 0.0
    for gap, length in lengths:
        spans.append((at + gap, at + gap + length))
        at += gap + length
        middle = at - length / 2
        # Words are spoken in order, also in truth.
        least = max(least, middle - doubt.early(middle))
        truth.append(least := draw(st.floats(least, max(least, middle + doubt.late(middle)))))
    text = " ".join("word" for _ in spans)
    return text, times(text, spans, audio_ms=draw(st.integers(0, at + 100))), truth, doubt


@given(_estimated(), st.lists(st.integers(0, 9000), min_size=3, max_size=3), st.data())
def test_no_word_counts_that_the_truth_calls_unheard(
    estimated: tuple[str, WordTimes, list[float], Doubt],
    bounds: list[int],
    data: st.DataObject,
) -> None:
    text, known, true_middles, doubt = estimated
    low, best, high = sorted(bounds)
    is_timed = data.draw(st.booleans())
    truth_ms = best if is_timed else data.draw(st.integers(low, high))
    answer = heard(
        text, known, Position(low, best, high, is_timed), played_to_end=False, doubt=doubt
    )
    for word, middle_ms in zip(answer.words, true_middles, strict=True):
        if word.counts:
            assert middle_ms <= truth_ms
        elif middle_ms <= truth_ms and middle_ms < known.audio_ms and truth_ms > 0:
            assert word.uncertain  # heard in truth, not claimed, and known to be in doubt
        assert word.counts == (word.fraction >= 0.5)
        assert (word.heard is Heard.FULL) == (word.fraction == 1)
        assert (word.heard is Heard.NONE) == (word.fraction == 0)
    assert answer.heard_text == " ".join(word.text for word in answer.words if word.counts)


def test_times_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong to this text"):
        heard("Something else entirely, no?", times(), Position.exactly(1), played_to_end=False)


@pytest.mark.parametrize("bad", [(-1, 0, 0), (5, 4, 6), (1, 7, 6)])
def test_a_position_is_a_range(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="low_ms <= best_ms <= high_ms"):
        Position(*bad)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 500)), max_size=12), st.data())
def test_more_played_never_means_less_heard(
    gaps: list[tuple[int, int]], data: st.DataObject
) -> None:
    text = " ".join("word" for _ in gaps)
    spans, at = [], 0
    for gap, length in gaps:
        spans.append((at + gap, at + gap + length))
        at += gap + length
    known = times(text, spans, audio_ms=data.draw(st.integers(0, at + 100)))
    first, second = sorted(data.draw(st.tuples(st.integers(0, 9000), st.integers(0, 9000))))
    further = data.draw(st.integers(0, 2000))
    doubt = data.draw(st.sampled_from([EXACT, WHOLE, CUT_OFF, FOLLOWED]))
    is_timed = data.draw(st.booleans())
    less, more = (
        heard(
            text,
            known,
            Position(at, at + further // 2, at + further, is_timed),
            played_to_end=False,
            doubt=doubt,
        )
        for at in (first, second)
    )
    assert more.heard_text.startswith(less.heard_text)
    assert text.startswith(more.heard_text)
    assert all(word.counts == (k < more.words_heard) for k, word in enumerate(more.words))
    assert all(
        one.fraction <= other.fraction for one, other in zip(less.words, more.words, strict=True)
    )
