"""The judge of whole systems: strict, but for the word at whose middle speech stopped."""

from __future__ import annotations

import pytest

from simulators import truth
from simulators.speech.g711 import BYTES_PER_MS
from tests.system.judge import right_texts


def cut_at(played_ms: int, *, generated_ms: int = 900) -> truth.HeardItem:
    return truth.HeardItem(
        session_id="sess_1",
        item_id="item_1",
        generated_text="one two three",
        words=(
            ("one", 0, 300),
            ("two", 300, 600),
            ("three", 600, 900),
        ),
        generated_bytes=generated_ms * BYTES_PER_MS,
        reached=((0, generated_ms * BYTES_PER_MS),),
        played=((0, played_ms * BYTES_PER_MS),) if played_ms else (),
        start_ms=0 if played_ms else None,
        end_ms=played_ms or None,
        stream=0,
    )


@pytest.mark.parametrize(
    ("played_ms", "right"),
    [
        (0, [""]),
        (300, ["one"]),
        (389, ["one"]),
        (391, ["one", "one two"]),
        (450, ["one", "one two"]),
        (509, ["one", "one two"]),
        (511, ["one two"]),
        (750, ["one two", "one two three"]),
        (900, ["one two three"]),
    ],
)
def test_only_a_word_near_the_stop_may_be_told_either_way(played_ms: int, right: list[str]) -> None:
    assert right_texts(cut_at(played_ms)) == right


def test_what_was_played_to_its_end_was_heard_to_its_end() -> None:
    assert right_texts(cut_at(750, generated_ms=750)) == ["one two three"]
