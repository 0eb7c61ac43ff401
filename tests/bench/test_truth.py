"""What Twilio's end received, turned back into items, words and faults."""

from __future__ import annotations

from bench.load import lines, truth
from bench.load.record import CallerCall, Cut, ModelCall, PlayedItem, SpokenItem

GREETING = lines.names().index("bakery-agent-greeting")
SURE = lines.names().index("bakery-agent-sure")


def test_items_are_told_apart_and_their_played_bytes_counted() -> None:
    first, second = lines.tagged_audio(GREETING), lines.tagged_audio(SURE)
    cut = 4 * 1000  # Half a second, a quarter into a frame: as a delta of 250 ms ends.
    found = truth.played_items(first[:cut] + second, [(0, 2_000), (cut, cut + 800)])
    assert found.items == [
        PlayedItem(GREETING, cut, 2_000, True),
        PlayedItem(SURE, len(second), 800, True),
    ]
    assert found.foreign_bytes == 0


def test_lost_and_repeated_audio_is_noticed() -> None:
    audio = lines.tagged_audio(GREETING)
    gap = truth.played_items(audio[:1600] + audio[3200:], [])
    assert [item.whole for item in gap.items] == [False]
    again = truth.played_items(audio[:1600] + audio[:1600], [])
    assert [item.received_bytes for item in again.items] == [1600, 1600]


def test_audio_of_nobody_is_foreign() -> None:
    found = truth.played_items(b"\xff" * 1600, [(0, 1600)])
    assert found.items == []
    assert found.foreign_bytes == 1600


def test_a_word_counts_when_half_of_it_was_played() -> None:
    words = lines.speech(GREETING).words
    middle = (words[3].start_ms + words[3].end_ms + 1) // 2
    for heard_ms, count in ((middle - 1, 3), (middle, 4)):
        [item] = _join(heard_ms)
        assert item.heard_words == count
        assert item.heard_text == " ".join(word.text for word in words[:count])


def test_an_item_that_never_came_was_not_heard() -> None:
    model = ModelCall(0, items=[SpokenItem("gone", SURE), SpokenItem("came", GREETING)])
    caller = CallerCall(0, "CA0", items=[PlayedItem(GREETING, 800, 800, True)])
    gone, came = truth.true_items(model, caller)
    assert (gone.heard_ms, gone.heard_text) == (0, "")
    assert came.heard_ms == 100


def test_an_item_nobody_cut_must_come_whole() -> None:
    length = len(lines.tagged_audio(GREETING))
    for received, lost in ((length, 0), (length - 160, 1)):
        spoken = SpokenItem("it", GREETING, audio_bytes=length, completed=True)
        model = ModelCall(0, items=[spoken, SpokenItem("next", SURE)])
        caller = CallerCall(0, "CA0", items=[PlayedItem(GREETING, received, received, True)])
        assert truth.lost_agent_audio(truth.true_items(model, caller)) == lost


def _join(heard_ms: int) -> list[truth.TrueItem]:
    text = lines.speech(GREETING).text
    length = len(lines.tagged_audio(GREETING))
    model = ModelCall(0, items=[SpokenItem("it", GREETING, length, len(text), True)])
    played = PlayedItem(GREETING, length, 8 * heard_ms, True)
    caller = CallerCall(0, "CA0", items=[played], cuts=[Cut(0, GREETING)])
    return truth.true_items(model, caller)
