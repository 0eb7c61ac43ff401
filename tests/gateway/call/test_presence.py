"""A peer that says nothing, seen from its call."""

from __future__ import annotations

import asyncio

from asheard.v1 import fact_pb2
from gateway.presence import ANSWER_US, QUIET_US
from tests.gateway.call.stage import Stage
from tests.gateway.virtual_time import VirtualLoop


async def test_a_peer_that_says_nothing_is_asked_and_then_given_up(
    stage: Stage,
) -> None:
    for asked in range(3):  # the answer to a question is as good as media
        assert len(stage.sink.marks) == asked
        await asyncio.sleep(QUIET_US / 1e6 + 0.01)
        stage.call.receive_mark(stage.sink.marks[-1], stage.now())
    assert stage.ended == []
    stage.media(20)
    await asyncio.sleep((QUIET_US + ANSWER_US) / 1e6 - 0.01)
    assert stage.ended == []
    await asyncio.sleep(0.02)
    assert stage.ended == [("CA1", "DROPPED", 1008)]
    assert stage.sink.marks == ["w1", "w2", "w3", "w4"]
    assert stage.metric("asheard_twilio_vanished_total") == 1
    assert stage.metric("asheard_twilio_odd_echoes_total", kind="unknown") == 0


async def test_marks_that_never_return_need_no_question(stage: Stage) -> None:
    stage.speak(30_000)
    await asyncio.sleep((QUIET_US + ANSWER_US) / 1e6 + 0.01)
    assert stage.ended == [("CA1", "DROPPED", 1008)]
    assert not any(name.startswith("w") for name in stage.sink.marks)
    (low, sent) = stage.positions()["item1"]
    assert 0 < low < sent or low == 0


async def test_a_process_that_stood_still_blames_nobody(stage: Stage) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await asyncio.sleep(QUIET_US / 1e6 + 0.01)
    assert stage.sink.marks == ["w1"]
    loop.stand_still(60)  # and the answer waits in the socket
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert stage.ended == []
    stage.call.receive_mark(stage.sink.marks[-1], stage.now())
    await asyncio.sleep(1.1)
    assert stage.ended == []
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
