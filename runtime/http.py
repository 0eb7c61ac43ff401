"""An HTTP port of a service, with bounds on who is connected to it and for how long.

aiohttp serves the requests. Around its protocol stands a thin one of ours, which counts connections
and has an eye on the clock while a request is waited for:

* A connection beyond the bound is answered 503 and closed at once. Descriptors are shared by all
  that a process does, so what strangers open must never be all of them.
* A request's header has to come within :data:`HEADER_S`, and a connection between two requests is
  kept for :data:`KEPT_S`. While a request is served the clock stands still: a WebSocket is one
  request.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from runtime.config import Address
from runtime.errors import ConfigurationError

HEADER_S = 10.0
"""How long a request's header may take, from a connection's opening or the header's first byte. It
is one packet as a rule, and three times retransmitted by then."""

BODY_S = 10.0
"""How long a request's body may take; for those who read one."""

KEPT_S = 75.0
"""How long a connection is kept for a next request: longer than load balancers keep theirs (60 s as
a rule), so that none is closed under a request of theirs."""

LINGER_S = 5.0
"""How long aiohttp reads on to throw away a body that nobody asked for."""

RESERVED_DESCRIPTORS = 256
"""Of a process' descriptors, what connections of strangers do not get: 128 that the kernel has
accepted and nobody has counted yet, 32 of the admin port, and links, facts, probes, files."""

MAX_CONNECTIONS = 10_000
"""To one port, where the system sets no lower limit: twenty times the calls of a core."""

_BACKLOG = 128
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\n\r\n"
)

OVER_LIMIT, SLOW, IDLE, MALFORMED = CLOSED = ("over_limit", "slow", "idle", "malformed")
"""Why connections are closed, as ``on_closed`` is told: one too many; a header that did not come in
time; nothing asked for a while; something that is not HTTP."""


def descriptor_bound() -> int:
    """How many connections strangers may have, so that the rest of the process keeps what it needs.

    It depends on the limit of open files that the process was given (``ulimit -n``).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit in (resource.RLIM_INFINITY, -1):
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, limit - min(RESERVED_DESCRIPTORS, limit // 2))


class _PeersFaults(logging.Filter):
    """Counts what is the peer's fault, in place of a traceback for each."""

    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()
        self._count = count

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionResetError):
            return False  # who asked has gone meanwhile
        # UnicodeError: of aiohttp's own, before our code is reached, such as for an odd Expect.
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError | UnicodeError):
            return True
        self._count()
        return False


def _logger(count: Callable[[], None]) -> logging.Logger:
    """For aiohttp, of one port alone."""
    logger = logging.Logger("aiohttp.server")
    logger.parent = logging.getLogger()
    logger.addFilter(_PeersFaults(count))
    return logger


class HttpPort:
    """Serves an application at one port.

    Args:
        app: With all its routes; must not have been served before.
        address: Where to listen; port 0 lets the system choose.
        called: How the error names the address when it cannot be listened at: with its setting.
        reuse_port: Other processes may listen at it, too; the kernel spreads the connections.
        max_connections: At a time.
        on_closed: Told why, for the metrics, when a connection is closed that asked for nothing:
            one of :data:`CLOSED`.
        shutdown_s: How long open requests may take once the port is closed.
    """

    def __init__(
        self,
        app: web.Application,
        address: Address,
        *,
        called: str,
        reuse_port: bool = False,
        max_connections: int,
        on_closed: Callable[[str], None] = lambda reason: None,
        shutdown_s: float = 60.0,
    ) -> None:
        app.middlewares.insert(0, self._mark)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_logger(lambda: self.on_closed(MALFORMED)),
            shutdown_timeout=shutdown_s,
            keepalive_timeout=KEPT_S,
            lingering_time=LINGER_S,
        )
        self._server: asyncio.Server | None = None
        self._address = address
        self._called = called
        self._reuse_port = reuse_port
        self.port = address.port
        """The port it listens at, once started."""
        self.max_connections = max_connections
        self.on_closed = on_closed
        self.connections: dict[asyncio.BaseTransport, _Connection] = {}
        """Those that are served, by transport."""

    async def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connect,
                self._address.host,
                self._address.port,
                backlog=_BACKLOG,
                reuse_port=self._reuse_port or None,
            )
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(f"{self._called}: {error.strerror}; choose another") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port, then wait for what is still open there. Repeats are ignored."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await self._runner.cleanup()

    def _connect(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None:
            raise AssertionError("start() sets it up before it listens")
        return _Connection(self, server())

    @web.middleware
    async def _mark(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Stop a connection's clock while a request of its is served."""
        transport = request.transport
        connection = None if transport is None else self.connections.get(transport)
        if connection is None:
            return await handler(request)
        connection.begin_request()
        try:
            return await handler(request)
        finally:
            connection.end_request()


class _Connection(asyncio.Protocol):
    """One connection: aiohttp's protocol and a clock.

    Args:
        port: Whose it is.
        inner: aiohttp's.
    """

    def __init__(self, port: HttpPort, inner: asyncio.Protocol) -> None:
        self._port = port
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        """Set while it is served."""
        self._timer: asyncio.TimerHandle | None = None
        self._serving = False
        self._quiet = False
        """Nothing came since the last request."""

    # -- asyncio's protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        both_ways = cast(asyncio.Transport, transport)  # as those of all TCP servers
        if len(self._port.connections) >= self._port.max_connections:
            self._port.on_closed(OVER_LIMIT)
            both_ways.write(_BUSY)
            both_ways.close()
            return
        self._transport = both_ways
        self._port.connections[transport] = self
        self._inner.connection_made(transport)
        self._expire_in(HEADER_S, SLOW)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._quiet:
            self._quiet = False
            self._expire_in(HEADER_S, SLOW)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._transport is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._stop_clock()
        del self._port.connections[self._transport]
        self._transport = None
        self._inner.connection_lost(exc)

    # -- the clock -----------------------------------------------------------------------------

    def begin_request(self) -> None:
        """A request's header came."""
        self._serving, self._quiet = True, False
        self._stop_clock()

    def end_request(self) -> None:
        """A request was answered; the next one may have begun to come already."""
        self._serving, self._quiet = False, True
        if self._transport is not None:
            self._expire_in(KEPT_S, IDLE)

    def _expire_in(self, seconds: float, reason: str) -> None:
        self._stop_clock()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, reason)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, reason: str) -> None:
        if self._transport is not None and not self._serving:
            self._port.on_closed(reason)
            self._transport.abort()
