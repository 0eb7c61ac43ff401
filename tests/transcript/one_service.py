"""A transcript service without its ports, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from transcript.calls import Calls
from transcript.index import Index
from transcript.ingest import Ingest
from transcript.joined import JoinedCalls
from transcript.metrics import TranscriptMetrics
from transcript.store import Store
from transcript.store_health import StoreHealth
from transcript.sweeper import Sweeper
from transcript.watches import Watches


@dataclass(frozen=True, slots=True)
class Service:
    """Its parts, put together as the service does."""

    store: Store
    registry: CollectorRegistry
    health: StoreHealth
    watches: Watches
    joined: JoinedCalls
    index: Index
    ingest: Ingest
    calls: Calls
    sweeper: Sweeper

    @classmethod
    def of(cls, store: Store, *, grace_s: float = 30.0, lost_s: float = 90.0) -> Service:
        """On this store. Its tasks do not run: see :func:`serving`."""
        registry = CollectorRegistry()
        metrics = TranscriptMetrics(registry)
        health = StoreHealth(store, lost_s=lost_s)
        watches = Watches()
        joined = JoinedCalls(store, metrics)
        index = Index(store, joined, watches, metrics)
        return cls(
            store,
            registry,
            health,
            watches,
            joined,
            index,
            Ingest(store, health, index, watches, metrics),
            Calls(store, joined, watches, metrics),
            Sweeper(store, joined, index, watches, metrics, grace_s=grace_s, lost_s=lost_s),
        )


@asynccontextmanager
async def serving(
    store: Store, *, grace_s: float = 30.0, lost_s: float = 90.0
) -> AsyncIterator[Service]:
    """A service that brings its index up to date. To sweep is for the test, which keeps time."""
    service = Service.of(store, grace_s=grace_s, lost_s=lost_s)
    indexing = asyncio.create_task(service.index.run())
    try:
        yield service
    finally:
        indexing.cancel()
        await asyncio.gather(indexing, return_exceptions=True)
