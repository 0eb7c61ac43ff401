"""When words are timed, from what, and what happens when that fails."""

from __future__ import annotations

import asyncio
import base64
import gc
import warnings

import pytest

from asheard.v1 import fact_pb2
from session.words import MAX_TIMED_WORDS, CallWords, Refine
from tests.session.ends import proportional
from words.timing import Method, Speech, WordTime, WordTimes

TEXT = "Cash or credit?"


def spoken(ms: int) -> bytes:
    return base64.b64encode(b"\x20\xa0" * (4 * ms))


class Timed:
    """A call's words with an aligner that answers when it is told to."""

    def __init__(self, *, align: str = "cut", refine: Refine | None = None) -> None:
        self.facts: list[fact_pb2.WordsTimed] = []
        self.counted: list[str] = []
        self.asked: list[Speech] = []
        self.go = asyncio.Event()
        self.words = CallWords(
            language="en",
            align=align,
            refine=refine or self.refine,
            write=self.facts.append,
            count=self.counted.append,
        )

    async def refine(self, speech: Speech) -> WordTimes | None:
        self.asked.append(speech)
        await self.go.wait()
        word = WordTime("Cash", 0, 4, 10, 300)
        return WordTimes(Method.ALIGNED, "test/1", 0.9, speech.audio_ms, (word,))

    @property
    def refined(self) -> list[bool]:
        """Of each answer, whether it is the refined one."""
        return [fact.source.refined for fact in self.facts]


async def test_a_refined_answer_that_is_near_makes_the_estimate_idle() -> None:
    timed = Timed()
    timed.go.set()
    timed.words.audio("A", 0, spoken(600))
    timed.words.generated("A", 0, TEXT, complete=True)
    timed.words.cut("A", 0, TEXT)
    assert await timed.words.drain(5)
    assert timed.refined == [True]


async def test_an_estimate_when_the_refined_answer_takes_long() -> None:
    timed = Timed()
    timed.words.audio("A", 0, spoken(600))
    timed.words.audio("A", 0, spoken(601))
    timed.words.generated("A", 0, TEXT, complete=True)
    assert timed.facts == [], "nobody cut it"
    timed.words.cut("A", 0, TEXT)
    assert timed.facts == [], "the refined answer may be a matter of milliseconds"
    async with asyncio.timeout(5):
        while not timed.facts:
            await asyncio.sleep(0.01)
    (estimate,) = timed.facts
    assert estimate.source.method == "proportional"
    assert estimate.audio_ms == 1201
    assert [TEXT[w.text_start : w.text_end] for w in estimate.words] == TEXT.split()
    timed.go.set()
    assert await timed.words.drain(5)
    assert timed.refined == [False, True]
    assert timed.facts[1].source.version == "test/1"
    assert timed.asked == [
        Speech(TEXT, b"\x20\xa0" * (4 * 1201), "en", complete=True),
    ]


async def test_a_part_cut_while_it_was_generated_is_refined_when_all_of_it_is_there() -> None:
    timed = Timed()
    timed.go.set()
    timed.words.audio("A", 0, spoken(600))
    timed.words.cut("A", 0, "Cash or")
    timed.words.audio("A", 0, spoken(100))
    assert timed.refined == [False]
    timed.words.generated("A", 0, TEXT, complete=False)
    await timed.words.drain(5)
    assert timed.refined == [False, True]
    assert (timed.asked[0].text, timed.asked[0].audio_ms) == (TEXT, 700)
    assert not timed.asked[0].complete


async def test_what_a_gateway_that_is_gone_had_not_finished_is_timed() -> None:
    timed = Timed()
    timed.go.set()
    for item in ("played", "cut", "playing", "cancelled"):
        timed.words.audio(item, 0, spoken(600))
        timed.words.generated(item, 0, TEXT, complete=item != "cancelled")
    timed.words.played("played", 0)
    timed.words.cut("cut", 0, TEXT)
    timed.words.position_unknown()
    assert await timed.words.drain(5)
    assert sorted(fact.item_id for fact in timed.facts) == ["cancelled", "cut", "playing"]
    assert timed.refined == [True] * 3


