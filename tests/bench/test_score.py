"""Scores of accounts of what was heard, and the usual ways at their best."""

from __future__ import annotations

from bench import score
from bench.score import Account, Heard

ITEM = Heard(
    item_id="it",
    text="Yes, of course. Anything else?",
    heard_text="Yes, of",
    audio_ms=2000,
    heard_ms=500,
    sent_ms=1500,
    elapsed_ms=700,
    deltas=((500, 7), (1000, 15), (1500, 24), (2000, 30)),
)


def test_exact_words_and_the_error_are_counted() -> None:
    other = Heard("other", "Two words", "Two words", 900, 900, 900, 900, ())
    told = {"it": Account("Yes, of course.", 540), "other": Account("Two words", 880)}
    found = score.score([ITEM, other], score.by_item_id(told))
    assert (found.items, found.exact_share, found.mean_word_error) == (2, 0.5, 0.5)
    assert found.audio_error_ms.most == 40
    assert found.audio_bias_ms == 10


def test_an_item_that_is_not_mentioned_counts_as_unheard() -> None:
    found = score.score([ITEM], score.by_item_id({}))
    assert (found.exact_share, found.mean_word_error, found.audio_error_ms.most) == (0, 2, 500)


def test_nothing_to_score_is_no_share() -> None:
    assert score.score([], score.all_text).exact_share is None


def test_the_usual_ways() -> None:
    said = {name: way(ITEM) for name, way in score.USUAL_WAYS.items()}
    assert said["all_text"] == Account("Yes, of course. Anything else?", 2000)
    # 700 of 2,000 ms are 10 of 30 characters: "Yes, of co" holds a quarter of "course.".
    assert said["characters_by_timestamps"] == Account("Yes, of", 700)
    assert said["newest_acknowledged_mark"] == Account("Yes, of", 500)
    assert said["newest_unacknowledged_mark"] == Account("Yes, of course. Anything", 1500)


def test_elapsed_time_never_claims_more_than_was_generated() -> None:
    late = Heard("it", "Yes.", "Yes.", 500, 500, 500, 9000, ())
    assert score.characters_by_timestamps(late) == Account("Yes.", 500)
