"""The transcript service as a whole: store, gRPC, viewer and admin port, started and drained.

It is ready while the store takes what is written and answers. When the store is lost, appends and
reads get UNAVAILABLE, writers keep their facts and try again, and everything goes on by itself when
the store is back. A store that this version cannot use ends the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from asheard.v1 import ingest_service_pb2, transcript_service_pb2
from asheard.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from asheard.v1.transcript_service_pb2_grpc import add_TranscriptServiceServicer_to_server
from runtime.admin import AdminServer
from runtime.credentials import Credentials
from runtime.errors import ConfigurationError, Unavailable
from runtime.guard import Guard
from runtime.log import get_log
from runtime.metrics import LoopLag
from runtime.process import Stop
from runtime.rpc import GrpcServer
from transcript.access import Access
from transcript.calls import Calls
from transcript.config import TranscriptConfig
from transcript.metrics import TranscriptMetrics
from transcript.rpc import IngestService, TranscriptService
from transcript.store import Store
from transcript.store_postgres import open_postgres
from transcript.store_sqlite import open_sqlite
from transcript.sweeper import Sweeper
from transcript.viewer import Viewer

log = get_log(__name__)

READING = transcript_service_pb2.DESCRIPTOR.services_by_name["TranscriptService"].full_name
INGEST = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name

CHECK_EVERY_S = 5.0
"""How often something small is written to the store and read from it, which tells whether it works
and keeps the processes' signs of life: one commit. A request that cannot be stored asks at once."""

CHECK_LOST_EVERY_S = 1.0
"""The same while it does not work, so that everybody goes on soon."""

APPEND_FAULT_S = 10.0
"""How long the store counts as lost after an append that failed while checks pass: a damaged file may
take some writes and not others. Writers try again every five seconds at least."""

RESTARTED_AFTER_S = 1.0
"""A task of the service that failed is started again after this."""

GRACE_S = 5.0
"""What requests under way get at a drain: an append takes milliseconds, and who is refused finds
another instance or tries again."""