async def test_what_was_played_is_not_timed() -> None:
    timed = Timed()
    timed.words.audio("A", 0, spoken(600))
    timed.words.played("A", 0)
    timed.words.generated("A", 0, TEXT, complete=True)
    await timed.words.drain(5)
    assert timed.facts == []


async def test_all_is_timed_when_the_operator_asks() -> None:
    timed = Timed(align="all")
    timed.go.set()
    timed.words.audio("A", 0, spoken(600))
    timed.words.played("A", 0)
    timed.words.generated("A", 0, TEXT, complete=True)
    await timed.words.drain(5)
    assert timed.refined == [True]


async def test_off_keeps_no_audio_and_says_nothing() -> None:
    timed = Timed(align="off")
    timed.words.audio("A", 0, spoken(600))
    timed.words.cut("A", 0, TEXT)
    timed.words.generated("A", 0, TEXT, complete=True)
    await timed.words.drain(5)
    assert timed.facts == []


async def test_an_aligner_that_fails_or_hangs_leaves_the_estimate() -> None:
    async def broken(speech: Speech) -> WordTimes | None:
        raise RuntimeError("pool is gone")

    failing = Timed(refine=broken)
    hanging = Timed()
    for timed in (failing, hanging):
        timed.words.audio("A", 0, spoken(600))
        timed.words.generated("A", 0, TEXT, complete=True)
        timed.words.cut("A", 0, TEXT)
    assert await failing.words.drain(5)
    assert not await hanging.words.drain(0.01)
    assert failing.refined == hanging.refined == [False]
    assert failing.counted == ["failed"]


async def test_a_part_is_cut_once() -> None:
    timed = Timed()
    timed.words.audio("A", 0, spoken(600))
    timed.words.cut("A", 0, "Cash")
    timed.words.cut("A", 0, "Cash or")
    timed.words.cut("B", 0, "never heard of")
    assert len(timed.facts) == 1


@pytest.mark.parametrize("text", ["", "?!", "9:05, 🙂 שלום", "word " * 1000])
async def test_any_text_with_any_audio_has_an_answer(text: str) -> None:
    timed = Timed(refine=proportional)
    timed.words.audio("A", 0, spoken(30_000))
    timed.words.cut("A", 0, text)
    timed.words.generated("A", 0, text, complete=False)
    assert await timed.words.drain(5)
    assert timed.refined == [False, True]
    assert all(len(fact.words) == len(timed.facts[0].words) for fact in timed.facts)


async def test_more_words_than_a_fact_holds_are_left_to_the_transcript() -> None:
    timed = Timed()
    timed.words.audio("A", 0, spoken(600))
    timed.words.cut("A", 0, "a " * (MAX_TIMED_WORDS + 1))
    assert timed.facts == []
    timed.words.audio("B", 0, spoken(600))
    timed.words.cut("B", 0, "a " * MAX_TIMED_WORDS)
    assert len(timed.facts[0].words) == MAX_TIMED_WORDS


