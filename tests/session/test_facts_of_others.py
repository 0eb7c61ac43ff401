"""What one call's model floods the worker with is never in the way of another call's facts; and
`/readyz` knows whether facts get through."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from aiohttp import ClientSession
from websockets.exceptions import ConnectionClosed

from runtime import fact_queue, facts
from tests.session.ends import until, worker


async def test_a_model_that_writes_without_end_leaves_another_calls_facts_whole() -> None:
    async with worker() as w:
        flood, good = await w.call(1), await w.call(2)
        try:
            await flood.begin("R", "A")
            for _ in range(18):
                await flood.text("R", "A", "word " * 200_000)
            await flood.item_done("R", "A", "word " * 3_600_000)
            await flood.done("R")
        except ConnectionClosed:
            pass  # it may well be thrown out
        await good.turn("R", "B", "Hello!", 500)
        await w.gateway.wait_for_audio(("B", 500, False), ("B", 0, True), call=2)
        await w.gateway.close(1)
        await w.gateway.close(2)
        for call_sid in ("CA1", "CA2"):
            await w.facts.wait_for("session_ended", call_sid)
            numbers = [f.sequence for f in w.facts.all if f.call_sid == call_sid]
            assert numbers == list(range(1, len(numbers) + 1))
        assert w.facts.names("CA2") == [
            "session_started",
            "item_added",
            "item_progressed",
            "item_generated",
            "session_ended",
        ]
        assert w.facts.of("item_generated", "CA2")[0].text == "Hello!"
        async with asyncio.timeout(20):
            while await w.metric("asheard_facts_pending"):
                await asyncio.sleep(0.01)


async def test_readyz_knows_whether_facts_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MAX_RETRY_S", 0.1)
    async with worker() as w, ClientSession(f"http://127.0.0.1:{w.admin_port}") as http:

        async def readyz() -> tuple[int, str]:
            async with http.get("/readyz") as response:
                return response.status, await response.text()

        assert await readyz() == (200, "ready\n")
        w.facts.refuse = grpc.StatusCode.UNAVAILABLE
        model = await w.call()
        await until(lambda: bool(model.of("response.create")), "the session")
        async with asyncio.timeout(20):
            while not (answer := await readyz())[1].startswith("ready, but the transcript"):
                await asyncio.sleep(0.01)
        assert answer[0] == 200, "callers are not turned away for it"
        monkeypatch.setattr(fact_queue, "MAX_KEPT_FACTS", 1)  # the one fact is all that may wait
        assert (await readyz())[0] == 503
        w.facts.refuse = None
        await w.facts.wait_for("session_started")
        async with asyncio.timeout(20):
            while await readyz() != (200, "ready\n"):
                await asyncio.sleep(0.01)
        await w.gateway.close()
        await w.facts.wait_for("session_ended")
