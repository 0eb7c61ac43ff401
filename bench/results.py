"""What a run of calls gives: one JSON object, the same for every system. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bench.load import truth
from bench.load.record import CallerRecord, ModelRecord
from bench.load.truth import TrueItem
from bench.processes import Usage
from bench.score import Heard, Score
from bench.spread import Spread, microseconds, share, spread

LATE_MS = 50
"""A frame that takes longer has missed two of its successors."""

_TRAILING_FRAMES = 5
"""Frames sent in the last 100 ms of a call may be under way when it is hung up."""

_LAG_MS = 5.0
"""A load process that is later than this in one turn of a hundred did not keep the pace."""

_BUSY_SHARE = 0.85
"""Of all cores: above this, who is late is late because everybody is."""

_GENERATOR_SHARE = 0.9
"""Of a core: a load process that used more had none to spare."""


class ProcessCost(msgspec.Struct, frozen=True):
    """What one process used over the window."""

    cpu_s_per_call_minute: float
    cpu_share: float
    """Of one core."""
    wait_share: float
    """Of the window: ready to run, without a core. Much of it means that the machine is short."""
    kb_per_call: float
    """Growth of its memory from idle, divided by the calls."""
    idle_mb: float


class Frames(msgspec.Struct, frozen=True):
    """What became of the caller's frames, over whole calls."""

    sent: int
    lost: int
    lost_at_hang_up: int
    """Of the last 100 ms of a call: they were under way when the socket was closed."""
    repeated: int
    out_of_order: int
    strangers: int
    """Frames that came out in another call."""
    late: int
    """Frames of the window that took longer than 50 ms."""
    foreign_bytes: int


class Agent(msgspec.Struct, frozen=True):
    """What became of the agent's audio."""

    items: int
    cut: int
    broken: int
    """Items with audio lost, repeated or out of order."""
    foreign_bytes: int
    speaking_share: float | None
    """Of the calls' time."""
    first_audio_ms: Spread
    """First delta sent by the model until it came to Twilio's end."""


class BargeIn(msgspec.Struct, frozen=True):
    """What became of barge-ins into sounding speech."""

    count: int
    cleared: int
    """The others: the agent had come to its end before ``clear`` came, or it never came."""
    processing_ms: Spread
    """``speech_started`` sent by the model until ``clear`` came to Twilio's end; of the window."""
    truncations: int
    refused: int


class Generator(msgspec.Struct, frozen=True):
    """Whether the load processes kept their pace: if not, the figures are theirs."""

    bottleneck: bool
    why: list[str]
    caller_late_ms: Spread
    model_late_ms: Spread
    caller_cpu_share: float
    model_cpu_share: float


class CallsResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run of calls through one system."""

    bench: str = "calls"
    system: str
    calls: int
    seconds: float
    cores: int
    machine_busy_share: float
    others_busy_share: float
    """Of all cores, used by processes that have no part in the run."""
    date: str
    processes: dict[str, ProcessCost]
    cpu_s_per_call_minute: float
    """All processes of the system together."""
    kb_per_call: float
    forward_ms: Spread
    """Twilio's frame sent until its ``append`` came to the model's end."""
    frames: Frames
    agent: Agent
    barge_in: BargeIn
    heard: dict[str, Score]
    """``transcript`` (if the system has one) and ``truncations`` (what the model was told), beside
    the usual ways."""
    word_times: dict[str, int]
    """How the words of cut items were timed, by method, and how often."""
    open_transcripts: int
    """Transcripts that were not final 15 s after the end."""
    calls_lost: int
    """Calls that were refused or whose socket was closed by the bridge."""
    generator: Generator
    peer_errors: dict[str, int]
    """What the model refused, by kind."""


def frames(model: ModelRecord, caller: CallerRecord) -> Frames:
    """Hold the two ends' counts against each other."""
    by_call = {call.call: call for call in model.calls}
    lost = at_hang_up = 0
    for sent in caller.calls:
        came = by_call.get(sent.call)
        last = came.frames + len(came.lost) if came is not None else 0
        missing = [*(came.lost if came is not None else ()), *range(last, sent.frames)]
        trailing = sum(number >= sent.frames - _TRAILING_FRAMES for number in missing)
        at_hang_up += trailing
        lost += len(missing) - trailing
    return Frames(
        sent=sum(call.frames for call in caller.calls),
        lost=lost,
        lost_at_hang_up=at_hang_up,
        repeated=sum(call.repeated for call in model.calls),
        out_of_order=sum(call.reordered for call in model.calls),
        strangers=sum(call.strangers for call in model.calls),
        late=sum(us > LATE_MS * 1000 for us in microseconds(model.forward_us)),
        foreign_bytes=sum(call.foreign_bytes for call in model.calls),
    )


def items(model: ModelRecord, caller: CallerRecord) -> list[TrueItem]:
    """Every item of every call, with what was heard of it."""
    by_call = {call.call: call for call in model.calls}
    return [
        item
        for call in caller.calls
        if call.call in by_call
        for item in truth.true_items(by_call[call.call], call)
    ]