class Follower:
    """Stands in for an item of the aligner's pool."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.heard = b""
        self.text = ""
        self.closed = False

    def add_audio(self, ulaw: bytes) -> None:
        self.heard += ulaw

    def add_text(self, delta: str) -> None:
        self.text += delta

    def _times(self) -> WordTimes:
        return WordTimes(Method.ALIGNED, "follower/1", 0.9, len(self.heard) // 8, ())

    def estimate(self) -> WordTimes:
        return self._times()

    async def finish(self, *, complete: bool) -> WordTimes | None:
        return self._times()

    def close(self) -> None:
        self.closed = True


def followed(followers: list[Follower], *, room: int = 9) -> Timed:
    timed = Timed(align="all")
    timed.go.set()

    def follow(language: str) -> Follower | None:
        if len(followers) == room:
            return None
        followers.append(Follower(language))
        return followers[-1]

    timed.words = CallWords(
        language="en",
        align="all",
        refine=timed.refine,
        write=timed.facts.append,
        count=timed.counted.append,
        follow=follow,
    )
    return timed


async def test_a_followed_part_is_aligned_at_the_cut_already() -> None:
    followers: list[Follower] = []
    timed = followed(followers)
    timed.words.text("A", 0, "Cash or ")
    timed.words.audio("A", 0, spoken(600))
    timed.words.cut("A", 0, "Cash or ")
    assert [fact.source.version for fact in timed.facts] == ["follower/1"]
    timed.words.text("A", 0, "credit?")
    timed.words.audio("A", 0, spoken(100))
    timed.words.generated("A", 0, TEXT, complete=True)
    assert await timed.words.drain(5)
    assert timed.refined == [False, True]
    assert timed.facts[1].audio_ms == 700
    assert (followers[0].text, followers[0].language) == (TEXT, "en")
    assert timed.asked == []


async def test_a_part_without_room_or_with_another_final_text_is_refined_as_a_whole() -> None:
    followers: list[Follower] = []
    timed = followed(followers, room=1)
    for item_id in ("A", "B"):
        timed.words.text(item_id, 0, "Cash or credit!")
        timed.words.audio(item_id, 0, spoken(600))
        timed.words.generated(item_id, 0, TEXT, complete=True)
    assert await timed.words.drain(5)
    assert followers[0].closed
    assert [speech.text for speech in timed.asked] == [TEXT, TEXT]


async def test_a_call_that_ends_gives_up_what_it_follows() -> None:
    followers: list[Follower] = []
    timed = followed(followers)
    timed.words.audio("A", 0, spoken(600))
    await timed.words.drain(5)
    assert followers[0].closed


@pytest.mark.parametrize("align", ["cut", "all"])
async def test_text_that_comes_after_the_timing_is_timed_with_its_audio(align: str) -> None:
    timed = Timed(align=align)
    timed.words.audio("A", 0, spoken(600))
    timed.words.generated("A", 0, "Cash", complete=True)
    timed.words.cut("A", 0, "Cash")
    await asyncio.sleep(0)
    timed.words.generated("A", 0, TEXT, complete=True)
    timed.words.generated("A", 0, TEXT, complete=True)
    timed.go.set()
    assert await timed.words.drain(5)
    assert timed.asked[-1] == Speech(TEXT, b"\x20\xa0" * 2400, "en", complete=True)
    assert timed.refined[-1]
    assert timed.counted == ["refined"], "what was found for less text is not written after it"


async def test_nothing_is_written_after_the_close_but_what_is_owed_before_it() -> None:
    timed = Timed()
    for item_id in ("A", "B"):
        timed.words.audio(item_id, 0, spoken(600))
        timed.words.generated(item_id, 0, TEXT, complete=True)
        timed.words.cut(item_id, 0, TEXT)
    await asyncio.sleep(0)
    timed.words.close()
    assert timed.refined == [False, False], "estimates for both"
    timed.go.set()
    timed.words.audio("C", 0, spoken(600))
    timed.words.cut("C", 0, TEXT)
    timed.words.close()
    await asyncio.sleep(0.05)
    assert len(timed.facts) == 2


async def test_audio_of_timed_parts_is_kept_for_a_few_only() -> None:
    timed = Timed()
    timed.go.set()
    for n in range(20):
        timed.words.audio(f"A{n}", 0, spoken(600 if n % 2 else 100_000))
        timed.words.generated(f"A{n}", 0, TEXT, complete=True)
        timed.words.cut(f"A{n}", 0, TEXT)
    await timed.words.drain(1)
    refined = timed.refined.count(True)
    for n in range(20):
        timed.words.generated(f"A{n}", 0, f"{TEXT} And more.", complete=True)
    await timed.words.drain(1)
    assert 0 < timed.refined.count(True) - refined <= 4, "late text is timed for these only"
    timed.words.close()


async def test_a_call_that_ends_before_the_timing_begins_leaves_nothing_behind() -> None:
    timed = Timed()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        timed.words.audio("A", 0, spoken(600))
        timed.words.generated("A", 0, TEXT, complete=True)
        timed.words.cut("A", 0, TEXT)
        timed.words.close()
        await asyncio.sleep(0.01)
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
    assert timed.asked == []


async def test_a_followed_part_is_given_up_when_its_call_ends_at_once() -> None:
    followers: list[Follower] = []
    timed = followed(followers)
    timed.words.audio("A", 0, spoken(600))
    timed.words.text("A", 0, TEXT)
    timed.words.generated("A", 0, TEXT, complete=True)
    timed.words.close()
    await asyncio.sleep(0.01)
    assert followers[0].closed
