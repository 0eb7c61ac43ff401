"""The shared secret, from outside: real ports, with it, with another, without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2
from asheard.v1.ingest_service_pb2 import AppendFactsRequest, AppendFactsResponse
from asheard.v1.ingest_service_pb2_grpc import IngestServiceStub
from gateway import link
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from runtime.credentials import Credentials
from runtime.errors import ConfigurationError
from runtime.facts import FactOutbox
from runtime.trust import Pace, TlsFiles, Trust, secrets_in
from tests.gateway.peers import until
from tests.transcript.call_facts import short_call
from tests.trust.parts import (
    NEXT,
    OURS,
    PATIENCE_S,
    STRANGE,
    bearer,
    healthy,
    linked,
    put,
    transcripts,
    worker,
)

BAD = [
    pytest.param((), "needs the secret", id="none"),
    pytest.param((("authorization", f"Basic {OURS}"),), "needs the secret", id="another scheme"),
    pytest.param((("authorization", "Bearer "),), "needs the secret", id="empty"),
    pytest.param(bearer(STRANGE), "not the secret", id="another"),
    pytest.param(bearer(OURS[:-1]), "not the secret", id="a part of it"),
    pytest.param(bearer(OURS + "0"), "not the secret", id="more than it"),
]


async def refused(answer: Awaitable[object]) -> str:
    """Details with which an RPC is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return caught.value.details() or ""


async def test_a_link_needs_the_secret_and_a_probe_does_not() -> None:
    async with worker(Trust(secret=OURS)) as there:
        with capture_logs() as lines:
            for parameters in BAD:
                metadata, reason = parameters.values
                assert isinstance(metadata, tuple)
                async with grpc.aio.insecure_channel(there.target) as channel:
                    details = await refused(linked(channel, metadata))
                assert str(reason) in details
                assert "ASHEARD_INTERNAL_SECRET" in details
        async with grpc.aio.insecure_channel(there.target) as channel:
            assert (await linked(channel, bearer(OURS))).control[0].HasField("load_report")
            assert await healthy(channel)
        counted = 'asheard_unauthenticated_total{service="session"}'
        assert await there.metric(counted) == len(BAD)
    said = [line for line in lines if line["event"] == "peer refused"]
    assert len(said) == 1, "once a minute for each address"
    for secret in (OURS, STRANGE):
        assert secret not in str(lines)


async def test_reflection_of_an_inner_port_needs_the_secret() -> None:
    async with worker(Trust(secret=OURS)) as there:

        def ask() -> None:
            with grpc.insecure_channel(there.target) as channel:
                ProtoReflectionDescriptorDatabase(channel).get_services()

        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            await asyncio.to_thread(ask)


async def test_facts_need_the_secret(tmp_path: Path) -> None:
    async with transcripts(tmp_path / "facts.db", Trust(secret=OURS)) as there:
        async with grpc.aio.insecure_channel(there.ingest.target) as channel:

            def append(metadata: tuple[tuple[str, str], ...]) -> Awaitable[AppendFactsResponse]:
                request = AppendFactsRequest(facts=short_call())
                return IngestServiceStub(channel).AppendFacts(request, metadata=metadata)

            for parameters in BAD:
                metadata, reason = parameters.values
                assert isinstance(metadata, tuple)
                assert str(reason) in await refused(append(metadata))
            assert not (await append(bearer(OURS))).rejected
            assert await healthy(channel)
        counted = 'asheard_unauthenticated_total{service="ingest"}'
        assert await there.ingest.metric(counted) == len(BAD)


async def test_a_refused_request_is_not_read(tmp_path: Path) -> None:
    """What a stranger sends is not decoded, whatever it is."""
    async with (
        transcripts(tmp_path / "facts.db", Trust(secret=OURS)) as there,
        grpc.aio.insecure_channel(there.ingest.target) as channel,
    ):
        append: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/asheard.v1.IngestService/AppendFacts"
        )
        await refused(append(b"\xff" * 3_000_000))


async def test_without_a_secret_loopback_is_open(tmp_path: Path) -> None:
    async with (
        worker(Trust()) as there,
        grpc.aio.insecure_channel(there.target) as channel,
    ):
        await linked(channel)
        await linked(channel, bearer(STRANGE))  # a gateway that has one already


async def test_the_secrets_of_a_file_are_replaced_one_by_one_while_it_serves(
    tmp_path: Path,
) -> None:
    path = tmp_path / "secret"
    put(path, f"{OURS}\n")
    async with (
        worker(Trust(secret_file=path)) as there,
        grpc.aio.insecure_channel(there.target) as channel,
    ):

        async def accepted(*secrets: str) -> None:
            for secret in (OURS, NEXT):
                if secret in secrets:
                    await linked(channel, bearer(secret))
                else:
                    await refused(linked(channel, bearer(secret)))

        await accepted(OURS)
        put(path, f"{OURS}\n{NEXT}\n")
        await accepted(OURS, NEXT)
        put(path, f"{NEXT}\n{OURS}\n")
        await accepted(OURS, NEXT)
        with capture_logs() as lines:
            put(path, "too short\n")
            await accepted(OURS, NEXT)
            path.unlink()
            await accepted(OURS, NEXT)
        assert [line["log_level"] for line in lines if "unusable" in line["event"]] == [
            "error",
            "error",
        ]
        put(path, f"{NEXT}\n")
        await accepted(NEXT)


