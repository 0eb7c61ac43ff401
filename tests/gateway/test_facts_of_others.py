"""What one call floods the gateway with never holds up another call's facts; and `/readyz`
knows whether facts get through."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import grpc
import pytest

from asheard.v1 import fact_pb2
from runtime import fact_queue, facts
from tests.gateway.conftest import World
from tests.gateway.peers import until


async def test_marks_of_any_size_on_one_stream_leave_another_calls_facts_whole(
    running: World,
) -> None:
    good, flood = await running.connect(), await running.connect()
    good.stream_sid, flood.stream_sid = "MZ_good", "MZ_flood"
    await good.start(call_sid="CA_good")
    await flood.start(call_sid="CA_flood")
    await until(lambda: len(running.worker.opened) == 2, "both calls")
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # it may well be thrown out
        for number in range(90):
            await flood.echo(f"{number}_" + "m" * 200_000)
        await flood.stop()
    await flood.socket.close()
    await good.media()
    await good.send("dtmf", dtmf={"digit": "1"})
    await good.stop()

    def ended() -> set[str]:
        return {f.call_sid for f in running.transcript.facts if f.HasField("call_ended")}

    await until(lambda: "CA_good" in ended(), "the end of the good call")
    await until(lambda: "CA_flood" in ended(), "the end of the other")
    for call_sid in ("CA_good", "CA_flood"):
        told = [f for f in running.transcript.facts if f.call_sid == call_sid]
        assert [f.sequence for f in told] == list(range(1, len(told) + 1))
    good_kinds = running.transcript.kinds("gateway/MZ_good")
    assert good_kinds[0] == "call_started" and good_kinds[-1] == "call_ended"
    assert "key_pressed" in good_kinds and "fact_dropped" not in good_kinds
    await until(lambda: running.metric("asheard_facts_pending") == 0, "nothing waits")


@pytest.fixture
def few_facts_and_quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the gateway that is started after this."""
    monkeypatch.setattr(fact_queue, "MAX_KEPT_FACTS", 8)
    monkeypatch.setattr(facts, "MAX_RETRY_S", 0.1)


@pytest.mark.usefixtures("few_facts_and_quick_retries")
async def test_readyz_knows_whether_facts_get_through(running: World) -> None:
    await until(lambda: running.gateway.not_ready() is None, "the gateway is ready")

    async def readyz() -> tuple[int, str]:
        url = f"http://127.0.0.1:{running.gateway.admin_port}/readyz"
        async with running.http.get(url) as response:
            return response.status, await response.text()

    assert await readyz() == (200, "ready\n")
    running.transcript.refuse = grpc.StatusCode.UNAVAILABLE
    end = await running.call()
    async with asyncio.timeout(20):
        while not (answer := await readyz())[1].startswith("ready, but the transcript service"):
            await asyncio.sleep(0.01)
    assert answer[0] == 200, "callers are not turned away for it"
    for _ in range(6):
        await end.send("dtmf", dtmf={"digit": "1"})
    async with asyncio.timeout(20):
        while (answer := await readyz())[0] == 200:
            await asyncio.sleep(0.01)
    assert "UNAVAILABLE" in answer[1]
    running.transcript.refuse = None
    async with asyncio.timeout(20):
        while await readyz() != (200, "ready\n"):
            await asyncio.sleep(0.01)
    # It is ready once facts get through again; while many wait, the next may still be too many.
    await until(lambda: running.metric("asheard_facts_pending") == 0, "all that waited")
    await end.stop()
    await running.ended()
    kept = [f.sequence for f in running.transcript.facts]
    assert kept == sorted(kept)
    outcome = running.transcript.only("call_ended").outcome
    assert outcome == fact_pb2.CALL_OUTCOME_COMPLETED
