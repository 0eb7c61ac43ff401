"""The outbox: numbered, in order, at least once, whatever becomes of the transcript service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2, ingest_service_pb2, ingest_service_pb2_grpc
from runtime import fact_queue, facts
from runtime.config import Address
from runtime.fact_queue import FactQueue, Kept
from runtime.facts import FactOutbox
from runtime.rpc import GrpcServer

Refusal = tuple[grpc.StatusCode, str]
Code = grpc.StatusCode


class Ingest(ingest_service_pb2_grpc.IngestServiceServicer):
    """Stores what it is given; fails as often as it is told to."""

    def __init__(self) -> None:
        self.stored: list[fact_pb2.Fact] = []
        self.requests = 0
        self.failures = 0
        self.answer_lost = False
        self.reject: set[int] = set()
        self.refuse: Callable[[ingest_service_pb2.AppendFactsRequest], Refusal | None] = (
            lambda _request: None
        )
        self.processes: list[str] = []
        self.largest = 0

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[
            ingest_service_pb2.AppendFactsRequest, ingest_service_pb2.AppendFactsResponse
        ],
    ) -> ingest_service_pb2.AppendFactsResponse:
        self.processes.append(request.process)
        self.largest = max(self.largest, request.ByteSize())
        self.requests += bool(request.facts)
        if (refusal := self.refuse(request)) is not None:
            await context.abort(*refusal)
        if self.failures and request.facts:
            self.failures -= 1
            if self.answer_lost:
                self.stored.extend(request.facts)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.stored.extend(request.facts)
        return ingest_service_pb2.AppendFactsResponse(
            rejected=[
                ingest_service_pb2.RejectedFact(index=i, reason="writer: bad")
                for i, fact in enumerate(request.facts)
                if fact.sequence in self.reject
            ]
        )


@asynccontextmanager
async def serving(ingest: Ingest, port: int = 0) -> AsyncIterator[int]:
    server = GrpcServer(Address("127.0.0.1", port), ["asheard.v1.IngestService"])
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server.server)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop(0)


@asynccontextmanager
async def outbox_to(port: int, registry: CollectorRegistry) -> AsyncIterator[FactOutbox]:
    outbox = FactOutbox(f"127.0.0.1:{port}", registry)
    await outbox.start()
    try:
        yield outbox
    finally:
        await outbox.close()


async def test_facts_arrive_numbered_and_in_order_across_calls_in_few_requests() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writers = [outbox.writer(f"CA{i}", "gateway/MZ1") for i in range(3)]
        for _ in range(100):
            for writer in writers:
                writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=7))
        assert await outbox.flush(10)
    for i in range(3):
        numbers = [f.sequence for f in ingest.stored if f.call_sid == f"CA{i}"]
        assert numbers == list(range(1, 101))
    assert all(f.recorded_time.seconds > 0 for f in ingest.stored)
    assert ingest.requests <= 2
    assert registry.get_sample_value("asheard_facts_delivered_total") == 300


@pytest.mark.parametrize("answer_lost", [False, True])
async def test_a_failing_service_gets_every_fact_in_the_end(
    answer_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "FIRST_RETRY_S", 0.01)
    ingest = Ingest()
    ingest.failures, ingest.answer_lost = 3, answer_lost
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(5):
            writer.write(item_deleted=fact_pb2.ItemDeleted(item_id="i"))
        assert await outbox.flush(20)
    assert {f.sequence for f in ingest.stored} == {1, 2, 3, 4, 5}


async def test_facts_wait_for_a_service_that_starts_later() -> None:
    ingest = Ingest()
    async with serving(ingest) as port:
        pass
    registry = CollectorRegistry()
    async with outbox_to(port, registry) as outbox:
        outbox.writer("CA1", "session/1").write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert not await outbox.flush(0.3)
        assert registry.get_sample_value("asheard_facts_pending") == 1
        async with serving(ingest, port):
            assert await outbox.flush(20)
    assert len(ingest.stored) == 1


async def test_a_rejected_fact_is_counted_and_does_not_dam_up_the_others() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    ingest.reject = {2}
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(3):
            writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
    rejected = {"reason": "rejected"}
    assert registry.get_sample_value("asheard_facts_dropped_total", rejected) == 1
    assert registry.get_sample_value("asheard_facts_delivered_total") == 2


async def test_beyond_the_bound_facts_are_dropped_and_their_numbers_stay_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fact_queue, "MAX_KEPT_FACTS", 2)
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(3):
            writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
        writer.write(key_pressed=fact_pb2.KeyPressed(at_ms=1))
        assert await outbox.flush(10)
    assert [f.sequence for f in ingest.stored] == [1, 2, 4]
    assert registry.get_sample_value("asheard_facts_dropped_total", {"reason": "full"}) == 1


def _numbers(ingest: Ingest) -> list[int]:
    return sorted(fact.sequence for fact in ingest.stored)


def _dropped(ingest: Ingest) -> dict[int, fact_pb2.FactDropped]:
    return {
        fact.sequence: fact.fact_dropped
        for fact in ingest.stored
        if fact.WhichOneof("body") == "fact_dropped"
    }


def _count(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("asheard_facts_dropped_total", {"reason": reason})


def _text(length: int, text: str = "x") -> dict[str, fact_pb2.ItemGenerated]:
    return {"item_generated": fact_pb2.ItemGenerated(item_id="i", text=text * length)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to wait for pauses between tries."""
    monkeypatch.setattr(facts, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(facts, "MAX_RETRY_S", 0.01)
    monkeypatch.setattr(facts, "BUSY_S", 0.0)
    monkeypatch.setattr(facts, "LINGER_S", 0.0)


async def test_a_fact_too_large_is_replaced_under_its_number_and_stops_nobody() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    with capture_logs() as logs:
        async with serving(ingest) as port, outbox_to(port, registry) as outbox:
            talker, other = outbox.writer("CA1", "session/1"), outbox.writer("CA2", "session/2")
            for _ in range(3):
                talker.write(**_text(20_000_000, "secret"))
                other.write(**_text(10))
            talker.write(**_text(fact_queue.MAX_FACT_BYTES + 1, "secret"))
            talker.write(**_text(10))
            assert await outbox.flush(20)
    assert [f.sequence for f in ingest.stored if f.call_sid == "CA1"] == [1, 2, 3, 4, 5]
    assert [f.sequence for f in ingest.stored if f.call_sid == "CA2"] == [1, 2, 3]
    given_up = [f for f in ingest.stored if f.HasField("fact_dropped")]
    assert [(f.call_sid, f.sequence) for f in given_up] == [("CA1", n) for n in (1, 2, 3, 4)]
    assert given_up[0].fact_dropped.body == "item_generated"
    assert given_up[0].fact_dropped.bytes > 100_000_000
    assert str(fact_queue.MAX_FACT_BYTES) in given_up[0].fact_dropped.reason
    assert _count(registry, "too_large") == 4
    assert len([entry for entry in logs if entry["event"] == "fact given up"]) == 4
    assert "secret" not in str(logs)


async def test_what_cannot_be_serialised_raises_into_no_call() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        writer.write(item_deleted="not a message")
        writer.write(no_such_body=fact_pb2.ItemDeleted())
        writer.write(**_text(1))
        outbox.writer("CA\ud800", "session/1").write(**_text(1))  # not even its name can be said
        assert await outbox.flush(20)
    assert _numbers(ingest) == [1, 2, 3]
    assert sorted(_dropped(ingest)) == [1, 2]
    assert "TypeError" in _dropped(ingest)[1].reason
    assert _count(registry, "invalid") == 3


async def test_requests_are_bounded_by_bytes() -> None:
    ingest = Ingest()
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(30):
            writer.write(**_text(200_000))
        assert await outbox.flush(20)
    assert _numbers(ingest) == list(range(1, 31))
    assert 600_000 < ingest.largest <= fact_queue.MAX_BATCH_BYTES + 100


async def test_what_is_kept_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_queue, "MAX_KEPT_BYTES", 1_000_000)
    registry = CollectorRegistry()
    outbox = FactOutbox("127.0.0.1:1", registry)
    writer = outbox.writer("CA1", "session/1")
    for _ in range(30):
        writer.write(**_text(100_000))
    assert registry.get_sample_value("asheard_facts_pending") == 9
    kept = registry.get_sample_value("asheard_facts_pending_bytes")
    assert kept is not None and 900_000 < kept <= 1_000_000
    assert _count(registry, "full") == 21


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
            writer.write(**_text(10))
        assert await outbox.flush(20)
        assert outbox.unhealthy() is None
    assert _numbers(ingest) == list(range(1, 1_001))
    assert set(_dropped(ingest)) == guilty
    assert refusal[0].name in _dropped(ingest)[37].reason
    assert refusal[1] not in _dropped(ingest)[37].reason
    assert _count(registry, reason) == 4
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
                writer.write(**_text(100_000 if number == 3 else 2_000))
            assert await outbox.flush(20)
    finally:
        await server.stop(0)
    assert _numbers(ingest) == [1, 2, 3, 4]
    assert set(_dropped(ingest)) == {3}
    assert _count(registry, "too_large") == 1


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
            writer.write(**_text(10))
        assert await outbox.flush(20)
    assert _numbers(ingest) == list(range(1, 21))
    assert not _dropped(ingest)
    assert registry.get_sample_value("asheard_facts_delivered_total") == 20
    assert sum(_count(registry, reason) or 0 for reason in fact_queue.DROP_REASONS) == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED])
