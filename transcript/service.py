"""The transcript service as a whole: store, gRPC, viewer and admin port, started and drained.

It is ready while the store takes what is written and answers. When the store is lost, appends and
reads get UNAVAILABLE, writers keep their facts and try again, and everything goes on by itself when
the store is back. A store that this version cannot use ends the service.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from asheard.v1 import ingest_service_pb2, transcript_service_pb2
from asheard.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from asheard.v1.transcript_service_pb2_grpc import add_TranscriptServiceServicer_to_server
from runtime.admin import AdminServer
from runtime.background import Background, restarted
from runtime.credentials import Credentials
from runtime.drain import until_drained
from runtime.errors import ConfigurationError, Unavailable
from runtime.guard import Guard
from runtime.log import get_log
from runtime.metrics import LoopLag
from runtime.process import Stop
from runtime.rpc import GrpcServer
from transcript.access import Access
from transcript.calls import Calls
from transcript.config import TranscriptConfig
from transcript.index import Index
from transcript.ingest import Ingest
from transcript.joined import JoinedCalls
from transcript.metrics import TranscriptMetrics
from transcript.rpc import IngestService, TranscriptService
from transcript.store import Store
from transcript.store_health import StoreHealth
from transcript.store_postgres import open_postgres
from transcript.store_sqlite import open_sqlite
from transcript.sweeper import Sweeper
from transcript.viewer import Viewer
from transcript.watches import Watches

log = get_log(__name__)

READING = transcript_service_pb2.DESCRIPTOR.services_by_name["TranscriptService"].full_name
INGEST = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name

FIRST_LOOK_S = 3.0
"""How long the first look at the store may hold up the ports. It takes milliseconds; a database
that is away is not waited for."""

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
        credentials = Credentials(config.trust)
        registry = CollectorRegistry()
        metrics = self._metrics = TranscriptMetrics(registry)
        self._lag = LoopLag(registry)
        self._background = Background()
        self._not_ready: str | None = "the store was not asked yet"
        self._draining = False

        self._store = store or open_store(config.store)
        self.health = StoreHealth(self._store, lost_s=config.writer_lost_s)
        """Whether the store can be used."""
        joined = JoinedCalls(self._store, metrics)
        self._watches = Watches()
        self._index = Index(self._store, joined, self._watches, metrics)
        self._sweeper = Sweeper(
            self._store,
            joined,
            self._index,
            self._watches,
            metrics,
            grace_s=config.stream_grace_s,
            lost_s=config.writer_lost_s,
        )
        ingest = Ingest(self._store, self.health, self._index, self._watches, metrics)
        calls = Calls(self._store, joined, self._watches, metrics)

        access = Access(config.api_tokens)
        self.grpc = GrpcServer(config.listen, [READING], credentials=credentials)
        """For readers."""
        self.ingest = GrpcServer(
            config.ingest,
            [INGEST],
            credentials=credentials,
            guard=Guard("ingest", credentials, metrics.refusals),
        )
        """For the system's own writers. A port of its own: who may read need not reach it."""
        add_IngestServiceServicer_to_server(IngestService(ingest, metrics), self.ingest.server)
        add_TranscriptServiceServicer_to_server(
            TranscriptService(calls, access, metrics), self.grpc.server
        )
        self.viewer = Viewer(config.viewer, calls, access)
        self.admin = AdminServer(config.admin, registry, ready=lambda: self._not_ready)

    async def start(self) -> None:
        """Open the ports.

        Raises:
            ConfigurationError: A port cannot be listened at.
        """
        await self.admin.start()
        await self._look_at_store()
        await self.ingest.start()
        await self.grpc.start()
        await self.viewer.start()
        for name, run in (
            ("loop lag", self._lag.run),
            ("index of calls", self._index.run),
            ("store check", lambda: self.health.run(self._note_store)),
            ("sweeper", self._sweeper.run),
        ):
            self._background.start(
                name,
                restarted(
                    name,
                    run,
                    on_failure=self._note_failed,
                    expected=(Unavailable, ConfigurationError),  # the store check says so
                ),
            )

    async def until_stopped(self, stop: Stop) -> None:
        """Wait for the first signal.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        await self._background.until_stopped(stop, self.health.unusable)
        if self.health.fault is not None:
            raise ConfigurationError(f"ASHEARD_STORE: {self.health.fault}")

    async def drain(self, grace_s: float = GRACE_S) -> None:
        """Take no new requests, finish those under way, end the watches."""
        self._draining = True
        self._not_ready = "draining"
        self._watches.close()
        await asyncio.gather(self.grpc.stop(grace_s), self.ingest.stop(grace_s))

    async def close(self) -> None:
        """Close everything."""
        await asyncio.gather(self.grpc.stop(0), self.ingest.stop(0))
        await self.viewer.close()
        await self._background.close()
        await self._store.close()
        await self.admin.close()

    async def _look_at_store(self) -> None:
        """Find out what is there before anybody writes: whether the store is new decides from when
        calls are closed (:mod:`transcript.closing`, rule 3)."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._sweeper.sweep(asyncio.get_running_loop().time())
        except (Unavailable, ConfigurationError, TimeoutError):
            pass  # The store check says so, and the sweeper looks again.
        except Exception as error:
            log.error("task failed", task="sweeper", exc_info=error)
            self._note_failed("sweeper")

    def _note_failed(self, task: str) -> None:
        self._metrics.tasks_failed.labels(task).inc()

    async def _note_store(self, reason: str | None) -> None:
        """Readiness follows the store."""
        self._metrics.store_up.set(reason is None)
        if self._draining:
            return
        self._not_ready = reason
        for server in (self.grpc, self.ingest):
            await server.set_serving(reason is None)


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
        await server.until_stopped(stop)
        await until_drained(stop, server.drain())
    finally:
        await server.close()
        log.info("stopped")
