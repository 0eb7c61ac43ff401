"""The whole running system between the strict simulators: how right it is on a bad network.

Every call goes through gateway, session worker and transcript service, all real processes. The
caller cuts in at random places; what the carrier really played is the truth. Figures per network
condition, and over all cuts on a good network, beside the usual ways on the same calls.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from bench import score, transcripts
from bench.score import Account, Heard, Score
from bench.spread import Spread, spread
from cli.local import local_system
from simulators import truth
from simulators.network import MarkFaults, Network, Path
from simulators.realtime import AgentScript, SessionTruth
from simulators.realtime.generation import plan
from simulators.realtime.script import say
from simulators.speech.corpus import corpus
from simulators.twilio import CallerScript, CallTruth, TwilioCaller
from simulators.twilio.script import AgentPlayed, Say, Step

GOOD = "good"

NETWORKS: Mapping[str, Network] = {
    GOOD: Network(Path(20), Path(20)),
    "delay 200 ms": Network(Path(200), Path(200)),
    "jitter 50 ms": Network(Path(40, 50), Path(40, 50)),
    "jitter 150 ± 100 ms": Network(Path(50, 200), Path(50, 200)),
    "every third echo lost": Network(Path(20), Path(20), MarkFaults(lost=1 / 3)),
    "echoes late and doubled": Network(Path(20), Path(20), MarkFaults(late=0.2, duplicated=0.2)),
}

_LINES = (
    "agent-price-list", "agent-time-delivery", "agent-condition-cancel",
    "agent-disclosure-medical", "agent-list", "agent-time-slot",
)  # fmt: skip
"""What the agent says, in this order: all four voices."""

_CUT_INS = ("caller-stop", "caller-no-wait", "caller-hold-on", "caller-how-much")


class SystemResult(msgspec.Struct, frozen=True, kw_only=True):
    """One network condition through the whole system."""

    bench: str = "system"
    network: str
    calls: int
    date: str
    cuts: int
    heard: dict[str, Score]
    """``transcript`` beside the usual ways."""
    range_width_ms: Spread
    """How wide the range of the position was that the transcript gave."""
    outside_range: int
    """Cuts whose truth lies outside that range: there must be none."""
    barge_in_ms: Spread
    """The caller's first sound until the line was silent, on Twilio's clock. Voice detection and
    the network are in it."""
    calls_failed: int


async def run_system(
    *, calls: int = 10, calls_per_network: int = 4, cuts: int = 5, seed: int = 1
) -> list[SystemResult]:
    """Place all calls at once and score them.

    Args:
        calls: On the good network: with ``cuts`` each, they make the table of words.
        calls_per_network: On each of the others.
        cuts: Times the caller of one call cuts in; at most as many as there are lines.
        seed: For the places of the cuts and the network's jitter.
    """
    source = random.Random(seed)
    script = AgentScript(replies=tuple(say(corpus()[name].text) for name in _LINES))
    callers: dict[str, list[TwilioCaller]] = {}
    async with local_system(script, io.StringIO()) as system:
        for name, network in NETWORKS.items():
            callers[name] = [
                TwilioCaller(
                    system.media_url,
                    _caller(source, cuts),
                    network=replace(network, seed=source.getrandbits(32)),
                )
                for _ in range(calls if name == GOOD else calls_per_network)
            ]
        everybody = [caller for group in callers.values() for caller in group]
        await asyncio.gather(*(_later(caller, source.uniform(0, 3)) for caller in everybody))
        done = [caller.truth for caller in everybody]
        told, _ = await transcripts.accounts(
            system.transcript_target, [call.call_sid for call in done]
        )
        joined = truth.join(done, system.realtime.sessions)
        sessions = {session.session_id: session for session in system.realtime.sessions}
    results: list[SystemResult] = []
    for name, group in callers.items():
        own = [caller.truth for caller in group]
        heard = dict(zip((call.call_sid for call in done), joined, strict=True))
        found = [
            item for call in own for item in cut_items(call, heard[call.call_sid], sessions, script)
        ]
        results.append(_judge(name, own, found, told))
    return results


async def _later(caller: TwilioCaller, wait_s: float) -> None:
    await asyncio.sleep(wait_s)
    await caller.run()


def _caller(source: random.Random, cuts: int) -> CallerScript:
    """Somebody who cuts into every line, somewhere between its first sound and near its end."""
    steps = []
    for name in _LINES[:cuts]:
        at_ms = source.randrange(150, corpus()[name].duration_ms - 300)
        line = corpus()[source.choice(_CUT_INS)]
        steps.append(Step(Say(line.text), AgentPlayed(max(20, at_ms - line.onset_ms))))
    return CallerScript(steps=tuple(steps), name="cuts in")


def cut_items(
    call: CallTruth,
    heard: truth.HeardCall,
    sessions: Mapping[str, SessionTruth],
    script: AgentScript,
) -> list[Heard]:
    """The items of a call that a ``clear`` cut, as a score wants them."""
    # ``elapsed_ms`` is taken on the carrier's own clock: the usual way without the network's jitter,
    # better than a bridge could know it.
    found: list[Heard] = []
    for item in heard.items:
        if item.stream is None or item.start_ms is None or item.end_ms is None:
            continue
        stream = call.streams[item.stream]
        flushed = any(flush.at_ms == item.end_ms for flush in stream.flushes)
        if not flushed or 8 * item.played_ms >= item.generated_bytes:
            continue
        # The first delta came in the frame before it began to sound: nothing was queued before it.
        first_ms = min(
            (m.at_ms for m in stream.media if item.start_ms - 20 <= m.at_ms <= item.start_ms),
            default=item.start_ms,
        )
        words = sessions[item.session_id].item(item.item_id).planned_text
        found.append(
            Heard(
                item_id=item.item_id,
                text=item.generated_text,
                heard_text=item.heard_text,
                audio_ms=item.generated_ms,
                heard_ms=round(item.played_ms),
                sent_ms=sum(end - start for start, end in item.reached) // 8,
                elapsed_ms=item.end_ms - first_ms,
                deltas=_deltas(words, script),
            )
        )
    return found


def _deltas(text: str, script: AgentScript) -> list[tuple[int, int]]:
    deltas: list[tuple[int, int]] = []
    chars = 0
    for step in plan(say(text), script, audio=True):
        chars += len(step.text)
        if step.kind == "audio":
            deltas.append((step.end_byte // 8, chars))
    return deltas


def _judge(
    network: str, calls: Sequence[CallTruth], items: Sequence[Heard], told: Mapping[str, Account]
) -> SystemResult:
    ranges = [(item, told[item.item_id].range_ms) for item in items if item.item_id in told]
    known = [(item, bounds) for item, bounds in ranges if bounds is not None]
    scores = {"transcript": score.score(items, score.by_item_id(told))}
    for name, way in score.USUAL_WAYS.items():
        scores[name] = score.score(items, way)
    return SystemResult(
        network=network,
        calls=len(calls),
        date=datetime.date.today().isoformat(),
        cuts=len(items),
        heard=scores,
        range_width_ms=spread(high - low for _, (low, high) in known),
        # The truth is compared in whole ms, rounded either way.
        outside_range=sum(not low - 1 <= item.heard_ms <= high + 1 for item, (low, high) in known),
        barge_in_ms=spread(
            barge_in.latency_ms for call in calls for barge_in in call.barge_ins if barge_in.flushed
        ),
        calls_failed=sum(call.ending != "hung_up" for call in calls),
    )