async def test_a_process_that_was_never_let_in_wants_no_calls(code: Code) -> None:
    ingest = Ingest()
    ingest.refuse = lambda _request: (code, "give the secret")
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        await _until(lambda: outbox.unhealthy() is not None)
        assert code.name in str(outbox.unhealthy())
        ingest.refuse = lambda _request: None
        await _until(lambda: outbox.unhealthy() is None)
        # Once let in, it carries calls: a secret changed elsewhere is no reason to drop callers.
        ingest.refuse = lambda _request: (code, "give the secret")
        outbox.writer("CA1", "session/1").write(**_text(10))
        await _until(lambda: outbox.trouble() is not None)
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
            writer.write(**_text(10))
        await _until(lambda: "74 wait" in str(outbox.trouble()))
        assert outbox.unhealthy() is None
        assert (registry.get_sample_value("asheard_facts_oldest_seconds") or 0) > 0
        writer.write(**_text(10))
        assert "75 wait" in str(outbox.unhealthy())
        ingest.refuse = lambda _request: None
        assert await outbox.flush(20)
        assert outbox.unhealthy() is None and outbox.trouble() is None
        assert registry.get_sample_value("asheard_facts_oldest_seconds") == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "raised",
    [RuntimeError("odd"), asyncio.CancelledError(), grpc.aio.UsageError("closed"), OSError()],
)
async def test_whatever_is_raised_while_sending_the_delivery_goes_on(raised: BaseException) -> None:
    stored: list[fact_pb2.Fact] = []
    tries = 0

    async def append(request: bytes) -> ingest_service_pb2.AppendFactsResponse:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise raised
        stored.extend(ingest_service_pb2.AppendFactsRequest.FromString(request).facts)
        return ingest_service_pb2.AppendFactsResponse()

    outbox = FactOutbox("nowhere", CollectorRegistry(), append=append)
    await outbox.start()
    for _ in range(5):
        outbox.writer("CA1", "session/1").write(**_text(10))
    assert await outbox.flush(20)
    await outbox.close()
    assert len(stored) == 5 and not any(fact.HasField("fact_dropped") for fact in stored)


