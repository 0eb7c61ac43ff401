"""Whole calls through three real processes, with simulators at both ends."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import pytest

from asheard.v1 import transcript_pb2
from cli.local import local_system
from cli.system import clean_environment
from gateway.playout import replay
from gateway.playout.positions import PositionFixed
from simulators.network import Network, Path
from simulators.realtime.faults import TurnFault
from simulators.realtime.script import AgentScript, Failure, Hearing, Reply, Speak, say
from simulators.realtime.script import bakery as bakery_agent
from simulators.twilio import TwilioCaller
from simulators.twilio.script import (
    AgentPlayed,
    AgentSilent,
    CallerScript,
    Drop,
    Elapsed,
    HangUp,
    Noise,
    Press,
    Say,
    Step,
)
from simulators.twilio.script import bakery as bakery_caller
from tests.system.judge import agent_turns, assert_right, caller_turns, truly_heard
from tests.system.together import together

BAKERY_HEARD = [
    "Yes, I can help you place your order. What would you like?",
    "That will be $9.05. Cash or credit?",
    "Sure. What would you like to order?",
]


@together
async def test_the_demo_prints_the_bakery_call_and_is_right() -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "demo",
        env=clean_environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(110):
        printed, errors = await demo.communicate()
    text = printed.decode()
    assert demo.returncode == 0, text + errors.decode()
    assert (
        "agent   That will be $9.05. Cash or credit? "
        "[unheard: We also have a store discount you can apply now.]"
    ) in text
    assert "Sorry for interrupting, do you also have coffee?" in text
    assert "played of" in text
    assert "ms after the caller began to speak" in text


@together
async def test_twenty_calls_at_once_are_all_final_and_right() -> None:
    logs = io.StringIO()
    async with local_system(bakery_agent(), logs, sessions=2) as system:

        async def call(i: int) -> TwilioCaller:
            await asyncio.sleep(i * 0.05)
            caller = TwilioCaller(system.voice_url, bakery_caller())
            await caller.run()
            return caller

        callers = await asyncio.gather(*(call(i) for i in range(20)))
        transcripts = [await system.final_transcript(c.truth.call_sid) for c in callers]
        heard = await truly_heard([c.truth for c in callers], system.realtime.sessions)
    for transcript, joined, caller in zip(transcripts, heard, callers, strict=True):
        assert transcript.state == transcript_pb2.CALL_STATE_COMPLETED
        assert [t.heard_text for t in agent_turns(transcript)] == BAKERY_HEARD
        assert_right(transcript, joined, caller.truth)
        [barge_in] = caller.truth.barge_ins
        assert barge_in.flushed


@together
async def test_a_call_straight_to_the_media_socket_over_a_bad_network_is_right() -> None:
    network = Network(
        to_server=Path(delay_ms=80, jitter_ms=40), from_server=Path(delay_ms=80, jitter_ms=40)
    )
    async with local_system(bakery_agent(), io.StringIO()) as system:
        call = await TwilioCaller(system.media_url, bakery_caller(), network=network).run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
    assert_right(transcript, heard, call, position_ms=60)
    assert transcript.from_number == ""


@together
async def test_two_items_in_one_response_and_the_second_never_began() -> None:
    first = "Your order is ready."
    second = "We also have a store discount you can apply now."
    agent = AgentScript(replies=(Reply((Speak(first), Speak(second))),), first_audio_ms=200)
    caller = CallerScript(
        steps=(Step(Say("No, wait."), AgentPlayed(500)),), end=Step(HangUp(), AgentSilent(600))
    )
    async with local_system(agent, io.StringIO()) as system:
        call = await TwilioCaller(system.voice_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
        [session] = system.realtime.sessions
    assert_right(transcript, heard, call)
    cut, unheard = agent_turns(transcript)[:2]
    assert cut.interrupted and 0 < cut.heard_audio_ms < cut.generated_audio_ms
    assert (unheard.heard_text, unheard.heard_audio_ms) == ("", 0)
    assert not unheard.HasField("start_ms")
    by_id = {item.item_id: item for item in session.agent_items}
    truncated_ms = by_id[cut.item_id].truncated_ms
    assert truncated_ms is not None and truncated_ms <= cut.generated_audio_ms
    assert by_id[unheard.item_id].deleted


@together
async def test_a_false_alarm_clears_and_truncates_nothing() -> None:
    agent = AgentScript(replies=(say("Hello."), say("Sure.")))
    caller = CallerScript(
        steps=(Step(Say("I want bagels and a soda."), AgentSilent(900)),),
        end=Step(HangUp(), AgentSilent(600)),
    )
    async with local_system(agent, io.StringIO()) as system:
        call = await TwilioCaller(system.voice_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
        [session] = system.realtime.sessions
    assert_right(transcript, heard, call)
    assert all(stream.flushes == [] for stream in call.streams)
    assert session.truncations == [] and session.refusals == []
    assert not any(turn.interrupted for turn in agent_turns(transcript))


@together
async def test_a_caller_in_silence_hears_a_sentence_of_ours_and_may_cut_it() -> None:
    slow = Reply(
        (Speak("That will be nine dollars."),), first_text_ms=20_000, first_audio_ms=20_000
    )
    agent = AgentScript(replies=(say("Hello."), slow, say("Sure.")))
    caller = CallerScript(
        steps=(
            Step(Say("I want bagels and a soda."), AgentSilent(900)),
            Step(Say("No, wait."), AgentPlayed(700)),
        ),
        end=Step(HangUp(), AgentSilent(600)),
    )
    async with local_system(agent, io.StringIO()) as system:
        call = await TwilioCaller(system.voice_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
        [session] = system.realtime.sessions
    assert_right(transcript, heard, call)
    [hello, hold, sure] = agent_turns(transcript)
    assert [turn.notice for turn in (hello, hold, sure)] == [False, True, False]
    assert [turn.heard_text for turn in (hello, sure)] == ["Hello.", "Sure."]
    assert hold.generated_text == "One moment, please."
    assert hold.interrupted and hold.heard_text in ("One", "One moment,")
    [stream] = call.streams
    hello_ms = hello.generated_audio_ms
    [flush] = [flush for flush in stream.flushes if flush.end_byte > flush.start_byte]
    played_ms = flush.start_byte // 8 - hello_ms
    assert hold.position.low_ms <= played_ms + 1 and played_ms <= hold.position.high_ms + 1
    order = [turn.item_id for turn in transcript.turns]
    assert order.index(hello.item_id) < order.index(hold.item_id) < order.index(sure.item_id)
    assert session.refusals == [], "the model takes what it is told of it"
    assert session.truncations == []
    [silence] = [event.silence for event in transcript.events if event.HasField("silence")]
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_MODEL
    assert 5_000 <= silence.lasted_ms <= 7_000


@together
async def test_what_did_not_go_well_is_in_the_transcript() -> None:
    price = Reply(
        (Speak("That will be $9.05. Cash or credit?"),),
        first_audio_ms=3_500,
        failure=Failure("incomplete", code="content_filter", after_audio_ms=1_500),
    )
    agent = AgentScript(
        replies=(say("Yes, I can help you place your order."), price),
        hearings=(Hearing(), Hearing(failure="server_error")),
        turns=(TurnFault(no_response=True),),
    )
    caller = CallerScript(
        steps=(
            Step(Noise(300), AgentSilent(700)),
            Step(Say("I want bagels and a soda."), Elapsed(2_000)),
        ),
        end=Step(HangUp(), AgentPlayed(1_300)),
    )
    async with local_system(agent, io.StringIO()) as system:
        call = await TwilioCaller(system.voice_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        [session] = system.realtime.sessions
    assert sum(speech.started for speech in session.speech) == 2, "the noise was taken for speech"
    assert transcript.final
    greeting, order, price_turn = transcript.turns  # the noise is none of them
    assert greeting.heard_text == "Yes, I can help you place your order."
    assert (order.heard_text, order.transcription_failed) == ("", True)
    assert (price_turn.notice, price_turn.incomplete_reason) == (False, "content_filter")
    [event] = [event for event in transcript.events if event.after_item_id == order.item_id]
    assert event.silence.reason == transcript_pb2.DEAD_AIR_REASON_MODEL
    assert event.end_ms - event.start_ms == event.silence.lasted_ms
    assert order.end_ms - 300 <= event.start_ms <= order.end_ms + 300
    assert abs(event.end_ms - price_turn.start_ms) <= 300
    assert 3_000 <= event.silence.lasted_ms <= 5_000


@pytest.mark.parametrize("action", [HangUp(), Drop()], ids=["hang-up", "drop"])
@together
async def test_the_caller_goes_in_mid_sentence(action: HangUp | Drop) -> None:
    caller = CallerScript(steps=(Step(Press("4"), AgentPlayed(300)),),
                          end=Step(action, AgentPlayed(1500)))  # fmt: skip
    async with local_system(bakery_agent(), io.StringIO()) as system:
        # Straight to the socket: after a drop nobody asks for another stream.
        call = await TwilioCaller(system.media_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        [heard] = await truly_heard([call], system.realtime.sessions)
    hung_up = isinstance(action, HangUp)
    assert transcript.state == (
        transcript_pb2.CALL_STATE_COMPLETED if hung_up else transcript_pb2.CALL_STATE_FAILED
    )
    [turn], [item] = agent_turns(transcript), heard.items
    assert caller_turns(transcript) == []
    assert turn.position.low_ms <= item.played_ms + 1 <= turn.position.high_ms + 2
    assert abs(turn.heard_audio_ms - item.played_ms) <= (60 if hung_up else 150)
    assert turn.heard_text != turn.generated_text


@together
async def test_the_stored_trace_of_a_call_replays_to_the_stored_positions() -> None:
    caller = CallerScript(
        steps=(Step(Say("No, wait."), AgentPlayed(900)),), end=Step(HangUp(), AgentPlayed(300))
    )
    async with local_system(bakery_agent(), io.StringIO()) as system:
        call = await TwilioCaller(system.voice_url, caller).run()
        transcript = await system.final_transcript(call.call_sid)
        trace = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cli.main", "trace", call.call_sid,
             "--store", system.environment["ASHEARD_STORE"]],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        scenario = trace.stdout
    fixed = [answer for answer in replay.answers(scenario) if isinstance(answer, PositionFixed)]
    stored = [turn.position for turn in agent_turns(transcript)]
    assert [
        (f.position.low_ms, f.position.best_ms, f.position.high_ms, f.position.sent_ms)
        for f in fixed
    ] == [(p.low_ms, p.best_ms, p.high_ms, p.sent_ms) for p in stored]
    assert len(fixed) >= 2
    assert call.from_number not in scenario
