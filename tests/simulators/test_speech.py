"""The corpus: what is said, when, and that it sounds then."""

from __future__ import annotations

import pytest
import yaml

from simulators.realtime import script as agent
from simulators.speech import Speech, corpus, spoken
from simulators.speech.corpus import LINES
from simulators.speech.g711 import (
    ALAW_TO_ULAW,
    ULAW_TO_ALAW,
    ULAW_TO_LINEAR,
    ULAW_TO_LOUDNESS,
    linear_to_ulaw,
    pcm24k_to_ulaw,
    ulaw_to_pcm24k,
)
from simulators.twilio import script as caller

TONES = spoken("An order of this kind was never recorded, not even for $12.50. Was it?")


def loudness(speech: Speech, start_ms: int, end_ms: int) -> float:
    window = speech.ulaw[start_ms * 8 : end_ms * 8].translate(ULAW_TO_LOUDNESS)
    return sum(window) / max(1, len(window))


def test_corpus_has_what_the_tests_need_and_stays_small() -> None:
    lines = corpus().values()
    agents = [s for s in lines if s.name.startswith(("agent-", "bakery-agent-"))]
    callers = [s for s in lines if s.name.startswith(("caller-", "bakery-caller-"))]
    assert len(agents) >= 25 and len({s.voice for s in agents}) >= 3
    assert len(callers) >= 12
    assert {"Yes.", "Stop.", "No, wait."} <= {s.text for s in callers}
    assert max(s.duration_ms for s in agents) > 15_000
    assert sum(p.stat().st_size for p in LINES.iterdir()) < 3_000_000


def test_every_listed_line_has_its_recording() -> None:
    listed = yaml.safe_load((LINES.parent / "lines.yaml").read_text())
    assert {n: v["text"] for n, v in listed.items()} == {n: s.text for n, s in corpus().items()}


def test_bakery_lines_are_recorded_in_two_voices() -> None:
    said = [
        part.text
        for reply in agent.bakery().replies
        for part in reply.parts
        if isinstance(part, agent.Speak)
    ]
    asked = [
        step.action.text for step in caller.bakery().steps if isinstance(step.action, caller.Say)
    ]
    assert {spoken(t).voice for t in said} == {"slt"}
    assert {spoken(t).voice for t in asked} == {"rms"}


@pytest.mark.parametrize("speech", [*corpus().values(), TONES], ids=lambda s: s.name[:30])
def test_words_are_the_text_in_order_within_the_audio(speech: Speech) -> None:
    assert [w.text for w in speech.words] == speech.text.split()
    at = 0
    for word in speech.words:
        assert at <= word.start_ms < word.end_ms
        at = word.end_ms
    assert at <= speech.duration_ms
    assert len(speech.ulaw) % 160 == 0


@pytest.mark.parametrize("speech", [*corpus().values(), TONES], ids=lambda s: s.name[:30])
def test_words_sound_when_they_are_said_to_and_pauses_do_not(speech: Speech) -> None:
    for word in speech.words:
        assert loudness(speech, word.start_ms, word.end_ms) > 8, word
    for before, after in zip(speech.words, speech.words[1:], strict=False):
        if after.start_ms - before.end_ms > 250:
            middle = (before.end_ms + after.start_ms) // 2
            assert loudness(speech, middle - 60, middle + 60) < 1
    assert loudness(speech, 0, speech.onset_ms - 20) < 1


def test_any_other_text_is_spoken_in_tones_and_always_the_same() -> None:
    assert TONES.voice == "tones"
    spoken.cache_clear()
    assert spoken(" ".join([TONES.text, ""])).ulaw == TONES.ulaw
    assert spoken("One two.").ulaw != spoken("Two one.").ulaw


def test_spoken_finds_a_line_whatever_its_spaces() -> None:
    assert spoken("  Yes, of   course. ") is corpus()["agent-short-yes"]


def test_end_of_a_word_is_found_with_and_without_its_punctuation() -> None:
    quote = corpus()["bakery-agent-quote"]
    assert quote.word_end_ms("credit?") == quote.word_end_ms("credit") == quote.words[6].end_ms
    greeting = corpus()["bakery-agent-greeting"]
    assert greeting.word_end_ms("you", 2) == greeting.words[10].end_ms
    with pytest.raises(ValueError, match="coffee"):
        quote.word_end_ms("coffee")


def test_companding_is_its_own_inverse_at_every_step() -> None:
    for code in range(256):
        if code != 0x7F:  # Negative zero is zero.
            assert linear_to_ulaw(ULAW_TO_LINEAR[code]) == code
    assert ULAW_TO_LINEAR[0xFF] == 0 and ULAW_TO_LINEAR[0x80] == 32_124
    assert ULAW_TO_LINEAR[0x00] == -32_124
    assert ULAW_TO_ALAW[0xFF] == 0xD5 and ULAW_TO_ALAW[0x80] == 0xAA
    there_and_back = bytes(range(256)).translate(ULAW_TO_ALAW).translate(ALAW_TO_ULAW)
    for code, back in enumerate(there_and_back):
        near = max(16, abs(ULAW_TO_LINEAR[code]) // 16)
        assert abs(ULAW_TO_LINEAR[code] - ULAW_TO_LINEAR[back]) <= near


def test_pcm_and_back_is_the_same_sound() -> None:
    ulaw = corpus()["caller-yes"].ulaw
    pcm = ulaw_to_pcm24k(ulaw)
    assert len(pcm) == 6 * len(ulaw)
    back = pcm24k_to_ulaw(pcm)
    worst = max(abs(ULAW_TO_LINEAR[a] - ULAW_TO_LINEAR[b]) for a, b in zip(ulaw, back, strict=True))
    assert worst <= 1_024, "a step of the coarsest segment"
