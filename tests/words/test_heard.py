"""Which words count as heard, and what the caller's text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_the_range_of_the_position_shows_in_the_counts() -> None:
    answer = heard(TEXT, times(), Position(500, 900, 2300), played_to_end=False)
    assert (answer.words_heard_low, answer.words_heard, answer.words_heard_high) == (1, 3, 5)


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
    less = heard(text, known, Position.exactly(first), played_to_end=False)
    more = heard(text, known, Position.exactly(second), played_to_end=False)
    assert more.heard_text.startswith(less.heard_text)
    assert text.startswith(more.heard_text)
    assert all(word.counts == (k < more.words_heard) for k, word in enumerate(more.words))
