"""A gateway as a service: builds its parts, runs them, drains them.

Drain, in this order: not ready and no new calls → calls finish, for as long as the configuration
allows → session workers hear the last words → facts are delivered → exit. A second signal skips
the waiting. Liveness stays true all the while.
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

import native
from gateway.barrier import surely
from gateway.call import CallServices
from gateway.config import GatewayConfig
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from gateway.registry import Registry
from gateway.server import PublicServer
from runtime.admin import AdminServer
from runtime.background import Background
from runtime.credentials import Credentials
from runtime.drain import until_drained
from runtime.facts import FactOutbox
from runtime.log import get_log
from runtime.metrics import LoopLag
from runtime.process import Stop

log = get_log(__name__)

LAST_WORDS_S = 2.0
"""How long session workers may take to hear that the last calls are over."""

FLUSH_S = 20.0
"""How long the transcript service may take to make the last facts durable."""

FLUSH_NOW_S = 2.0
"""The same after a second signal."""


class Gateway:
    """One gateway process, from open ports to closed ones.

    Args:
        config: Checked configuration.
        registry: Where its metrics go.
    """

    def __init__(self, config: GatewayConfig, registry: CollectorRegistry | None = None) -> None:
        self._config = config
        self._metrics_registry = registry or CollectorRegistry()
        self._metrics = GatewayMetrics(self._metrics_registry)
        self._lag = LoopLag(self._metrics_registry)
        self._background = Background()
        self.calls = Registry()
        """Calls with an open media stream."""
        credentials = Credentials(config.trust)
        self._links = Links(config.session_targets, self._metrics, credentials)
        self._outbox = FactOutbox(config.ingest_target, self._metrics_registry, credentials)
        self._draining = False
        self.public = PublicServer(
            config.listen,
            CallServices(self._links, self._outbox, self._metrics),
            self.calls,
            self,
            configured_url=config.public_url,
            auth_token=config.twilio_auth_token,
            reuse_port=config.reuse_port,
        )
        self._admin = AdminServer(
            config.admin,
            self._metrics_registry,
            ready=self.not_ready,
            remark=self._outbox.trouble,
            live=self.not_live,
        )

    @property
    def draining(self) -> bool:
        """Whether it takes no new calls, and ends when those that it has are over."""
        return self._draining

    @property
    def has_room(self) -> bool:
        """Whether a session worker would take a call."""
        return self._links.has_room

    @property
    def port(self) -> int:
        """The public port, once started."""
        return self.public.port

    @property
    def admin_port(self) -> int:
        """The admin port, once started."""
        return self._admin.port

    def not_live(self) -> str | None:
        """Why only a new process helps; None when this one is well."""
        return self.public.fault

    def not_ready(self) -> str | None:
        """Why new calls should go elsewhere; None when they are welcome."""
        if self._draining:
            return "draining"
        if not self._links.up:
            return "no session worker is linked"
        return self._outbox.unhealthy()

    async def run(self, stop: Stop, started: asyncio.Event | None = None) -> None:
        """Serve until ``stop`` is set, then drain.

        Args:
            stop: Set by signals.
            started: Set here once the ports are open.

        Raises:
            ConfigurationError: A port cannot be listened at.
        """
        try:
            await self.start()
            if started is not None:
                started.set()
            await self._background.until_stopped(stop)
            await self.drain(stop)
        finally:
            await self.close()

    async def start(self) -> None:
        """Open the ports.

        Raises:
            ConfigurationError: One cannot be listened at.
        """
        self._background.start("links", self._links.run())
        self._background.start("loop lag", self._lag.run())
        await self._outbox.start()
        await self._admin.start()
        await self.public.start()
        log.info(
            "gateway serves",
            address=str(self._config.listen),
            port=self.port,
            compiled=native.COMPILED,
            trust=self._config.trust.means,
        )
        if self._config.twilio_auth_token is None:
            log.warning("signatures are not checked: anybody may start a call")

    async def drain(self, stop: Stop) -> None:
        """Take no new calls, wait for those that there are, and say the last words of all.

        Args:
            stop: Knows of the second signal, which skips the waiting.
        """
        self._draining = True
        await until_drained(
            stop,
            self.calls.wait_empty(),
            drain_s=self._config.drain_s,
            calls=lambda: len(self.calls),
        )
        for call in self.calls:
            surely(log, call.abort, call.fail, call.cut)
        await self._links.close(LAST_WORDS_S)
        await self.public.close()
        flush_s = FLUSH_NOW_S if stop.now.is_set() else FLUSH_S
        if not await self._outbox.flush(flush_s):
            log.error("transcript service did not take the last facts in time")
        log.info("gateway ends")

    async def close(self) -> None:
        """Close everything."""
        await self.public.close()
        await self._admin.close()
        await self._background.close()
        await self._outbox.close()


async def serve(config: GatewayConfig, stop: Stop) -> None:
    """Run a gateway until ``stop`` is set.

    Raises:
        ConfigurationError: A port cannot be listened at.
    """
    await Gateway(config).run(stop)