def test_the_first_secret_is_what_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    put(path, f"\n  {OURS}  \n\n{NEXT}")
    credentials = Credentials(Trust(secret_file=path))
    assert credentials.metadata == bearer(OURS)
    put(path, f"{NEXT}\n{OURS}\n")
    assert credentials.metadata == bearer(NEXT)
    assert Credentials(Trust()).metadata == ()


@asynccontextmanager
async def links(target: str, trust: Trust) -> AsyncIterator[Links]:
    found = Links([target], GatewayMetrics(CollectorRegistry()), Credentials(trust))
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_gateway_that_is_refused_says_so_once_and_does_not_spin(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    put(path, STRANGE)
    counted = 'asheard_unauthenticated_total{service="session"}'
    loop = asyncio.get_running_loop()
    async with worker(Trust(secret=OURS)) as there:
        with capture_logs() as lines:
            began_s = loop.time()
            async with links(there.target, Trust(secret_file=path)) as found:
                await until_counted(there.metric)
                await asyncio.sleep(0.8)
                assert not found.up
            took_s = loop.time() - began_s
        # Two and a half seconds between tries, at the soonest.
        assert await there.metric(counted) <= 1 + took_s / 2.5
    [said] = [line for line in lines if line["event"] == "session worker refuses this gateway"]
    assert said["log_level"] == "error"
    assert "ASHEARD_INTERNAL_SECRET" in said["reason"]
    assert STRANGE not in str(lines)


async def test_a_gateway_links_once_its_secret_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAX_RETRY_S", 0.1)
    path = tmp_path / "secret"
    put(path, STRANGE)
    async with (
        worker(Trust(secret=OURS)) as there,
        links(there.target, Trust(secret_file=path)) as found,
    ):
        await until_counted(there.metric)
        put(path, OURS)
        await until(lambda: found.up == 1, "the link is up")


async def until_counted(metric: object) -> None:
    """Wait until somebody was refused."""
    assert callable(metric)
    async with asyncio.timeout(PATIENCE_S):
        while not await metric('asheard_unauthenticated_total{service="session"}'):
            await asyncio.sleep(0.05)


async def test_facts_that_are_refused_wait_for_the_right_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    put(path, STRANGE)
    async with transcripts(tmp_path / "facts.db", Trust(secret=OURS)) as there:
        registry = CollectorRegistry()
        outbox = FactOutbox(there.ingest.target, registry, Credentials(Trust(secret_file=path)))
        with capture_logs() as lines:
            await outbox.start()
            outbox.writer("CA1", "session/1").write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
            assert not await outbox.flush(0.5)
            assert registry.get_sample_value("asheard_facts_pending") == 1
            put(path, OURS)
            assert await outbox.flush(PATIENCE_S)
        await outbox.close()
    assert registry.get_sample_value("asheard_facts_delivered_total") == 1
    for secret in (OURS, STRANGE):
        assert secret not in str(lines)


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "No such file"), ("", "holds no secret"), ("short", "has 5 characters")],
)
def test_a_secret_file_that_is_none_is_a_configuration_error(
    content: str | None, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=named) as error:
        Credentials(Trust(secret_file=path))
    assert str(path) in str(error.value)


def test_the_log_says_by_what_the_parts_are_known() -> None:
    tls = TlsFiles(Path("cert"), Path("key"), Path("ca"))
    assert Trust().means == "nothing"
    assert Trust(secret=OURS).means == Trust(secret_file=Path("secret")).means == "a secret"
    assert Trust(tls=tls).means == "mutual TLS"
    assert Trust(secret=OURS, tls=tls).means == "a secret and mutual TLS"


def test_secrets_do_not_show(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    put(path, OURS)
    for trust in (Trust(secret=OURS), Trust(secret_file=path)):
        credentials = Credentials(trust)
        assert OURS not in f"{trust} {credentials!r} {vars(credentials)}"
    with pytest.raises(ConfigurationError) as error:
        secrets_in(f"{OURS} {OURS}", "ASHEARD_INTERNAL_SECRET")
    assert OURS not in str(error.value)


def test_refusals_are_logged_at_a_pace_whoever_and_how_many_they_are() -> None:
    pace = Pace()
    assert pace.due("a", 0.0) == 1
    assert [pace.due("a", 0.1 * i) for i in range(1, 100)] == [None] * 99
    assert pace.due("b", 1.0) == 1
    assert pace.due("a", 60.0) == 100
    due = [pace.due(f"stranger {i}", 61.0) for i in range(10_000)]
    assert sum(line is not None for line in due) <= Pace.MAX_PEERS
    assert len(pace) <= Pace.MAX_PEERS + 1
    assert pace.due("later", 200.0) is not None
