"""The PostgreSQL store: the contract of all stores, and several services at once (system).

Runs against ASHEARD_TEST_POSTGRES, a URL of a database that may be emptied, or a private cluster.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from runtime.errors import Unavailable
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.postgres_cluster import PostgresCluster, find_binaries
from tests.transcript.store_contract import StoreContract, said
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
        connection.execute("DROP TABLE IF EXISTS facts, calls, deleted_calls")
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = open_postgres(url)
    yield store
    await store.close()


class TestPostgres(StoreContract):
    """Runs the contract."""


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
