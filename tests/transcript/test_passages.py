"""Whether a passage was heard goes by the words' own verdicts (unit)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from asheard.v1.transcript_pb2 import Heard, Role, Transcript, Turn, Word
from asheard.v1.transcript_service_pb2 import PassageResult
from tests.transcript.test_join_scenarios import parse
from transcript.join import join
from transcript.passages import check_heard

HEARD = PassageResult.PASSAGE_RESULT_HEARD
PARTLY = PassageResult.PASSAGE_RESULT_PARTLY_HEARD
UNHEARD = PassageResult.PASSAGE_RESULT_UNHEARD

SCENARIOS = Path(__file__).parent.parent / "scenarios" / "transcript"


@pytest.mark.parametrize(
    ("passage", "result", "share"),
    [
        ("The refund deadline is Friday.", UNHEARD, 0.0),  # never sounded
        ("Hello", HEARD, 1.0),
        ("return it within", HEARD, 1.0),
        ("within thirty days", PARTLY, 1 / 3),
        ("Goodbye", UNHEARD, 0.0),
        ("Friday. Hello.", PARTLY, 0.5),
    ],
)
def test_text_without_sound_was_not_heard(
    passage: str, result: PassageResult.ValueType, share: float
) -> None:
    text = (SCENARIOS / "parts_without_sound.txt").read_text("utf-8")
    transcript = join(parse(text.partition("\nfacts\n")[2].partition("\ntranscript\n")[0]))
    answer = check_heard(transcript, passage, "en")
    assert answer.result == result
    assert answer.share == pytest.approx(share)


def test_a_word_counts_when_half_of_it_was_played() -> None:
    turn = Turn(role=Role.ROLE_AGENT, item_id="a", generated_text="One two three four.")
    for text, heard, share in (
        ("One", Heard.HEARD_FULL, 1.0),
        ("two", Heard.HEARD_PARTIAL, 0.5),
        ("three", Heard.HEARD_PARTIAL, 0.49),
        ("four.", Heard.HEARD_NONE, 0.0),
    ):
        turn.words.append(Word(text=text, heard=heard, played_share=share))
    transcript = Transcript(turns=[turn])
    assert check_heard(transcript, "one two", "en").result == HEARD
    assert check_heard(transcript, "three", "en").result == UNHEARD
    assert check_heard(transcript, "one two three four", "en").share == 0.5


def test_a_very_long_turn_is_looked_through_in_linear_time() -> None:
    words = [Word(text=f"word{n % 50}", heard=Heard.HEARD_FULL) for n in range(40_000)]
    turn = Turn(role=Role.ROLE_AGENT, item_id="a", words=words)
    began = time.process_time()
    answer = check_heard(Transcript(turns=[turn]), "word1 word2 anything", "en")
    assert answer.result == PassageResult.PASSAGE_RESULT_NOT_SAID
    # Half a second of CPU; it was 75.
    assert time.process_time() - began < 20
