"""Displayed words and the ways they may be said."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from words.aligner.numbers import GREATEST, cardinal, english_ordinal, german_ordinal
from words.aligner.pronounce import pronunciations
from words.aligner.readings import MAX_READING_WORDS, MAX_READINGS, forms
from words.aligner.spelling import phones_by_rule


def said(word: str, language: str = "en") -> set[str]:
    """All ways to say a word, as text."""
    return {
        " ".join(part for option in choice for part in option)
        for form in forms(word, language)
        for choice in itertools.product(*form)
    }


@pytest.mark.parametrize(
    ("word", "ways"),
    [
        ("$9.05,", {"nine dollars and five cents", "nine oh five", "nine dollars five cents"}),
        ("£3.20", {"three pounds twenty", "three pounds and twenty pence"}),
        ("$1,250", {"one thousand two hundred fifty dollars", "twelve fifty dollars"}),
        ("$1.5M", {"one point five million dollars"}),
        ("4:30", {"four thirty", "half past four"}),
        ("8:05", {"eight oh five"}),
        ("9:15am", {"nine fifteen a. m."}),
        ("6pm", {"six p. m."}),
        ("555-0142", {"five five five oh one four two", "five fifty five dash oh one four two"}),
        ("97205.", {"nine seven two oh five", "nine seven two zero five"}),
        ("1420", {"fourteen twenty", "one thousand four hundred twenty", "one four two oh"}),
        ("22nd", {"twenty second"}),
        ("1990s", {"nineteen nineties"}),
        ("10/22/2026", {"october twenty second twenty twenty six"}),
        ("15%", {"fifteen percent"}),
        ("maria@example.com,", {"maria at example dot com"}),
        ("www.example.com/help", {"www dot example dot com slash help"}),
        ("B729,", {"b. seven two nine", "b. seven twenty nine"}),
        ("3C,", {"three c."}),
        ("K,", {"k."}),
        ("a", {"a", "a."}),
        ("W-H-I-T,", {"w. h. i. t."}),
        ("U.S.A.", {"u. s. a."}),
        ("USA", {"usa", "u. s. a."}),
        ("a.m.", {"a. m."}),
        ("Dr.", {"doctor"}),
        ("gluten-free", {"gluten free"}),
        ("I'll", {"i'll"}),
        ("3-5", {"three to five", "three five"}),
        ("½", {"one half"}),
    ],
)
def test_english(word: str, ways: set[str]) -> None:
    assert ways <= said(word)


@pytest.mark.parametrize(
    ("language", "word", "way"),
    [
        ("es", "9,50", "nueve con cincuenta"),
        ("es", "16:30", "cuatro y media"),
        ("es", "25%", "veinticinco por ciento"),
        ("es", "1.250", "mil doscientos cincuenta"),
        ("de", "22.", "zwei und zwanzigsten"),
        ("de", "14:30", "vierzehn uhr dreißig"),
        ("de", "9,50€", "neun euro fünfzig"),
        ("fr", "97", "quatre vingt dix sept"),
        ("fr", "14h30", "quatorze heures trente"),
        ("fr", "J'ai", "j ai"),
        ("it", "28", "ventotto"),
        ("it", "17:30", "cinque e mezza"),
        ("pt", "142", "cento e quarenta e dois"),
        ("nl", "37", "zeven en dertig"),
        ("nl", "€9,50", "negen euro vijftig"),
        ("ja", "12", "ichi ni"),
    ],
)
def test_other_languages(language: str, word: str, way: str) -> None:
    assert way in said(word, language)


@pytest.mark.parametrize("word", ["—", "...", "😀", "“”", "?!", "👩‍🔬"])
def test_what_is_not_spoken_has_no_form(word: str) -> None:
    assert forms(word, "en") == ()


@given(
    st.text(max_size=30) | st.text("0123456789%:.,’'$€/-ahpm", max_size=8),
    st.sampled_from(["en", "de", "fr", "es", "it", "pt", "nl", "zh", "xx"]),
)
@example("0:%", "en")
def test_any_word_has_few_and_short_readings(word: str, language: str) -> None:
    for form in forms(word, language):
        assert len(form) <= MAX_READING_WORDS
        for slot in form:
            assert len(slot) <= MAX_READINGS
            assert all(len(reading) <= MAX_READING_WORDS for reading in slot)
            for reading in slot:
                for spoken in reading:
                    pronunciations(spoken, language)


def test_a_page_of_digits_is_bounded() -> None:
    assert sum(len(r) for form in forms("7" * 5000, "en") for slot in form for r in slot) < 2000


@pytest.mark.parametrize("language", ["en", "es", "de", "fr", "it", "pt", "nl"])
@given(number=st.integers(0, GREATEST))
def test_every_number_has_words(language: str, number: int) -> None:
    words = cardinal(number, language)
    assert words
    assert all(word.isalpha() for word in words)


def test_numbers_that_have_no_words() -> None:
    assert cardinal(GREATEST + 1, "en") is None
    assert cardinal(5, "xx") is None
    with pytest.raises(ValueError, match="0 or more"):
        cardinal(-1, "en")


def test_numbers_differ() -> None:
    for language in ("en", "es", "de", "fr", "it", "pt", "nl"):
        spoken = {"".join(cardinal(n, language) or []) for n in range(2000)}
        assert len(spoken) == 2000, language


def test_ordinals() -> None:
    assert [" ".join(english_ordinal(n)) for n in (1, 12, 20, 22, 103)] == [
        "first", "twelfth", "twentieth", "twenty second", "one hundred third",
    ]  # fmt: skip
    assert [" ".join(german_ordinal(n)) for n in (3, 19, 21)] == [
        "dritten", "neunzehnten", "ein und zwanzigsten",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "language", "phones"),
    [
        ("the", "en", "DH AH"),
        ("kowalski's", "en", "K AH W AA L S K IY Z"),
        ("w.", "en", "D AH B AH L Y UW"),
        ("w.", "de", "V EY"),
        ("vingt", "fr", "V AE N"),
        ("eaux", "fr", "OW"),
        ("größte", "de", "G R ER S T AH"),
        ("panadería", "es", "P AA N AA D EH R IY AA"),
        ("привет", "ru", "P R IY V Y EH T"),
        ("きん", "ja", "K IY N"),
        ("你", "zh", "ANY_CONSONANT ANY_VOWEL"),
    ],
)
def test_pronunciation(word: str, language: str, phones: str) -> None:
    assert phones in {" ".join(way) for way in pronunciations(word, language)}


@given(st.text(max_size=20), st.sampled_from(["en", "fr", "ar", "th", "xx"]))
def test_any_letters_have_phones(word: str, language: str) -> None:
    phones = phones_by_rule(word.lower(), language)
    assert phones or not any(char.isalpha() for char in word.lower())
