"""A whole gateway on loopback, between scripted peers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from gateway import link, links
from gateway.config import GatewayConfig
from gateway.service import Gateway
from runtime import facts
from runtime.config import Address
from runtime.process import Stop
from tests.gateway.peers import RecordingTranscript, ScriptedWorker, TwilioEnd, until


@dataclass
class World:
    """A gateway and everything around it."""

    gateway: Gateway
    registry: CollectorRegistry
    worker: ScriptedWorker
    transcript: RecordingTranscript
    http: aiohttp.ClientSession
    stop: Stop
    task: asyncio.Task[None]
    ends: list[TwilioEnd] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def connect(self, **headers: str) -> TwilioEnd:
        socket = await self.http.ws_connect(f"{self.url}/twilio/media", headers=headers)
        end = TwilioEnd(socket)
        self.ends.append(end)
        return end

    async def call(self) -> TwilioEnd:
        """A call whose worker has accepted it."""
        end = await self.connect()
        await end.start()
        before = len(self.worker.opened)
        await until(lambda: len(self.worker.opened) > before, "the worker has the call")
        return end

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def ended(self, number: int = 1) -> None:
        await until(
            lambda: len(self.transcript.all("call_ended")) >= number, "the call's last fact"
        )


WorldMaker = Callable[..., contextlib.AbstractAsyncContextManager[World]]


@contextlib.asynccontextmanager
async def world(
    *,
    auth_token: str | None = None,
    public_url: str | None = None,
    workers: tuple[ScriptedWorker, ...] | None = None,
    linked: bool = True,
    targets: tuple[str, ...] = (),
) -> AsyncIterator[World]:
    """A running gateway with one scripted worker, or those given, already started; ``targets`` are
    of real ones, instead."""
    transcript = RecordingTranscript()
    await transcript.start()
    if workers is None:
        workers = (ScriptedWorker(),)
        if not targets:
            await workers[0].start()
    registry = CollectorRegistry()
    config = GatewayConfig(
        listen=Address("127.0.0.1", 0),
        admin=Address("127.0.0.1", 0),
        session_targets=targets or tuple(worker.target for worker in workers),
        ingest_target=f"127.0.0.1:{transcript.port}",
        public_url=public_url,
        twilio_auth_token=auth_token,
        drain_s=30,
    )
    gateway = Gateway(config, registry)
    stop = Stop()
    started = asyncio.Event()
    task = asyncio.create_task(gateway.run(stop, started))
    await asyncio.wait(
        [task, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED
    )
    if linked:
        await until(lambda: gateway.not_ready() is None, "the gateway is ready")
    try:
        async with aiohttp.ClientSession() as http:
            yield World(gateway, registry, workers[0], transcript, http, stop, task)
    finally:
        stop.request()
        stop.request()
        await task
        for worker in workers:
            await worker.stop()
        await transcript.stop()


@pytest.fixture(autouse=True)
def facts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests wait for a call's last fact, and facts wait for company otherwise."""
    monkeypatch.setattr(facts, "LINGER_S", 0.001)
    monkeypatch.setattr(facts, "BUSY_S", 0.005)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits for a worker."""
    monkeypatch.setattr(links, "RECONNECT_S", 0.0)
    monkeypatch.setattr(link, "RECONNECT_S", 0.0)


@pytest.fixture
def make_world() -> WorldMaker:
    return world


@pytest.fixture
async def running() -> AsyncIterator[World]:
    async with world() as here:
        yield here
