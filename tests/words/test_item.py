"""The aligner on speech whose word times are known, and on everything that is not such speech."""

from __future__ import annotations

import random
import statistics
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.words.speech import PIECES, Piece, music, noise, piece, silence
from words.aligner.item import ItemAligner
from words.energy import ULAW_TO_LINEAR
from words.heard import Position, heard
from words.scored import align
from words.timing import WordTimes
from words.tokenize import tokenize


def aligned(text: str, ulaw: bytes, language: str = "en", *, complete: bool = True) -> WordTimes:
    aligner = ItemAligner(language)
    aligner.add_text(text)
    aligner.add_audio(ulaw)
    return aligner.finish(complete)


def sensible(times: WordTimes, text: str) -> None:
    """What holds for every answer."""
    assert [(w.text, w.char_start, w.char_end) for w in times.words] == [
        (t.text, t.char_start, t.char_end) for t in tokenize(text)
    ]
    at = 0
    for word in times.words:
        assert at <= word.start_ms <= word.end_ms
        at = word.start_ms
    assert 0 <= times.confidence <= 1


@pytest.mark.parametrize("name", PIECES)
def test_word_ends_are_right_to_a_few_hundredths_of_a_second(name: str) -> None:
    known = piece(name)
    times = aligned(known.text, known.ulaw, known.language)
    errors = [abs(w.end_ms - end) for w, (_, end) in zip(times.words, known.times, strict=True)]
    assert statistics.median(errors) <= 25
    assert max(errors) <= 160
    assert times.confidence > 0.5


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_cut_while_the_text_ran_ahead(name: str, share: float) -> None:
    """The words heard are the words said, within one, when the audio ends 300 ms behind the cut."""
    known = piece(name)
    cut_ms = share * len(known.ulaw) / 8
    times = aligned(known.text, known.until(cut_ms + 300), known.language, complete=False)
    answer = heard(known.text, times, Position.exactly(round(cut_ms)), played_to_end=False)
    truth = sum((a + b) / 2 <= cut_ms for a, b in known.times)
    assert abs(answer.words_heard - truth) <= 1
    sensible(times, known.text)


def test_words_behind_the_audio_start_at_its_end_or_later() -> None:
    known = piece("en_card")
    times = aligned(known.text, known.until(1200), complete=False)
    for word, (start_ms, _) in zip(times.words, known.times, strict=True):
        if start_ms > 1400:
            assert word.start_ms >= 1200


