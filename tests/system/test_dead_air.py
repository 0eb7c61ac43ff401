"""The model refuses, forgets, is overtaken or cut off by a noise: the caller hears an answer all the same.

Whole calls through real processes; what the carrier played decides.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asheard.v1 import transcript_pb2
from cli.local import local_system
from session.realtime.replies import EXPECT_S
from simulators.realtime.faults import RequestFault, ResultFault, TurnFault
from simulators.realtime.script import AgentScript, CallTool, Failure, Reply, Speak, say
from simulators.realtime.session_truth import SessionTruth
from simulators.tools import Tool, ToolsSimulator
from simulators.truth import HeardCall
from simulators.twilio import CallTruth, TwilioCaller
from simulators.twilio.script import (
    AgentPlayed,
    AgentSilent,
    AgentWord,
    CallerScript,
    HangUp,
    Noise,
    Say,
    Step,
)
from tests.system.judge import agent_turns, assert_right, truly_heard
from tests.system.together import together

HELLO, PRICE, CHECK = "Hello.", "That will be nine dollars.", "Let me see."
STILL, SURE = "Still looking.", "Yes, of course."
ASK = Step(Say("How much is it?"), AgentSilent(300))
END = Step(HangUp(), AgentSilent(400))
AFTER_PRICE = Step(HangUp(), AgentWord(PRICE, "dollars", plus_ms=200))


async def call(
    agent: AgentScript, *steps: Step, end: Step = END, tool: Tool | None = None, **settings: Any
) -> tuple[CallTruth, HeardCall, SessionTruth, transcript_pb2.Transcript]:
    """One call: the carrier's truth, what was heard, the model's truth, and the transcript."""
    async with _tools(tool) as tools:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent.yaml"
            greeting = {"greeting": "Greet the caller."}
            path.write_text(
                json.dumps(
                    {"name": "x", "instructions": "i", **greeting, "tools": tools, **settings}
                )
            )
            environment = {"ASHEARD_AGENT": str(path)}
            async with local_system(agent, io.StringIO(), settings=environment) as system:
                truth = await TwilioCaller(system.voice_url, CallerScript(steps, end=end)).run()
                transcript = await system.final_transcript(truth.call_sid)
                [heard] = await truly_heard([truth], system.realtime.sessions)
                [session] = system.realtime.sessions
    assert truth.ending == "hung_up"
    assert truth.timed_out_steps == [], "the caller never gave up waiting"
    return truth, heard, session, transcript


@asynccontextmanager
async def _tools(tool: Tool | None) -> AsyncIterator[list[dict[str, Any]]]:
    async with ToolsSimulator({"price": tool or Tool()}) as tools:
        price = {"name": "price", "description": "d", "url": tools.url("price"), "timeout_s": 30}
        yield [price] if tool is not None else []


def said(heard: HeardCall) -> list[str]:
    """What the caller heard of the agent, in order."""
    return [item.heard_text for item in heard.items if item.heard_text]


def waits_s(session: SessionTruth) -> list[float]:
    """How long after each request the next one came."""
    at = [request.at_ms / 1000 for request in session.requests]
    return [later - before for before, later in zip(at, at[1:], strict=False)]


def silences(transcript: transcript_pb2.Transcript) -> Sequence[transcript_pb2.Silence]:
    return [event.silence for event in transcript.events if event.HasField("silence")]


@together
async def test_a_greeting_that_is_refused_is_asked_for_again_and_the_wait_named_is_waited() -> None:
    named = "Rate limit reached. Please try again in 2s."
    agent = AgentScript(
        replies=(say(HELLO),),
        refusals=(
            RequestFault(nth=1),
            RequestFault(nth=2, code="rate_limit_exceeded", message=named, names_request=False),
        ),
    )
    truth, heard, session, transcript = await call(agent)
    assert said(heard) == [HELLO]
    assert [request.answer for request in session.requests] == ["refused", "refused", "created"]
    first_s, second_s = waits_s(session)
    assert 0.5 <= first_s < 1.0 and 2.0 <= second_s < 2.8
    [silence] = silences(transcript)
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_REFUSED
    assert abs(silence.lasted_ms - truth.streams[0].played[0].start_ms) < 400
    assert_right(transcript, heard, truth, position_ms=100)


@together
async def test_a_turn_that_the_model_forgets_is_answered() -> None:
    agent = AgentScript(replies=(say(HELLO), say(PRICE)), turns=(TurnFault(no_response=True),))
    truth, heard, session, transcript = await call(agent, ASK)
    assert said(heard) == [HELLO, PRICE]
    assert len(session.requests) == 2
    [silence] = silences(transcript)
    assert silence.reason == transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE
    [line] = truth.caller_lines
    lasted_ms = truth.streams[0].played[-1].start_ms - line.end_ms
    assert abs(silence.lasted_ms - lasted_ms) < 400
    assert EXPECT_S * 1000 < lasted_ms < EXPECT_S * 1000 + 1_700
    assert_right(transcript, heard, truth, position_ms=100)


@together
async def test_three_responses_that_fail_end_in_words_and_the_call_goes_on() -> None:
    failing = Reply(
        (Speak(PRICE),), when="how much", failure=Failure(message="Please try again in 1s."),
        spoiled_times=9,
    )  # fmt: skip
    agent = AgentScript(replies=(say(HELLO), failing, say(SURE, when="person")))
    person = Step(Say("I would like to talk to a person."), AgentSilent(300))
    _, heard, session, transcript = await call(agent, ASK, person)
    assert said(heard) == [HELLO, SURE]
    assert [turn.heard_text for turn in agent_turns(transcript)] == [
        HELLO,
        "I am sorry, something went wrong. Could you say that again?",
        SURE,
    ]
    failed = [generation for generation in session.generations if generation.status == "failed"]
    assert len(failed) == 3
    gaps_s = [
        (b.began_ms - (a.done_ms or 0)) / 1000 for a, b in zip(failed, failed[1:], strict=False)
    ]
    assert all(1.0 <= gap_s < 1.8 for gap_s in gaps_s)


@together
async def test_a_result_that_a_response_overtakes_is_spoken_after_it() -> None:
    agent = AgentScript(
        replies=(
            say(HELLO),
            Reply((Speak(CHECK), CallTool("price")), when="how much"),
            say(SURE, when="anybody"),
            say(PRICE, when="nine"),
        ),
        results=(ResultFault(overtaken=True),),
    )
    impatient = Step(Say("Hello, is anybody there?"), AgentWord(CHECK, "see", plus_ms=200))
    _, heard, session, _ = await call(
        agent, ASK, impatient, end=AFTER_PRICE, tool=Tool('"nine dollars"', delay_ms=1_800)
    )
    assert said(heard) == [HELLO, CHECK, SURE, PRICE]
    *_, overtaking, last = session.generations
    assert overtaking.known_results == [] and len(last.known_results) == 1
    assert [request.answer for request in session.requests] == ["created", "created"]


@together
async def test_while_a_function_works_the_caller_is_told_once_and_hears_the_result() -> None:
    agent = AgentScript(
        replies=(
            say(HELLO),
            Reply((Speak(CHECK), CallTool("price")), when="how much"),
            Reply((Speak(STILL),), when_told="still at work"),
            say(PRICE, when="nine"),
        ),
    )
    waiting = {"while_waiting": {"after_s": 1}}
    _, heard, session, transcript = await call(
        agent, ASK, end=AFTER_PRICE, tool=Tool('"nine dollars"', delay_ms=5_000), **waiting
    )
    assert said(heard) == [HELLO, CHECK, STILL, PRICE]
    assert len(session.requests) == 3
    reasons = {silence.reason for silence in silences(transcript)}
    assert reasons <= {transcript_pb2.DEAD_AIR_REASON_TOOL}


@together
async def test_a_noise_costs_a_pause_and_no_word() -> None:
    answer = "Your order leaves the shop at noon and should reach you before a quarter past one."
    agent = AgentScript(
        replies=(say(HELLO), say(answer, when="how much")),
        wordless=TurnFault(no_commit=True),
        goes_on=True,
    )
    noise = Step(Noise(300), AgentPlayed(1_200))
    truth, heard, session, transcript = await call(agent, ASK, noise)
    hello, cut, rest = (item for item in heard.items if item.heard_text)
    assert cut.unheard_text and not rest.unheard_text
    assert f"{cut.heard_text} {rest.heard_text}".split()[-4:] == answer.split()[-4:]
    assert set(answer.split()) <= {*cut.heard_text.split(), *rest.heard_text.split()}
    assert cut.end_ms is not None and rest.start_ms is not None
    assert rest.start_ms - cut.end_ms < 4_000
    assert hello.heard_text == HELLO and len(session.requests) == 2
    told = session.requests[1].instructions or ""
    assert "quarter past one" in told, "the model is told what was not heard"
    assert [turn.role for turn in transcript.turns].count(transcript_pb2.ROLE_CALLER) == 1
    assert truth.warnings == []
