"""The pool of worker processes: answers, bounds, deadlines, and workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.words.speech import piece
from words import wire
from words.aligner.item import ItemAligner
from words.pool import AlignerPool, extended
from words.timing import Method, Speech
from words.tokenize import tokenize
from words.worker import Worker


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[AlignerPool]:
    made = AlignerPool(max_items=2)
    await made.start()
    yield made
    await made.close()


def the_process(pool: AlignerPool) -> int:
    (pid,) = pool.processes
    return pid


async def test_a_followed_item_is_refined(pool: AlignerPool) -> None:
    known = piece("en_card")
    item = pool.open("en")
    assert item is not None
    item.add_text(known.text)
    for k in range(0, len(known.ulaw), 1600):
        item.add_audio(known.ulaw[k : k + 1600])
    times = await item.finish(complete=True, deadline_s=20)
    aligner = ItemAligner("en")
    aligner.add_text(known.text)
    aligner.add_audio(known.ulaw)
    assert times is not None
    assert times.method is Method.ALIGNED
    for ours, whole in zip(times.words, aligner.finish().words, strict=True):
        assert abs(ours.end_ms - whole.end_ms) <= 40


async def test_the_estimate_is_there_at_once_and_becomes_an_alignment(pool: AlignerPool) -> None:
    known = piece("en_card")
    item = pool.open("en")
    assert item is not None
    item.add_text(known.text)
    item.add_audio(known.until(3000))
    first = item.estimate()
    assert first.method is Method.PROPORTIONAL
    assert first.audio_ms == 3000
    async with asyncio.timeout(20):
        while item.latest is None:
            await asyncio.sleep(0.01)
    then = item.estimate()
    assert then.method is Method.ALIGNED
    assert [w.text for w in then.words] == known.words
    item.close()


async def test_a_whole_item(pool: AlignerPool) -> None:
    known = piece("es_balance")
    times = await pool.refine(Speech(known.text, known.ulaw, "es"), deadline_s=20)
    assert times is not None
    assert [w.text for w in times.words] == known.words


async def test_a_full_pool_says_so_at_once(pool: AlignerPool) -> None:
    items = [pool.open("en") for _ in range(3)]
    assert [item is None for item in items] == [False, False, True]
    assert await pool.refine(Speech("hello", b"\xff" * 800)) is None
    assert items[0] is not None
    items[0].close()
    assert pool.open("en") is not None


async def test_a_deadline_that_passes(pool: AlignerPool) -> None:
    os.kill(the_process(pool), signal.SIGSTOP)
    try:
        item = pool.open("en")
        assert item is not None
        assert await item.finish(complete=True, deadline_s=0.05) is None
    finally:
        os.kill(the_process(pool), signal.SIGCONT)


async def test_a_worker_that_dies_is_replaced(pool: AlignerPool) -> None:
    known = piece("it_calm")
    item = pool.open("it")
    assert item is not None
    os.kill(the_process(pool), signal.SIGKILL)
    assert await item.finish(complete=True, deadline_s=20) is None
    assert item.estimate().words == ()
    speech = Speech(known.text, known.ulaw, "it")
    async with asyncio.timeout(30):
        while (times := await pool.refine(speech, deadline_s=20)) is None:
            await asyncio.sleep(0.05)
    assert times.method is Method.ALIGNED


async def test_what_comes_after_a_worker_died_is_dropped(pool: AlignerPool) -> None:
    item = pool.open("en")
    assert item is not None
    os.kill(the_process(pool), signal.SIGKILL)
    async with asyncio.timeout(20):
        while not item.answer.done():
            await asyncio.sleep(0.01)
    item.add_text("still there? ")
    item.add_audio(b"\xff" * 160)
    assert [w.text for w in item.estimate().words] == ["still", "there?"]


async def test_a_closed_pool_has_no_room() -> None:
    pool = AlignerPool()
    assert pool.open("en") is None  # not started
    await pool.start()
    item = pool.open("en")
    assert item is not None
    await pool.close()
    assert pool.open("en") is None
    assert await item.finish(complete=True) is None
    await pool.close()


@pytest.mark.parametrize("bad", [{"workers": 0}, {"max_items": 0}])
def test_a_pool_has_workers_and_room(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        AlignerPool(**bad)


def test_the_estimate_goes_on_behind_what_the_worker_knew() -> None:
    text = "one two three four"
    aligner = ItemAligner("en")
    aligner.add_words(["one", "two"])
    known = aligner.finish(complete=False)
    longer = extended(known, tokenize(text), 900)
    assert [w.text for w in longer.words] == text.split()
    assert longer.words[:2] == known.words
    assert longer.words[3].end_ms > longer.words[3].start_ms >= longer.words[2].end_ms
    assert longer.audio_ms == 900


# -- the worker without a process -----------------------------------------------------------------


def test_a_last_answer_comes_before_other_work() -> None:
    known = piece("en_card")
    worker = Worker()
    for number in (1, 2):
        worker.receive(wire.Open(number, "en"))
        worker.receive(wire.Text(number, known.text))
        worker.receive(wire.Audio(number, known.ulaw))
    worker.receive(wire.Finish(2, True))
    worker.work()
    (answer,) = worker.to_send
    assert isinstance(answer, wire.Times)
    assert (answer.item, answer.final) == (2, True)
    assert not worker.idle


def test_an_item_that_fails_is_told_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ItemAligner, complete: bool = True) -> None:
        raise RuntimeError("your total is nine dollars")

    monkeypatch.setattr(ItemAligner, "finish", fail)
    worker = Worker()
    worker.receive(wire.Open(7, "en"))
    worker.receive(wire.Finish(7, True))
    worker.work()
    assert worker.to_send == [wire.Failed(7, "RuntimeError")]  # the kind, never the text
    assert worker.idle
    worker.receive(wire.Audio(7, b"\xff" * 160))  # late: dropped


def test_messages_survive_the_pipe_in_any_pieces() -> None:
    messages: list[wire.ToWorker] = [
        wire.Open(1, "en"),
        wire.Text(1, "é"),
        wire.Audio(1, b"\x00\xff" * 99),
    ]
    data = b"".join(wire.encode(message) for message in messages)
    framer = wire.Framer()
    found = [m for k in range(len(data)) for m in framer.feed(data[k : k + 1])]
    assert [wire.decode_to_worker(m) for m in found] == messages


def test_a_pipe_out_of_step_is_noticed() -> None:
    with pytest.raises(ValueError, match="out of step"):
        wire.Framer().feed(b"\xff\xff\xff\xff")
