"""The shipped sentences: each is there, and sounds as speech on a telephone does, by its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from session.notices import Notice
from session.notices.book import SHIPPED, shipped_texts
from session.notices.sound import TARGET_RMS
from words.energy import ULAW_TO_LINEAR, audible_spans

LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "nl")
EACH = [(language, notice) for language in LANGUAGES for notice in Notice]


def test_what_is_shipped_is_what_is_said_and_small() -> None:
    assert set(shipped_texts()) == set(LANGUAGES)
    expected = {f"{language}-{notice.value}.ulaw" for language, notice in EACH}
    assert {path.name for path in SHIPPED.iterdir()} == expected
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 700_000


@pytest.mark.parametrize(("language", "notice"), EACH)
def test_it_sounds_as_speech_on_a_telephone_does(language: str, notice: Notice) -> None:
    ulaw = (SHIPPED / f"{language}-{notice.value}.ulaw").read_bytes()
    text = shipped_texts()[language][notice.value]
    samples = ULAW_TO_LINEAR[np.frombuffer(ulaw, np.uint8)].astype(np.float64)
    assert len(ulaw) % 160 == 0, "whole frames"
    characters_a_second = len(text) / (len(ulaw) / 8000)
    assert 9 < characters_a_second < 19, "as quick as people speak"
    voiced = samples[np.abs(samples) > 200]
    level_db = 20 * np.log10(np.sqrt(np.mean(voiced**2)) / TARGET_RMS)
    assert abs(level_db) < 0.5
    assert np.abs(samples).max() < 32_000, "nothing is clipped"
    spans = audible_spans(ulaw)
    length_ms = len(ulaw) // 8
    assert 20 <= spans[0].start_ms <= 200 and length_ms - spans[-1].end_ms <= 250
    pauses = [
        after.start_ms - before.end_ms for before, after in zip(spans, spans[1:], strict=False)
    ]
    assert max(pauses, default=0) < 700
    mean = abs(samples.mean())
    assert mean < 30, "no constant part"
