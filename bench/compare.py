"""asheard, the yardstick and the floor under the same load in one run, and the ratios between them.

The systems take turns at each number of calls, each time in another order, so that what else the
machine does at the moment meets all of them alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from bench.results import CallsResult
from bench.run import Load, Setup, run_calls
from bench.systems import NAMES, carries_audio


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All systems at one number of calls."""

    calls: int
    cpu_s_per_call_minute: dict[str, float]
    audio_cpu_s_per_call_minute: float | None
    """Gateway and session workers of asheard, without the aligners and the transcript service."""
    ratio_to_yardstick: float | None
    """Of that to the yardstick's."""
    ratio_to_relay: float | None
    forward_p99_ms: dict[str, float | None]
    barge_in_p99_ms: dict[str, float | None]
    kb_per_call: dict[str, float]
    generator_bottleneck: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Ratios of one run hold, absolute figures drift with the machine."""

    bench: str = "compare"
    cores: int
    date: str
    rows: list[Row]


async def compare(
    counts: Sequence[int],
    seconds: float,
    *,
    names: Sequence[str] = NAMES,
    sessions: int = 1,
    settings: Mapping[str, str] | None = None,
    report: Callable[[CallsResult], Awaitable[None]],
) -> Comparison:
    """Run every system at every number of calls.

    Args:
        counts: Numbers of calls.
        seconds: The window of each run.
        names: The systems.
        sessions: asheard's session workers.
        settings: More environment for asheard.
        report: Given each result as it comes.
    """
    rows: list[Row] = []
    results: list[CallsResult] = []
    for turn, calls in enumerate(counts):
        shift = turn % len(names)
        found: dict[str, CallsResult] = {}
        for name in (*names[shift:], *names[:shift]):
            setup = Setup(name, sessions=sessions, settings=settings or {})
            found[name] = await run_calls(setup, Load(calls, seconds))
            await report(found[name])
        results.extend(found.values())
        rows.append(row(found))
    return Comparison(cores=results[0].cores, date=results[0].date, rows=rows)


def row(found: Mapping[str, CallsResult]) -> Row:
    """Sum up the systems at one number of calls. Pure."""
    audio = None
    if "asheard" in found:
        audio = round(
            sum(
                cost.cpu_s_per_call_minute
                for name, cost in found["asheard"].processes.items()
                if carries_audio(name) and not name.startswith("load")
            ),
            4,
        )

    def ratio(name: str) -> float | None:
        if audio is None or name not in found or not found[name].cpu_s_per_call_minute:
            return None
        return round(audio / found[name].cpu_s_per_call_minute, 3)

    return Row(
        calls=next(iter(found.values())).calls,
        cpu_s_per_call_minute={n: r.cpu_s_per_call_minute for n, r in found.items()},
        audio_cpu_s_per_call_minute=audio,
        ratio_to_yardstick=ratio("yardstick"),
        ratio_to_relay=ratio("relay"),
        forward_p99_ms={n: r.forward_ms.p99 for n, r in found.items()},
        barge_in_p99_ms={n: r.barge_in.processing_ms.p99 for n, r in found.items()},
        kb_per_call={n: r.kb_per_call for n, r in found.items()},
        generator_bottleneck=any(r.generator.bottleneck for r in found.values()),
    )
