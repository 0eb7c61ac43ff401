"""What the sweeper must do on every store: one suite, inherited by the tests of each (integration).

Time is virtual; two services share the store.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from asheard.v1.fact_pb2 import (
    CallEnded,
    CallOutcome,
    CallStarted,
    Fact,
    ItemAdded,
    SessionAssigned,
    SessionEnded,
    SessionStarted,
)
from asheard.v1.transcript_pb2 import CallState, Role, Transcript
from runtime.errors import NotFound
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.one_service import Service, serving
from transcript.join import join
from transcript.store import Outcome, Store

GRACE_S = 30.0
LOST_S = 90.0


async def pass_time(service: Service, since_s: float, until_s: float) -> None:
    """Sweep every five seconds of virtual time."""
    now_s = since_s
    while now_s <= until_s:
        await service.sweeper.sweep(now_s)
        now_s += 5


def stream(call_sid: str, number: int, session: str) -> Writer:
    """The beginning of a media stream."""
    writer = Writer(call_sid, f"gateway/MZ{number}")
    writer.write(call_started=CallStarted(stream_sid=f"MZ{number}", stream_number=number))
    writer.write(session_assigned=SessionAssigned(session_writer=session))
    return writer


def session(call_sid: str, name: str) -> Writer:
    """A whole session."""
    writer = Writer(call_sid, name)
    writer.write(session_started=SessionStarted())
    writer.write(item_added=ItemAdded(item_id=f"item {name}", role=Role.ROLE_AGENT))
    writer.write(session_ended=SessionEnded())
    return writer


def ended(writer: Writer, outcome: CallOutcome.ValueType) -> Fact:
    return writer.write(call_ended=CallEnded(outcome=outcome))


class SweeperContract:
    """Inherit, and give a fixture ``stores``: two on the same data, or one twice, that say they are
    shared."""

    @pytest.fixture
    async def replicas(self, stores: tuple[Store, Store]) -> AsyncIterator[tuple[Service, Service]]:
        async with (
            serving(stores[0], grace_s=GRACE_S, lost_s=LOST_S) as one,
            serving(stores[1], grace_s=GRACE_S, lost_s=LOST_S) as two,
        ):
            yield one, two

    async def test_a_killed_gateways_call_is_final_by_a_deadline_and_its_watchers_end(
        self, replicas: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("transcript.calls.POLL_S", 0.05)
        one, two = replicas
        gateway, worker = stream("CA1", 1, "session/1"), session("CA1", "session/1")
        await one.ingest.append(gateway.facts, "gateway process")
        await one.ingest.append(worker.facts, "worker process")
        states: list[Transcript] = []

        async def follow() -> None:
            async for state in two.calls.watch("CA1"):
                states.append(state)

        watching = asyncio.create_task(follow())
        now = 0.0
        while now <= LOST_S + GRACE_S + 10:
            await one.store.check({"worker process"})
            await asyncio.gather(one.sweeper.sweep(now), two.sweeper.sweep(now))
            if now < LOST_S:
                assert (await one.calls.get("CA1")).state == CallState.CALL_STATE_ACTIVE
            if now < LOST_S + GRACE_S:
                assert not (await two.calls.get("CA1")).final
            now += 5
        final = await one.calls.get("CA1")
        assert (final.final, final.state) == (True, CallState.CALL_STATE_FAILED)
        assert final.revision == len(gateway.facts) + len(worker.facts) + 2  # each once
        await asyncio.wait_for(watching, 20)
        assert states[-1] == final
        # A straggler of a gateway that was only stunned is thrown away.
        assert await two.ingest.append([ended(gateway, CallOutcome.CALL_OUTCOME_COMPLETED)]) == [
            Outcome.LATE
        ]
        assert await two.calls.get("CA1") == final
        # Its process is forgotten, now that nothing depends on it.
        await one.sweeper.sweep(now)
        assert "gateway process" not in await one.store.processes()

    async def test_a_dropped_stream_may_be_followed_by_another_within_the_grace(
        self, replicas: tuple[Service, Service]
    ) -> None:
        one, two = replicas
        first = stream("CA1", 1, "session/1")
        ended(first, CallOutcome.CALL_OUTCOME_DROPPED)
        await one.ingest.append([*first.facts, *session("CA1", "session/1").facts], "p")
        await asyncio.gather(pass_time(one, 0, 25), pass_time(two, 0, 25))
        assert not (await one.calls.get("CA1")).final
        second = stream("CA1", 2, "session/2")
        assert set(await two.ingest.append(second.facts, "p")) == {Outcome.STORED}
        for now in range(30, 400, 5):
            await one.store.check({"p"})
            await asyncio.gather(one.sweeper.sweep(now), two.sweeper.sweep(now))
        assert (await two.calls.get("CA1")).state == CallState.CALL_STATE_ACTIVE
        ended(second, CallOutcome.CALL_OUTCOME_COMPLETED)
        await two.ingest.append([*second.facts, *session("CA1", "session/2").facts], "p")
        final = await one.calls.get("CA1")
        assert (final.final, final.state) == (True, CallState.CALL_STATE_COMPLETED)
        assert "transcript/closed" not in [
            fact.writer for fact in (await one.store.read("CA1")).facts
        ]

    async def test_a_call_that_nobody_continued_is_closed_once(
        self, replicas: tuple[Service, Service]
    ) -> None:
        one, two = replicas
        for n in range(5):
            await one.ingest.append(
                short_call(f"CA{n}", outcome=CallOutcome.CALL_OUTCOME_MODEL_FAILED)
            )
        await asyncio.gather(pass_time(one, 0, 40), pass_time(two, 0, 40))
        for n in range(5):
            stored = await one.store.read(f"CA{n}")
            assert stored.final
            assert [fact.writer for fact in stored.facts].count("transcript/closed") == 1

    async def test_a_service_that_was_away_takes_nobody_for_dead(
        self, replicas: tuple[Service, Service]
    ) -> None:
        one, two = replicas
        await one.ingest.append(stream("CA1", 1, "session/1").facts, "p")
        await pass_time(one, 0, 80)
        # Stopped for an hour, or started anew: signs of life may have been missed.
        await pass_time(one, 3_700, 3_785)
        await pass_time(two, 3_700, 3_785)
        for each in replicas:
            assert (await each.calls.get("CA1")).state == CallState.CALL_STATE_ACTIVE
        await pass_time(one, 3_790, 3_795)
        assert (await one.calls.get("CA1")).state == CallState.CALL_STATE_FAILED

    async def test_a_gap_before_the_end_does_not_keep_a_call_open(
        self, replicas: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, _ = replicas
        monkeypatch.setattr("transcript.store_append.MAX_CALL_FACTS", 4)
        outcomes = await one.ingest.append(short_call("CA1"), "p")
        assert Outcome.SURPLUS in outcomes
        now = 0.0
        while now <= LOST_S + GRACE_S + 10:
            await one.store.check({"p"})
            await one.sweeper.sweep(now)
            now += 5
        assert (await one.calls.get("CA1")).final

    async def test_a_call_that_cannot_be_joined_keeps_no_other_open(
        self, replicas: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, _ = replicas

        def fails_for_one(facts: list[Fact], known: object) -> Transcript:
            if facts[0].call_sid == "CA1":
                raise RuntimeError("a bug")
            return join(facts)

        monkeypatch.setattr("transcript.joined.join", fails_for_one)
        dropped = CallOutcome.CALL_OUTCOME_DROPPED
        for n in range(3):
            await one.ingest.append(short_call(f"CA{n}", outcome=dropped))
        await pass_time(one, 0, 60)
        assert [(await one.store.read(f"CA{n}")).final for n in range(3)] == [True, False, True]

    @pytest.mark.parametrize("seed", range(8))
    async def test_final_is_never_taken_back(
        self, replicas: tuple[Service, Service], seed: int
    ) -> None:
        """Facts of several streams, sweeps, readers and repeats, interleaved at random."""
        rng = random.Random(seed)
        calls = [f"CA{n}" for n in range(6)]
        batches: list[tuple[str, list[Fact]]] = []
        for call_sid in calls:
            for number in range(1, rng.randint(2, 4)):
                gateway = stream(call_sid, number, f"session/{number}")
                if rng.random() < 0.8:
                    ended(gateway, rng.choice([*CallOutcome.values()]))
                worker = session(call_sid, f"session/{number}")
                for writer in (gateway, worker):
                    cut = rng.randint(0, len(writer.facts))
                    batches += [("p", writer.facts[:cut]), ("p", writer.facts[cut:])]
                    if rng.random() < 0.2:
                        batches += [("p", writer.facts)]  # a repeat
        rng.shuffle(batches)
        said_final: dict[str, Transcript] = {}
        clock = 0.0

        async def hand_in(process: str, facts: list[Fact]) -> None:
            await asyncio.sleep(0)
            before = set(said_final)
            service = rng.choice(replicas)
            outcomes = await service.ingest.append(facts, process)
            for fact, outcome in zip(facts, outcomes, strict=True):
                if fact.call_sid in before:
                    assert outcome in (Outcome.LATE, Outcome.REPEATED)

        async def read(call_sid: str) -> None:
            known = said_final.get(call_sid)
            try:
                transcript = await rng.choice(replicas).calls.get(call_sid)
            except NotFound:
                return
            if known is not None:
                assert transcript == known
            if transcript.final:
                assert said_final.setdefault(call_sid, transcript) == transcript

        async def sweep() -> None:
            nonlocal clock
            clock += rng.choice([1.0, 5.0, 10.0])
            await rng.choice(replicas).sweeper.sweep(clock)

        while batches:
            some = [batches.pop() for _ in range(min(len(batches), rng.randint(1, 4)))]
            doing = [hand_in(process, facts) for process, facts in some]
            doing += [read(call_sid) for call_sid in rng.sample(calls, 3)]
            doing += [sweep() for _ in range(rng.randint(0, 3))]
            rng.shuffle(doing)
            await asyncio.gather(*doing)
        for _ in range(40):
            clock += 10
            await asyncio.gather(*(each.sweeper.sweep(clock) for each in replicas))
        for call_sid in calls:
            await read(call_sid)
        assert said_final.keys() == set(calls)
