"""A TCP proxy that falls silent: what is between two ends of a connection that nobody closes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SilentProxy:
    """Passes bytes on, until it is told not to.

    Args:
        port: Of the server behind it, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.up = True
        """Whether what the client says reaches the server, its end included."""
        self.down = True
        """Whether what the server says reaches the client, its end included."""
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client."""
        self._writers.append(writer)
        with contextlib.suppress(OSError):
            server = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.append(server[1])
            await asyncio.gather(
                self._pass((reader, server[1]), up=True), self._pass((server[0], writer), up=False)
            )

    async def _pass(self, pipe: Pipe, *, up: bool) -> None:
        reader, writer = pipe
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.up if up else self.down:
                    writer.write(data)
                    await writer.drain()
        if self.up and self.down:
            writer.close()

    def close(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def silent_proxy(port: int) -> AsyncIterator[SilentProxy]:
    """A running one in front of a port."""
    proxy = SilentProxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.close()
