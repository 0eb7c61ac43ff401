"""Scenarios about killed processes: what their final transcripts claim."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from asheard.v1 import (
    transcript_pb2,
)
from bench.faults.model import ScriptedModel
from bench.faults.neighbours import neighbours
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import Stage, must, stage
from simulators import truth
from simulators.realtime import RealtimeSimulator
from simulators.realtime.script import AgentScript, Reply, Speak
from simulators.twilio import TwilioCaller
from simulators.twilio.script import CallerScript, Elapsed, HangUp, Step

AT_ONCE = 25
"""Calls on a process that is killed."""

_GREETER = """
name: faults
instructions: Read the prices.
greeting: Read them.
"""

_PRICES = (
    "A dozen bagels is $11.40, a loaf of rye is $6.75, and the soda is $2.10.",
    "That will be $9.05. Cash or credit? We also have a store discount you can apply now.",
    "I have your number as 5 5 5, 0 1 9 8. Is that right?",
    "We are open from 7 in the morning until 6 in the evening, Monday through Saturday.",
)
"""Sums and numbers take long to say for the few characters that they have: what is only estimated by
characters is most wrong here."""

_KILLED = (
    Measure("calls whose final transcript claims a word that was not heard", "calls", 0),
    Measure("words claimed that were not heard", "words", 0),
    Measure("words that were heard and are not claimed", "words"),
    Measure("of them said to be uncertain", "words"),
    Measure("words that were heard", "words"),
    Measure("calls whose transcript is not final in time", "calls", 0),
)


@scenario(
    "killed-worker",
    "the session worker is killed (SIGKILL) while it has 25 calls with the agent speaking, again and again",
    *_KILLED,
    within_s=400.0,
)
async def killed_worker(options: Options) -> Values:
    return await _killed("session-0", options.calls)


@scenario(
    "killed-gateway",
    "the gateway is killed (SIGKILL) while it has 25 calls with the agent speaking, again and again",
    *_KILLED,
    within_s=400.0,
)
async def killed_gateway(options: Options) -> Values:
    return await _killed("gateway", options.calls)


async def _killed(victim: str, calls: int) -> Values:
    settings = {
        "ASHEARD_STREAM_GRACE_SECONDS": "3",
        "ASHEARD_WRITER_LOST_SECONDS": "15",
    }
    script = AgentScript(replies=(Reply(tuple(map(Speak, _PRICES))),))
    counts = [0.0] * 6
    async with (
        RealtimeSimulator(script) as model,
        stage(model.url, settings=settings, agent=_GREETER) as system,
    ):
        left = calls
        placed: list[TwilioCaller] = []
        while left > 0:
            now = min(AT_ONCE, left)
            left -= now
            await must(_all_ready(system), "the system is ready again", 60.0)
            placed += await _call_and_kill(system, victim, now)
        done = [caller.truth for caller in placed]
        finals = await system.finals([call.call_sid for call in done], 60.0)
        for call, heard in zip(done, truth.join(done, model.sessions), strict=True):
            final = finals.get(call.call_sid)
            counts[5] += final is None
            over, under, uncertain, true_words = _compare(final, heard)
            counts[0] += over > 0
            counts[1] += over
            counts[2] += under
            counts[3] += uncertain
            counts[4] += true_words
    return tuple(counts)


async def _call_and_kill(system: Stage, victim: str, calls: int) -> list[TwilioCaller]:
    """Place calls one after another, so that each is elsewhere in what it hears; then kill."""
    patient = CallerScript(end=Step(HangUp(), Elapsed(60_000), timeout_ms=60_000))
    callers = [TwilioCaller(system.media_url(), patient) for _ in range(calls)]
    running = []
    for caller in callers:
        running.append(asyncio.create_task(caller.run()))
        await asyncio.sleep(0.4)
    await must(
        lambda: all(c.carrier is not None and c.carrier.played_bytes() > 4_000 for c in callers),
        "every agent speaks",
    )
    await asyncio.sleep(1.0)
    system.signal(victim, signal.SIGKILL)
    await asyncio.gather(*running)
    return callers


def _compare(
    final: transcript_pb2.Transcript | None, heard: truth.HeardCall
) -> tuple[int, int, int, int]:
    """Words claimed and not heard; heard and not claimed; of these uncertain; heard."""
    turns = {turn.item_id: turn for turn in final.turns} if final is not None else {}
    over = under = uncertain = true_words = 0
    for item in heard.items:
        turn = turns.get(item.item_id)
        claimed = turn.heard_text.split() if turn is not None else []
        real = item.heard_text.split()
        same = 0
        for ours, theirs in zip(claimed, real, strict=False):
            if ours != theirs:
                break
            same += 1
        over += len(claimed) - same
        under += len(real) - same
        true_words += len(real)
        if turn is not None:
            missed = turn.words[len(claimed) : len(real)]
            uncertain += sum(word.uncertain for word in missed)
    return over, under, uncertain, true_words


def _all_ready(system: Stage) -> Any:
    async def ready() -> bool:
        answers = [await system.ask(program.name, "/readyz") for program in system.programs]
        return all(status == 200 for status, _ in answers)

    return ready


@scenario(
    "killed-gateway-final",
    "the gateway is killed (SIGKILL) while it has five calls; everything as configured by default",
    Measure("until the last of their transcripts is final: 90 s, 30 s, and two looks", "s", 145),
    within_s=200.0,
)
async def killed_gateway_final(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):
        await asyncio.sleep(1.0)
        system.signal("gateway", signal.SIGKILL)
        began_s = time.monotonic()
        sids = [phone.call_sid for phone in calls.phones]
        finals = await system.finals(sids, 180.0)
        return (round(time.monotonic() - began_s, 1) if len(finals) == len(sids) else None,)
