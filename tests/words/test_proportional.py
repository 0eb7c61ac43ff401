"""The fallback: proportional where all is there, at a usual rate where it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.words.speech import music, noise, piece, silence
from words.energy import Span, audible_spans
from words.proportional import ProportionalSource, proportional_times, weight
from words.timing import Method, Speech, WordTimes
from words.tokenize import tokenize


def spans_of(times: WordTimes) -> list[tuple[int, int]]:
    return [(word.start_ms, word.end_ms) for word in times.words]


def test_a_complete_item_fills_its_audible_time() -> None:
    times = proportional_times(tokenize("aaa bbb"), 1000, complete=True)
    assert spans_of(times) == [(0, 500), (500, 1000)]
    assert times.method is Method.PROPORTIONAL


def test_text_ahead_of_the_audio_is_not_squeezed_into_it() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    times = proportional_times(tokenize(text), 800, complete=False)
    within = [word for word in times.words if word.start_ms < 800]
    assert 2 <= len(within) <= 4  # some 15 letters a second
    assert times.words[-1].start_ms > 3000


def test_pauses_are_matched_with_punctuation() -> None:
    audible = [Span(0, 1000), Span(1500, 2500)]
    times = proportional_times(
        tokenize("Please hold now, back in a minute."), 2500, complete=True, audible=audible
    )
    by_word = {word.text: word for word in times.words}
    assert by_word["now,"].end_ms == 1000
    assert by_word["back"].start_ms == 1500


def test_a_real_piece_is_roughly_right() -> None:
    known = piece("en_card")
    times = ProportionalSource().word_times(Speech(known.text, known.ulaw))
    errors = [abs(w.end_ms - end) for w, (_, end) in zip(times.words, known.times, strict=True)]
    assert sorted(errors)[len(errors) // 2] < 300


def test_silence_holds_no_word() -> None:
    times = ProportionalSource().word_times(Speech("Hello there", silence(1000)))
    assert all(word.start_ms >= 1000 for word in times.words)
    assert times.confidence == 0


def test_what_is_audible() -> None:
    ulaw = silence(500) + music(700) + silence(400) + noise(300) + silence(200)
    spans = audible_spans(ulaw)
    assert [(round(s.start_ms, -1), round(s.end_ms, -1)) for s in spans] == [
        (500, 1200), (1600, 1900),
    ]  # fmt: skip
    assert audible_spans(b"") == ()


def test_what_is_not_spoken_has_no_weight() -> None:
    assert weight("—") == weight("😀") == 0
    assert weight("$9.05,") > weight("cat")


@given(
    st.text(max_size=60),
    st.integers(0, 20_000),
    st.booleans(),
    st.lists(st.integers(0, 4000), max_size=8),
)
def test_times_never_fall(text: str, audio_ms: int, complete: bool, edges: list[int]) -> None:
    cuts = sorted({min(edge, audio_ms) for edge in edges})
    audible = [Span(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    times = proportional_times(tokenize(text), audio_ms, complete=complete, audible=audible)
    at = 0
    for word in times.words:
        assert at <= word.start_ms <= word.end_ms
        at = word.start_ms
    assert len(times.words) == len(tokenize(text))
