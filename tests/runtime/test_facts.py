"""The outbox: numbered, in order, at least once, whatever becomes of the transcript service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2, ingest_service_pb2
from runtime import fact_queue, facts
from runtime.fact_queue import FactQueue, Kept
from runtime.facts import FactOutbox
from tests.runtime.ingest import (
    Code,
    Ingest,
    dropped,
    numbers,
    outbox_to,
    serving,
    stand_ins,
    text,
    until,
)


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


async def test_a_fact_too_large_is_replaced_under_its_number_and_stops_nobody() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    with capture_logs() as logs:
        async with serving(ingest) as port, outbox_to(port, registry) as outbox:
            talker, other = outbox.writer("CA1", "session/1"), outbox.writer("CA2", "session/2")
            for _ in range(3):
                talker.write(**text(20_000_000, "secret"))
                other.write(**text(10))
            talker.write(**text(fact_queue.MAX_FACT_BYTES + 1, "secret"))
            talker.write(**text(10))
            assert await outbox.flush(20)
    assert [f.sequence for f in ingest.stored if f.call_sid == "CA1"] == [1, 2, 3, 4, 5]
    assert [f.sequence for f in ingest.stored if f.call_sid == "CA2"] == [1, 2, 3]
    given_up = [f for f in ingest.stored if f.HasField("fact_dropped")]
    assert [(f.call_sid, f.sequence) for f in given_up] == [("CA1", n) for n in (1, 2, 3, 4)]
    assert given_up[0].fact_dropped.body == "item_generated"
    assert given_up[0].fact_dropped.bytes > 100_000_000
    assert str(fact_queue.MAX_FACT_BYTES) in given_up[0].fact_dropped.reason
    assert dropped(registry, "too_large") == 4
    assert len([entry for entry in logs if entry["event"] == "fact given up"]) == 4
    assert "secret" not in str(logs)


async def test_what_cannot_be_serialised_raises_into_no_call() -> None:
    ingest, registry = Ingest(), CollectorRegistry()
    async with serving(ingest) as port, outbox_to(port, registry) as outbox:
        writer = outbox.writer("CA1", "session/1")
        writer.write(item_deleted="not a message")
        writer.write(no_such_body=fact_pb2.ItemDeleted())
        writer.write(**text(1))
        outbox.writer("CA\ud800", "session/1").write(**text(1))  # not even its name can be said
        assert await outbox.flush(20)
    assert numbers(ingest) == [1, 2, 3]
    assert sorted(stand_ins(ingest)) == [1, 2]
    assert "TypeError" in stand_ins(ingest)[1].reason
    assert dropped(registry, "invalid") == 3


async def test_requests_are_bounded_by_bytes() -> None:
    ingest = Ingest()
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        writer = outbox.writer("CA1", "session/1")
        for _ in range(30):
            writer.write(**text(200_000))
        assert await outbox.flush(20)
    assert numbers(ingest) == list(range(1, 31))
    assert 600_000 < ingest.largest <= fact_queue.MAX_BATCH_BYTES + 100


async def test_what_is_kept_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_queue, "MAX_KEPT_BYTES", 1_000_000)
    registry = CollectorRegistry()
    outbox = FactOutbox("127.0.0.1:1", registry)
    writer = outbox.writer("CA1", "session/1")
    for _ in range(30):
        writer.write(**text(100_000))
    assert registry.get_sample_value("asheard_facts_pending") == 9
    kept = registry.get_sample_value("asheard_facts_pending_bytes")
    assert kept is not None and 900_000 < kept <= 1_000_000
    assert dropped(registry, "full") == 21


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
        outbox.writer("CA1", "session/1").write(**text(10))
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
        outbox.writer("CA1", "session/1").write(**text(10))
        assert await outbox.flush(20)
        await outbox.close()
    assert numbers(ingest) == [1]


async def test_a_process_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "HEARTBEAT_S", 0.02)
    ingest = Ingest()
    async with serving(ingest) as port, outbox_to(port, CollectorRegistry()) as outbox:
        await until(lambda: len(ingest.processes) >= 4)
        outbox.writer("CA1", "session/1").write(**text(10))
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
        writer.write(**text(10))
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    assert await outbox.flush(20)
    await outbox.close()
    assert sorted(stored) == list(range(1, 301))
    assert {n for n, fact in stored.items() if fact.HasField("fact_dropped")} == poison
    assert sum(dropped(registry, reason) or 0 for reason in fact_queue.DROP_REASONS) == len(poison)
    assert registry.get_sample_value("asheard_facts_pending_bytes") == 0


async def test_a_fact_has_exactly_one_body() -> None:
    outbox = FactOutbox("127.0.0.1:1", CollectorRegistry())
    with pytest.raises(AssertionError):
        outbox.writer("CA1", "session/1").write()
    await asyncio.sleep(0)
