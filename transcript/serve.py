"""The transcript service as a whole: store, gRPC, viewer and admin port, started and drained.

It is ready while the store answers. When the store is lost, appends and reads get UNAVAILABLE,
writers keep their facts and try again, and everything goes on by itself when the store is back.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from asheard.v1 import ingest_service_pb2, transcript_service_pb2
from asheard.v1.ingest_service_pb2_grpc import add_IngestServiceServicer_to_server
from asheard.v1.transcript_service_pb2_grpc import add_TranscriptServiceServicer_to_server
from runtime.admin import AdminServer
from runtime.config import TranscriptConfig
from runtime.credentials import Credentials
from runtime.errors import Unavailable
from runtime.guard import Guard
from runtime.log import get_log
from runtime.metrics import LoopLag
from runtime.process import Stop
from runtime.rpc import GrpcServer
from transcript.access import Access
from transcript.calls import Calls
from transcript.metrics import TranscriptMetrics
from transcript.service import IngestService, TranscriptService
from transcript.store import Store
from transcript.store_postgres import open_postgres
from transcript.store_sqlite import open_sqlite
from transcript.viewer import Viewer

log = get_log(__name__)

READING = transcript_service_pb2.DESCRIPTOR.services_by_name["TranscriptService"].full_name
INGEST = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name

CHECK_EVERY_S = 1.0
"""How often the store is asked whether it is there."""

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
    """The running service; ports of 0 are chosen by the system, and known after :meth:`start`."""

    def __init__(self, config: TranscriptConfig) -> None:
        self._config = config
        credentials = Credentials(config.trust)
        registry = CollectorRegistry()
        self._metrics = TranscriptMetrics(registry)
        self._lag = LoopLag(registry)
        self._not_ready: str | None = "the store was not asked yet"
        self._draining = False
        self._store = open_store(config.store)
        self._calls = Calls(self._store, self._metrics)
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
            asyncio.create_task(self._lag.run(), name="loop lag"),
            asyncio.create_task(self._calls.run(), name="index of calls"),
            asyncio.create_task(self._watch_store(), name="store check"),
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

    async def _watch_store(self) -> None:
        while not self._draining:
            try:
                await self._store.check()
            except Unavailable as error:
                if self._not_ready != str(error):
                    log.error("store lost", reason=str(error))
                self._set_ready(str(error))
            else:
                if self._not_ready is not None:
                    log.info("store ready")
                self._set_ready(None)
            for server in (self.grpc, self.ingest):
                await server.set_serving(self._not_ready is None)
            await asyncio.sleep(CHECK_EVERY_S)

    def _set_ready(self, reason: str | None) -> None:
        self._metrics.store_up.set(reason is None)
        if not self._draining:
            self._not_ready = reason


async def serve(config: TranscriptConfig, stop: Stop) -> None:
    """Serve until ``stop`` asks for a drain; a second signal ends it at once.

    Raises:
        ConfigurationError: A port or the store cannot be used.
    """
    server = TranscriptServer(config)
    try:
        await server.start()
        log.info(
            "serving",
            grpc=server.grpc.port,
            ingest=server.ingest.port,
            viewer=server.viewer.port,
        )
        await stop.draining.wait()
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
