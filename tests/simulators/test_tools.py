"""The simulated endpoint of functions."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from simulators.tools import Tool, ToolsSimulator


async def test_function_is_answered_in_its_time_and_the_call_kept() -> None:
    async with (
        ToolsSimulator({"quote": Tool("$9.05", delay_ms=150)}) as tools,
        aiohttp.ClientSession() as http,
    ):
        began_s = time.monotonic()
        async with http.post(tools.url("quote"), json={"items": ["bagels"]}) as answer:
            assert (answer.status, await answer.text()) == (200, "$9.05")
        assert time.monotonic() - began_s >= 0.15
        (call,) = tools.calls
        assert (call.name, call.arguments) == ("quote", '{"items": ["bagels"]}')
        assert call.over_s is not None and call.over_s - call.at_s >= 0.15
        assert not call.given_up
        async with http.post(tools.url("stock")) as answer:
            assert answer.status == 404


async def test_call_that_is_given_up_is_known_as_such() -> None:
    async with (
        ToolsSimulator({"quote": Tool(delay_ms=60_000)}) as tools,
        aiohttp.ClientSession() as http,
    ):
        asking = asyncio.ensure_future(http.post(tools.url("quote")))
        while not tools.calls:
            await asyncio.sleep(0.005)
        assert not tools.calls[0].given_up
        asking.cancel()
        async with asyncio.timeout(5):
            while not tools.calls[0].given_up:
                await asyncio.sleep(0.005)


async def test_calls_are_slow_and_fail_by_seed_and_number() -> None:
    answers: list[list[tuple[int, bool]]] = []
    for seed in (1, 1, 2):
        tool = Tool(slow=0.5, slow_ms=100, fail=0.3)
        async with (
            ToolsSimulator({"quote": tool}, seed=seed) as tools,
            aiohttp.ClientSession() as http,
        ):
            for _ in range(20):
                async with http.post(tools.url("quote")):
                    pass
            answers.append(
                [(c.status or 0, (c.over_s or 0.0) - c.at_s >= 0.1) for c in tools.calls]
            )
    assert [status for status, _ in answers[0]] == [status for status, _ in answers[1]]
    assert [status for status, _ in answers[0]] != [status for status, _ in answers[2]]
    assert {status for status, _ in answers[0]} == {200, 500}
    assert {slow for _, slow in answers[0]} == {True, False}


def test_url_is_known_once_it_is_open() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        ToolsSimulator({}).url("quote")
