"""Plays scenarios: independent ones at the same time, those that measure delays alone."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence

# Each module registers its scenarios.
from bench.faults import (
    at_link,
    at_model,
    at_store,
    at_transcript,
    at_twilio,
    killed,
    streams,
    trust,
)
from bench.faults.rows import SCENARIOS, FaultRow, Options, Scenario

__all__ = ["SCENARIOS", "names", "run_faults"]

MODULES = (at_twilio, at_link, at_model, killed, streams, at_store, trust, at_transcript)

AT_ONCE = 4
"""Scenarios that run beside each other: most of their time they wait."""


def names() -> list[str]:
    """All scenarios."""
    return [scenario.name for scenario in SCENARIOS]


async def run_faults(
    options: Options, report: Callable[[FaultRow], None], *, only: Sequence[str] = ()
) -> list[FaultRow]:
    """Play scenarios.

    Args:
        options: Sizes.
        report: Gets each row as soon as it is there.
        only: Names; empty: all.

    Raises:
        ValueError: There is no scenario of a name.
    """
    unknown = sorted(set(only) - set(names()))
    if unknown:
        raise ValueError(f"no such scenario: {', '.join(unknown)}; there are {', '.join(names())}")
    wanted = [scenario for scenario in SCENARIOS if not only or scenario.name in only]
    rows: dict[str, list[FaultRow]] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(scenario: Scenario) -> None:
        async with places:
            rows[scenario.name] = await _play(scenario, options)
            for row in rows[scenario.name]:
                report(row)

    # The longest first: what they wait for, others can use.
    together = [scenario for scenario in wanted if not scenario.alone]
    together.sort(key=lambda scenario: -scenario.within_s)
    await asyncio.gather(*(one(scenario) for scenario in together))
    for scenario in wanted:
        if scenario.alone:
            await one(scenario)
    return [row for scenario in wanted for row in rows[scenario.name]]


async def _play(scenario: Scenario, options: Options) -> list[FaultRow]:
    began_s = time.monotonic()
    values: Sequence[float | None] = (None,) * len(scenario.measures)
    note = ""
    try:
        async with asyncio.timeout(scenario.within_s):
            values = await scenario.play(options)
    except TimeoutError as error:
        note = str(error)[:300] or f"not within {scenario.within_s:.0f} s"
    except Exception as error:
        # A scenario that an older version cannot even play says so, and the others are played.
        note = f"could not be played: {type(error).__name__}: {error}"[:300]
        traceback.print_exc()
    seconds = round(time.monotonic() - began_s, 1)
    return [
        FaultRow(
            fault=scenario.name,
            done=scenario.done,
            measured=measure.what,
            value=None if value is None else round(float(value), 2),
            unit=measure.unit,
            bound=measure.bound,
            at_most=measure.at_most,
            ok=measure.fulfilled(value),
            note=note,
            seconds=seconds,
        )
        for measure, value in zip(scenario.measures, values, strict=True)
    ]
