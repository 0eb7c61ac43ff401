"""The admin port of a service: ``/metrics``, ``/livez``, ``/readyz``.

``/livez`` says that the event loop turns and that the service does its own work (503 with the
reason in words when it does not), and nothing else: it stays true while the service drains and
while its peers are away, or Kubernetes would kill the calls it still carries. ``/readyz`` is
503 with the reason in words while new work should go elsewhere; what is wrong and no reason for
that follows its "ready".
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from runtime.config import Address
from runtime.http import HttpPort

MAX_CONNECTIONS = 32
"""At a time: a few collectors and probes. They are among the descriptors that the public port
leaves free (:data:`runtime.http.RESERVED_DESCRIPTORS`)."""

SHUTDOWN_WAIT_S = 1.0
"""How long an answer may take to be read once the service ends."""


class AdminServer:
    """Serves metrics and probes.

    Args:
        address: Where to listen; port 0 lets the system choose.
        registry: What ``/metrics`` shows.
        ready: None when new work is welcome, else the reason why not.
        remark: What is wrong all the same, for people; None when nothing is.
        live: None while the process works, else what is wrong with it that only a restart mends.
    """

    def __init__(
        self,
        address: Address,
        registry: CollectorRegistry,
        *,
        ready: Callable[[], str | None],
        remark: Callable[[], str | None] = lambda: None,
        live: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._remark = remark
        self._live = live
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._http = HttpPort(
            app,
            address,
            called=f"admin port {address}",
            max_connections=MAX_CONNECTIONS,
            shutdown_s=SHUTDOWN_WAIT_S,
        )

    @property
    def port(self) -> int:
        """The port it listens at, once started."""
        return self._http.port

    async def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        await self._http.start()

    async def close(self) -> None:
        """Close the port."""
        await self._http.close()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry),
            headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4},
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        fault = self._live()
        if fault is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{fault}\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._ready()
        if reason is None:
            remark = self._remark()
            return web.Response(text="ready\n" if remark is None else f"ready, but {remark}\n")
        return web.Response(status=503, text=f"{reason}\n")
