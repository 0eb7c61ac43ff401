"""The life and death of the service as a whole (integration)."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from asheard.v1.fact_pb2 import CallOutcome, Fact
from runtime.config import Address
from runtime.errors import ConfigurationError
from runtime.process import Stop
from tests.transcript.call_facts import short_call
from tests.transcript.running_server import (
    ANY_PORT,
    Client,
    config,
    listed,
    refused,
    running,
    sids,
    three_calls,
)
from transcript.service import TranscriptServer, serve
from transcript.store_sqlite import open_sqlite
from transcript.sweeper import Sweeper


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with running(path) as client:
        await three_calls(client)
        before = await client.get("CA3")
    with sqlite3.connect(path) as connection:  # as if it had been killed before indexing anything
        connection.execute("UPDATE calls SET indexed = 0, summary = NULL")
    connection.close()
    async with running(path) as client:
        assert sids(await listed(client)) == ["CA3", "CA2", "CA1"]
        assert await client.get("CA3") == before


async def test_a_new_store_is_known_to_be_new_however_quick_its_writers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts of before a service began to look keep it from closing calls for a while."""
    appended = asyncio.Event()
    sweep_on = Sweeper.run

    async def late(self: Sweeper) -> None:
        await appended.wait()
        await sweep_on(self)

    monkeypatch.setattr(Sweeper, "run", late)
    async with running(tmp_path / "facts.db", grace_s=0.3, lost_s=100.0) as client:
        dropped = CallOutcome.CALL_OUTCOME_DROPPED
        await client.append(short_call("CA1", outcome=dropped), "gateway")
        appended.set()
        async with asyncio.timeout(20):
            states = [state async for state in client.watch("CA1")]
    assert states[-1].final


async def test_a_lost_store_is_unavailable_said_and_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transcript.store_health.CHECK_LOST_EVERY_S", 0.1)
    impatient = open_sqlite(tmp_path / "facts.db", locked_after_s=0.1)
    async with running(tmp_path / "facts.db", store=impatient) as client:
        await client.append(short_call("CA1", ended=False))
        other = sqlite3.connect(tmp_path / "facts.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        status, _ = await refused(client.append(short_call("CA2")))
        assert status is grpc.StatusCode.UNAVAILABLE
        assert "SQLite" in await client.until_ready_is(503)
        assert not await client.is_serving()
        other.execute("ROLLBACK")
        other.close()
        await client.until_ready_is(200)
        await client.append(short_call("CA2"))
        assert (await client.get("CA2")).final


async def test_metrics_are_counted(client: Client) -> None:
    await client.append([*short_call(), Fact(call_sid="CA1")])
    text = await client.metrics()
    assert re.search(r"^asheard_transcript_append_seconds_count 1\.0$", text, re.M)
    assert re.search(
        r'^asheard_transcript_facts_total\{outcome="stored",writer="gateway"\} 5\.0$', text, re.M
    )
    assert 'asheard_transcript_facts_rejected_total{reason="malformed"} 1.0' in text
    assert "asheard_event_loop_lag_seconds_bucket" in text
    assert "CA1" not in text


async def test_a_drain_ends_watches_and_then_the_service(tmp_path: Path) -> None:
    stop = Stop()
    async with running(tmp_path / "facts.db") as client:
        await client.append(short_call(ended=False))
        states = client.watch("CA1")
        await anext(states)
        draining = asyncio.create_task(client.server.drain())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(states)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await draining
        assert (await client.ready())[0] == 503

    serving = asyncio.create_task(serve(config(tmp_path / "other.db"), stop))
    await asyncio.sleep(0)
    stop.request()
    await asyncio.wait_for(serving, 20)


async def test_a_port_in_use_is_a_configuration_error(client: Client, tmp_path: Path) -> None:
    taken = Address("127.0.0.1", client.server.viewer.port)
    bad = replace(config(tmp_path / "other.db"), viewer=taken, listen=ANY_PORT)
    server = TranscriptServer(bad)
    with pytest.raises(ConfigurationError, match="ASHEARD_VIEWER_LISTEN"):
        await server.start()
    await server.close()
