"""The schema of a store, as numbered steps in order (:data:`MIGRATIONS`), for all databases alike.

A store says in the table ``asheard_schema`` at which version it is. A service that opens one brings
it to :data:`VERSION` first: in one transaction, under a lock that keeps other services out, so that
a store is at one version or at the next and never between. Stores of before there were versions
have tables and no version; they are at 1.

To change the schema, add a step; never change one that was released. A step may only use what the
steps before it made, and must keep what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import ConfigurationError
from transcript.store_dialect import Connection


class UnusableStore(ConfigurationError):
    """What is there is no store of ours, or of a later version. No attempt will change that."""


class SchemaDialect(Protocol):
    """What a database has of its own where tables are made."""

    blob: str
    """The type of a column of bytes."""
    migrate: Sequence[str]
    """Opens a transaction in which this service alone may change the schema."""
    columns: str
    """Names of all tables and their columns, in two columns."""
    private: bool
    """Whether the database is the store's alone: other tables in it mean that it is another's."""
    errors: tuple[type[Exception], ...]
    """What its driver raises."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from the version before it."""

    version: int
    what: str
    statements: tuple[str, ...]
    """Run in order; ``{blob}`` stands for the type of a column of bytes."""
    fill: Callable[[Connection], None] | None = None
    """What SQL alone cannot do; run before ``last``."""
    last: tuple[str, ...] = ()
    """Statements that follow ``fill``."""


def _mark_final_calls(connection: Connection) -> None:
    """Final was said of these calls, and stays said."""
    rows = connection.execute(
        "SELECT call_sid, summary FROM calls"
        " WHERE sealed <> '[]' AND indexed = revision AND summary IS NOT NULL"
    ).fetchall()
    connection.executemany(
        "UPDATE calls SET final = 1 WHERE call_sid = ?",
        [(call_sid,) for call_sid, summary in rows if CallSummary.FromString(summary).final],
    )


MIGRATIONS = (
    Migration(
        1,
        "facts, the index of calls, and what was deleted",
        (
            """
            CREATE TABLE calls (
                call_sid    TEXT PRIMARY KEY,
                revision    BIGINT NOT NULL,            -- position of the newest fact
                indexed     BIGINT NOT NULL DEFAULT 0,  -- revision the columns below are made from
                start_us    BIGINT NOT NULL DEFAULT 4611686018427387904,
                from_number TEXT NOT NULL DEFAULT '',
                to_number   TEXT NOT NULL DEFAULT '',
                state       INTEGER NOT NULL DEFAULT 0,
                sealed      TEXT NOT NULL DEFAULT '[]', -- JSON: writers a final transcript rests on
                summary     {blob}                      -- asheard.v1.CallSummary
            )
            """,
            "CREATE INDEX calls_newest ON calls (start_us DESC, call_sid DESC)",
            "CREATE INDEX calls_from ON calls (from_number, start_us DESC)",
            "CREATE INDEX calls_to ON calls (to_number, start_us DESC)",
            "CREATE INDEX calls_unindexed ON calls (call_sid) WHERE indexed < revision",
            """
            CREATE TABLE facts (
                call_sid TEXT NOT NULL,
                position BIGINT NOT NULL,
                writer   TEXT NOT NULL,
                sequence BIGINT NOT NULL,
                body     {blob} NOT NULL,               -- asheard.v1.Fact
                PRIMARY KEY (call_sid, position),
                UNIQUE (call_sid, writer, sequence)
            )
            """,
            """
            CREATE TABLE deleted_calls (
                digest TEXT PRIMARY KEY                 -- SHA-256 of the call's id
            )
            """,
        ),
    ),
    Migration(
        2,
        "final calls take nothing more; who writes, and which processes live",
        (
            # 1: the call is final, for good.
            "ALTER TABLE calls ADD COLUMN final INTEGER NOT NULL DEFAULT 0",
            # JSON: of each writer of an open call its process, "" where it did not say, and whether
            # it has closed.
            "ALTER TABLE calls ADD COLUMN writers TEXT NOT NULL DEFAULT '{{}}'",
            # Size of the facts that were stored since this version.
            "ALTER TABLE calls ADD COLUMN fact_bytes BIGINT NOT NULL DEFAULT 0",
        ),
        _mark_final_calls,
        (
            "ALTER TABLE calls DROP COLUMN sealed",
            "CREATE INDEX calls_open ON calls (call_sid) WHERE final = 0",
            """
            CREATE TABLE processes (
                process TEXT PRIMARY KEY,
                seen_us BIGINT NOT NULL                 -- last sign of life, by the database's clock
            )
            """,
        ),
    ),
)

