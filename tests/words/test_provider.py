"""Word times that came with the audio, and the order of sources."""

from __future__ import annotations

import pytest

from tests.words.speech import piece
from words.aligned import SOURCES
from words.provider import ProviderSource
from words.timing import Method, ProviderWord, Speech, best_word_times

SENT = (
    ProviderWord("your", 100, 300),
    ProviderWord("total", 300, 700),
    ProviderWord("is", 700, 800),
    ProviderWord("ready", 900, 1300),
)


def test_provider_words_are_joined_to_the_displayed_ones() -> None:
    speech = Speech("“Your total… is READY!” — now", b"", provider_words=SENT)
    times = ProviderSource().word_times(speech)
    assert times is not None
    assert [(w.text, w.start_ms, w.end_ms) for w in times.words] == [
        ("“Your", 100, 300),
        ("total…", 300, 700),
        ("is", 700, 800),
        ("READY!”", 900, 1300),
        ("—", 1300, 1300),
        ("now", 1300, 1300),
    ]
    assert times.method is Method.PROVIDER


def test_words_of_another_text_are_not_used() -> None:
    speech = Speech("Nothing of that kind", b"", provider_words=SENT)
    assert ProviderSource().word_times(speech) is None


def test_no_provider_words_no_answer() -> None:
    assert ProviderSource().word_times(Speech("Hello", b"")) is None


def test_the_best_source_that_answers_wins() -> None:
    known = piece("en_card")
    assert best_word_times(SOURCES, Speech(known.text, known.ulaw)).method is Method.ALIGNED
    with_provider = Speech("Your total is ready", known.ulaw, provider_words=SENT)
    assert best_word_times(SOURCES, with_provider).method is Method.PROVIDER
    assert best_word_times(SOURCES, Speech("Hello", b"")).method is Method.PROPORTIONAL


def test_a_list_of_sources_must_end_in_one_that_always_answers() -> None:
    with pytest.raises(LookupError, match="ProportionalSource last"):
        best_word_times((ProviderSource(),), Speech("Hello", b""))
