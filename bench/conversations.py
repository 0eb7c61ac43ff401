"""Conversations in which much goes wrong: how long does the caller hear nothing?

Short calls through the whole running system, all processes real, between the strict simulators. At
random, and by a seed, the model refuses to speak, fails, falls short, is slow or says nothing; a
noise cuts the agent off; a function takes its time. What the carrier played says how long nobody
spoke though the agent owed an answer (:mod:`bench.dead_air`), and whether the transcript says the
same.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import io
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from asheard.v1 import transcript_pb2
from bench.dead_air import Agreement, Script, Silence, Told, compare, lost_words, silences
from bench.spread import Spread, spread
from cli.local import LocalSystem, local_system
from session.agent import load_agent
from session.notices import Notice
from session.notices.book import make_book
from simulators import truth
from simulators.realtime import AgentScript
from simulators.realtime.faults import RandomFaults, TurnFault
from simulators.realtime.script import CallTool, Reply, Speak, say
from simulators.speech.corpus import corpus
from simulators.tools import Tool, ToolsSimulator
from simulators.twilio import CallerScript, CallTruth, TwilioCaller
from simulators.twilio.script import AgentPlayed, AgentSilent, AgentWord, HangUp, Noise, Say, Step

LONG_MS = 2_000
"""What a transcript tells of."""

TOLERANCE_MS = 400
"""How far a transcript's silence may be from the true one: it begins with the caller's last word as
voice detection dates it, or with the agent's last audio as marks prove it, and ends likewise."""

PATIENCE_MS = 15_000
"""So long the caller waits before going on, or hanging up."""

MUTE_MS = 14_000
"""A call that is silent for so long while an answer is owed has fallen silent for ever: more than
twice as long as the system promises, and only the caller's patience ended it."""

NOISY = 0.5
"""Share of callers at whose end there is a noise while the agent speaks."""

SLOW = 0.4
"""Share of function calls that take ``SLOW_MS``."""

SLOW_MS = 8_000
QUICK_MS = 500

_ASK = "Can you deliver it tomorrow afternoon?"
_GREETING, _DELIVERY, _CHECK, _TOTAL, _GOODBYE = (
    corpus()[name].text
    for name in (
        "bakery-agent-greeting", "agent-time-delivery", "agent-check", "agent-price-total",
        "agent-goodbye",
    )
)  # fmt: skip
_STILL = "I am still looking that up for you."


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Silences for one reason."""

    count: int
    total_s: float
    longest_s: float


class ConversationsResult(msgspec.Struct, frozen=True, kw_only=True):
    """All calls."""

    bench: str = "conversations"
    calls: int
    date: str
    seed: int
    seconds: float
    faults: dict[str, int]
    """What the model did wrong, and how often."""
    noises: int
    slow_calls: int
    """Functions that took long."""
    dead_air_ms: Spread
    """Every stretch in which nobody spoke and an answer was owed; carrier's truth."""
    dead_air_total_s: float
    long: int
    """Stretches of 2 s and more."""
    beyond: int
    """Stretches longer than the system promises."""
    mute_calls: int
    """Calls that fell silent for ever."""
    by_owed: dict[str, Heard]
    """Long stretches by what was owed; carrier's truth."""
    by_reason: dict[str, Heard]
    """Long stretches by the reason in the transcript."""
    words_cut_by_noise: int
    words_lost_after_noise: int
    """Of those, what the caller did not hear after all."""
    notices: dict[str, int]
    """Sentences that the system said by itself."""
    told_error_ms: Spread
    """How far the transcript's silences are from the true ones, either way."""
    told_missed: int
    """Long silences that the transcript does not have."""
    told_invented: int
    """Silences of the transcript that there were not."""
    told_off: int
    """Told with an error beyond the tolerance."""
    endings: dict[str, int]
    """How the calls ended."""
    longest: list[str]
    """The longest stretches: call, where, how long."""


BOUND_MS = 6_000
"""Longest stretch that the system promises."""

BOUND_TOLERANCE_MS = 700
"""Voice detection waits for half a second before it says that the caller has stopped, and the way
to the ear."""