class SlippingQueue(FactQueue):
    """Raises at the first two looks at what goes next."""

    def __init__(self) -> None:
        super().__init__()
        self._slips = 2

    def next_batch(self) -> list[Kept]:
        if self._slips:
            self._slips -= 1
            raise ValueError("a bug")
        return super().next_batch()


@pytest.mark.usefixtures("quick")
async def test_a_slip_of_our_own_does_not_end_the_delivery() -> None:
    ingest = Ingest()
    async with serving(ingest) as port:
        outbox = FactOutbox(f"127.0.0.1:{port}", CollectorRegistry(), queue=SlippingQueue())
        await outbox.start()
        outbox.writer("CA1", "session/1").write(**_text(10))
        assert await outbox.flush(20)
        await outbox.close()
    assert _numbers(ingest) == [1]


async def test_a_process_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "HEARTBEAT_S", 0.02)
    ingest = Ingest()
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        await _until(lambda: len(ingest.processes) >= 4)
        outbox.writer("CA1", "session/1").write(**_text(10))
        assert await outbox.flush(20)
        assert set(ingest.processes) == {outbox.process}
    assert ingest.requests == 1
    assert outbox.process != FactOutbox("nowhere", CollectorRegistry()).process


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(10))
async def test_under_any_service_every_number_is_delivered_or_accounted_for(seed: int) -> None:
    """Odd answers of all kinds, in any order, and some facts that are never taken."""
    random_ = random.Random(seed)
    poison = {n for n in range(1, 301) if random_.random() < 0.03}
    stored: dict[int, fact_pb2.Fact] = {}
    statuses = list(set(Code) - {Code.OK})

    def refused(code: Code) -> grpc.aio.AioRpcError:
        none: Iterable[tuple[str, str]] = ()
        return grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(*none), grpc.aio.Metadata(*none), "larger than max"
        )

    async def append(request: bytes) -> ingest_service_pb2.AppendFactsResponse:
        new = ingest_service_pb2.AppendFactsRequest.FromString(request).facts
        response = ingest_service_pb2.AppendFactsResponse()
        if random_.random() < 0.2:
            raise refused(random_.choice([Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.ABORTED]))
        for index, fact in enumerate(new):
            if fact.sequence in poison and not fact.HasField("fact_dropped"):
                if random_.random() < 0.5:
                    response.rejected.add(index=index, reason="no")
                    continue
                raise refused(random_.choice(statuses))
            stored[fact.sequence] = fact
        return response

    registry = CollectorRegistry()
    outbox = FactOutbox("nowhere", registry, append=append)
    await outbox.start()
    writer = outbox.writer("CA1", "session/1")
    for number in range(300):
        writer.write(**_text(10))
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    assert await outbox.flush(20)
    await outbox.close()
    assert sorted(stored) == list(range(1, 301))
    assert {n for n, fact in stored.items() if fact.HasField("fact_dropped")} == poison
    assert sum(_count(registry, reason) or 0 for reason in fact_queue.DROP_REASONS) == len(poison)
    assert registry.get_sample_value("asheard_facts_pending_bytes") == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_fact_has_exactly_one_body() -> None:
    outbox = FactOutbox("127.0.0.1:1", CollectorRegistry())
    with pytest.raises(AssertionError):
        outbox.writer("CA1", "session/1").write()
    await asyncio.sleep(0)
