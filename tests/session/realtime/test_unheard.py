"""What was not heard of a sentence, and how the model is told to go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.realtime.unheard import (
    MAX_QUOTED_CHARS,
    Piece,
    Unheard,
    continuation_instructions,
    heard_chars,
    unheard,
)
from words.tokenize import tokenize

ENGLISH = (
    "Your order of four cupcakes comes to twelve dollars and fifty cents, ready at half past nine."
)
GERMAN = "Ihre Bestellung von vier Törtchen kostet zwölf Euro fünfzig und ist um halb zehn fertig."
SPANISH = (
    "Su pedido de cuatro magdalenas cuesta doce euros con cincuenta y estará listo a las nueve."
)
MANDARIN = "您的四个蛋糕一共是十二块五,九点半可以来取。"


def whole(text: str, heard_ms: int, audio_ms: int = 6_000) -> Piece:
    return Piece(text, audio_ms, heard_ms, complete=True)


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        (ENGLISH, "Your order of four cupcakes comes to"),
        (GERMAN, "Ihre Bestellung von vier Törtchen"),
        (SPANISH, "Su pedido de cuatro magdalenas"),
        (MANDARIN, "您的四个蛋糕一共"),
    ],
)
def test_half_of_a_sentence_was_heard_and_the_rest_begins_with_a_word(
    text: str, heard: str
) -> None:
    left = unheard([whole(text, 3_000)], unfinished=False)
    assert left.heard.strip() == heard
    assert left.heard + left.text == text
    assert not left.nothing_left


def test_a_word_in_the_middle_of_which_playback_stopped_is_said_again() -> None:
    text = "Good morning, Donaudampfschifffahrtsgesellschaft."
    assert unheard([whole(text, 3_000, 4_000)], unfinished=False).text.startswith("Donaudampf")


@pytest.mark.parametrize(
    ("heard_ms", "rest"),
    [
        (960, "two three."),
        (1_060, "three."),
        (1_960, "three."),
        (3_900, ""),
        (500, "one two three."),
    ],
)
def test_where_an_aligner_has_timed_the_words_their_times_decide(heard_ms: int, rest: str) -> None:
    timed = [(0, 900), (4, 1_000), (8, 2_000)]
    left = unheard([Piece("one two three.", 4_000, heard_ms, True, timed)], unfinished=False)
    assert left.text == rest


def test_text_that_came_after_the_words_were_timed_was_not_heard() -> None:
    piece = Piece("one two three.", 2_000, 2_000, False, [(0, 900), (4, 1_500)])
    assert unheard([piece], unfinished=True).text == "three."


@pytest.mark.parametrize("heard_ms", [-5, 0, 300])
def test_of_what_was_cut_at_once_not_a_word_was_heard(heard_ms: int) -> None:
    left = unheard([whole(ENGLISH, heard_ms)], unfinished=False)
    assert (left.heard, left.text) == ("", ENGLISH)
    assert left.nothing_heard


@pytest.mark.parametrize("heard_ms", [5_850, 6_000, 7_000])
def test_the_silence_at_the_end_of_a_sentence_is_no_loss(heard_ms: int) -> None:
    left = unheard([whole(ENGLISH, heard_ms)], unfinished=False)
    assert left.text == ""
    assert left.nothing_left


def test_text_that_runs_past_the_audio_was_not_heard_when_the_audio_was_heard_to_its_end() -> None:
    left = unheard([Piece(ENGLISH, 2_000, 2_000, complete=False)], unfinished=True)
    assert left.heard.strip() == "Your order of"
    assert left.text.startswith("four")


def test_what_follows_a_cut_was_not_heard_whatever_is_said_about_it() -> None:
    left = unheard(
        [whole("One moment.", 1_000, 1_000), whole(ENGLISH, 3_000), whole("Anything else?", 9_000)],
        unfinished=False,
    )
    assert left.heard.startswith("One moment. Your order of four")
    assert left.text.startswith("twelve dollars")
    assert left.text.endswith("half past nine. Anything else?")


def test_what_a_continuation_got_through_is_counted_in_words_less_two() -> None:
    left = Unheard("Your order", "of four cupcakes comes to twelve dollars.", unfinished=True)
    after = left.after(4)
    assert after.heard == "Your order of four "
    assert after.text == "cupcakes comes to twelve dollars."
    assert left.after(1).text == left.text
    assert left.after(99).nothing_known


TEXTS = st.text(
    st.sampled_from("abcdefghiÄöß ñ¿é,.?!12 $€ — 字は ก \n"), min_size=1, max_size=80
) | st.sampled_from([ENGLISH, GERMAN, SPANISH, MANDARIN])


@given(TEXTS, st.integers(0, 20_000), st.integers(-10, 25_000), st.booleans())
def test_the_rest_always_begins_with_a_word(
    text: str, audio_ms: int, heard_ms: int, complete: bool
) -> None:
    chars = heard_chars(Piece(text, audio_ms, heard_ms, complete))
    assert chars in {0, len(text), *(token.char_start for token in tokenize(text))}


@given(TEXTS, st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 500), st.booleans())
def test_who_heard_longer_heard_no_less(
    text: str, audio_ms: int, heard_ms: int, more_ms: int, complete: bool
) -> None:
    less = heard_chars(Piece(text, audio_ms, heard_ms, complete))
    assert less <= heard_chars(Piece(text, audio_ms, heard_ms + more_ms, complete))


@given(st.lists(st.tuples(TEXTS, st.integers(0, 9_000), st.integers(0, 9_000), st.booleans())))
def test_nothing_is_lost_between_what_was_heard_and_what_was_not(
    pieces: list[tuple[str, int, int, bool]],
) -> None:
    left = unheard([Piece(*piece) for piece in pieces], unfinished=False)
    said = " ".join(text for text, *_ in pieces)
    assert "".join((left.heard + left.text).split()) == "".join(said.split())


# --- the model is told --------------------------------------------------------------------------


def told(left: Unheard) -> str:
    return continuation_instructions(left)


@pytest.mark.parametrize("text", [ENGLISH, GERMAN, SPANISH])
def test_the_model_is_told_both_sides_of_the_cut_in_the_words_that_it_used(text: str) -> None:
    left = unheard([whole(text, 3_000)], unfinished=False)
    assert f"heard: «{left.heard.strip()}»" in told(left)
    assert f"not heard: «{left.text}»" in told(left)
    assert "in this language" in told(left)
    assert "do not mention it" in told(left)
    assert told(left).endswith("Then stop.")


def test_only_the_end_of_what_was_heard_is_told() -> None:
    heard = " ".join(f"word{n}" for n in range(50))
    assert "«word38 " in told(Unheard(heard, "and so on", unfinished=False))


def test_what_was_not_heard_is_told_up_to_a_bound_and_ends_with_a_word() -> None:
    text = "buttercream " * 1_000
    said = told(Unheard("Well,", text, unfinished=False))
    assert len(said) < MAX_QUOTED_CHARS + 1_000
    assert "buttercream»" in said
    assert said.endswith("Then go on with what you still had to say.")


def test_a_model_that_had_not_finished_goes_on_after_it() -> None:
    assert told(Unheard("Well,", "I think", unfinished=True)).endswith("still had to say.")
    assert "not heard" not in told(Unheard("Well,", "", unfinished=True))


def test_of_what_was_not_heard_at_all_nothing_is_said_to_have_been() -> None:
    assert "heard none of it" in told(Unheard("", ENGLISH, unfinished=False))


def test_a_function_call_that_was_broken_off_may_be_made_again() -> None:
    assert "function call" not in told(Unheard("a", "b", unfinished=True))
    left = Unheard("a", "", unfinished=False, call_broken_off=True)
    assert "make it again" in told(left)
    assert not left.nothing_left
