"""Facts that a service refuses: the guilty one is given up alone, and a service at fault costs none."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from asheard.v1 import ingest_service_pb2, ingest_service_pb2_grpc
from runtime import fact_queue
from tests.runtime.ingest import (
    Code,
    Ingest,
    Refusal,
    dropped,
    numbers,
    outbox_to,
    serving,
    stand_ins,
    text,
    until,
)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((Code.INVALID_ARGUMENT, "facts: no"), "rejected"),
        ((Code.OUT_OF_RANGE, "no"), "rejected"),
        ((Code.INTERNAL, "Failed to serialize"), "rejected"),
        ((Code.UNKNOWN, "Unexpected <class 'ValueError'>"), "rejected"),
        ((Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 8)"), "too_large"),
    ],
)  # fmt: skip
async def test_the_guilty_of_a_refused_request_is_found_and_given_up_alone(
    refusal: Refusal, reason: str
) -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    guilty = {37, 401, 402, 999}

    def refuse(request: ingest_service_pb2.AppendFactsRequest) -> Refusal | None:
        bad = any(
            fact.sequence in guilty and not fact.HasField("fact_dropped") for fact in request.facts
        )
        return refusal if bad else None

    ingest.refuse = refuse
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(1_000):
            writer.write(**text(10))
        assert await outbox.flush(20)
        assert outbox.unhealthy() is None
    assert numbers(ingest) == list(range(1, 1_001))
    assert set(stand_ins(ingest)) == guilty
    assert refusal[0].name in stand_ins(ingest)[37].reason
    assert refusal[1] not in stand_ins(ingest)[37].reason
    assert dropped(registry, reason) == 4
    assert registry.get_sample_value("asheard_facts_delivered_total") == 1_000
    assert ingest.requests <= 4 * 25 + 20


@pytest.mark.usefixtures("quick")
async def test_a_limit_of_size_on_the_way_costs_what_is_larger_and_nothing_else() -> None:
    """As a proxy, or a service of another version, may have it: a real server with a real limit."""
    ingest, registry = Ingest(), CollectorRegistry()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 50_000)])
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with outbox_to(port, registry) as outbox:
            writer = outbox.writer("CA1", "session/1")
            for number in range(1, 5):
                writer.write(**text(100_000 if number == 3 else 2_000))
            assert await outbox.flush(20)
    finally:
        await server.stop(0)
    assert numbers(ingest) == [1, 2, 3, 4]
    assert set(stand_ins(ingest)) == {3}
    assert dropped(registry, "too_large") == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "refusal",
    [
        (Code.UNAVAILABLE, "the store does not answer"),
        (Code.RESOURCE_EXHAUSTED, "too many writers"),
        (Code.DEADLINE_EXCEEDED, ""),
        (Code.UNAUTHENTICATED, "give the secret"),
        (Code.PERMISSION_DENIED, "writers only"),
        (Code.UNIMPLEMENTED, "Method not found!"),
        (Code.INVALID_ARGUMENT, "nothing is right today"),
        (Code.UNKNOWN, "Unexpected <class 'KeyError'>"),
    ],
)
async def test_a_service_that_refuses_everybody_costs_no_fact(refusal: Refusal) -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    refused = 0

    def refuse(request: ingest_service_pb2.AppendFactsRequest) -> Refusal | None:
        nonlocal refused
        refused += 1
        return refusal if refused <= 60 else None

    ingest.refuse = refuse
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(20):
            writer.write(**text(10))
        assert await outbox.flush(20)
    assert numbers(ingest) == list(range(1, 21))
    assert not stand_ins(ingest)
    assert registry.get_sample_value("asheard_facts_delivered_total") == 20
    assert sum(dropped(registry, reason) or 0 for reason in fact_queue.DROP_REASONS) == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED])
async def test_a_process_that_was_never_let_in_wants_no_calls(code: Code) -> None:
    ingest = Ingest()
    ingest.refuse = lambda _request: (code, "give the secret")
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        await until(lambda: outbox.unhealthy() is not None)
        assert code.name in str(outbox.unhealthy())
        ingest.refuse = lambda _request: None
        await until(lambda: outbox.unhealthy() is None)
        # Once let in, it carries calls: a secret changed elsewhere is no reason to drop callers.
        ingest.refuse = lambda _request: (code, "give the secret")
        outbox.writer("CA1", "session/1").write(**text(10))
        await until(lambda: outbox.trouble() is not None)
        assert outbox.unhealthy() is None


@pytest.mark.usefixtures("quick")
async def test_an_absent_service_turns_no_caller_away_before_facts_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_KEPT_FACTS", 100)
    ingest, registry = Ingest(), CollectorRegistry()
    ingest.refuse = lambda _request: (Code.UNAVAILABLE, "down")
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(74):
            writer.write(**text(10))
        await until(lambda: "74 wait" in str(outbox.trouble()))
        assert outbox.unhealthy() is None
        assert (registry.get_sample_value("asheard_facts_oldest_seconds") or 0) > 0
        writer.write(**text(10))
        assert "75 wait" in str(outbox.unhealthy())
        ingest.refuse = lambda _request: None
        assert await outbox.flush(20)
        assert outbox.unhealthy() is None and outbox.trouble() is None
        assert registry.get_sample_value("asheard_facts_oldest_seconds") == 0