VERSION = MIGRATIONS[-1].version

_FIRST_TABLES = {
    "calls": frozenset({"call_sid", "revision", "indexed", "start_us", "summary"}),
    "facts": frozenset({"call_sid", "position", "writer", "sequence", "body"}),
    "deleted_calls": frozenset({"digest"}),
}
"""By these a store without a version is known."""

_VERSION_TABLE = "asheard_schema"


def bring_up_to_date(connection: Connection, dialect: SchemaDialect) -> int:
    """Bring a store to :data:`VERSION`, making it where there is none.

    Returns:
        The version that was found; 0: there was no store.

    Raises:
        UnusableStore: It is newer than this code, or no store of asheard. Nothing was changed.
    """
    if (found := _find_version(connection, dialect)) == VERSION:
        return found  # as a rule; nobody has to wait for the lock
    for statement in dialect.migrate:
        connection.execute(statement)
    try:
        found = _find_version(connection, dialect)  # another service may have been quicker
        if found != VERSION:
            for migration in MIGRATIONS[found:]:
                _take(migration, connection, dialect)
            _write_version(connection, found)
        connection.execute("COMMIT")
    except BaseException:
        try:
            connection.execute("ROLLBACK")
        except dialect.errors:
            pass  # The connection is gone, and the transaction with it.
        raise
    return found


def _take(migration: Migration, connection: Connection, dialect: SchemaDialect) -> None:
    for statement in migration.statements:
        connection.execute(statement.format(blob=dialect.blob))
    if migration.fill is not None:
        migration.fill(connection)
    for statement in migration.last:
        connection.execute(statement.format(blob=dialect.blob))


def _write_version(connection: Connection, found: int) -> None:
    if found < 2:
        connection.execute(f"CREATE TABLE {_VERSION_TABLE} (version INTEGER NOT NULL)")
        connection.execute(f"INSERT INTO {_VERSION_TABLE} (version) VALUES (?)", (VERSION,))
    else:
        connection.execute(f"UPDATE {_VERSION_TABLE} SET version = ?", (VERSION,))


def _find_version(connection: Connection, dialect: SchemaDialect) -> int:
    """At which version a store is; 0: there is none yet.

    Raises:
        UnusableStore: It is newer than this code, or no store of asheard.
    """
    tables: dict[str, set[str]] = {}
    for table, column in connection.execute(dialect.columns).fetchall():
        tables.setdefault(table, set()).add(column)
    if _VERSION_TABLE in tables:
        rows = connection.execute(f"SELECT version FROM {_VERSION_TABLE}").fetchall()
        version = rows[0][0] if len(rows) == 1 else None
        if not isinstance(version, int) or version < 2:
            raise UnusableStore(
                f"the store says nothing of use about its version (table {_VERSION_TABLE}); "
                "restore it from a backup"
            )
        if version > VERSION:
            raise UnusableStore(
                f"the store has schema version {version}, and this asheard knows versions up to "
                f"{VERSION}: run the asheard that wrote it, or a newer one"
            )
        return version
    present = tables.keys() & _FIRST_TABLES.keys()
    if present == _FIRST_TABLES.keys() and all(
        columns <= tables[table] for table, columns in _FIRST_TABLES.items()
    ):
        return 1
    if present or (dialect.private and tables):
        raise UnusableStore(
            "what is there is no store of asheard, but a database with other tables; "
            "give a new name, or a database (or schema) of its own"
        )
    return 0
