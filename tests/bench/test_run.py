"""The load against the yardstick and the floor, for real: what goes in comes out, nothing else."""

from __future__ import annotations

import msgspec
import pytest

from bench.compare import row
from bench.results import CallsResult, summary
from bench.run import Load, Setup, judge, measure
from bench.systems import start

LOAD = Load(calls=4, seconds=4.0, barge_in_share=1.0)


@pytest.mark.parametrize("system", ["yardstick", "relay"])
async def test_nothing_is_lost_and_everything_is_said(system: str) -> None:
    setup = Setup(system)
    run = await measure(setup, LOAD)
    result = judge(setup, LOAD, run)

    assert [call.ended for call in run.caller.calls] == ["hung_up"] * 4
    assert result.frames.sent == sum(call.frames for call in run.caller.calls) >= 4 * 200
    assert result.frames.lost == result.frames.repeated == result.frames.out_of_order == 0
    assert result.frames.strangers == result.frames.foreign_bytes == 0
    assert result.forward_ms.count > 0
    assert result.agent.items >= 4
    assert result.agent.broken == result.agent.foreign_bytes == 0
    assert result.barge_in.cleared >= result.barge_in.processing_ms.count > 0
    assert result.calls_lost == 0
    assert set(result.processes) == {system, "load model", "load caller"}
    assert result.cpu_s_per_call_minute > 0
    assert set(result.heard) >= {"all_text", "characters_by_timestamps", "truncations"}

    assert msgspec.json.decode(msgspec.json.encode(result), type=CallsResult) == result
    assert summary(result).startswith(f"{system} at 4 calls")
    compared = row({system: result})
    assert compared.ratio_to_yardstick is None
    assert compared.cpu_s_per_call_minute == {system: result.cpu_s_per_call_minute}


async def test_a_system_that_cannot_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended at once"):
        async with start("no-such-system", "ws://127.0.0.1:1/"):
            pass
