"""One run of calls through one system: start everything, warm up, measure a window, judge it."""

from __future__ import annotations

import asyncio
import datetime
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import peers, processes, results, score, systems, transcripts
from bench.load import record
from bench.load.record import CallerRecord, ModelRecord
from bench.load.truth import TrueItem
from bench.processes import Usage
from bench.results import CallsResult, ProcessCost
from bench.score import Account, Score
from bench.spread import microseconds, spread

WARM_UP_S = 2.0
"""After all calls are up: their greetings are on the way, caches and pools are filled."""

SETTLE_S = 0.5
"""Between reading what processes have used, or the burst of hang-ups, and the window: either takes
CPU that the frames of the window must not wait for."""

_LOAD = ("load model", "load caller")


@dataclass(frozen=True, slots=True)
class Load:
    """What is put on a system."""

    calls: int
    seconds: float
    """The window that is measured."""
    barge_in_share: float = 0.6
    seed: int = 1
    call_seconds: float = 0.0
    """0: every call lasts to the end. Else about so long, and another follows each."""
    sample_s: float = 0.0
    """Take a reading of the system's processes so often within the window. 0: none."""

    @property
    def ramp_s(self) -> float:
        """Not all in the same instant: 50 calls a second at most."""
        return max(1.0, self.calls / 50)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the load is put on."""

    system: str
    """One of :data:`bench.systems.NAMES`; another name for one that runs already."""
    sessions: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    """More environment for asheard."""
    running: systems.System | None = None
    """The system that runs already. Its model must be ours: see ``model_listen``."""
    model_listen: str = "127.0.0.1:0"
    core: int | None = None
    """Keep what carries audio on this core, and all else on the others: the load, and of asheard
    the aligners and the transcript service. So the capacity of one core is measured."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run brought home."""

    model: ModelRecord
    caller: CallerRecord
    accounts: Mapping[str, Account] | None
    """What the transcripts say, by item id. None: the system has none."""
    open_transcripts: int
    idle: Mapping[str, Usage]
    begin: Mapping[str, Usage]
    end: Mapping[str, Usage]
    samples: Sequence[Mapping[str, Usage]]
    """Of the system's processes, within the window."""
    seconds: float
    busy_share: float
    log: str


async def run_calls(setup: Setup, load: Load) -> CallsResult:
    """Put a load on a system and judge what came of it.

    Raises:
        TimeoutError: The system did not become ready, or a load process broke down.
    """
    return judge(setup, load, await measure(setup, load))


