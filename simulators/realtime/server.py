"""A simulated OpenAI Realtime endpoint on loopback: the shell around ``engine.py``.

``async with RealtimeSimulator(script) as realtime:`` serves at ``realtime.url`` (to be used as the
Realtime URL, without the ``model`` query) and keeps one :class:`SessionTruth` for every session.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from simulators.network import DIRECT, Link, Path
from simulators.realtime.engine import Engine
from simulators.realtime.script import AgentScript, Drop
from simulators.realtime.session_truth import SessionTruth

DEFAULT_MODEL = "gpt-realtime-2.1"
BAD_KEY_CODE = 3000
BAD_KEY_REASON = "invalid_request_error.invalid_api_key"
"""How the live service answers a bad key: the socket opens, then closes."""

_encode = msgspec.json.Encoder().encode


class RealtimeSimulator:
    """Serves any number of sessions, each with its own copy of the script."""

    def __init__(
        self,
        script: AgentScript,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        to_server: Path = DIRECT,
        from_server: Path = DIRECT,
        seed: int = 0,
    ) -> None:
        """Prepare the endpoint; entering the context opens it.

        Args:
            script: What every session's model says.
            host: Where to listen.
            port: 0 for any free one.
            api_key: The only key accepted; None accepts all, and none at all.
            to_server: Network on the way to the model.
            from_server: Network on the way back.
            seed: For the jitter.
        """
        self.sessions: list[SessionTruth] = []
        """Every session so far, in the order they were opened; they grow while they live."""
        self._script = script
        self._host = host
        self._port = port
        self._api_key = api_key
        self._paths = (to_server, from_server)
        self._random = random.Random(seed)
        self._server: Server | None = None
        self._drops: Counter[int] = Counter()
        self._run = f"{time.time_ns() & 0xFFFFFF:06x}"

    @property
    def url(self) -> str:
        """``ws://HOST:PORT/v1/realtime``, once it is open."""
        if self._server is None:
            raise RuntimeError("the simulator is not open")
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://{self._host}:{port}/v1/realtime"

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            compression=None,
            max_size=None,
            ping_interval=None,
            close_timeout=2,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        request = socket.request
        if request is None:
            raise AssertionError("a connection that is served has had its request")
        path = urlsplit(request.path)
        key = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if self._api_key is not None and key != self._api_key:
            await socket.close(BAD_KEY_CODE, BAD_KEY_REASON)
            return
        if not path.path.rstrip("/").endswith("/realtime"):
            await socket.close(1008, "no such endpoint")
            return
        engine = Engine(
            self._script,
            session_id=f"sess_{self._run}{len(self.sessions):05d}",
            model=parse_qs(path.query).get("model", [DEFAULT_MODEL])[0],
            created_at_s=int(time.time()),
            number=len(self.sessions),
            may_drop=self._may_drop,
        )
        self.sessions.append(engine.truth)
        links = [Link(p, self._random) for p in self._paths]
        await _LiveSession(socket, engine, links[0], links[1]).run()

    def _may_drop(self, drop: Drop) -> bool:
        """Whether a scripted drop happens once more; counted over all sessions."""
        if self._drops[id(drop)] >= drop.times:
            return False
        self._drops[id(drop)] += 1
        return True


class _LiveSession:
    """One socket and its engine."""

    def __init__(
        self, socket: ServerConnection, engine: Engine, inward: Link, outward: Link
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._inward = inward
        self._outward = outward
        self._began_s = asyncio.get_running_loop().time()
        self._last_ms = 0
        self._wake = asyncio.Event()
        self._arriving: deque[tuple[int, str | bytes]] = deque()
        self._leaving: deque[tuple[int, bytes]] = deque()
        self._over = False

    def _now(self) -> int:
        """Age of the session; never before a time the engine has seen."""
        age_ms = int((asyncio.get_running_loop().time() - self._began_s) * 1000)
        self._last_ms = max(self._last_ms, age_ms)
        return self._last_ms

    async def run(self) -> None:
        """Serve until one side ends it."""
        reader = asyncio.create_task(self._read())
        try:
            await self._pump()
        except ConnectionClosed:
            pass
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._engine.end("client_closed")

    async def _pump(self) -> None:
        engine = self._engine
        while not self._over:
            now = self._now()
            while self._arriving and self._arriving[0][0] <= now:
                engine.receive(self._arriving.popleft()[1], now)
            engine.advance(now)
            await self._send(now)
            closing = engine.closing
            if closing is not None and not self._leaving:
                if closing.code is None:
                    self._socket.transport.abort()
                else:
                    await self._socket.close(closing.code, closing.reason)
                return
            await self._sleep()

    async def _send(self, now: int) -> None:
        for event in self._engine.take():
            frame = event.encode() if isinstance(event, str) else _encode(event)
            if self._outward.instant:
                await self._socket.send(frame, text=True)
            else:
                self._leaving.append((self._outward.arrival_ms(now), frame))
        while self._leaving and self._leaving[0][0] <= now:
            await self._socket.send(self._leaving.popleft()[1], text=True)

    async def _sleep(self) -> None:
        due = [q[0][0] for q in (self._arriving, self._leaving) if q]
        engine_due = self._engine.next_due_ms()
        if engine_due is not None:
            due.append(engine_due)
        if self._engine.has_output:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._began_s + min(due) / 1000 - loop.time() if due else 0.0
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        handle = loop.call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            handle.cancel()

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                now = self._now()
                if self._inward.instant:
                    self._engine.receive(message, now)
                    if self._engine.has_output:
                        self._wake.set()
                else:
                    self._arriving.append((self._inward.arrival_ms(now), message))
                    self._wake.set()
        except ConnectionClosed:
            pass
        self._over = True
        self._wake.set()
