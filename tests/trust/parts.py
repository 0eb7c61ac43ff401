"""A session worker, a transcript service and certificates, for tests of who may talk to whom."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from asheard.v1 import session_service_pb2, session_service_pb2_grpc
from cli.system import free_ports
from runtime.config import Address
from runtime.process import Stop
from runtime.trust import TlsFiles, Trust
from session import service
from session.config import SessionConfig
from tests.session.ends import proportional
from tests.transcript.running_server import config
from transcript.service import TranscriptServer

OURS = "ours-0123456789abcdef0123456789abcdef"
NEXT = "next-0123456789abcdef0123456789abcdef"
STRANGE = "strange-0123456789abcdef0123456789abcdef"

PATIENCE_S = 20.0
"""For a machine with other things to do; a test that passes never waits for it."""


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """Metadata that bears a secret."""
    return (("authorization", f"Bearer {secret}"),)


@dataclass(frozen=True, slots=True)
class Part:
    """A running service."""

    port: int
    admin_port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def metric(self, name: str) -> float:
        """A sample off its admin port; 0 when there is none yet."""
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            for line in (await response.text()).splitlines():
                if line.startswith(name + " "):
                    return float(line.split(" ")[1])
        return 0.0


@asynccontextmanager
async def worker(trust: Trust) -> AsyncIterator[Part]:
    """A real session worker."""
    port, admin_port = free_ports(2)
    settings = SessionConfig(
        listen=Address("127.0.0.1", port),
        admin=Address("127.0.0.1", admin_port),
        ingest_target="127.0.0.1:1",
        realtime_url="ws://127.0.0.1:1",
        realtime_model="gpt-test",
        trust=trust,
    )
    stop = Stop()
    serving = asyncio.create_task(service.serve(settings, stop, refine=proportional))
    try:
        await _listening(port, serving)
        yield Part(port, admin_port)
    finally:
        stop.request()
        stop.request()
        await asyncio.wait_for(serving, PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Transcripts:
    """A running transcript service."""

    ingest: Part
    readers: Part
    server: TranscriptServer


@asynccontextmanager
async def transcripts(path: Path, trust: Trust, *, port: int = 0) -> AsyncIterator[Transcripts]:
    """A real transcript service; ``port`` is that for facts."""
    ingest = Address("127.0.0.1", port)
    server = TranscriptServer(replace(config(path), ingest=ingest, trust=trust))
    await server.start()
    try:
        yield Transcripts(
            Part(server.ingest.port, server.admin.port),
            Part(server.grpc.port, server.admin.port),
            server,
        )
    finally:
        await server.close()


async def _listening(port: int, serving: asyncio.Task[None]) -> None:
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    serving.result()


async def linked(
    channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()
) -> session_service_pb2.LinkResponse:
    """Open a link; the worker's first word, which is its load.

    Raises:
        grpc.aio.AioRpcError: It refuses.
    """
    stream = session_service_pb2_grpc.SessionServiceStub(channel).Link(metadata=metadata)
    try:
        async with asyncio.timeout(PATIENCE_S):
            first = await stream.read()
            # A link that is refused may end without a word: its status says why.
            if not isinstance(first, session_service_pb2.LinkResponse):
                raise AssertionError(f"no load report: {await stream.code()}")
            return first
    finally:
        stream.cancel()


async def healthy(channel: grpc.aio.Channel) -> bool:
    """What the health service says, asked without any secret."""
    check: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer = await check(HealthCheckRequest(), timeout=PATIENCE_S)
    return answer.status == HealthCheckResponse.SERVING


class Authority:
    """A certificate authority, made by openssl for a test."""

    def __init__(self, directory: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl here to make certificates with")
        directory.mkdir()
        self._directory = directory
        self._issued = 0
        _openssl(
            directory, "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}",
            "-keyout", "ca.key", "-out", "ca.pem",
        )  # fmt: skip

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return (self._directory / "ca.pem").read_bytes()

    def issue(self, into: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> TlsFiles:
        """Put a new certificate, its key and ours into a directory, by renaming."""
        into.mkdir(exist_ok=True)
        self._issued += 1
        (self._directory / "extensions").write_text(
            f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(
            self._directory, "req", *_NEW_KEY, "-subj", f"/CN=part {self._issued}",
            "-keyout", "key.pem", "-out", "request.pem",
        )  # fmt: skip
        _openssl(
            self._directory, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem",
            "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions",
            "-out", "cert.pem",
        )  # fmt: skip
        for name in ("cert.pem", "key.pem", "ca.pem"):
            put(into / name, (self._directory / name).read_bytes())
        return TlsFiles(into / "cert.pem", into / "key.pem", into / "ca.pem")


def put(path: Path, content: bytes | str) -> None:
    """Replace a file as an operator should: beside it, then renamed over it."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content if isinstance(content, bytes) else content.encode())
    beside.rename(path)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60
    )
