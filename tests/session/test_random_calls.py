"""Calls in which much goes wrong at once, drawn at random: nobody is left in silence, or nagged.

The model refuses, fails, is slow, forgets turns and loses events; noises cut the agent off; a
function takes up to nine seconds. What is drawn depends on the seed alone.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from session.realtime.dead_air import PATIENCE_S
from session.realtime.waits import PER_MINUTE
from simulators.realtime.faults import RandomFaults, TurnFault
from simulators.realtime.script import AgentScript, CallTool, Reply, say
from simulators.twilio.script import (
    AgentPlayed,
    AgentSilent,
    CallerScript,
    Elapsed,
    Noise,
    Say,
    Step,
)
from tests.session.silence_cases import GREETING, ORDER, PATIENT, QUOTE, SURE, THANKS
from tests.session.virtual_call import VirtualCall, bakery

SEEDS = (0, 1, 2, 10, 11, 23, 35, 40, 43, 46, 50, 65, 74, 78, 79, 80, 81, 83, 90, 97, 105, 113, 125, 128,
         130, 133, 140, 158, 171, 182, 191, 199, 397)  # fmt: skip
"""All but 0 and 199 of these fell silent for too long, or told callers for nothing that
something went wrong, at one time."""

MARGIN_MS = 900
"""Beyond our patience: voice detection sees the end of speech half a second late, and what the
caller is told takes its way."""

TIMEOUT_MS = 35_000
"""Until the last answer is over and was followed by silence; five faults in a row delay it by half."""

FAULTS = RandomFaults(
    refuse=0.1,
    unanswered=0.03,
    fail=0.05,
    cut_short=0.03,
    text_only=0.03,
    empty=0.03,
    slow_start=0.05,
    missing_created=0.03,
    missing_done=0.05,
    odd_done=0.05,
    no_response=0.05,
    overtaken=0.2,
)


def drawn(seed: int) -> VirtualCall:
    """A call that was not played yet."""
    chance = random.Random(seed)
    model = AgentScript(
        replies=(
            say(GREETING),
            Reply((CallTool("quote"),), when="bagels"),
            say(QUOTE, when="9.05"),
            say(SURE, when="coffee"),
        ),
        goes_on=True,
        wordless=chance.choice((None, TurnFault(no_commit=True), TurnFault(no_response=True))),
        faults=replace(FAULTS, seed=seed),
    )
    steps = []
    for line, moments in (
        (ORDER, (AgentSilent(700),)),
        (THANKS, (AgentSilent(900), AgentPlayed(1_500), Elapsed(2_500))),
    ):
        if chance.random() < 0.5:
            steps.append(Step(Noise(300), AgentPlayed(chance.randrange(100, 3_000))))
        moment = chance.choice(moments) if len(moments) > 1 else moments[0]
        steps.append(Step(Say(line), moment, timeout_ms=25_000))
    return VirtualCall(
        model,
        CallerScript(tuple(steps), end=replace(PATIENT, timeout_ms=TIMEOUT_MS)),
        bakery(),
        tool_ms=(chance.choice((300, 3_000, 9_000)),),
        tool_answers={"quote": "$9.05"},
        number=seed,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_left_in_silence_or_nagged(seed: int) -> None:
    call = drawn(seed).run(150_000)
    assert call.fatal is None
    *silences, _ = call.silences  # in the last one the caller waits for what may still come
    longest = max(silences, key=lambda silence: silence.lasted_ms)
    assert longest.lasted_ms <= 1_000 * PATIENCE_S + MARGIN_MS, longest
    assert call.hung_up_ms is not None
    assert [taken.index for taken in call.caller.taken if taken.timed_out] == [], "it was mute"
    asked_ms = [request.at_ms for request in call.engine.truth.requests]
    for first_ms in asked_ms:
        assert sum(first_ms <= ms < first_ms + 60_000 for ms in asked_ms) <= PER_MINUTE