def test_in_pieces_as_a_model_sends_them() -> None:
    """Audio in 100 ms pieces and text in pieces of words give the answer of the whole at once."""
    known = piece("en_card")
    aligner = ItemAligner("en")
    text = known.text
    for k in range(max(len(text) // 4 + 1, len(known.ulaw) // 800 + 1)):
        aligner.add_text(text[4 * k : 4 * k + 4])
        aligner.add_audio(known.ulaw[800 * k : 800 * k + 800])
        aligner.work()
    whole = aligned(known.text, known.ulaw)
    for in_pieces, at_once in zip(aligner.finish().words, whole.words, strict=True):
        assert in_pieces.text == at_once.text
        assert abs(in_pieces.end_ms - at_once.end_ms) <= 40


def test_text_that_comes_after_the_audio() -> None:
    known = piece("en_card")
    aligner = ItemAligner("en")
    aligner.add_audio(known.ulaw)
    aligner.work()
    aligner.add_text(known.text)
    assert aligner.finish() == aligned(known.text, known.ulaw)


def test_the_estimate_goes_on_where_the_search_stopped() -> None:
    known = piece("en_card")
    aligner = ItemAligner("en")
    aligner.add_text(known.text)
    aligner.add_audio(known.until(3000))
    while aligner.work(10):
        pass
    estimate = aligner.estimate()
    sensible(estimate, known.text)
    for word, (_, end) in list(zip(estimate.words, known.times, strict=True))[:6]:
        assert abs(word.end_ms - end) <= 150


def test_the_last_answer_costs_the_same_for_a_long_item() -> None:
    """At the end of a followed item little is left to search, however long the item is."""
    known = piece("en_card")
    frames: dict[int, int] = {}
    for times in (1, 6):
        aligner = ItemAligner("en")
        aligner.add_text(" ".join([known.text] * times) + " and a few more words to follow")
        for k in range(0, len(known.ulaw) * times, 1600):
            aligner.add_audio((known.ulaw * times)[k : k + 1600])
            aligner.work()
        frames[times] = aligner.audio_ms // 10 - aligner.searched_ms // 10
    assert frames[1] <= 120
    assert frames[6] <= 120


@pytest.mark.parametrize("rate_hz", [16000, 24000])
def test_samples_at_other_rates(rate_hz: int) -> None:
    known = piece("en_card")
    at_8k = ULAW_TO_LINEAR[np.frombuffer(known.ulaw, np.uint8)].astype(np.float64)
    spectrum = np.fft.rfft(at_8k)
    n = len(at_8k) * rate_hz // 8000
    samples = np.fft.irfft(spectrum, n) * (n / len(at_8k))
    aligner = ItemAligner("en", rate_hz=rate_hz)
    aligner.add_text(known.text)
    aligner.add_samples(np.clip(samples, -32768, 32767).astype(np.int16))
    times = aligner.finish()
    assert times.audio_ms == len(known.ulaw) // 8
    errors = [abs(w.end_ms - end) for w, (_, end) in zip(times.words, known.times, strict=True)]
    assert statistics.median(errors) <= 30


def test_a_rate_that_is_not_served() -> None:
    with pytest.raises(ValueError, match="rate_hz must be"):
        ItemAligner("en", rate_hz=44100)


@pytest.mark.parametrize("change", ["dropped", "doubled", "replaced"])
@pytest.mark.parametrize("name", PIECES)
def test_a_text_that_is_not_quite_what_was_said(name: str, change: str) -> None:
    """One word in ten is wrong in the text; the others stay where they are."""
    known = piece(name)
    rng = random.Random(change)
    errors: list[float] = []
    for _ in range(4):
        wrong = set(rng.sample(range(len(known.words)), max(1, len(known.words) // 10)))
        words, truth = altered(known, wrong, change)
        times = align(known.ulaw, words, known.language)
        errors += [
            abs(end - right[1])
            for (_, end), right in zip(times, truth, strict=True)
            if right is not None
        ]
    assert statistics.median(errors) <= 30
    assert sum(error > 200 for error in errors) <= 0.12 * len(errors)


def altered(
    known: Piece, wrong: set[int], change: str
) -> tuple[list[str], list[tuple[float, float] | None]]:
    words: list[str] = []
    truth: list[tuple[float, float] | None] = []
    for k, (word, times) in enumerate(zip(known.words, known.times, strict=True)):
        if k not in wrong:
            words.append(word)
            truth.append(times)
        elif change == "doubled":
            words += [word, word]
            truth += [None, None]
        elif change == "replaced":
            words.append("zucchini")
            truth.append(None)
    return words, truth


def test_a_hesitation_that_is_not_in_the_text() -> None:
    known = piece("en_card")
    gap = round(known.times[9][1] * 8)
    breath = noise(400, level=500.0)
    ulaw = known.ulaw[:gap] + breath + known.ulaw[gap:]
    times = aligned(known.text, ulaw)
    for word, (_, end) in list(zip(times.words, known.times, strict=True))[10:]:
        assert abs(word.end_ms - 400 - end) <= 200


SOUNDS = {
    "nothing": b"",
    "a blink": silence(9),
    "silence": silence(3000),
    "noise": noise(3000),
    "music": music(3000),
    "one byte": b"\x80",
    "loudest": b"\x00\x80" * 12000,
}
TEXTS = {
    "nothing": "",
    "white space": " \n ",
    "a word": "Hello",
    "digits": "8675309 12 0 999999999999999999999 3.14159",
    "punctuation": "... — ?! “” ,",
    "emoji": "👍 🎉🎉 👩‍🔬",
    "right to left": "مرحبا، كيف يمكنني مساعدتك؟ שלום",
    "no spaces": "您好，请问有什么可以帮您？ありがとうございます สวัสดีครับ",
    "odd": "\x00 \ufffd \u200b a\u0301\u0302\u0303 ﷺ ﬃ Ⅷ ² ½ \U0001f1e9\U0001f1ea",
    "long": "The quick brown fox costs $9.05 today. " * 130,
    "one long word": "x" * 5000,
    "long digits": "1234567890" * 500,
}


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("complete", [True, False])
def test_whatever_comes(sound: str, text: str, complete: bool) -> None:
    began = time.process_time()
    times = aligned(TEXTS[text], SOUNDS[sound], complete=complete)
    assert time.process_time() - began < 4.0
    sensible(times, TEXTS[text])
    assert times.audio_ms == len(SOUNDS[sound]) // 8
    if sound in ("nothing", "silence"):
        assert times.confidence == 0
        assert all(word.start_ms >= times.audio_ms for word in times.words)


def test_a_minute_of_speech_in_bounded_time() -> None:
    known = piece("en_card")
    repeats = 12
    began = time.process_time()
    times = aligned(" ".join([known.text] * repeats), known.ulaw * repeats)
    assert time.process_time() - began < 6.0
    length_ms = len(known.ulaw) / 8
    last = times.words[-len(known.words) :]
    errors = [
        abs(word.end_ms - (repeats - 1) * length_ms - end)
        for word, (_, end) in zip(last, known.times, strict=True)
    ]
    assert statistics.median(errors) <= 30


def test_text_of_another_item_is_seen_in_the_confidence() -> None:
    known, other = piece("en_card"), piece("it_calm")
    right = aligned(known.text, known.ulaw).confidence
    assert aligned(other.text * 2, known.ulaw).confidence < right - 0.2


def test_words_given_apart_stay_as_they_are() -> None:
    words = ["two words", "", "—", "next"]
    times = align(silence(500) + noise(800), words, "en", complete=False)
    assert len(times) == 4


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.text(max_size=12), st.binary(max_size=4000)), max_size=10),
       st.booleans(), st.sampled_from(["en", "de-DE", "zh", "", "EN_us", "xx"]))  # fmt: skip
def test_any_pieces_in_any_order(pieces: list[str | bytes], complete: bool, language: str) -> None:
    aligner = ItemAligner(language)
    text, n_bytes = "", 0
    for part in pieces:
        if isinstance(part, str):
            aligner.add_text(part)
            text += part
        else:
            aligner.add_audio(part)
            n_bytes += len(part)
        aligner.work()
        sensible(aligner.estimate(), text)
    times = aligner.finish(complete)
    sensible(times, text)
    assert times.audio_ms == n_bytes // 8
