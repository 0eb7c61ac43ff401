"""One call through a whole gateway: what is on each wire, in which order."""

from __future__ import annotations

import asyncio

import pytest

from asheard.v1 import fact_pb2, transcript_pb2
from simulators.network import MarkFaults, Network, Path
from simulators.twilio.client import TwilioCaller
from simulators.twilio.script import CallerScript, Elapsed, HangUp, Step
from tests.gateway.conftest import World
from tests.gateway.peers import CALL_SID, FRAME, STREAM_SID, until


async def test_a_call_from_start_to_hang_up(running: World) -> None:
    end = await running.connect()
    await end.start({"from": "+15550100", "to": "+15550199", "theirs": 7})
    await until(lambda: running.worker.opened, "the worker has the call")
    assert running.worker.opened == [(1, CALL_SID, STREAM_SID)]
    for _ in range(10):
        await end.media()
    await until(lambda: len(running.worker.audio.get(1, ())) == 10, "the caller is heard")
    heard = running.worker.audio[1]
    assert [frame.media_ms for frame in heard] == list(range(20, 220, 20))
    assert {frame.payload for frame in heard} == {FRAME.encode()}

    running.worker.speak("item1", 500, last=True)
    marks = await end.receive_audio(500)
    assert [message["event"] for message in end.received].count("media") == 3
    assert end.received[0]["event"] == "mark", "a start mark before the first audio"
    for name in marks:
        await end.media()
        await end.echo(name)
    await until(lambda: running.worker.positions, "the worker knows that the item was played")
    (played,) = running.worker.positions
    assert (played.interrupt_id, played.cause) == (0, fact_pb2.POSITION_CAUSE_PLAYED)
    assert [(p.item_id, p.best_ms) for p in played.positions] == [("item1", 500)]

    await end.send("dtmf", dtmf={"track": "inbound_track", "digit": "4"})
    await until(lambda: running.worker.keys == ["4"], "the key")
    await end.stop()
    assert await end.close_code() == 1000
    await running.ended()
    assert running.worker.closed == {1: fact_pb2.CALL_OUTCOME_COMPLETED}
    assert running.metric("asheard_calls_total", outcome="completed") == 1
    assert running.metric("asheard_active_calls") == 0
    assert running.metric("asheard_sent_audio_seconds_total") == 0.5
    assert running.metric("asheard_heard_audio_seconds_total") == 0.5

    facts = running.transcript.facts
    assert {(fact.call_sid, fact.writer) for fact in facts} == {(CALL_SID, f"gateway/{STREAM_SID}")}
    assert [fact.sequence for fact in facts] == list(range(1, len(facts) + 1))
    kinds = running.transcript.kinds()
    assert kinds[:2] == ["call_started", "session_assigned"]
    assert kinds[-1] == "call_ended"
    assert kinds.count("position_fixed") == kinds.count("playback_started") == 1
    started = running.transcript.only("call_started")
    assert (started.from_number, started.to_number) == ("+15550100", "+15550199")
    assert started.account_sid == "AC1"
    fixed = running.transcript.only("position_fixed").position
    assert fixed.evidence.rule == transcript_pb2.POSITION_RULE_PLAYED_TO_END
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_COMPLETED


async def test_a_barge_in(running: World) -> None:
    """``clear`` and the fence at once; positions when the fence is back; the latency by the
    media clock alone."""
    end = await running.call()
    running.worker.speak("item1", 1000)
    marks = await end.receive_audio(1000)
    await end.pace(1000, 1000)
    await end.echo(marks[0])  # begins to play at 1000
    await end.pace(1020, 1300)
    await end.echo(marks[1])  # 300 ms are played
    await end.pace(1320, 1380)
    await until(lambda: len(running.worker.audio.get(1, ())) == 20, "the media is through")

    running.worker.interrupt(1, onset_ms=1300)
    assert (await end.receive())["event"] == "clear"
    fence = (await end.receive())["mark"]["name"]
    await end.pace(1400, 1400)
    for name in [*marks[2:], fence]:
        await end.echo(name)
    await until(lambda: running.worker.positions, "the positions")
    (answer,) = running.worker.positions
    assert (answer.interrupt_id, answer.cause) == (1, fact_pb2.POSITION_CAUSE_CLEARED)
    (position,) = answer.positions
    assert position.item_id == "item1"
    assert position.sent_ms == 1000
    assert position.low_ms <= 400 <= position.high_ms
    assert abs(position.best_ms - 400) <= 20

    await end.stop()
    await running.ended()
    barge_in = running.transcript.only("barged_in")
    assert barge_in.onset_ms == 1300
    assert abs(barge_in.flushed_at_ms - 1400) <= 20
    assert (barge_in.detection_us, barge_in.worker_us) == (200_000, 300)
    assert barge_in.gateway_us >= 0 and barge_in.twilio_us > 0 and barge_in.link_us > 0
    assert running.metric("asheard_barge_in_latency_seconds_count") == 1
    assert abs(running.metric("asheard_barge_in_latency_seconds_sum") - 0.1) <= 0.02
    for stage in ("detection", "worker", "link", "gateway", "twilio"):
        assert running.metric("asheard_barge_in_stage_seconds_count", stage=stage) == 1
    assert abs(running.metric("asheard_unheard_audio_seconds_total") - 0.6) <= 0.02
    traced = [event for trace in running.transcript.all("playout_traced") for event in trace.events]
    assert traced[0].kind == fact_pb2.PLAYOUT_EVENT_KIND_SENT
    assert fact_pb2.PLAYOUT_EVENT_KIND_CLEARED in [event.kind for event in traced]
    fixed = running.transcript.only("position_fixed")
    assert fixed.position == position and fixed.interrupt_id == 1


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(to_server=Path(80, 40), from_server=Path(60, 40), marks=MarkFaults(lost=0.2)),
    ],
    ids=["perfect", "delayed, with marks lost"],
)
async def test_against_the_simulated_twilio_the_position_is_what_was_played(
    running: World, network: Network
) -> None:
    """Webhook, TwiML, stream, barge-in in mid-sentence, hang-up, and the carrier's own truth."""
    script = CallerScript(end=Step(HangUp(), Elapsed(1_500)))
    caller = TwilioCaller(f"{running.url}/twilio/voice", script, network=network)
    call = asyncio.create_task(caller.run())
    await until(lambda: running.worker.opened, "the call")
    running.worker.speak("item1", 4_000)
    await until(lambda: len(running.worker.audio.get(1, ())) >= 35, "0.7 s of the call")
    running.worker.interrupt(1)
    await until(lambda: running.worker.positions, "the positions")
    truth = await call
    (position,) = running.worker.positions[0].positions
    assert position.low_ms <= truth.played_ms <= position.high_ms
    assert abs(position.best_ms - truth.played_ms) <= 60
    assert truth.warnings == [] and truth.ending == "hung_up"
    await running.ended()
    assert running.transcript.only("call_started").from_number == script.from_number
    heard = running.worker.audio[1]
    assert [b.media_ms - a.media_ms for a, b in zip(heard, heard[1:], strict=False)] == [20] * (
        len(heard) - 1
    )
    assert len(heard) == truth.frames_sent
