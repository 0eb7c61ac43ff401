"""Every way out of a call, and what it leaves behind."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from asheard.v1 import fact_pb2
from gateway.delivery import FINISH_MARGIN_US
from gateway.playout.stretch import OVERDUE_US
from gateway.presence import STOP_WAIT_US
from tests.gateway.call.stage import Stage


async def test_a_finished_session_ends_the_call_when_the_last_mark_is_back(stage: Stage) -> None:
    stage.speak(400, last=True)
    stage.finish()
    *others, last = stage.sink.marks
    for name in others:
        stage.call.receive_mark(name, stage.now())
    assert stage.ended == [], "the goodbye is not cut off"
    stage.call.receive_mark(last, stage.now())
    assert stage.ended == [("CA1", "ENDED_BY_AGENT", 1000)]
    assert stage.positions() == {"item1": (400, 400)}
    assert stage.lane.outcome == fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT
    assert stage.outbox.kinds[-1] == "call_ended"


async def test_a_finished_session_with_nothing_to_play_ends_the_call_at_once(stage: Stage) -> None:
    stage.finish(fact_pb2.CALL_OUTCOME_MODEL_FAILED)
    assert stage.ended == [("CA1", "MODEL_FAILED", 1000)]


@pytest.mark.parametrize("told", [False, True])
async def test_told_is_who_heard_the_goodbye_to_its_end(stage: Stage, told: bool) -> None:
    stage.speak(400, "notice_1", last=True)
    stage.finish(fact_pb2.CALL_OUTCOME_MODEL_FAILED, told=told)
    *others, last = stage.sink.marks
    for name in others:
        stage.call.receive_mark(name, stage.now())
    assert not stage.call.told
    stage.call.receive_mark(last, stage.now())
    assert stage.ended == [("CA1", "MODEL_FAILED", 1000)]
    assert stage.call.told is told


async def test_who_could_not_hear_the_goodbye_is_not_told(stage: Stage) -> None:
    stage.sink.jammed = True
    stage.speak(3_000, "notice_1", last=True)
    stage.finish(fact_pb2.CALL_OUTCOME_MODEL_FAILED, told=True)
    await asyncio.sleep(3.01 + FINISH_MARGIN_US / 1e6)
    assert stage.ended == [("CA1", "MODEL_FAILED", 1000)]
    assert not stage.call.told


async def test_a_last_mark_that_never_returns_does_not_hold_the_call_for_ever(
    stage: Stage,
) -> None:
    stage.speak(100, last=True)
    stage.finish()
    await asyncio.sleep(0.09 + OVERDUE_US / 1e6)
    assert stage.ended == []
    await asyncio.sleep(0.02)
    assert stage.ended == [("CA1", "ENDED_BY_AGENT", 1000)]


async def test_a_socket_that_takes_nothing_does_not_hold_a_finished_call_for_ever(
    stage: Stage,
) -> None:
    stage.sink.jammed = True
    stage.speak(3_000, last=True)
    stage.finish()
    await asyncio.sleep(2.99 + FINISH_MARGIN_US / 1e6)
    assert stage.ended == []
    await asyncio.sleep(0.02)
    assert stage.ended == [("CA1", "ENDED_BY_AGENT", 1000)]


@pytest.mark.parametrize(
    ("finished", "outcome"),
    [
        (None, "COMPLETED"),
        (fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, "COMPLETED"),
        (fact_pb2.CALL_OUTCOME_MODEL_FAILED, "MODEL_FAILED"),
    ],
)
async def test_a_hang_up_in_mid_sentence_fixes_every_position(
    stage: Stage, finished: fact_pb2.CallOutcome.ValueType | None, outcome: str
) -> None:
    stage.sink.jammed = True
    stage.speak(5_000, "item1")
    stage.speak(500, "item2")
    if finished is not None:
        stage.finish(finished)
    stage.call.receive_stop(stage.now())
    assert stage.ended == [("CA1", outcome, 1000)]
    assert set(stage.positions()) == {"item1", "item2"}
    told = [p.item_id for answer in stage.lane.answers for p in answer.positions]
    assert sorted(told) == ["item1", "item2"]
    causes = {fixed.cause for fixed in stage.facts("position_fixed")}
    assert fact_pb2.POSITION_CAUSE_HUNG_UP in causes
    assert stage.outbox.kinds[-1] == "call_ended"
    assert stage.metric("asheard_active_calls") == 0
    unheard = stage.metric("asheard_unheard_audio_seconds_total")
    assert unheard == pytest.approx(5.5, abs=0.1)
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
    assert len(stage.ended) == 1, "it ends once"


async def test_a_stream_that_is_over_by_twilios_callback_alone_was_lost(
    stage: Stage,
) -> None:
    stage.speak(5_000, "item1")
    stage.call.stream_stopped(stage.now())
    await asyncio.sleep(STOP_WAIT_US / 1e6 - 0.01)
    stage.call.stream_stopped(stage.now())
    assert stage.ended == [], "its own stop may be on its way"
    await asyncio.sleep(0.02)
    assert stage.ended == [("CA1", "DROPPED", 1000)], "the call may go on in another stream"
    causes = [fixed.cause for fixed in stage.facts("position_fixed")]
    assert causes == [fact_pb2.POSITION_CAUSE_DROPPED]
    stage.call.stream_stopped(stage.now())
    stage.call.call_over(stage.now())
    assert len(stage.ended) == 1, "it ends once"


async def test_a_call_that_is_over_by_twilios_callback_ends_as_by_its_stop(stage: Stage) -> None:
    stage.speak(5_000, "item1")
    stage.call.stream_stopped(stage.now())
    stage.call.call_over(stage.now())
    assert stage.ended == [("CA1", "COMPLETED", 1000)]
    causes = [fixed.cause for fixed in stage.facts("position_fixed")]
    assert causes == [fact_pb2.POSITION_CAUSE_HUNG_UP]


async def test_a_socket_that_is_lost_after_a_callback_was_lost(stage: Stage) -> None:
    """Twilio calls a stream over as well when it lost the socket: then the call goes on."""
    stage.call.stream_stopped(stage.now())
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
    await asyncio.sleep(2 * STOP_WAIT_US / 1e6)
    assert stage.ended == [("CA1", "DROPPED", 1000)]


async def test_an_error_that_twilio_reports_ends_no_stream_that_goes_on(
    stage: Stage,
) -> None:
    stage.call.stream_failed(stage.now())
    for ms in range(20, 4_000, 20):
        await asyncio.sleep(0.02)
        stage.media(ms)
    assert stage.ended == []
    stage.call.stream_failed(stage.now())
    await asyncio.sleep(STOP_WAIT_US / 1e6)
    assert stage.ended == [("CA1", "DROPPED", 1000)], "nothing more came"


async def test_a_call_that_is_over_by_twilios_callback_ends_at_once(stage: Stage) -> None:
    stage.speak(5_000, "item1")
    stage.call.call_over(stage.now())
    assert stage.ended == [("CA1", "COMPLETED", 1000)]


async def test_a_lost_link_is_a_fact_and_ends_the_call(stage: Stage) -> None:
    stage.speak(500)
    stage.call.session_lost("the wire was cut", stage.now())
    assert stage.ended == [("CA1", "SESSION_LOST", 1011)]
    (lost,) = stage.facts("session_lost")
    assert (lost.session_writer, lost.reason) == ("session/1", "the wire was cut")
    assert stage.outbox.kinds[-1] == "call_ended"


async def test_audio_and_timers_after_the_end_do_nothing(stage: Stage) -> None:
    stage.speak(1_000)
    stage.interrupt()
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
    messages, facts = len(stage.sink.messages), len(stage.outbox.facts)
    answers = [answer.interrupt_id for answer in stage.lane.answers]
    assert answers == [1], "the worker is not left waiting"
    stage.speak(100)
    await asyncio.sleep(0.35)
    assert (len(stage.sink.messages), len(stage.outbox.facts)) == (messages, facts)


async def test_a_stream_ends_as_long_after_its_start_as_it_lasted_whatever_the_clock_is_set_to() -> (
    None
):
    stage = Stage(stream="3")
    await asyncio.sleep(5)
    at = stage.now()
    hour_us = 3600 * 10**6
    stage.call.receive_stop(msgspec.structs.replace(at, unix_us=at.unix_us - hour_us))
    (started,) = stage.facts("call_started")
    (ended,) = stage.facts("call_ended")
    lasted_ns = ended.end_time.ToNanoseconds() - started.start_time.ToNanoseconds()
    assert lasted_ns == 5 * 10**9
    assert started.stream_number == 3


@pytest.mark.parametrize(("number", "known"), [("", 0), ("-1", 0), ("1e3", 0), ("99999", 0)])
async def test_a_foreign_stream_number_is_none(number: str, known: int) -> None:
    stage = Stage(stream=number)
    (started,) = stage.facts("call_started")
    assert started.stream_number == known
    stage.call.receive_stop(stage.now())


async def test_dropped_caller_audio_is_counted(stage: Stage) -> None:
    for ms in range(0, 20 * 253, 20):
        stage.media(ms)
    assert stage.metric("asheard_caller_frames_dropped_total") == 3
