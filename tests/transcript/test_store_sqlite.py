"""The SQLite store: the contract of all stores, and what a file has of its own (integration)."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError, Unavailable
from tests.transcript.call_facts import short_call
from tests.transcript.store_contract import StoreContract
from transcript.store import Outcome, Store
from transcript.store_sqlite import open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_sqlite(tmp_path / "facts.db")
    yield store
    await store.close()


class TestSqlite(StoreContract):
    """Runs the contract."""


WRITE_AND_WAIT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])  # the root of the project, for `tests`
from tests.transcript.call_facts import short_call
from transcript.store_sqlite import open_sqlite

async def main():
    store = open_sqlite(Path(sys.argv[1]))
    await store.append(short_call("CA1"))
    print("acknowledged", flush=True)
    for n in range(2, 1_000_000):
        await store.append(short_call(f"CA{n}"))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    root = str(Path(__file__).parents[2])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITE_AND_WAIT, str(path), root, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert (await child.stdout.readline()).strip() == b"acknowledged"
    child.send_signal(signal.SIGKILL)  # in the midst of further transactions
    await child.wait()

    store = open_sqlite(path)
    assert list((await store.read("CA1")).facts) == short_call("CA1")
    # Whatever else was stored is whole: each append is there entirely or not at all.
    for call_sid in await store.unindexed():
        assert list((await store.read(call_sid)).facts) == short_call(call_sid)
    await store.close()


async def test_a_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    """Rests on SQLite's promise for WAL with synchronous=FULL; here: that these are in force."""
    path = tmp_path / "facts.db"
    store = open_sqlite(path)
    connection = store._dialect.connect()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()
    await store.close()


async def test_a_locked_file_is_unavailable_and_then_back(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    store = open_sqlite(path, locked_after_s=0.05)
    await store.append(short_call("CA1"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable, match="SQLite"):
        await store.append(short_call("CA2"))
    with pytest.raises(Unavailable):
        await store.check()
    other.execute("ROLLBACK")
    other.close()
    await store.check()
    assert set(await store.append(short_call("CA2"))) == {Outcome.STORED}
    await store.close()


async def test_a_file_taken_away_is_noticed_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    store = open_sqlite(path)
    await store.append(short_call("CA1"))
    await store.check()
    for part in tmp_path.iterdir():
        part.rename(tmp_path.parent / f"{tmp_path.name} {part.name}")
    with pytest.raises(Unavailable):
        await store.check()
    assert not path.exists()
    await store.close()


async def test_nothing_of_a_deleted_call_stays_in_the_files(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "facts.db")
    await store.append(short_call("CA1", text="My card number is secret."))
    await store.append(short_call("CA2", text="Something else."))
    files = [tmp_path / name for name in os.listdir(tmp_path)]
    assert any(b"card number" in file.read_bytes() for file in files)
    await store.delete("CA1")
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"card number" not in content
        assert b"CA1" not in content
    await store.close()


def test_a_path_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ASHEARD_STORE"):
        open_sqlite(tmp_path / "missing" / "facts.db")
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at" * 50)
    with pytest.raises(ConfigurationError, match="ASHEARD_STORE"):
        open_sqlite(tmp_path / "text")