def heard(item: TrueItem) -> Heard:
    """The truth of an item as a score wants it."""
    spoken, audio_bytes = item.spoken, 0
    deltas: list[tuple[int, int]] = []
    for length, chars in zip(spoken.delta_bytes, spoken.text_at_delta, strict=True):
        audio_bytes += length
        deltas.append((audio_bytes // 8, chars))
    cut = item.cut
    return Heard(
        item_id=spoken.item_id,
        text=item.text,
        heard_text=item.heard_text,
        audio_ms=item.audio_ms,
        heard_ms=item.heard_ms,
        sent_ms=item.received_bytes // 8,
        elapsed_ms=item.audio_ms if cut is None else cut.clear_ms - cut.reply_ms,
        deltas=deltas,
    )


def agent(model: ModelRecord, caller: CallerRecord, found: Sequence[TrueItem]) -> Agent:
    """What became of the agent's audio."""
    by_call: dict[int, list[TrueItem]] = {}
    for item in found:
        by_call.setdefault(item.call, []).append(item)
    first_audio: list[float] = []
    for call in caller.calls:
        replies = list(call.first_audio_ns)
        for item in by_call.get(call.call, ()):
            if replies and replies[0][0] == item.spoken.line:
                first_audio.append((replies.pop(0)[1] - item.spoken.first_audio_ns) / 1e6)
    return Agent(
        items=len(found),
        cut=sum(item.cut is not None for item in found),
        broken=sum(truth.lost_agent_audio(of_call) for of_call in by_call.values()),
        foreign_bytes=sum(call.foreign_bytes for call in caller.calls),
        speaking_share=share(
            sum(item.heard_ms for item in found), 20 * sum(call.frames for call in caller.calls)
        ),
        first_audio_ms=spread(first_audio),
    )


def barge_in(model: ModelRecord, caller: CallerRecord) -> BargeIn:
    """How long the system took to silence the agent."""
    by_call = {call.call: call for call in model.calls}
    took_ms: list[float] = []
    count = cleared = 0
    for call in caller.calls:
        told = by_call[call.call].interrupts_ns if call.call in by_call else []
        for cut in call.cuts:
            count += 1
            if not cut.clear_ns or cut.onset >= len(told):
                continue
            cleared += 1
            if model.begin_ns <= told[cut.onset] < model.end_ns:
                took_ms.append((cut.clear_ns - told[cut.onset]) / 1e6)
    truncations = [entry for call in model.calls for entry in call.truncations]
    return BargeIn(
        count=count,
        cleared=cleared,
        processing_ms=spread(took_ms),
        truncations=len(truncations),
        refused=sum(not entry.accepted for entry in truncations),
    )


def generator(
    model: ModelRecord,
    caller: CallerRecord,
    caller_cost: ProcessCost,
    model_cost: ProcessCost,
    machine_busy_share: float,
) -> Generator:
    """Judge the load processes."""
    lateness = {
        "Twilio's end": spread(microseconds(caller.lag.late_us), scale=0.001),
        "the model's end": spread(microseconds(model.lag.late_us), scale=0.001),
    }
    costs = {"Twilio's end": caller_cost, "the model's end": model_cost}
    why = [
        f"{name} ran {late.p99:.1f} ms late in one turn of a hundred"
        + (", the machine being short of cores" if machine_busy_share > _BUSY_SHARE else "")
        for name, late in lateness.items()
        if late.p99 is not None and late.p99 > _LAG_MS
    ] + [
        f"{name} used {cost.cpu_share:.0%} of a core"
        for name, cost in costs.items()
        if cost.cpu_share > _GENERATOR_SHARE
    ]
    caller_late, model_late = lateness.values()
    return Generator(
        bottleneck=bool(why),
        why=why,
        caller_late_ms=caller_late,
        model_late_ms=model_late,
        caller_cpu_share=caller_cost.cpu_share,
        model_cpu_share=model_cost.cpu_share,
    )


def process_cost(
    idle: Usage, begin: Usage, end: Usage, *, calls: int, seconds: float
) -> ProcessCost:
    """What a process used between two readings, per call."""
    cpu_s = end.cpu_s - begin.cpu_s
    return ProcessCost(
        cpu_s_per_call_minute=round(cpu_s / (calls * seconds / 60), 4),
        cpu_share=round(cpu_s / seconds, 3),
        wait_share=round((end.wait_s - begin.wait_s) / seconds, 3),
        kb_per_call=round((end.anonymous_bytes - idle.anonymous_bytes) / 1024 / calls, 1),
        idle_mb=round(idle.pss_bytes / 1024 / 1024, 1),
    )


def peer_errors(model: ModelRecord) -> dict[str, int]:
    """The model's refusals, by what was refused and with which code."""
    kinds: dict[str, int] = {}
    for call in model.calls:
        for error in call.errors:
            kind = ": ".join(error.split(": ")[:2])
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def summary(result: CallsResult) -> str:
    """One line for people."""
    heard: Mapping[str, Score] = result.heard
    transcript = heard.get("transcript")
    said = "" if transcript is None else f", heard exactly {transcript.exact_share}"
    return (
        f"{result.system} at {result.calls} calls: {result.cpu_s_per_call_minute} CPU-s per "
        f"call-minute, {result.kb_per_call} KB per call, forward {result.forward_ms.median} / "
        f"{result.forward_ms.p99} / {result.forward_ms.most} ms, barge-in "
        f"{result.barge_in.processing_ms.median} / {result.barge_in.processing_ms.p99} ms, "
        f"lost {result.frames.lost}{said}"
        + (f" [{result.calls_lost} CALLS LOST]" if result.calls_lost else "")
        + (
            f" [others used {result.others_busy_share:.0%} of the cores]"
            if result.others_busy_share > 0.1
            else ""
        )
        + (" [generator: " + "; ".join(result.generator.why) + "]" if result.generator.why else "")
    )
