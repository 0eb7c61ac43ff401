"""Function calls against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from session.agent import Tool
from session.tools import MAX_OUTPUT_BYTES, ToolResult, ToolRunner


async def _quote(request: web.Request) -> web.Response:
    items = (await request.json())["items"]
    return web.json_response({"total": f"${2.35 * len(items):.2f}"})


async def _broken(_request: web.Request) -> web.Response:
    return web.Response(status=500, text="stack trace with secrets")


async def _slow(_request: web.Request) -> web.Response:
    await asyncio.sleep(5)
    return web.Response(text="too late")


async def _long(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * (MAX_OUTPUT_BYTES + 1))


@pytest.fixture
async def runner() -> AsyncIterator[ToolRunner]:
    app = web.Application()
    for name, handler in (
        ("quote", _quote),
        ("broken", _broken),
        ("slow", _slow),
        ("long", _long),
    ):
        app.router.add_post(f"/{name}", handler)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        tools = [
            Tool(name=name, description="d", url=str(server.make_url(f"/{name}")), timeout_s=0.2)
            for name in ("quote", "broken", "slow", "long")
        ]
        gone = Tool(name="gone", description="d", url="http://127.0.0.1:1/")
        yield ToolRunner([*tools, gone], http)


def error_of(result: ToolResult) -> str:
    assert not result.succeeded
    return str(json.loads(result.output)["error"])


async def test_arguments_are_posted_and_the_body_comes_back(runner: ToolRunner) -> None:
    result = await runner.call("quote", '{"items": ["bagel", "bagel"]}')
    assert result.succeeded
    assert json.loads(result.output) == {"total": "$4.70"}
    assert 0 <= result.duration_ms < 5000


async def test_a_failing_endpoint_is_told_without_its_body(runner: ToolRunner) -> None:
    result = await runner.call("broken", "{}")
    assert error_of(result) == "It failed with HTTP status 500."
    assert result.outcome == "http_error"


async def test_a_slow_endpoint_is_given_up(runner: ToolRunner) -> None:
    result = await runner.call("slow", "{}")
    assert error_of(result) == "It did not answer within 0.2 seconds."
    assert 190 <= result.duration_ms < 4000


async def test_an_endpoint_that_is_not_there(runner: ToolRunner) -> None:
    assert error_of(await runner.call("gone", "{}")) == "It cannot be reached."


async def test_an_answer_that_would_crowd_out_the_conversation(runner: ToolRunner) -> None:
    assert error_of(await runner.call("long", "{}")) == "Its answer was too long."


@pytest.mark.parametrize("arguments", ['{"items": ', "[1]", "null", "\x00"])
async def test_arguments_that_are_no_object(runner: ToolRunner, arguments: str) -> None:
    result = await runner.call("quote", arguments)
    assert "Call it again" in error_of(result)
    assert result.outcome == "bad_arguments"


async def test_a_function_that_does_not_exist(runner: ToolRunner) -> None:
    assert error_of(await runner.call("nothing", "{}")) == "There is no such function."


@pytest.mark.parametrize(
    "arguments",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"n": NaN}',
        '{"n": 1' + "0" * 5000 + "}",
        '{"items": ["ba',
    ],
    ids=lambda arguments: repr(arguments[:12]),
)
async def test_what_is_no_json_object_is_never_sent(runner: ToolRunner, arguments: str) -> None:
    assert "not valid JSON" in error_of(await runner.call("broken", arguments))


@pytest.mark.parametrize("arguments", ["", " ", "{}"])
async def test_a_call_without_parameters_is_a_call(runner: ToolRunner, arguments: str) -> None:
    assert (await runner.call("long", arguments)).outcome == "too_long", "it was asked"