async def measure(setup: Setup, load: Load) -> Measured:
    """Do the run.

    Raises:
        TimeoutError: The system did not become ready, or a load process broke down.
    """
    with tempfile.TemporaryDirectory(prefix="asheard-bench-") as folder:
        async with AsyncExitStack() as stack:
            bare = ("--bare",) if setup.system == "relay" else ()
            model = await stack.enter_async_context(
                peers.start(
                    "bench.load.model",
                    "--listen",
                    setup.model_listen,
                    "--seed",
                    str(load.seed),
                    *bare,
                    out=Path(folder, "model"),
                )  # fmt: skip
            )
            realtime_url = f"ws://{await model.ready()}/v1/realtime"
            system = await stack.enter_async_context(_system(setup, realtime_url))
            pids = {**system.pids, "load model": model.pid}
            idle = processes.usages(pids)
            caller = await stack.enter_async_context(
                peers.start(
                    "bench.load.caller",
                    system.media_url,
                    "--calls",
                    str(load.calls),
                    "--ramp",
                    str(load.ramp_s),
                    "--barge-ins",
                    str(load.barge_in_share),
                    "--call-seconds",
                    str(load.call_seconds),
                    "--seed",
                    str(load.seed),
                    "--run",
                    str(time.time_ns() // 1000),
                    out=Path(folder, "caller"),
                )  # fmt: skip
            )
            if setup.core is not None:
                audio = {pid for name, pid in system.pids.items() if systems.carries_audio(name)}
                everything = processes.families([*system.pids.values(), model.pid, caller.pid])
                cores = os.sched_getaffinity(0)
                _keep_on(audio, {setup.core})
                _keep_on(everything - audio | {os.getpid()}, cores - {setup.core})
                stack.callback(os.sched_setaffinity, 0, cores)
                _give_way(everything - audio - {model.pid, caller.pid})
            await caller.ready(load.ramp_s + peers.ANSWER_S)
            await asyncio.sleep(WARM_UP_S)
            pids["load caller"] = caller.pid
            idle |= processes.usages({"load caller": caller.pid})

            begin, machine, began_s = processes.usages(pids), processes.machine(), time.monotonic()
            await asyncio.sleep(SETTLE_S)
            await asyncio.gather(model.tell("begin"), caller.tell("begin"))
            samples = await _sample(system.pids, load)
            await asyncio.gather(model.tell("end"), caller.tell("end"))
            await asyncio.sleep(SETTLE_S)
            end, seconds = processes.usages(pids), time.monotonic() - began_s
            busy_share = processes.machine().busy_share(machine)
            await caller.tell("finish")
            await model.tell("finish")
            caller_record = record.read_caller(caller.out)
            found, still_open = None, 0
            if system.transcript_target is not None:
                sids = [call.call_sid for call in caller_record.calls if call.ended == "hung_up"]
                found, still_open = await transcripts.accounts(system.transcript_target, sids)
            return Measured(
                model=record.read_model(model.out),
                caller=caller_record,
                accounts=found,
                open_transcripts=still_open,
                idle=idle,
                begin=begin,
                end=end,
                samples=samples,
                seconds=seconds,
                busy_share=busy_share,
                log=system.log(),
            )


def judge(setup: Setup, load: Load, run: Measured) -> CallsResult:
    """Sum a run up."""
    costs = {
        name: results.process_cost(
            run.idle.get(name, Usage()),
            run.begin.get(name, Usage()),
            run.end[name],
            calls=load.calls,
            seconds=run.seconds,
        )
        for name in run.end
    }
    own = {name: cost for name, cost in costs.items() if name not in _LOAD}
    own_share = sum(cost.cpu_share for cost in costs.values())
    items = results.items(run.model, run.caller)
    return CallsResult(
        system=setup.system,
        calls=load.calls,
        seconds=round(run.seconds, 1),
        cores=processes.cores(),
        machine_busy_share=run.busy_share,
        others_busy_share=max(0.0, round(run.busy_share - own_share / processes.cores(), 3)),
        date=datetime.date.today().isoformat(),
        processes=costs,
        cpu_s_per_call_minute=_total(own, "cpu_s_per_call_minute", 4),
        kb_per_call=_total(own, "kb_per_call", 1),
        forward_ms=spread(microseconds(run.model.forward_us), scale=0.001),
        frames=results.frames(run.model, run.caller),
        agent=results.agent(run.model, run.caller, items),
        barge_in=results.barge_in(run.model, run.caller),
        heard=_heard(run, items),
        word_times=_word_times(run, items),
        open_transcripts=run.open_transcripts,
        calls_lost=sum(call.ended != "hung_up" for call in run.caller.calls),
        generator=results.generator(
            run.model, run.caller, costs["load caller"], costs["load model"], run.busy_share
        ),
        peer_errors=results.peer_errors(run.model),
    )


def _heard(run: Measured, items: Sequence[TrueItem]) -> dict[str, Score]:
    cut = [results.heard(item) for item in items if item.cut is not None and item.cut.clear_ns]
    scores: dict[str, Score] = {}
    if run.accounts is not None:
        scores["transcript"] = score.score(cut, score.by_item_id(run.accounts))
        whole = [results.heard(item) for item in items if item.cut is None and not item.last]
        scores["transcript_of_items_not_cut"] = score.score(whole, score.by_item_id(run.accounts))
    told = {
        entry.item_id: Account("", max(0, entry.audio_end_ms))
        for call in run.model.calls
        for entry in call.truncations
    }
    known = [item for item in cut if item.item_id in told]
    scores["truncations"] = score.audio_only(score.score(known, score.by_item_id(told)))
    for name, way in score.USUAL_WAYS.items():
        scores[name] = score.score(cut, way)
    return scores


def _word_times(run: Measured, items: Sequence[TrueItem]) -> dict[str, int]:
    methods = [
        account.method
        for item in items
        if item.cut is not None
        and (account := (run.accounts or {}).get(item.spoken.item_id)) is not None
    ]
    return {method: methods.count(method) for method in sorted(set(methods))}


def _total(costs: Mapping[str, ProcessCost], name: str, places: int) -> float:
    return round(sum(float(getattr(cost, name)) for cost in costs.values()), places)


@asynccontextmanager
async def _system(setup: Setup, realtime_url: str) -> AsyncIterator[systems.System]:
    if setup.running is not None:
        yield setup.running
        return
    async with systems.start(
        setup.system, realtime_url, sessions=setup.sessions, settings=setup.settings
    ) as system:
        yield system


async def _sample(pids: Mapping[str, int], load: Load) -> list[Mapping[str, Usage]]:
    """Let the window pass."""
    samples: list[Mapping[str, Usage]] = []
    loop = asyncio.get_running_loop()
    over_s = loop.time() + load.seconds
    while (left_s := over_s - loop.time()) > 0:
        if load.sample_s:
            samples.append(processes.usages(pids))
        await asyncio.sleep(min(left_s, load.sample_s or left_s))
    return samples


def _keep_on(pids: Iterable[int], cores: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def _give_way(pids: Iterable[int]) -> None:
    """What is neither measured nor the load must not hold up the load."""
    for pid in pids:
        os.setpriority(os.PRIO_PROCESS, pid, 10)
