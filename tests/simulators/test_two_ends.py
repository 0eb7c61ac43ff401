"""Whole calls between the two simulators, through the least bridge, and both truths joined."""

from __future__ import annotations

import asyncio
import dataclasses

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from simulators.network import MarkFaults, Network, Path
from simulators.realtime import AgentScript, RealtimeSimulator, SessionTruth
from simulators.realtime.script import Drop, Reply, Speak, say
from simulators.truth import HeardCall, join
from simulators.twilio import CallerScript, CallTruth, TwilioCaller
from simulators.twilio.script import AgentPlayed, AgentSilent, AgentWord, Elapsed, Press, Say, Step
from tests.simulators.bridge import open_bridge

LINE = "Would you like it sliced, toasted, or just as it is?"
AGENT = AgentScript(
    replies=(say(LINE), say("Yes, of course.")), first_text_ms=40, first_audio_ms=60
)


def cut_in(word: str) -> CallerScript:
    """A caller who cuts in after a word and hangs up soon after the answer."""
    script = CallerScript((Step(Say("Stop."), AgentWord(LINE, word, plus_ms=20)),))
    return dataclasses.replace(script, end=dataclasses.replace(script.end, when=AgentSilent(200)))


async def call(
    agent: AgentScript, *callers: CallerScript, network: Network | None = None
) -> tuple[list[CallTruth], list[SessionTruth], list[HeardCall]]:
    async with RealtimeSimulator(agent) as realtime, open_bridge(realtime.url) as (_, port):
        url = f"ws://127.0.0.1:{port}/twilio/media"
        conditions = network or Network()
        calls = await asyncio.gather(
            *(TwilioCaller(url, script, network=conditions).run() for script in callers)
        )
        await asyncio.sleep(0.1)  # The sockets to the model close.
    return calls, realtime.sessions, join(calls, realtime.sessions)


def again(calls: list[CallTruth], sessions: list[SessionTruth]) -> list[HeardCall]:
    """The join of what was written and read back."""
    return join(
        [CallTruth.from_json(call.to_json()) for call in calls],
        [SessionTruth.from_json(session.to_json()) for session in sessions],
    )


async def test_call_with_a_barge_in_is_known_word_by_word() -> None:
    calls, sessions, joined = await call(AGENT, cut_in("sliced,"))
    truth, heard = calls[0], joined[0]
    assert truth.ending == "hung_up"
    assert truth.warnings == [] and truth.timed_out_steps == []
    assert sessions[0].ending == "client_closed"
    cut, answer = heard.items
    assert cut.heard_text.startswith("Would you like it sliced,")
    assert cut.unheard_text.endswith("just as it is?")
    assert 0 < cut.played_ms < cut.generated_ms
    assert answer.heard_text == answer.generated_text == "Yes, of course."
    assert answer.played_ms == answer.generated_ms
    (barge_in,) = truth.barge_ins
    assert barge_in.flushed and 60 < barge_in.latency_ms < 1_500
    assert cut.end_ms == barge_in.silent_ms
    assert heard.foreign_bytes == 0
    assert heard.frames.intact and heard.frames.foreign_bytes == 0
    assert len(sessions[0].appended) >= (heard.frames.sent - 25) * 160
    assert again(calls, sessions) == joined, "both truths survive JSON"


async def test_calls_at_once_are_kept_apart() -> None:
    words = ["you", "like", "it", "sliced,", "toasted,"]
    calls, sessions, joined = await call(AGENT, *(cut_in(word) for word in words))
    assert len(sessions) == len(words) and len({h.session_ids for h in joined}) == len(words)
    for word, heard in zip(words, joined, strict=True):
        assert word in heard.items[0].heard_text
        assert heard.frames.intact and heard.frames.strangers == 0
    lengths = [heard.items[0].played_ms for heard in joined]
    assert lengths == sorted(lengths)


async def test_network_delays_do_not_trouble_the_truth() -> None:
    network = Network(
        to_server=Path(40, 30),
        from_server=Path(40, 30),
        marks=MarkFaults(lost=0.2, late=0.2, duplicated=0.2),
        seed=5,
    )
    calls, _, joined = await call(AGENT, cut_in("sliced,"), network=network)
    (barge_in,) = calls[0].barge_ins
    assert barge_in.latency_ms > 140  # Both ways, and the VAD's two windows.
    assert "sliced," in joined[0].items[0].heard_text
    assert joined[0].frames.intact


async def test_slow_model_leaves_gaps_and_every_byte_is_still_accounted_for() -> None:
    reply = Reply((Speak("Sorry, we are out of rye today."),), speed=0.8, first_text_ms=0)
    calls, _, joined = await call(
        AgentScript(replies=(reply,)), dataclasses.replace(cut_in("you"), steps=())
    )
    assert len(calls[0].streams[0].played) > 3
    item = joined[0].items[0]
    assert item.played_ms == item.generated_ms
    assert item.end_ms is not None and item.start_ms is not None
    assert item.end_ms - item.start_ms > item.generated_ms


async def test_lost_model_ends_the_stream_and_the_truth_says_so() -> None:
    reply = Reply((Speak(LINE),), drop=Drop(after_audio_ms=500), first_text_ms=0)
    calls, sessions, joined = await call(AgentScript(replies=(reply,)), cut_in("is?"))
    assert calls[0].ending in ("server_closed", "server_lost")
    assert sessions[0].ending == "dropped"
    assert sessions[0].agent_items[0].generated_ms == 500
    assert joined[0].items[0].played_ms <= 500


async def test_keys_and_marks_reach_the_bridge() -> None:
    script = CallerScript(
        (Step(Press("1#"), AgentPlayed(300)), Step(Say("Yes."), Elapsed(50))),
        end=cut_in("is?").end,
        max_call_ms=1_500,
    )
    async with RealtimeSimulator(AGENT) as realtime, open_bridge(realtime.url) as (bridge, port):
        truth = await TwilioCaller(f"ws://127.0.0.1:{port}/", script).run()
    assert bridge.keys == ["1", "#"]
    assert bridge.echoes == [e.name for e in truth.streams[0].echoes]


async def test_upgrade_request_is_twilios() -> None:
    async with RealtimeSimulator(AGENT) as realtime, open_bridge(realtime.url) as (bridge, port):
        script = CallerScript(max_call_ms=50)
        await TwilioCaller(
            "wss://voice.example.com/twilio/media",
            script,
            auth_token="12345",
            connect_to=f"127.0.0.1:{port}",
        ).run()
    (headers,) = bridge.headers
    assert headers["user-agent"] == "Twilio.TmeWs/1.0"
    assert headers["host"] == "voice.example.com"
    assert not headers.keys() & {"origin", "sec-websocket-extensions", "sec-websocket-protocol"}
    url = "wss://voice.example.com/twilio/media"
    assert RequestValidator("12345").validate(url, {}, headers["x-twilio-signature"])
