"""Function calls: HTTP POST of the arguments, the answer's body back to the model.

Whatever goes wrong becomes a text that the model can speak about: a caller who hears "I cannot
look that up just now" is better off than one who hears nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from session.agent import Tool

MAX_OUTPUT_BYTES = 32 * 1024
"""About 8,000 tokens, a quarter of the model's context. More of an answer would crowd out the
conversation."""


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
        try:
            async with self._http.post(
                tool.url, json=body, timeout=aiohttp.ClientTimeout(total=tool.timeout_s)
            ) as response:
                if not 200 <= response.status < 300:
                    return _error(f"It failed with HTTP status {response.status}."), "http_error"
                raw = await _read(response.content)
        except TimeoutError:
            return _error(f"It did not answer within {tool.timeout_s:g} seconds."), "timeout"
        except (aiohttp.ClientError, OSError, ValueError):
            return _error("It cannot be reached."), "unreachable"
        if raw is None:
            return _error("Its answer was too long."), "too_long"
        return raw.decode("utf-8", errors="replace"), "ok"


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