def open_store(url: str) -> Store:
    """The store that ASHEARD_STORE names.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if url.startswith("sqlite:///"):
        return open_sqlite(Path(url.removeprefix("sqlite:///")))
    return open_postgres(url)


class TranscriptServer:
    """The running service; ports of 0 are chosen by the system, and known after :meth:`start`.

    Args:
        config: What it needs to know.
        store: Where the facts are; it is closed with the service. None: as ``config`` says.
    """

    def __init__(self, config: TranscriptConfig, store: Store | None = None) -> None:
        self._config = config
        credentials = Credentials(config.trust)
        registry = CollectorRegistry()
        self._metrics = TranscriptMetrics(registry)
        self._lag = LoopLag(registry)
        self._not_ready: str | None = "the store was not asked yet"
        self._draining = False
        self._append_failed_at = float("-inf")
        self._store = store or open_store(config.store)
        self._calls = Calls(self._store, self._metrics)
        self._sweeper = Sweeper(
            self._store,
            self._calls,
            self._metrics,
            grace_s=config.stream_grace_s,
            lost_s=config.writer_lost_s,
        )
        # Four signs of life at least until a process counts as lost.
        self._check_every_s = min(CHECK_EVERY_S, config.writer_lost_s / 4)
        self.unusable = asyncio.Event()
        """The store cannot be used by this version."""
        self.fault: ConfigurationError | None = None
        """Why."""
        access = Access(config.api_tokens)
        self.grpc = GrpcServer(config.listen, [READING], credentials=credentials)
        """For readers."""
        self.ingest = GrpcServer(
            config.ingest,
            [INGEST],
            credentials=credentials,
            guard=Guard("ingest", credentials, self._metrics.refusals),
        )
        """For the system's own writers. A port of its own: who may read need not reach it."""
        add_IngestServiceServicer_to_server(
            IngestService(self._calls, self._metrics), self.ingest.server
        )
        add_TranscriptServiceServicer_to_server(
            TranscriptService(self._calls, access, self._metrics), self.grpc.server
        )
        self.viewer = Viewer(config.viewer, self._calls, access)
        self.admin = AdminServer(config.admin, registry, ready=lambda: self._not_ready)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the ports.

        Raises:
            ConfigurationError: A port cannot be listened at.
        """
        await self.admin.start()
        await self.ingest.start()
        await self.grpc.start()
        await self.viewer.start()
        self._tasks = [
            asyncio.create_task(self._keep(name, run), name=name)
            for name, run in (
                ("loop lag", self._lag.run),
                ("index of calls", self._calls.run),
                ("store check", self._watch_store),
                ("sweeper", self._sweeper.run),
            )
        ]

    async def drain(self, grace_s: float = GRACE_S) -> None:
        """Take no new requests, finish those under way, end the watches."""
        self._draining = True
        self._not_ready = "draining"
        self._calls.close()
        await asyncio.gather(self.grpc.stop(grace_s), self.ingest.stop(grace_s))

    async def close(self) -> None:
        """Close everything."""
        await asyncio.gather(self.grpc.stop(0), self.ingest.stop(0))
        await self.viewer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()
        await self.admin.close()

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the service; whatever it raises is said, and it is started again."""
        while True:
            try:
                await run()
                return
            except (Unavailable, ConfigurationError):
                pass  # The store check says so.
            except Exception as error:
                self._metrics.tasks_failed.labels(name).inc()
                log.error("task failed", task=name, exc_info=error)
            await asyncio.sleep(RESTARTED_AFTER_S)

    async def _watch_store(self) -> None:
        while not self._draining:
            reason = await self._check_store()
            if reason is not None and self._not_ready != reason:
                log.error("store lost", reason=reason)
            elif reason is None and self._not_ready is not None:
                log.info("store ready")
            self._set_ready(reason)
            for server in (self.grpc, self.ingest):
                await server.set_serving(self._not_ready is None)
            try:
                async with asyncio.timeout(
                    self._check_every_s if reason is None else CHECK_LOST_EVERY_S
                ):
                    if reason is not None:
                        await asyncio.Event().wait()
                    await self._calls.append_failed.wait()
            except TimeoutError:
                pass

    async def _check_store(self) -> str | None:
        """Why the store does not work; None when it does."""
        alive = self._calls.take_alive()
        loop = asyncio.get_running_loop()
        if self._calls.append_failed.is_set():
            self._calls.append_failed.clear()
            self._append_failed_at = loop.time()
        try:
            await self._store.check(alive)
        except (Unavailable, ConfigurationError) as error:
            self._calls.give_back_alive(alive)
            self._append_failed_at = float("-inf")  # the check knows: it will know the end, too
            if isinstance(error, ConfigurationError):
                self.fault = error
                self.unusable.set()
            return str(error)
        except Exception as error:
            self._calls.give_back_alive(alive)
            log.error("store check failed", exc_info=error)
            return f"the store check failed, a fault of ours ({type(error).__name__})"
        if loop.time() < self._append_failed_at + APPEND_FAULT_S:
            return self._calls.append_fault
        return None

    def _set_ready(self, reason: str | None) -> None:
        self._metrics.store_up.set(reason is None)
        self._calls.trouble = reason
        if not self._draining:
            self._not_ready = reason


async def serve(config: TranscriptConfig, stop: Stop) -> None:
    """Serve until ``stop`` asks for a drain; a second signal ends it at once.

    Raises:
        ConfigurationError: A port or the store cannot be used. A database that is away may be found
            to be unusable later, when it answers.
    """
    server = TranscriptServer(config)
    try:
        await server.start()
        log.info(
            "serving",
            grpc=server.grpc.port,
            ingest=server.ingest.port,
            viewer=server.viewer.port,
            trust=config.trust.means,
        )
        asked = asyncio.create_task(stop.draining.wait())
        unusable = asyncio.create_task(server.unusable.wait())
        await asyncio.wait({asked, unusable}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        unusable.cancel()
        if server.fault is not None:
            raise ConfigurationError(f"ASHEARD_STORE: {server.fault}")
        log.info("draining")
        drained = asyncio.create_task(server.drain())
        hurry = asyncio.create_task(stop.now.wait())
        await asyncio.wait({drained, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        drained.cancel()
        await asyncio.gather(drained, hurry, return_exceptions=True)
    finally:
        await server.close()
        log.info("stopped")
