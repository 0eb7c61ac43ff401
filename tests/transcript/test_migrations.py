"""Stores of other versions, and files that are none (integration; PostgreSQL: with its store)."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from asheard.v1.transcript_pb2 import CallState
from runtime.errors import ConfigurationError, NotFound
from tests.transcript import old_stores
from tests.transcript.call_facts import short_call
from tests.transcript.one_service import serving
from transcript import migrations
from transcript.migrations import MIGRATIONS, VERSION, Migration
from transcript.store import Outcome
from transcript.store_sqlite import open_sqlite


def make_version_1(path: Path) -> None:
    """A file of before stores had versions."""
    connection = sqlite3.connect(path)
    connection.executescript(old_stores.VERSION_1.format(blob="BLOB"))
    calls, facts = old_stores.rows()
    connection.executemany(old_stores.INSERT_CALL, calls)
    connection.executemany(old_stores.INSERT_FACT, facts)
    connection.execute(old_stores.INSERT_DELETED, old_stores.DELETED_ROW)
    connection.commit()
    connection.close()


def dump(path: Path) -> list[str]:
    """Everything in a file."""
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    ((found,),) = connection.execute("SELECT version FROM asheard_schema").fetchall()
    connection.close()
    assert isinstance(found, int)
    return found


async def test_a_store_without_a_version_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    make_version_1(path)
    store = open_sqlite(path)
    for facts in (old_stores.FINAL, old_stores.REOPENED, old_stores.UNREAD):
        assert list((await store.read(facts[0].call_sid)).facts) == facts
    async with serving(store) as service:
        final = await service.calls.get("CA1")
        assert (final.final, final.state) == (True, CallState.CALL_STATE_FAILED)
        assert final.turns[0].heard_text == "Hello there."
        assert not (await service.calls.get("CA2")).final
        assert (await service.calls.get("CA3")).final
    assert await store.append(short_call("CA4")) == [Outcome.DISCARDED] * len(short_call())
    with pytest.raises(NotFound):
        await store.read("CA4")
    await store.close()

    assert version(path) == VERSION
    before = dump(path)
    await open_sqlite(path).close()
    assert dump(path) == before


async def test_a_new_store_has_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    await open_sqlite(path).close()
    assert version(path) == VERSION
    assert [migration.version for migration in MIGRATIONS] == [*range(1, VERSION + 1)]


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    make_version_1(path)
    open_sqlite(path)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE asheard_schema SET version = {VERSION + 1}")
    connection.commit()
    connection.close()
    before = dump(path)
    with pytest.raises(ConfigurationError) as caught:
        open_sqlite(path)
    assert str(caught.value).startswith("ASHEARD_STORE: ")
    assert f"schema version {VERSION + 1}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert dump(path) == before


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE customers (name TEXT)",
        "CREATE TABLE calls (id INTEGER, minutes INTEGER)",
        "CREATE TABLE asheard_schema (version INTEGER)",
        "CREATE TABLE asheard_schema (number TEXT)",
    ],
)
def test_another_programs_file_is_left_alone(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute(schema)
    connection.commit()
    connection.close()
    before = dump(path)
    with pytest.raises(ConfigurationError, match="ASHEARD_STORE"):
        open_sqlite(path)
    assert dump(path) == before


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    make_version_1(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged.*backup") as caught:
        open_sqlite(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


async def test_a_step_that_fails_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts.db"
    make_version_1(path)
    before = dump(path)
    fails = replace(MIGRATIONS[1], last=(*MIGRATIONS[1].last, "INSERT INTO nowhere VALUES (1)"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (MIGRATIONS[0], fails))
    with pytest.raises(ConfigurationError):
        open_sqlite(path)
    assert dump(path) == before

    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS)
    store = open_sqlite(path)
    assert list((await store.read("CA1")).facts) == old_stores.FINAL
    await store.close()


async def test_the_next_step_is_taken_from_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts.db"
    make_version_1(path)
    await open_sqlite(path).close()
    step = Migration(VERSION + 1, "one more", ("ALTER TABLE calls ADD COLUMN more INTEGER",))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, step))
    monkeypatch.setattr(migrations, "VERSION", VERSION + 1)
    store = open_sqlite(path)
    assert list((await store.read("CA1")).facts) == old_stores.FINAL
    await store.close()
    assert version(path) == VERSION + 1
