"""Function calls: HTTP POST of the arguments, the answer's body back to the model.

Whatever goes wrong becomes a text that the model can speak about: a caller who hears "I cannot
look that up just now" is better off than one who hears nothing. The text tells a function that was
never reached from one of which nobody knows what it did: the model had better not call the latter
again unasked.

A call may take minutes. It ends with the function's answer, or is given up (:meth:`ToolCalls.cancel`)
or left at the end of the telephone call, which aborts the request: the endpoint sees its client leave.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
from structlog.typing import FilteringBoundLogger

from session.agent import Tool
from session.realtime.outputs import CallTool

MAX_OUTPUT_BYTES = 32 * 1024
"""About 8,000 tokens, a quarter of the model's context. More of an answer would crowd out the
conversation."""

CONNECT_S = 5.0
"""For an endpoint to be reached, of ``timeout_s``: one that is not there is told at once, however
long its function may take."""

CLOSE_S = 1.0
"""How long aborted requests are waited for; they take one turn of the event loop."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How a call ended."""

    output: str
    """For the model: the answer's body, or an error in words."""
    outcome: str
    """``ok``, or what went wrong, out of a bounded set; for counting."""
    duration_ms: int

    @property
    def succeeded(self) -> bool:
        """Whether the model got a result."""
        return self.outcome == "ok"


FAILED = ToolResult('{"error": "It failed."}', "failed", 0)
"""A call that was lost by a fault of ours."""


def open_http() -> aiohttp.ClientSession:
    """The HTTP client of a process, to be closed by whoever opens it.

    Its connections are bounded by the calls and the functions that each may have under way: with a
    bound of its own, the slow functions of some calls would keep those of others waiting.
    """
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


class ToolRunner:
    """Calls the functions of an agent.

    Args:
        tools: The functions.
        http: Shared by all calls of the process.
    """

    def __init__(self, tools: Sequence[Tool], http: aiohttp.ClientSession) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._http = http

    def knows(self, name: str) -> bool:
        """Whether the agent has such a function."""
        return name in self._tools

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Call a function; never raises for what the model or the endpoint did."""
        began = time.monotonic()
        output, outcome = await self._call(name, arguments)
        return ToolResult(output, outcome, int((time.monotonic() - began) * 1000))

    async def _call(self, name: str, arguments: str) -> tuple[str, str]:
        tool = self._tools.get(name)
        if tool is None:
            return _error("There is no such function."), "unknown_function"
        try:
            body = json.loads(arguments.strip() or "{}", parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return _error("The arguments were not valid JSON. Call it again."), "bad_arguments"
        if not isinstance(body, dict):
            return _error("The arguments were not a JSON object. Call it again."), "bad_arguments"
        timeout = aiohttp.ClientTimeout(total=tool.timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._http.post(tool.url, json=body, timeout=timeout) as response:
                if not 200 <= response.status < 300:
                    return _error(f"It failed with HTTP status {response.status}."), "http_error"
                raw = await _read(response.content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL):
            return _error("It cannot be reached."), "unreachable"
        except TimeoutError:
            return _error(
                f"It did not answer within {tool.timeout_s:g} seconds. {_UNKNOWN}"
            ), "timeout"
        except (aiohttp.ClientError, OSError, ValueError):
            return _error(f"The connection broke before it answered. {_UNKNOWN}"), "broken_off"
        if raw is None:
            return _error("Its answer was too long."), "too_long"
        return raw.decode("utf-8", errors="replace"), "ok"


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A call that has not answered yet."""

    task: asyncio.Task[None]
    began: float


class ToolCalls:
    """The function calls that are under way in one telephone call, which is ``async with`` this.

    Args:
        runner: Carries them out.
        log: Of the telephone call.
    """

    def __init__(self, runner: ToolRunner, log: FilteringBoundLogger) -> None:
        self._runner = runner
        self._log = log
        self._under_way: dict[str, _UnderWay] = {}
        """By ``call_id``."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Those and what was cancelled, until they have ended."""

    def start(self, call: CallTool, returned: Callable[[CallTool, ToolResult], None]) -> None:
        """Call a function; no other call with its ``call_id`` is under way.

        Args:
            call: Which.
            returned: Is given its result, in a task of its own; raises nothing. Not called for what
                was cancelled or left. Not kept for longer, since it may hold who made this.
        """
        task = asyncio.create_task(self._run(call, returned), name="tool call")
        self._under_way[call.call_id] = _UnderWay(task, time.monotonic())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, call_id: str) -> ToolResult | None:
        """Give a call up: its request is aborted, and its result never comes.

        Returns:
            How it ended; None when it is not under way.
        """
        call = self._under_way.pop(call_id, None)
        if call is None:
            return None
        call.task.cancel()
        return ToolResult("", "cancelled", int((time.monotonic() - call.began) * 1000))

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_raised: object) -> None:
        """Leave all calls, without a word. Nothing may be started after this."""
        self._under_way.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)

    async def _run(self, call: CallTool, returned: Callable[[CallTool, ToolResult], None]) -> None:
        try:
            result = await self._runner.call(call.name, call.arguments)
        except Exception as error:
            self._log.error("function call failed by our own fault", exc_info=error)
            result = FAILED
        if self._under_way.pop(call.call_id, None) is None:
            return
        if not result.succeeded:
            name = call.name if self._runner.knows(call.name) else "unknown"
            self._log.warning("function call failed", tool=name, outcome=result.outcome)
        returned(call, result)


_UNKNOWN = "Whether it was carried out is not known."


async def _read(stream: aiohttp.StreamReader) -> bytes | None:
    """All of a body; None when it is longer than we take."""
    pieces = bytearray()
    async for piece in stream.iter_chunked(8192):
        pieces += piece
        if len(pieces) > MAX_OUTPUT_BYTES:
            return None
    return bytes(pieces)


def _no_constant(name: str) -> None:
    """NaN and Infinity are no JSON, and no endpoint could read them."""
    raise ValueError(name)


def _error(text: str) -> str:
    """An error as the model gets it."""
    return json.dumps({"error": text})
