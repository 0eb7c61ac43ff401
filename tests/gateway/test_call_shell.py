"""The call between fake peers, where a test holds the socket back and looks at every byte."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from websockets.frames import Frame
from websockets.streams import StreamReader

from asheard.v1 import fact_pb2, session_service_pb2
from gateway import delivery, presence
from gateway.call import Call, CallServices
from gateway.delivery import SOCKET_AHEAD_BYTES
from gateway.instant import Instant, now
from gateway.lane import Lane, LaneListener
from gateway.metrics import GatewayMetrics
from gateway.twilio.messages import MediaDetails, Start, StartDetails
from runtime.facts import FactOutbox
from tests.gateway.peers import FRAME, speech, until


class Sink:
    """A socket whose network takes nothing until it is told to."""

    def __init__(self) -> None:
        self.jammed = False
        self.unsent = 0
        self.messages: list[dict[str, Any]] = []
        self._reader = StreamReader()

    def abort(self) -> None:
        raise AssertionError("no call of these tests is beyond help")

    def write(self, frames: bytes) -> None:
        self.unsent += len(frames) if self.jammed else 0
        self._reader.feed_data(frames)
        while self._reader.buffer:
            parser = Frame.parse(self._reader.read_exact, mask=False)
            try:
                next(parser)
            except StopIteration as done:
                self.messages.append(json.loads(done.value.data))

    def unsent_bytes(self) -> int:
        return self.unsent

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]

    @property
    def audio_ms(self) -> int:
        return (
            sum(
                len(base64.b64decode(message["media"]["payload"]))
                for message in self.messages
                if message["event"] == "media"
            )
            // 8
        )

    @property
    def marks(self) -> list[str]:
        return [m["mark"]["name"] for m in self.messages if m["event"] == "mark"]


class RecordingLane(Lane):
    def __init__(self, listener: LaneListener, call_sid: str, stream_sid: str) -> None:
        super().__init__(listener, call_sid, stream_sid)
        self.controls: list[session_service_pb2.GatewayControl] = []

    def send(self, control: session_service_pb2.GatewayControl) -> None:
        assert self.outcome is None, "nothing after the end"
        self.controls.append(control)

    @property
    def answers(self) -> list[session_service_pb2.PositionsFixed]:
        return [c.positions_fixed for c in self.controls if c.HasField("positions_fixed")]


class Outbox(FactOutbox):
    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("nowhere", registry)
        self.facts: list[fact_pb2.Fact] = []

    def post(self, call_sid: str, writer: str, sequence: int, body: dict[str, Any]) -> None:
        self.facts.append(
            fact_pb2.Fact(call_sid=call_sid, writer=writer, sequence=sequence, **body)
        )

    @property
    def kinds(self) -> list[str]:
        return [str(fact.WhichOneof("body")) for fact in self.facts]


class Stage:
    """One call with everything around it in a test's hands."""

    def __init__(self, **parameters: str) -> None:
        self.registry = CollectorRegistry()
        self.sink = Sink()
        self.outbox = Outbox(self.registry)
        self.ended: list[tuple[str, str, int]] = []
        self.lane: RecordingLane
        self.shift_us = 0
        """How much later it is for the call than for us."""
        services = CallServices(self, self.outbox, GatewayMetrics(self.registry), self.now)
        start = Start(
            stream_sid="MZ1", start=StartDetails(call_sid="CA1", custom_parameters=parameters)
        )
        self.call = Call(start, self.sink, services, at=self.now(), on_end=self._on_end)
        self.call.session_accepted("session/1")

    def place(self, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        self.lane = RecordingLane(listener, call_sid, stream_sid)
        return self.lane

    def announce_stopped(self, call_sid: str, stream_sid: str) -> None:
        raise AssertionError("a call does not tell others")

    def now(self) -> Instant:
        at = now()
        return at._replace(mono_us=at.mono_us + self.shift_us)

    def _on_end(
        self, call_sid: str, outcome: fact_pb2.CallOutcome.ValueType, code: int, reason: str
    ) -> None:
        self.ended.append((call_sid, fact_pb2.CallOutcome.Name(outcome)[13:], code))

    def speak(self, ms: int, item_id: str = "item1", *, last: bool = False) -> None:
        self.call.agent_audio(item_id, 0, speech(ms), last, self.now())

    def interrupt(self, interrupt_id: int = 1) -> None:
        self.call.interrupted(session_service_pb2.Interrupt(interrupt_id=interrupt_id), self.now())

    def finish(
        self,
        outcome: fact_pb2.CallOutcome.ValueType = fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT,
    ) -> None:
        self.call.session_finished(session_service_pb2.CallFinished(outcome=outcome), self.now())

    def media(self, timestamp_ms: int) -> None:
        self.call.receive_media(MediaDetails(timestamp=timestamp_ms, payload=FRAME), self.now())

    @property
    def events_traced(self) -> int:
        """How many inputs of the playhead facts hold."""
        return sum(len(fact.playout_traced.events) for fact in self.outbox.facts)

    def positions(self) -> dict[str, tuple[int, int]]:
        """best_ms and sent_ms of each item that has a fact of it."""
        return {
            fact.position_fixed.position.item_id: (
                fact.position_fixed.position.best_ms,
                fact.position_fixed.position.sent_ms,
            )
            for fact in self.outbox.facts
            if fact.WhichOneof("body") == "position_fixed"
        }


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_audio_of_a_delta_is_written_at_once_in_pieces_with_a_mark_behind_each(
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
    stage.sink.jammed, stage.sink.unsent = False, 0
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
    stage.sink.jammed, stage.sink.unsent = False, 0
    await until(lambda: stage.sink.audio_ms == 4_000, "the rest")
    stage.speak(400)
    assert stage.sink.audio_ms == 4_400


async def test_audio_behind_the_end_of_its_part_is_played_though_the_part_was_fixed(
    stage: Stage,
) -> None:
    stage.speak(40, last=True)
    stage.sink.jammed, stage.sink.unsent = True, SOCKET_AHEAD_BYTES
    stage.speak(60)
    for name in list(stage.sink.marks):
        stage.call.receive_mark(name, stage.now())
    assert stage.positions() == {"item1": (40, 40)}
    stage.sink.jammed, stage.sink.unsent = False, 0
    await until(lambda: stage.sink.audio_ms == 100, "the rest")
    assert stage.ended == []


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
    stage.sink.jammed, stage.sink.unsent = False, 0
    await asyncio.sleep(0.05)
    stage.speak(1_000, last=True)
    stage.speak(500, "item2", last=True)
    written_ms = stage.sink.audio_ms
    assert written_ms < 5_000, "nothing is played behind the gap"
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


async def test_a_last_mark_that_never_returns_does_not_hold_the_call_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FINISH_MARGIN_US", 50_000)
    stage.speak(100, last=True)
    stage.finish()
    assert stage.ended == []
    await until(lambda: stage.ended, "the end")
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
    causes = {
        fact.position_fixed.cause for fact in stage.outbox.facts if fact.HasField("position_fixed")
    }
    assert fact_pb2.POSITION_CAUSE_HUNG_UP in causes
    assert stage.outbox.kinds[-1] == "call_ended"
    assert stage.registry.get_sample_value("asheard_active_calls") == 0
    unheard = stage.registry.get_sample_value("asheard_unheard_audio_seconds_total")
    assert unheard == pytest.approx(5.5, abs=0.1)
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
    assert len(stage.ended) == 1, "it ends once"


async def test_a_stream_that_is_over_by_twilios_callback_alone_was_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "STOP_WAIT_US", 20_000)
    stage.speak(5_000, "item1")
    stage.call.stream_stopped(stage.now())
    stage.call.stream_stopped(stage.now())
    assert stage.ended == [], "its own stop may be on its way"
    await until(lambda: stage.ended, "the end")
    assert stage.ended == [("CA1", "DROPPED", 1000)], "the call may go on in another stream"
    causes = [
        fact.position_fixed.cause for fact in stage.outbox.facts if fact.HasField("position_fixed")
    ]
    assert causes == [fact_pb2.POSITION_CAUSE_DROPPED]
    stage.call.stream_stopped(stage.now())
    stage.call.call_over(stage.now())
    assert len(stage.ended) == 1, "it ends once"


async def test_a_call_that_is_over_by_twilios_callback_ends_as_by_its_stop(stage: Stage) -> None:
    stage.speak(5_000, "item1")
    stage.call.stream_stopped(stage.now())
    stage.call.call_over(stage.now())
    assert stage.ended == [("CA1", "COMPLETED", 1000)]
    causes = [
        fact.position_fixed.cause for fact in stage.outbox.facts if fact.HasField("position_fixed")
    ]
    assert causes == [fact_pb2.POSITION_CAUSE_HUNG_UP]


async def test_a_socket_that_is_lost_behind_a_callback_was_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twilio calls a stream over as well when it lost the socket: then the call goes on."""
    monkeypatch.setattr(presence, "STOP_WAIT_US", 20_000)
    stage.call.stream_stopped(stage.now())
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())
    await asyncio.sleep(0.05)
    assert stage.ended == [("CA1", "DROPPED", 1000)]


async def test_an_error_that_twilio_reports_ends_no_stream_that_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "STOP_WAIT_US", 200_000)
    stage.call.stream_failed(stage.now())
    for ms in range(20, 400, 20):
        await asyncio.sleep(0.02)
        stage.media(ms)
    assert stage.ended == []
    stage.call.stream_failed(stage.now())
    await until(lambda: stage.ended, "nothing more came")
    assert stage.ended == [("CA1", "DROPPED", 1000)]


async def test_a_call_that_is_over_by_twilios_callback_ends_at_once(stage: Stage) -> None:
    stage.speak(5_000, "item1")
    stage.call.call_over(stage.now())
    assert stage.ended == [("CA1", "COMPLETED", 1000)]


async def test_a_lost_link_is_a_fact_and_ends_the_call(stage: Stage) -> None:
    stage.speak(500)
    stage.call.session_lost("the wire was cut", stage.now())
    assert stage.ended == [("CA1", "SESSION_LOST", 1011)]
    (lost,) = [fact.session_lost for fact in stage.outbox.facts if fact.HasField("session_lost")]
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


async def test_dropped_caller_audio_is_counted(stage: Stage) -> None:
    for ms in range(0, 20 * 253, 20):
        stage.media(ms)
    assert stage.registry.get_sample_value("asheard_caller_frames_dropped_total") == 3


async def test_a_long_monologue_has_few_facts(stage: Stage) -> None:
    """Twenty-five marks and more come back; those who watch the call hear of it once a second."""
    stage.speak(3_000, last=True)
    await until(lambda: stage.sink.audio_ms == 3_000, "all of it in the socket")
    for name in stage.sink.marks:
        stage.call.receive_mark(name, stage.now())
    kinds = stage.outbox.kinds
    assert kinds.count("playback_started") == kinds.count("position_fixed") == 1
    assert kinds.count("playback_progressed") <= 3


async def test_a_peer_that_says_nothing_is_asked_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "QUIET_US", 100_000)
    monkeypatch.setattr(presence, "ANSWER_US", 100_000)
    stage = Stage()
    for _ in range(3):  # the answer to a question is as good as media
        asked = len(stage.sink.marks)
        await until(lambda n=asked: len(stage.sink.marks) > n, "the question")  # type: ignore[misc]
        stage.call.receive_mark(stage.sink.marks[-1], stage.now())
    assert stage.ended == []
    stage.media(20)
    await until(lambda: stage.ended, "the end")
    assert stage.ended == [("CA1", "DROPPED", 1008)]
    assert stage.sink.marks == ["w1", "w2", "w3", "w4"]
    assert stage.registry.get_sample_value("asheard_twilio_vanished_total") == 1
    odd = "asheard_twilio_odd_echoes_total"
    assert stage.registry.get_sample_value(odd, {"kind": "unknown"}) == 0


async def test_marks_that_never_return_need_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "QUIET_US", 100_000)
    monkeypatch.setattr(presence, "ANSWER_US", 100_000)
    stage = Stage()
    stage.speak(5_000)
    await until(lambda: stage.ended, "the end")
    assert stage.ended == [("CA1", "DROPPED", 1008)]
    assert not any(name.startswith("w") for name in stage.sink.marks)
    (low, sent) = stage.positions()["item1"]
    assert 0 < low < sent or low == 0


async def test_a_process_that_stood_still_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "QUIET_US", 50_000)
    monkeypatch.setattr(presence, "ANSWER_US", 50_000)
    monkeypatch.setattr(presence, "STOOD_STILL_US", 100_000)
    stage = Stage()
    await until(lambda: stage.sink.marks, "the question")
    time.sleep(0.3)  # and the answer waits in the socket
    await asyncio.sleep(0)
    assert stage.ended == []
    stage.call.receive_mark(stage.sink.marks[-1], stage.now())
    await asyncio.sleep(0.11)
    assert stage.ended == []
    stage.call.end(fact_pb2.CALL_OUTCOME_DROPPED, 1000, "", stage.now())


async def test_a_stream_ends_as_long_after_its_start_as_it_lasted_whatever_the_clock_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(stream="3")
    hour_ns = 3600 * 10**9
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - hour_ns)
    stage.call.receive_stop(stage.now())
    (started,) = [f.call_started for f in stage.outbox.facts if f.HasField("call_started")]
    (ended,) = [f.call_ended for f in stage.outbox.facts if f.HasField("call_ended")]
    lasted_ns = ended.end_time.ToNanoseconds() - started.start_time.ToNanoseconds()
    assert 0 < lasted_ns < 30 * 10**9
    assert started.stream_number == 3


@pytest.mark.parametrize(("number", "known"), [("", 0), ("-1", 0), ("1e3", 0), ("99999", 0)])
async def test_a_foreign_stream_number_is_none(number: str, known: int) -> None:
    stage = Stage(stream=number)
    (started,) = [f.call_started for f in stage.outbox.facts if f.HasField("call_started")]
    assert started.stream_number == known
    stage.call.receive_stop(stage.now())


@pytest.mark.parametrize(
    ("sent_ago_us", "observed"), [(2_000, 1), (-3_600_000_000, 0), (3_600_000_000, 0), (-900, 1)]
)
async def test_wall_clocks_that_disagree_measure_no_link(
    stage: Stage, sent_ago_us: int, observed: int
) -> None:
    stage.speak(1_000)
    sent = time.time_ns() // 1000 - sent_ago_us
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
