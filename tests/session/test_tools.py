"""Function calls against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from runtime.log import get_log
from session import tools as session_tools
from session.agent import Tool
from session.realtime.outputs import CallTool
from session.tools import MAX_OUTPUT_BYTES, ToolCalls, ToolResult, ToolRunner, open_http
from tests.session.endpoints import Hanging, endpoint, reset


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
    assert error_of(result) == (
        "It did not answer within 0.2 seconds. Whether it was carried out is not known."
    )
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


# --- endpoints that break ------------------------------------------------------------------------


async def call_once(url: str, *, timeout_s: float = 5) -> ToolResult:
    async with open_http() as http:
        tool = Tool(name="f", description="d", url=url, timeout_s=timeout_s)
        return await ToolRunner([tool], http).call("f", "{}")


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\nCon"]
)
@pytest.mark.parametrize("resets", [True, False])
async def test_an_endpoint_that_breaks_off_may_have_done_its_work(
    said: bytes, resets: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(said)
        await writer.drain()
        if resets:
            reset(writer)

    async with endpoint(serve) as url:
        result = await call_once(url)
    assert result.outcome == "broken_off"
    assert error_of(result) == (
        "The connection broke before it answered. Whether it was carried out is not known."
    )


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_an_endpoint_that_hangs_is_given_up(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    async with endpoint(serve) as url:
        result = await call_once(url, timeout_s=0.3)
    assert result.outcome == "timeout"
    assert 290 <= result.duration_ms < 4000


async def test_what_is_no_http_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with endpoint(serve) as url:
        assert (await call_once(url)).outcome == "broken_off"


async def test_an_endpoint_that_takes_no_connection_is_told_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the function may take."""
    monkeypatch.setattr(session_tools, "CONNECT_S", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        result = await call_once(f"http://127.0.0.1:{full.getsockname()[1]}/f", timeout_s=60)
        for one in waiting:
            one.close()
    assert error_of(result) == "It cannot be reached."
    assert result.duration_ms < 5000


# --- calls that are given up or left -------------------------------------------------------------


class Back:
    """What has come back, by call."""

    def __init__(self) -> None:
        self.results: dict[str, ToolResult] = {}

    def __call__(self, call: CallTool, result: ToolResult) -> None:
        self.results[call.call_id] = result


@asynccontextmanager
async def slow_calls() -> AsyncIterator[tuple[Hanging, ToolCalls, Back]]:
    """Calls of two functions, ``hanging`` and ``gone``, and what has come back of them."""
    hanging = Hanging()
    async with endpoint(hanging.serve) as url, open_http() as http:
        tools = [
            Tool(name="hanging", description="d", url=url, timeout_s=300),
            Tool(name="gone", description="d", url="http://127.0.0.1:1/"),
        ]
        yield hanging, ToolCalls(ToolRunner(tools, http), get_log("test")), Back()


async def test_a_call_is_given_up_with_its_request() -> None:
    async with slow_calls() as (hanging, calls, back), calls:
        calls.start(CallTool("c", "hanging", "{}"), back)
        await hanging.asked.acquire()
        result = calls.cancel("c")
        assert result is not None
        assert not result.succeeded
        assert result.outcome == "cancelled"
        assert result.duration_ms < 4000
        await asyncio.wait_for(hanging.left.acquire(), 5)
        assert calls.cancel("c") is None
        calls.start(CallTool("d", "gone", "{}"), back)
        while not back.results:
            await asyncio.sleep(0)
        assert list(back.results) == ["d"], "nothing of what was given up"
        assert calls.cancel("d") is None, "it has answered"


async def test_a_call_is_given_up_before_its_first_step() -> None:
    async with slow_calls() as (_hanging, calls, back), calls:
        calls.start(CallTool("c", "gone", "{}"), back)
        assert calls.cancel("c") is not None
        await asyncio.sleep(0.05)
        assert back.results == {}


async def test_a_result_that_was_given_up_in_the_same_turn_does_not_come() -> None:
    """The endpoint has answered, and the caller speaks before the task is told."""

    class Answering(ToolRunner):
        async def call(self, name: str, arguments: str) -> ToolResult:
            await answered.wait()
            return ToolResult("{}", "ok", 1)

    answered = asyncio.Event()
    back = Back()
    async with open_http() as http:
        runner = Answering([], http)
        calls = ToolCalls(runner, get_log("test"))
        async with calls:
            calls.start(CallTool("c", "f", "{}"), back)
            await asyncio.sleep(0)
            answered.set()
            assert calls.cancel("c") is not None
            await asyncio.sleep(0.01)
    assert back.results == {}


async def test_calls_are_left_when_the_telephone_call_ends() -> None:
    async with slow_calls() as (hanging, calls, back):
        async with calls:
            for n in range(3):
                calls.start(CallTool(f"c{n}", "hanging", "{}"), back)
                await hanging.asked.acquire()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "tool call" not in names
        for _n in range(3):
            await asyncio.wait_for(hanging.left.acquire(), 5)
        assert back.results == {}


async def test_slow_functions_of_some_calls_keep_no_others_waiting() -> None:
    """aiohttp has a hundred connections by default, and a worker more calls than that."""
    async with slow_calls() as (hanging, calls, back), calls:
        for n in range(150):
            calls.start(CallTool(f"c{n}", "hanging", "{}"), back)
        for _n in range(150):
            await asyncio.wait_for(hanging.asked.acquire(), 10)
