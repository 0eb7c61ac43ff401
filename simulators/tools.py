"""A simulated endpoint of functions: HTTP on loopback, as slow or as broken as a script says.

``async with ToolsSimulator({"quote": Tool("$9.05", delay_ms=8_000)}) as tools`` serves each function
at ``tools.url("quote")``, for the agent file's ``url``, and keeps a :class:`ToolCall` for every
request: when it came, and when it was answered or given up by whoever asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. What is drawn goes by the seed, the name and how many calls came before."""

    answer: str = "{}"
    """Body of every answer."""
    status: int = 200
    delay_ms: int = 0
    """From the request to its answer."""
    slow: float = 0.0
    """Share of calls that take ``slow_ms`` instead, between 0 and 1."""
    slow_ms: int = 8_000
    fail: float = 0.0
    """Share of calls that are answered with status 500, between 0 and 1."""


@dataclass(slots=True)
class ToolCall:
    """One request. Times are monotonic, in s, as ``time.monotonic`` gives them."""

    name: str
    arguments: str
    """Body of the request, as it came."""
    at_s: float
    over_s: float | None = None
    """When it was answered or given up; None while neither."""
    status: int | None = None
    """Of the answer; None if there was none."""

    @property
    def given_up(self) -> bool:
        """Whoever asked has left without the answer."""
        return self.over_s is not None and self.status is None


class ToolsSimulator:
    """Serves any number of calls at once."""

    def __init__(
        self, tools: Mapping[str, Tool], *, host: str = "127.0.0.1", port: int = 0, seed: int = 0
    ) -> None:
        """Prepare the endpoint; entering the context opens it.

        Args:
            tools: The functions by name.
            host: Where to listen.
            port: 0 for any free one.
            seed: Of what is drawn.
        """
        self.calls: list[ToolCall] = []
        """Every request so far, in the order they came."""
        self._tools = dict(tools)
        self._host = host
        self._port = port
        self._seed = seed
        self._counts: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    def url(self, name: str) -> str:
        """Where a function is served, once the endpoint is open."""
        if self._runner is None:
            raise RuntimeError("the simulator is not open")
        return f"http://{self._host}:{self._runner.addresses[0][1]}/{name}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{name}", self._serve)
        # A request whose client leaves is cancelled: that is how a call is given up.
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        await web.TCPSite(runner, self._host, self._port).start()
        self._runner = runner
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        tool = self._tools.get(name)
        if tool is None:
            raise web.HTTPNotFound
        call = ToolCall(name, await request.text(), time.monotonic())
        self.calls.append(call)
        self._counts[name] += 1
        random = Random(f"{self._seed}/{name}/{self._counts[name]}")
        slow, fail = random.random() < tool.slow, random.random() < tool.fail
        try:
            await asyncio.sleep((tool.slow_ms if slow else tool.delay_ms) / 1000)
            call.status = 500 if fail else tool.status
        finally:
            call.over_s = time.monotonic()
        return web.Response(text=tool.answer, status=call.status)