async def run_conversations(
    *,
    calls: int = 200,
    at_once: int = 40,
    seed: int = 1,
) -> ConversationsResult:
    """Place the calls, so many at a time, each lot on a system of its own.

    Args:
        calls: How many.
        at_once: Of which at a time.
        seed: Of all that is drawn.
    """
    began_s = time.monotonic()
    tally = _Tally(seed, _notices())
    for lot in range(-(-calls // at_once)):
        await _lot(tally, lot, min(at_once, calls - lot * at_once))
    return tally.result(time.monotonic() - began_s)


async def _lot(tally: _Tally, lot: int, calls: int) -> None:
    source = random.Random(f"{tally.seed}/{lot}")
    with tempfile.TemporaryDirectory(prefix="asheard-bench-") as folder:
        agent = Path(folder) / "agent.yaml"
        price = Tool('{"total": "$42.50"}', delay_ms=QUICK_MS, slow=SLOW, slow_ms=SLOW_MS)
        async with ToolsSimulator({"price": price}, seed=tally.seed + lot) as tools:
            agent.write_text(_agent(tools.url("price")))
            settings = {"ASHEARD_AGENT": str(agent)}
            async with local_system(
                _script(tally.seed, lot), io.StringIO(), settings=settings
            ) as system:
                callers = [
                    TwilioCaller(system.voice_url, _caller(source, tally)) for _ in range(calls)
                ]
                await asyncio.gather(*(_later(c, source.uniform(0, 4)) for c in callers))
                truths = [caller.truth for caller in callers]
                told = await asyncio.gather(*(_transcript(system, call) for call in truths))
                sessions = list(system.realtime.sessions)
                heard = await asyncio.to_thread(truth.join, truths, sessions)
        tally.slow_calls += sum(
            call.over_s is not None and call.over_s - call.at_s > QUICK_MS / 500
            for call in tools.calls
        )
    for session in sessions:
        tally.faults.update(fault.what for fault in session.faults)
    for call, joined, transcript in zip(truths, heard, told, strict=True):
        tally.add(call, joined, transcript)


async def _later(caller: TwilioCaller, wait_s: float) -> None:
    await asyncio.sleep(wait_s)
    await caller.run()


async def _transcript(system: LocalSystem, call: CallTruth) -> transcript_pb2.Transcript:
    try:
        return await system.final_transcript(call.call_sid)
    except TimeoutError:
        return transcript_pb2.Transcript()


def _notices() -> dict[bytes, bool]:
    """Audio of the sentences that the system says by itself; whether each only bridges a wait."""
    book = make_book(load_agent(None), None)
    return {
        b"".join(map(base64.b64decode, sentence.pieces)): notice is Notice.HOLD
        for notice, sentence in book.items()
    }


def _agent(url: str) -> str:
    tool = {"name": "price", "description": "What the order costs.", "url": url, "timeout_s": 20}
    return json.dumps(
        {
            "name": "bakery",
            "instructions": "You take orders for a bakery.",
            "greeting": "Greet the caller.",
            "tools": [tool],
        }
    )


def _script(seed: int, lot: int) -> AgentScript:
    """The model: what it says, and what goes wrong. In every second lot a noise is committed."""
    return AgentScript(
        replies=(
            say(_GREETING),
            Reply((Speak(_STILL),), when_told="still at work"),
            say(_DELIVERY, when="tomorrow"),
            Reply((Speak(_CHECK), CallTool("price")), when="how much"),
            say(_TOTAL, when="42.50"),
            say(_GOODBYE, when="person"),
        ),
        goes_on=True,
        wordless=TurnFault(no_response=True) if lot % 2 else TurnFault(no_commit=True),
        faults=RandomFaults(
            seed=1000 * seed + lot,
            refuse=0.10,
            unanswered=0.02,
            fail=0.05,
            cut_short=0.02,
            text_only=0.02,
            empty=0.02,
            slow_start=0.03,
            missing_created=0.02,
            missing_done=0.02,
            odd_done=0.02,
            no_response=0.05,
            overtaken=0.10,
        ),
    )


def _caller(source: random.Random, tally: _Tally) -> CallerScript:
    """Asks three things, and hangs up."""
    steps = [Step(Say(_ASK), AgentSilent(700), PATIENCE_MS)]
    if source.random() < NOISY:
        tally.noises += 1
        at_ms = source.randrange(600, corpus()["agent-time-delivery"].duration_ms - 1_500)
        steps.append(Step(Noise(300), AgentPlayed(at_ms), PATIENCE_MS))
    steps += [
        Step(Say("How much is it?"), AgentSilent(900), PATIENCE_MS),
        Step(
            Say("I would like to talk to a person."),
            AgentWord(_TOTAL, "fee", plus_ms=700),
            2 * PATIENCE_MS,  # a function that takes long is in it, and what is said of that
        ),
    ]
    return CallerScript(
        steps=tuple(steps),
        end=Step(HangUp(), AgentSilent(1_200), PATIENCE_MS),
        max_call_ms=150_000,
    )


class _Tally:
    """What is found, call by call."""

    def __init__(self, seed: int, notices: Mapping[bytes, bool]) -> None:
        self.seed = seed
        self._script = Script(frozenset({_CHECK}), frozenset({_STILL}), notices)
        self.calls = 0
        self.noises = 0
        self.slow_calls = 0
        self.faults: Counter[str] = Counter()
        self.silences: list[tuple[str, Silence]] = []
        self.agreements: list[Agreement] = []
        self.words = [0, 0]
        self.notices: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()

    def add(
        self, call: CallTruth, heard: truth.HeardCall, transcript: transcript_pb2.Transcript
    ) -> None:
        """Judge a call that is over."""
        self.calls += 1
        found = silences(call, heard, self._script)
        self.silences += [(call.call_sid, silence) for silence in found]
        self.agreements.append(
            compare(found, _told(transcript), long_ms=LONG_MS, tolerance_ms=TOLERANCE_MS)
        )
        cut, lost = lost_words(call, heard)
        self.words[0] += cut
        self.words[1] += lost
        self.notices.update(turn.generated_text for turn in transcript.turns if turn.notice)
        self.endings[call.ending] += 1

    def result(self, seconds: float) -> ConversationsResult:
        """All of it."""
        lengths = [silence.lasted_ms for _, silence in self.silences]
        mute = {call_sid for call_sid, silence in self.silences if silence.lasted_ms >= MUTE_MS}
        errors = [abs(e) for a in self.agreements for e in a.errors_ms]
        longest = sorted(self.silences, key=lambda found: -found[1].lasted_ms)[:10]
        return ConversationsResult(
            calls=self.calls,
            date=datetime.date.today().isoformat(),
            seed=self.seed,
            seconds=round(seconds, 1),
            faults=dict(sorted(self.faults.items())),
            noises=self.noises,
            slow_calls=self.slow_calls,
            dead_air_ms=spread(lengths),
            dead_air_total_s=round(sum(lengths) / 1000, 1),
            long=sum(length >= LONG_MS for length in lengths),
            beyond=sum(length > BOUND_MS + BOUND_TOLERANCE_MS for length in lengths),
            mute_calls=len(mute),
            by_owed=_summed((s, s.owed) for _, s in self.silences if s.lasted_ms >= LONG_MS),
            by_reason=_summed(pair for a in self.agreements for pair in a.reasons),
            words_cut_by_noise=self.words[0],
            words_lost_after_noise=self.words[1],
            notices=dict(self.notices),
            told_error_ms=spread(errors),
            told_missed=sum(len(a.missed) for a in self.agreements),
            told_invented=sum(len(a.invented) for a in self.agreements),
            told_off=sum(error > TOLERANCE_MS for error in errors),
            endings=dict(self.endings),
            longest=[
                f"{call_sid} {s.start_ms / 1000:.1f} s: {s.lasted_ms / 1000:.1f} s, {s.owed}"
                for call_sid, s in longest
            ],
        )


def _summed(found: Iterable[tuple[Silence, str]]) -> dict[str, Heard]:
    lengths: dict[str, list[int]] = {}
    for silence, key in found:
        lengths.setdefault(key, []).append(silence.lasted_ms)
    return {
        key: Heard(
            count=len(all_ms),
            total_s=round(sum(all_ms) / 1000, 1),
            longest_s=round(max(all_ms) / 1000, 1),
        )
        for key, all_ms in sorted(lengths.items())
    }


def _told(transcript: transcript_pb2.Transcript) -> list[Told]:
    """The silences of a transcript."""
    return [
        Told(
            event.start_ms if event.HasField("start_ms") else None,
            event.end_ms if event.HasField("end_ms") else None,
            event.silence.lasted_ms,
            _reason(event.silence.reason),
        )
        for event in transcript.events
        if event.HasField("silence")
    ]


def _reason(reason: transcript_pb2.DeadAirReason.ValueType) -> str:
    name = transcript_pb2.DeadAirReason.Name(reason)
    return name.removeprefix("DEAD_AIR_REASON_").lower()
