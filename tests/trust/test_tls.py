"""Mutual TLS, from outside: certificates made by openssl, real ports, files replaced meanwhile."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2, session_service_pb2, session_service_pb2_grpc
from asheard.v1.transcript_service_pb2 import ListCallsRequest
from asheard.v1.transcript_service_pb2_grpc import TranscriptServiceStub
from cli import main as cli
from gateway import link
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from runtime.credentials import Credentials
from runtime.errors import ConfigurationError
from runtime.facts import FactOutbox
from runtime.rpc import channel
from runtime.trust import TlsFiles, Trust
from tests.gateway.peers import until
from tests.trust.parts import (
    OURS,
    PATIENCE_S,
    STRANGE,
    Authority,
    bearer,
    linked,
    put,
    transcripts,
    worker,
)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "our authority", "ours")


@pytest.fixture
def strange(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "a strange authority", "strange")


def by(files: TlsFiles) -> Credentials:
    return Credentials(Trust(tls=files))


async def shut_out(connection: grpc.aio.Channel) -> None:
    """The connection comes to nothing, and so does the link."""
    async with connection:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await linked(connection)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_link_needs_a_certificate_of_our_authority(
    tmp_path: Path, ours: Authority, strange: Authority
) -> None:
    async with worker(Trust(tls=ours.issue(tmp_path / "worker"))) as there:
        async with channel(there.target, credentials=by(ours.issue(tmp_path / "gateway"))) as ok:
            await linked(ok)
        await shut_out(channel(there.target))
        nobody = grpc.ssl_channel_credentials(ours.pem)
        await shut_out(grpc.aio.secure_channel(there.target, nobody))
        foreign = strange.issue(tmp_path / "stranger")
        put(foreign.ca, ours.pem)  # it trusts us; we do not trust it
        await shut_out(channel(there.target, credentials=by(foreign)))


async def test_a_gateway_links_to_no_worker_of_another_authority_or_name(
    tmp_path: Path, ours: Authority, strange: Authority
) -> None:
    mine = by(ours.issue(tmp_path / "gateway"))
    impostor = strange.issue(tmp_path / "impostor")
    put(impostor.ca, ours.pem)
    async with worker(Trust(tls=impostor)) as there:
        await shut_out(channel(there.target, credentials=mine))
    other = ours.issue(tmp_path / "other", "DNS:another.internal")
    async with worker(Trust(tls=other)) as there:
        await shut_out(channel(there.target, credentials=mine))


@asynccontextmanager
async def links(target: str, credentials: Credentials) -> AsyncIterator[Links]:
    found = Links([target], GatewayMetrics(CollectorRegistry()), credentials)
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_workers_behind_one_name_are_known_by_that_name(
    tmp_path: Path, ours: Authority
) -> None:
    """Their addresses come and go, and cannot stand in a certificate."""
    files = ours.issue(tmp_path / "worker", "DNS:localhost")
    mine = by(ours.issue(tmp_path / "gateway", "DNS:anything"))
    async with (
        worker(Trust(tls=files)) as there,
        links(f"dns:///localhost:{there.port}", mine) as found,
    ):
        await until(lambda: found.up == 1, "the link is up")


async def test_with_both_both_are_needed(tmp_path: Path, ours: Authority) -> None:
    files = ours.issue(tmp_path / "worker")
    async with (
        worker(Trust(secret=OURS, tls=files)) as there,
        channel(there.target, credentials=by(ours.issue(tmp_path / "gateway"))) as connection,
    ):
        await linked(connection, bearer(OURS))
        with pytest.raises(grpc.aio.AioRpcError, match="not the secret"):
            await linked(connection, bearer(STRANGE))


async def test_readers_need_no_certificate_and_writers_do(tmp_path: Path, ours: Authority) -> None:
    files = ours.issue(tmp_path / "transcript")
    async with transcripts(tmp_path / "facts.db", Trust(tls=files)) as there:
        reader = grpc.ssl_channel_credentials(ours.pem)
        async with grpc.aio.secure_channel(there.readers.target, reader) as connection:
            await TranscriptServiceStub(connection).ListCalls(
                ListCallsRequest(), timeout=PATIENCE_S
            )
        await shut_out(grpc.aio.secure_channel(there.ingest.target, reader))
        await shut_out(grpc.aio.insecure_channel(there.readers.target))

        registry = CollectorRegistry()
        writer = FactOutbox(there.ingest.target, registry, by(ours.issue(tmp_path / "writer")))
        await writer.start()
        writer.writer("CA1", "session/1").write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await writer.flush(PATIENCE_S)
        await writer.close()


async def test_certificates_are_replaced_under_a_link_that_stays(
    tmp_path: Path, ours: Authority, strange: Authority
) -> None:
    """From one authority to another, the largest change there is."""
    worker_files = ours.issue(tmp_path / "worker")
    gateway_files = ours.issue(tmp_path / "gateway")
    gateway = by(gateway_files)
    async with (
        worker(Trust(tls=worker_files)) as there,
        channel(there.target, credentials=gateway) as standing,
    ):
        stream = session_service_pb2_grpc.SessionServiceStub(standing).Link()
        assert (await _load(stream)).HasField("load_report")

        strange.issue(tmp_path / "worker")
        await shut_out(channel(there.target, credentials=gateway))
        strange.issue(tmp_path / "gateway")
        async with channel(there.target, credentials=gateway) as new:
            await linked(new)

        # The first link is as it was: reports of load go on coming.
        for _ in range(2):
            assert (await _load(stream)).HasField("load_report")
        stream.cancel()


async def _load(
    stream: grpc.aio.StreamStreamCall[
        session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
    ],
) -> session_service_pb2.SessionControl:
    """The next control message."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            response = await stream.read()
            assert isinstance(response, session_service_pb2.LinkResponse), "the link broke"
            if response.control:
                return response.control[0]


