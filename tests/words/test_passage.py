"""Was this price, this disclosure, this question heard?"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from words.heard import Heard
from words.passage import PassageResult, SaidWord, check_heard

HEARD, PARTLY = PassageResult.HEARD, PassageResult.PARTLY_HEARD
UNHEARD, NOT_SAID = PassageResult.UNHEARD, PassageResult.NOT_SAID


def turn(text: str, heard: int) -> list[SaidWord]:
    """A turn of which the first words were heard."""
    return [
        SaidWord(word, Heard.FULL if k < heard else Heard.NONE, k < heard)
        for k, word in enumerate(text.split())
    ]


CALL = [
    turn("Your total comes to $9.05, and it will be ready at 4:30 this afternoon.", 7),
    turn("This call is recorded. Twenty-five percent off — that’s O'Brien's price.", 99),
]


@pytest.mark.parametrize(
    ("passage", "result", "turns"),
    [
        ("your total comes to", HEARD, (0,)),
        ("$9.05", HEARD, (0,)),
        ("9.05", HEARD, (0,)),
        ("nine dollars and five cents", HEARD, (0,)),
        ("Nine oh five!", HEARD, (0,)),
        ("total comes to nine dollars five cents", HEARD, (0,)),
        ("$9.05 and it will be ready", PARTLY, (0,)),
        ("ready at four thirty", UNHEARD, (0,)),
        ("$9.50", NOT_SAID, ()),
        ("$905", NOT_SAID, ()),
        ("comes to", HEARD, (0,)),
        ("comes two", NOT_SAID, ()),
        ("this", HEARD, (0, 1)),
        ("THIS CALL IS RECORDED", HEARD, (1,)),
        ("25% off", HEARD, (1,)),
        ("25 percent off", HEARD, (1,)),
        ("that's o'brien’s price", HEARD, (1,)),
        ("recorded twenty five", HEARD, (1,)),
    ],
)
def test_passages(passage: str, result: PassageResult, turns: tuple[int, ...]) -> None:
    answer = check_heard(passage, CALL)
    assert (answer.result, answer.turns) == (result, turns)


def test_the_share_is_of_words_heard_where_it_was_heard_best() -> None:
    said = "and the price is twelve dollars"
    call = [turn(said, 2), turn(said, 4), turn(said, 0)]
    answer = check_heard("the price is twelve", call)
    assert answer.result is PARTLY
    assert answer.share == pytest.approx(3 / 4)
    assert answer.turns == (0, 1, 2)


def test_numbers_in_other_languages() -> None:
    call = [turn("Das macht neun Euro fünfzig, bitte.", 9), turn("Es sind 37 Stück.", 9)]
    assert check_heard("9,50 €", call, "de-DE").result is NOT_SAID  # a space apart: two words
    assert check_heard("9,50€", call, "de-DE").result is HEARD
    assert check_heard("Siebenunddreißig Stück", call, "de").result is HEARD
    assert check_heard("sieben und dreißig", call, "de").result is HEARD


@pytest.mark.parametrize("passage", ["", "  ", "…!", "—"])
def test_a_passage_needs_a_word(passage: str) -> None:
    with pytest.raises(ValueError, match="passage must contain at least one word"):
        check_heard(passage, CALL)


@given(st.lists(st.sampled_from(["the", "price", "is", "$9.05", "a", "b"]), min_size=1, max_size=12),
       st.data())  # fmt: skip
def test_any_stretch_of_a_turn_is_found_with_its_share(
    words: list[str], data: st.DataObject
) -> None:
    heard = data.draw(st.integers(0, len(words)))
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    answer = check_heard(" ".join(words[start:end]), [turn(" ".join(words), heard)])
    assert answer.result is not NOT_SAID
    share = max(0, min(heard, end) - start) / (end - start)
    assert answer.share >= share - 1e-9
    if heard == len(words):
        assert answer.result is HEARD
    if heard == 0:
        assert answer.result is UNHEARD


def test_looking_through_a_long_turn_takes_time_in_proportion() -> None:
    turn = [SaidWord("\u5b57", Heard.FULL, counts=True)] * 40_000
    began = time.process_time()
    assert check_heard("cash or credit", [turn]).result is PassageResult.NOT_SAID
    assert time.process_time() - began < 20, (
        "it took 50 s when each word was looked at with all behind it"
    )
