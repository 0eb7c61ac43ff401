"""A TCP proxy that can cut what goes through it, or have both ends vanish without a word."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_SO_ATTACH_FILTER = 26
"""asm-generic/socket.h; Python has no name for it."""


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.c_void_p)]


def vanish(end: socket.socket) -> None:
    """Have the kernel drop whatever comes for a socket, before TCP: nothing is acknowledged, no
    keepalive answered. To its peer it is a machine that has lost its network."""
    drop_all = _Instruction(0x06, 0, 0, 0)  # BPF_RET with 0: keep no byte of the packet
    program = _Program(1, ctypes.addressof(drop_all))
    # A second descriptor of the same connection: what is set on it stays, and any event loop's will do.
    with socket.socket(fileno=os.dup(end.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


class Proxy:
    """Passes on bytes between whoever connects and one target."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._silent = False
        self.address = ""
        """Where it listens."""

    def vanish(self) -> None:
        """From now on nothing passes, on any connection, and nothing is acknowledged."""
        self._silent = True
        for pair in self._pairs:
            for writer in pair:
                vanish(_socket(writer))

    def cut(self) -> None:
        """Reset all connections."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self._pairs.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            far_reader, far = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        self._pairs.append((writer, far))
        if self._silent:
            vanish(_socket(writer))
            vanish(_socket(far))
        one = asyncio.create_task(self._pass(reader, far))
        other = asyncio.create_task(self._pass(far_reader, writer))
        await asyncio.gather(one, other, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._silent:
                    return
                writer.write(data)
                await writer.drain()
        if not self._silent:
            writer.close()


def _socket(writer: asyncio.StreamWriter) -> socket.socket:
    found: socket.socket = writer.get_extra_info("socket")
    return found


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """Listen on loopback, and pass on to ``host:port``."""
    made = Proxy(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    made.address = f"{host}:{port}"
    try:
        yield made
    finally:
        made.cut()
        server.close()