async def test_a_gateway_links_again_with_the_new_certificate(
    tmp_path: Path, ours: Authority, strange: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAX_RETRY_S", 0.1)
    credentials = by(ours.issue(tmp_path / "gateway"))
    async with worker(Trust(tls=strange.issue(tmp_path / "worker"))) as there:
        with capture_logs() as lines:
            async with links(there.target, credentials) as found:
                await until(
                    lambda: any(line["event"] == "session worker unreachable" for line in lines),
                    "the worker is not trusted",
                )
                assert not found.up
                strange.issue(tmp_path / "gateway")
                await until(lambda: found.up == 1, "the link is up")


async def test_a_writer_connects_again_with_the_new_certificate(
    tmp_path: Path, ours: Authority, strange: Authority
) -> None:
    credentials = by(ours.issue(tmp_path / "writer"))
    trust = Trust(tls=ours.issue(tmp_path / "transcript"))
    async with transcripts(tmp_path / "facts.db", trust) as there:
        outbox = FactOutbox(there.ingest.target, CollectorRegistry(), credentials)
        await outbox.start()
        writer = outbox.writer("CA1", "session/1")
        writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(PATIENCE_S)
    strange.issue(tmp_path / "transcript")
    async with transcripts(tmp_path / "facts.db", trust, port=there.ingest.port):
        writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=2))
        assert not await outbox.flush(0.5)
        strange.issue(tmp_path / "writer")
        assert await outbox.flush(PATIENCE_S)
        await outbox.close()


async def test_a_pair_that_does_not_fit_together_is_not_taken(
    tmp_path: Path, ours: Authority
) -> None:
    files = ours.issue(tmp_path / "worker")
    mine = by(ours.issue(tmp_path / "gateway"))
    next_files = ours.issue(tmp_path / "next")
    async with worker(Trust(tls=files)) as there:

        async def connects() -> None:
            async with channel(there.target, credentials=mine) as connection:
                await linked(connection)

        put(files.cert, next_files.cert.read_bytes())  # the key is not there yet
        with capture_logs() as lines:
            await connects()
            put(files.ca, "nonsense")
            await connects()
        assert {line["log_level"] for line in lines if "unusable" in line["event"]} == {"error"}
        assert "BEGIN" not in str(lines)
        put(files.ca, ours.pem)
        put(files.key, next_files.key.read_bytes())
        await connects()
        # Now it is the new one.
        shown = await asyncio.to_thread(_certificate_of, there.port)
        assert shown == ssl.PEM_cert_to_DER_cert(next_files.cert.read_text())


def _certificate_of(port: int) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("broken", "named"),
    [("cert", "ASHEARD_TLS_CERT"), ("key", "ASHEARD_TLS_KEY"), ("ca", "ASHEARD_TLS_CA")],
)
def test_files_that_are_no_pem_are_a_configuration_error(
    broken: str, named: str, tmp_path: Path, ours: Authority
) -> None:
    files = ours.issue(tmp_path / "part")
    path: Path = getattr(files, broken)
    right = path.read_bytes()
    for wrong in (b"", b"nonsense", b"\xff\xfe", right[: len(right) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(ConfigurationError, match=named) as error:
            by(files)
        assert "BEGIN" not in str(error.value)
    path.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        by(files)


async def test_the_reading_commands_know_the_service_by_our_authority(
    tmp_path: Path,
    ours: Authority,
    strange: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ours.issue(tmp_path / "transcript")
    async with transcripts(tmp_path / "facts.db", Trust(tls=files)) as there:

        async def calls(*arguments: str) -> int:
            command = ["calls", "--target", there.readers.target, *arguments]
            return await asyncio.to_thread(cli.main, command)

        assert await calls() == 1, "in clear text"
        assert await calls("--tls") == 1, "the world's authorities do not know ours"
        monkeypatch.setenv("ASHEARD_TLS_CA", str(files.ca))
        assert await calls() == 0
        assert await calls("--tls") == 0
        put(tmp_path / "strange.pem", strange.pem)
        monkeypatch.setenv("ASHEARD_TLS_CA", str(tmp_path / "strange.pem"))
        assert await calls() == 1
        monkeypatch.setenv("ASHEARD_TLS_CA", str(tmp_path / "nowhere.pem"))
        assert await calls() == 2
    assert "ASHEARD_TLS_CA" in capsys.readouterr().err
