"""Agent audio on its way to Twilio, and what an interrupt does to it."""

from __future__ import annotations

import asyncio
import base64

import pytest

from asheard.v1 import session_service_pb2
from gateway import delivery
from gateway.delivery import SOCKET_AHEAD_BYTES
from tests.gateway.call.stage import Stage
from tests.gateway.peers import until


async def test_audio_of_a_delta_is_written_at_once_in_pieces_with_a_mark_after_each(
    stage: Stage,
) -> None:
    stage.speak(500)
    media = [m["media"]["payload"] for m in stage.sink.messages if m["event"] == "media"]
    assert [len(base64.b64decode(payload)) // 8 for payload in media] == [300, 200]
    events = stage.sink.events
    assert events[0] == "mark"
    assert all(events[n + 1] == "mark" for n, event in enumerate(events) if event == "media")
    assert len(set(stage.sink.marks)) == len(stage.sink.marks)


async def test_a_clear_overtakes_audio_that_is_not_written(stage: Stage) -> None:
    stage.sink.jammed = True
    stage.speak(10_000, "item1", last=True)
    stage.speak(3_000, "item2", last=True)
    written_ms = stage.sink.audio_ms
    assert 1000 < written_ms < 2000, "no more ahead of the network than a clear may wait for"
    assert stage.sink.unsent < SOCKET_AHEAD_BYTES + 4096

    stage.interrupt()
    assert stage.sink.events[-2:] == ["clear", "mark"]
    assert stage.sink.audio_ms == written_ms
    stage.sink.take()
    await asyncio.sleep(0.03)
    assert stage.sink.audio_ms == written_ms, "what was not written never will be"
    assert stage.positions() == {"item2": (0, 0)}, "never sent, known at once"
    fence = stage.sink.marks[-1]
    stage.call.receive_mark(fence, stage.now())
    stage.media(20)
    (answer,) = stage.lane.answers
    assert [(p.item_id, p.sent_ms) for p in answer.positions] == [
        ("item2", 0),
        ("item1", written_ms),
    ]
    assert answer.interrupt_id == 1


async def test_a_backed_up_socket_gets_the_rest_when_it_moves_again(stage: Stage) -> None:
    stage.sink.jammed = True
    stage.speak(4_000)
    assert stage.sink.audio_ms < 2_000
    stage.sink.take()
    await until(lambda: stage.sink.audio_ms == 4_000, "the rest")
    stage.speak(400)
    assert stage.sink.audio_ms == 4_400


async def test_audio_after_the_end_of_its_part_is_played_though_the_part_was_fixed(
    stage: Stage,
) -> None:
    stage.speak(40, last=True)
    stage.sink.jammed, stage.sink.unsent = True, SOCKET_AHEAD_BYTES
    stage.speak(60)
    for name in list(stage.sink.marks):
        stage.call.receive_mark(name, stage.now())
    assert stage.positions() == {"item1": (40, 40)}
    stage.sink.take()
    await until(lambda: stage.sink.audio_ms == 100, "the rest")
    assert stage.ended == []


async def test_a_part_that_was_fixed_is_not_fixed_again_by_an_interrupt_of_what_came_after_its_end(
    stage: Stage,
) -> None:
    stage.speak(40, last=True)
    for name in list(stage.sink.marks):
        stage.call.receive_mark(name, stage.now())
    stage.sink.jammed, stage.sink.unsent = True, SOCKET_AHEAD_BYTES
    stage.speak(60)
    stage.interrupt()
    assert stage.positions() == {"item1": (40, 40)}, "it was heard whole"
    assert len(stage.facts("position_fixed")) == 1
    assert [len(answer.positions) for answer in stage.lane.answers] == [1, 0]


async def test_what_is_given_after_an_interrupt_does_not_wait_for_what_was_given_before(
    stage: Stage,
) -> None:
    for _ in range(61):
        stage.speak(10_000)
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    assert 590_000 < stage.sink.audio_ms <= 600_000, "Twilio's buffer is full"
    stage.interrupt()
    before_ms = stage.sink.audio_ms
    stage.speak(200, "item2")
    assert stage.sink.audio_ms == before_ms + 200


async def test_twilios_buffer_is_never_filled_beyond_ten_minutes(stage: Stage) -> None:
    for _ in range(61):
        stage.speak(10_000)
        await asyncio.sleep(0)
    await until(lambda: stage.sink.audio_ms > 590_000, "ten minutes")
    await asyncio.sleep(0.05)
    assert stage.sink.audio_ms <= 600_000


async def test_audio_without_end_is_cut_where_it_cannot_be_played_any_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_UNSENT_BYTES", 8 * 2_000)
    stage.sink.jammed = True
    for _ in range(20):
        stage.speak(1_000)
    stage.sink.take()
    await asyncio.sleep(0.05)
    stage.speak(1_000, last=True)
    stage.speak(500, "item2", last=True)
    written_ms = stage.sink.audio_ms
    assert written_ms < 5_000, "nothing is played after the gap"
    stage.call.receive_stop(stage.now())
    assert stage.positions()["item1"][1] == written_ms - 500
    unheard = stage.registry.get_sample_value("asheard_unheard_audio_seconds_total")
    assert unheard is not None and unheard > 3


async def test_an_interrupt_with_nothing_playing_clears_nothing_and_is_answered_at_once(
    stage: Stage,
) -> None:
    stage.interrupt(4)
    assert stage.sink.messages == []
    (answer,) = stage.lane.answers
    assert (answer.interrupt_id, len(answer.positions)) == (4, 0)
    assert "barged_in" not in stage.outbox.kinds


async def test_a_fence_that_never_returns_is_not_waited_for_longer_than_the_worker_does(
    stage: Stage,
) -> None:
    stage.speak(1_000)
    stage.interrupt()
    assert stage.lane.answers == []
    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(lambda: stage.lane.answers, "the answer")
    assert loop.time() - began > 0.25
    (position,) = stage.lane.answers[0].positions
    assert (position.low_ms, position.sent_ms) == (0, 1_000)
    assert "barged_in" in stage.outbox.kinds


async def test_a_long_monologue_has_few_facts(stage: Stage) -> None:
    """Twenty-five marks and more come back; those who watch the call hear of it once a second."""
    stage.speak(3_000, last=True)
    await until(lambda: stage.sink.audio_ms == 3_000, "all of it in the socket")
    for name in stage.sink.marks:
        stage.call.receive_mark(name, stage.now())
    kinds = stage.outbox.kinds
    assert kinds.count("playback_started") == kinds.count("position_fixed") == 1
    assert kinds.count("playback_progressed") <= 3


@pytest.mark.parametrize(
    ("sent_ago_us", "observed"), [(2_000, 1), (-3_600_000_000, 0), (3_600_000_000, 0), (-900, 1)]
)
async def test_wall_clocks_that_disagree_measure_no_link(
    stage: Stage, sent_ago_us: int, observed: int
) -> None:
    stage.speak(1_000)
    sent = stage.now().unix_us - sent_ago_us
    stage.call.interrupted(
        session_service_pb2.Interrupt(interrupt_id=1, sent_unix_us=sent, onset_ms=-(2**40)),
        stage.now(),
    )
    stage.call.receive_mark(stage.sink.marks[-1], stage.now())
    stage.media(20)
    await until(lambda: stage.lane.answers, "the answer")

    def count(name: str, **labels: str) -> float | None:
        return stage.registry.get_sample_value(name, labels)

    assert count("asheard_barge_in_stage_seconds_count", stage="link") == observed
    assert count("asheard_barge_in_stage_seconds_count", stage="gateway") == 1
    assert count("asheard_barge_in_latency_seconds_count") == 0, "nobody spoke 35 years ago"
    assert (count("asheard_barge_in_stage_seconds_sum", stage="link") or 0) < 10
    stage.call.receive_stop(stage.now())
