"""Calls in which a noise, or the agent's own echo, cut the agent off, and nobody had said a word."""

from __future__ import annotations

from simulators.realtime.faults import TurnFault
from simulators.realtime.script import Reply, Speak, say
from simulators.twilio.script import AgentPlayed, Echo, Elapsed, Noise, Say, Step
from tests.session.silence_cases import GREETING, ORDER, QUOTE, Case, model, order

_REST = "place your order. What would you like?"
_NOISE = Step(Noise(300), AgentPlayed(1_200))
NOISE = (
    Case(
        "noise cuts the greeting, and nothing follows",
        model(goes_on=True, wordless=TurnFault(no_commit=True)),
        ("Yes, I can help…", _REST, QUOTE),
        (_NOISE, order()),
    ),
    Case(
        "noise cuts the greeting, is committed and not answered",
        model(goes_on=True, wordless=TurnFault(no_response=True)),
        ("Yes, I can help…", _REST, QUOTE),
        (_NOISE, order()),
    ),
    Case(
        "the greeting is cut by its own echo after a word",
        model(goes_on=True, wordless=TurnFault(no_commit=True)),
        ("Yes,", "I can help you place your order. What would you like?", QUOTE),
        (Step(Echo(200), AgentPlayed(200)), order()),
    ),
    Case(
        "noise cuts the greeting before its first word has been heard",
        model(goes_on=True, wordless=TurnFault(no_commit=True)),
        (GREETING, QUOTE),
        (Step(Noise(200), AgentPlayed(40)), order()),
    ),
    Case(
        "noise cuts the greeting, and the agent is told to wait",
        model(goes_on=True, wordless=TurnFault(no_commit=True)),
        ("Yes, I can help…", QUOTE),
        (_NOISE, Step(Say(ORDER), Elapsed(4_000))),
        "when_cut_by_noise: wait\n",
        waited_after=("caller",),
    ),
    Case(
        "noise cuts the agent twice",
        model(goes_on=True, wordless=TurnFault(no_commit=True)),
        ("Yes, I can help…", "place your order…", "What would you like?", QUOTE),
        (_NOISE, Step(Noise(300), AgentPlayed(1_000)), order()),
    ),
    Case(
        "noise cuts the agent while it still generates",
        model(
            Reply((Speak(GREETING),), speed=1.05),
            say(QUOTE, when="bagels"),
            goes_on=True,
            wordless=TurnFault(no_commit=True),
        ),
        ("Yes, I can help…", _REST, QUOTE),
        (_NOISE, order()),
    ),
)
