"""The PostgreSQL store: the contract of all stores, and several services at once (system).

Runs against ASHEARD_TEST_POSTGRES, a URL of a database that may be emptied, or a private cluster.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import psycopg
import pytest

from runtime.errors import ConfigurationError, Unavailable
from runtime.process import Stop
from tests.transcript import old_stores
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.postgres_cluster import PostgresCluster, find_binaries
from tests.transcript.running_server import config, running_with
from tests.transcript.store_contract import StoreContract, said
from tests.transcript.sweeper_contract import SweeperContract
from transcript.migrations import VERSION
from transcript.service import serve
from transcript.store import Outcome, Store
from transcript.store_postgres import open_postgres

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster | None]:
    if os.environ.get("ASHEARD_TEST_POSTGRES"):
        yield None
        return
    binaries = find_binaries()
    if isinstance(binaries, str):
        pytest.skip(f"{binaries}; or set ASHEARD_TEST_POSTGRES to the URL of an empty database")
    cluster = PostgresCluster(binaries)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def url(cluster: PostgresCluster | None) -> str:
    if cluster is not None:
        cluster.empty()
        return cluster.url
    url = os.environ["ASHEARD_TEST_POSTGRES"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS facts, calls, deleted_calls, processes, asheard_schema"
        )
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_postgres(url)
    yield store
    await store.close()


class TestPostgres(StoreContract):
    """Runs the contract."""


class TestSweeper(SweeperContract):
    """Runs its contract on two services."""

    @pytest.fixture
    async def stores(self, url: str) -> AsyncIterator[tuple[Store, Store]]:
        stores = open_postgres(url), open_postgres(url)
        yield stores
        for store in stores:
            await store.close()


async def test_two_services_share_a_store(url: str) -> None:
    one, two = open_postgres(url), open_postgres(url)
    gateway, session = Writer("CA1", "gateway/MZ1"), Writer("CA1", "session/1")
    batches = []
    for n in range(20):
        batches.append(one.append([said(gateway, f"g{n}"), *short_call(f"CB{n}")]))
        batches.append(two.append([*short_call(f"CB{n}"), said(session, f"s{n}")]))
    await asyncio.gather(*batches)
    seen = await two.read("CA1")
    assert seen.revision == 40
    assert {fact.caller_transcribed.text for fact in seen.facts} == {
        f"{writer}{n}" for writer in "gs" for n in range(20)
    }
    for n in range(20):
        assert len((await one.read(f"CB{n}")).facts) == len(short_call())
    await one.close()
    await two.close()


async def test_a_lost_database_is_unavailable_and_then_back(
    url: str, cluster: PostgresCluster | None
) -> None:
    if cluster is None:
        pytest.skip("the database of ASHEARD_TEST_POSTGRES is not ours to stop")
    store = open_postgres(url)
    await store.append(short_call("CA1"))
    cluster.stop()
    try:
        with pytest.raises(Unavailable, match="PostgreSQL"):
            await store.append(short_call("CA2"))
        with pytest.raises(Unavailable):
            await store.read("CA1")
        with pytest.raises(Unavailable):
            await store.check()
    finally:
        cluster.start()
    await store.check()
    assert set(await store.append(short_call("CA2"))) == {Outcome.STORED}
    assert list((await store.read("CA1")).facts) == short_call("CA1")
    await store.close()


async def test_an_error_says_nothing_of_the_url(url: str) -> None:
    store = open_postgres("postgresql://asheard:hunter2@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as caught:
        await store.check()
    assert "hunter2" not in str(caught.value)
    await store.close()


async def test_a_value_that_the_database_cannot_take_is_refused_alone(store: Store) -> None:
    nul = said(Writer("CA\0", "session/1"), "x")
    answers = await asyncio.gather(
        store.append(short_call("CA1")), store.append([nul]), store.append(short_call("CA2"))
    )
    assert answers[1] == [Outcome.UNSTORABLE]
    assert {*answers[0], *answers[2]} == {Outcome.STORED}


def make_version_1(url: str) -> None:
    """Tables of before stores had versions."""
    calls, facts = old_stores.rows()
    with psycopg.connect(url) as connection:
        connection.execute(old_stores.VERSION_1.format(blob="BYTEA").encode())
        for sql, rows in (
            (old_stores.INSERT_CALL, calls),
            (old_stores.INSERT_FACT, facts),
            (old_stores.INSERT_DELETED, [old_stores.DELETED_ROW]),
        ):
            connection.cursor().executemany(sql.replace("?", "%s").encode(), rows)


async def test_services_that_start_at_once_migrate_once_and_lose_nothing(url: str) -> None:
    make_version_1(url)
    stores = [open_postgres(url) for _ in range(4)]
    await asyncio.gather(*(store.check() for store in stores))
    for store in stores:
        for facts in (old_stores.FINAL, old_stores.REOPENED, old_stores.UNREAD):
            assert list((await store.read(facts[0].call_sid)).facts) == facts
        assert [call.call_sid for call in await store.open_calls()] == ["CA2", "CA3"]
        assert await store.append(short_call("CA4")) == [Outcome.DISCARDED] * len(short_call())
        await store.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT version FROM asheard_schema").fetchall() == [(VERSION,)]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (f"CREATE TABLE asheard_schema AS SELECT {VERSION + 1} AS version", "schema version"),
        ("CREATE TABLE calls (id INTEGER)", "no store of asheard"),
    ],
)
async def test_a_store_that_cannot_be_used_ends_the_service_with_one_line(
    url: str, tmp_path: Path, schema: str, says: str
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(schema.encode())
    settings = replace(config(tmp_path / "unused"), store=url)
    with pytest.raises(ConfigurationError, match=f"ASHEARD_STORE: .*{says}") as caught:
        await asyncio.wait_for(serve(settings, Stop()), 20)
    assert "\n" not in str(caught.value)
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchone()
    assert tables == (1,)


async def test_a_service_outlives_its_database(
    url: str,
    cluster: PostgresCluster | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transcript.store_health.CHECK_LOST_EVERY_S", 0.1)
    if cluster is None:
        pytest.skip("the database of ASHEARD_TEST_POSTGRES is not ours to stop")
    async with running_with(replace(config(tmp_path / "unused"), store=url)) as client:
        await client.append(short_call("CA1"), "p1")
        cluster.stop()
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # and the store is checked at once
                await client.append(short_call("CA2"), "p1")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "PostgreSQL" in await client.until_ready_is(503)
            with pytest.raises(grpc.aio.AioRpcError):
                await client.append([], "p1")
        finally:
            cluster.start()
        await client.until_ready_is(200)
        await client.append(short_call("CA2"), "p1")
        assert (await client.get("CA2")).final
        assert "asheard_transcript_tasks_failed_total{" not in await client.metrics()


async def test_tables_of_others_in_the_database_are_left_alone(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    store = open_postgres(url)
    assert set(await store.append(short_call("CA1"))) == {Outcome.STORED}
    await store.close()
