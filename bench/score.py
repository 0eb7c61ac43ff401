"""How right an account of what was heard is: exact share, word error, the usual ways. Pure.

An account is scored on the items that a barge-in cut. What is right is what Twilio's end played, by
the half rule: a word was heard when at least half of it sounded. The usual ways, each at its best:

* ``all_text``: everything generated was heard.
* ``characters_by_timestamps``: the time on Twilio's media clock since the item's first delta was
  sent, as a share of the audio generated so far, taken of the text's characters.
* ``newest_unacknowledged_mark``: a mark behind each delta; heard is the text that had come with the
  newest delta sent, whose mark has not come back.
* ``newest_acknowledged_mark``: the same with the newest mark that came back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench.load.truth import TrueItem
from bench.spread import Spread, mean, share, spread


class Account(msgspec.Struct, frozen=True):
    """What somebody says was heard of an item."""

    text: str
    audio_ms: int | None = None
    """None: it does not say."""


class Score(msgspec.Struct, frozen=True):
    """How right accounts of many items are."""

    items: int
    exact_share: float | None
    """Share of items whose heard words are exactly the true ones."""
    mean_word_error: float | None
    """Words too many or too few, on average."""
    audio_error_ms: Spread
    """Absolute error of the heard audio's length."""


def cut_items(items: Sequence[TrueItem]) -> list[TrueItem]:
    """The items that a barge-in cut: those for which the question is hard."""
    return [item for item in items if item.cut is not None and item.cut.clear_ns]


def score(items: Sequence[TrueItem], account: Callable[[TrueItem], Account | None]) -> Score:
    """Score an account; an item it does not mention counts as unheard."""
    exact = 0
    word_errors: list[float] = []
    audio_errors: list[float] = []
    for item in items:
        claimed = account(item) or Account("", 0)
        claimed_words, true_words = claimed.text.split(), item.heard_text.split()
        exact += claimed_words == true_words
        word_errors.append(abs(len(claimed_words) - len(true_words)))
        if claimed.audio_ms is not None:
            audio_errors.append(abs(claimed.audio_ms - item.heard_ms))
    return Score(len(items), share(exact, len(items)), mean(word_errors), spread(audio_errors))


def by_item_id(accounts: Mapping[str, Account]) -> Callable[[TrueItem], Account | None]:
    """An account that was given item by item, as a transcript is."""
    return lambda item: accounts.get(item.spoken.item_id)


def audio_only(scored: Score) -> Score:
    """The score of an account that says nothing of words."""
    return msgspec.structs.replace(scored, exact_share=None, mean_word_error=None)


def all_text(item: TrueItem) -> Account:
    """Everything generated was heard."""
    return Account(item.text, item.audio_ms)


def characters_by_timestamps(item: TrueItem) -> Account:
    """Elapsed media time since the first delta, in proportion of the characters."""
    if item.cut is None:
        return all_text(item)
    elapsed_ms = min(item.audio_ms, max(0, item.cut.clear_ms - item.cut.reply_ms))
    chars = item.spoken.chars * elapsed_ms // max(1, item.audio_ms)
    return Account(_whole_words(item.text, chars), elapsed_ms)


def newest_unacknowledged_mark(item: TrueItem) -> Account:
    """The text that had come with the newest delta sent."""
    return _by_mark(item, item.received_bytes)


def newest_acknowledged_mark(item: TrueItem) -> Account:
    """The text that had come with the newest delta played to its end."""
    return _by_mark(item, item.heard_ms * 8)


USUAL_WAYS: Mapping[str, Callable[[TrueItem], Account]] = {
    "all_text": all_text,
    "characters_by_timestamps": characters_by_timestamps,
    "newest_unacknowledged_mark": newest_unacknowledged_mark,
    "newest_acknowledged_mark": newest_acknowledged_mark,
}


def _by_mark(item: TrueItem, up_to_bytes: int) -> Account:
    audio_bytes = chars = 0
    spoken = item.spoken
    for length, text_chars in zip(spoken.delta_bytes, spoken.text_at_delta, strict=True):
        if audio_bytes + length > up_to_bytes:
            break
        audio_bytes += length
        chars = text_chars
    return Account(_whole_words(item.text, chars), audio_bytes // 8)


def _whole_words(text: str, chars: int) -> str:
    """A prefix of so many characters; a word counts when at least half of it is in."""
    kept: list[str] = []
    at = 0
    for word in text.split():
        at = text.index(word, at)
        if chars < at + len(word) / 2:
            break
        kept.append(word)
        at += len(word)
    return " ".join(kept)
