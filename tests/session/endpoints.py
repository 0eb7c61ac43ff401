"""Endpoints of functions that do not do as they should."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def endpoint(serve: Serve) -> AsyncIterator[str]:
    """A server that does as it is told with each connection; its URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/f"


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a process that is killed does."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


class Hanging:
    """An endpoint that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        """Once for each request."""
        self.left = asyncio.Semaphore(0)
        """Once for each client that went away."""

    async def serve(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        self.asked.release()
        await reader.read()
        self.left.release()
