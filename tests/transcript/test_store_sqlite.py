"""The SQLite store: the contract of all stores, and what a file has of its own (integration)."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ConfigurationError, Unavailable
from tests.transcript.call_facts import short_call
from tests.transcript.store_contract import StoreContract
from tests.transcript.sweeper_contract import SweeperContract
from transcript.store import Outcome, Store
from transcript.store_dialect import Connection, Rows
from transcript.store_sql import SqlStore
from transcript.store_sqlite import SqliteDialect, open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_sqlite(tmp_path / "facts.db")
    yield store
    await store.close()


class TestSqlite(StoreContract):
    """Runs the contract."""


class TestSweeper(SweeperContract):
    """Runs its contract on two services, which a file has in tests only."""

    @pytest.fixture
    async def stores(self, store: Store) -> tuple[Store, Store]:
        store.shared = True
        return store, store


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


def test_a_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    """Rests on SQLite's promise for WAL with synchronous=FULL; here: that these are in force."""
    path = tmp_path / "facts.db"
    connection = SqliteDialect(path).connect()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


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


class Failing(SqliteDialect):
    """SQLite that raises where a statement has to do with certain rows."""

    def __init__(self, path: Path, statement: str, call_sid: str, error: Exception) -> None:
        super().__init__(path)
        self._statement = statement
        self._call_sid = call_sid
        self._error = error

    def connect(self) -> Connection:
        return FailingConnection(super().connect(), self.fail)

    def fail(self, sql: str, *rows: Sequence[Any]) -> None:
        """Raise when it is this one."""
        if sql.startswith(self._statement) and any(self._call_sid in row for row in rows):
            raise self._error


class FailingConnection:
    def __init__(self, connection: Connection, fail: Callable[..., None]) -> None:
        self._connection = connection
        self._fail = fail
        self.close = connection.close

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        self._fail(sql, parameters)
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        rows = list(rows)
        self._fail(sql, *rows)
        self._connection.executemany(sql, rows)


async def test_a_value_that_the_driver_cannot_take_is_refused_alone(tmp_path: Path) -> None:
    """SQLite takes everything that a fact may hold today; here: that nobody relies on it."""
    error = OverflowError("Python int too large to convert to SQLite INTEGER")
    store = SqlStore(Failing(tmp_path / "facts.db", "INSERT INTO facts", "CA13", error))
    batches = [[short_call(f"CA{n}")[0] for n in range(k, k + 5)] for k in range(0, 20, 5)]
    answers = await asyncio.gather(*(store.append(batch) for batch in batches))
    refused = [n for n in range(20) if answers[n // 5][n % 5] is Outcome.UNSTORABLE]
    assert refused == [13]
    assert sum(answer.count(Outcome.STORED) for answer in answers) == 19
    await store.close()


async def test_an_error_of_ours_in_one_append_is_nobody_elses(tmp_path: Path) -> None:
    bug = RuntimeError("a bug")
    store = SqlStore(Failing(tmp_path / "facts.db", "SELECT sequence, body", "CA1", bug))
    answers = await asyncio.gather(
        *(store.append(short_call(f"CA{n}")) for n in range(3)), return_exceptions=True
    )
    assert isinstance(answers[1], RuntimeError)
    for n in (0, 2):
        assert answers[n] == [Outcome.STORED] * len(short_call())
    await store.close()


def test_a_path_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ASHEARD_STORE"):
        open_sqlite(tmp_path / "missing" / "facts.db")
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at" * 50)
    with pytest.raises(ConfigurationError, match="ASHEARD_STORE"):
        open_sqlite(tmp_path / "text")
