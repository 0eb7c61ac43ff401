"""Facts in PostgreSQL: for several transcript services, and wherever one is kept anyway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import psycopg

from transcript.migrations import UnusableStore, bring_up_to_date
from transcript.store_dialect import Connection, Rows
from transcript.store_sql import SqlStore

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 5_000
"""Below the ten seconds that a writer waits for its answer."""

_SCHEMA_LOCK = 0x61736865_61726400
"""Two services that start at once must not change the tables at once ("asheard" in ASCII)."""

_REASONS = {
    "08": "it cannot be reached",
    "25": "it takes no writes",
    "28": "it does not let us in",
    "3D": "there is no such database",
    "40": "it was too busy with others",
    "42": "it lacks a table or a privilege that we need",
    "53": "it is out of space, memory or connections",
    "55": "it was too busy with others",
    "57": "it is shutting down, or took too long",
    "58": "its disk reports an error",
    "XX": "its data are damaged; see its log",
}
"""What the classes of PostgreSQL's error codes mean to an operator."""


def open_postgres(url: str) -> SqlStore:
    """A store in the database at ``url``, which need not be up yet."""
    return SqlStore(PostgresDialect(url))


class PostgresDialect:
    """PostgreSQL, at one URL."""

    name = "PostgreSQL"
    shared = True
    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    data_errors: tuple[type[Exception], ...] = (
        psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError,
    )  # fmt: skip
    now_us = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    begin = "BEGIN"
    for_update = " FOR UPDATE"
    attempts = 2  # the server may have been started anew since we last asked

    blob = "BYTEA"
    migrate: Sequence[str] = (
        "BEGIN",
        "SET LOCAL statement_timeout = 0",  # a step may have to go through all calls
        f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})",
    )
    columns = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema()"
    )
    private = False

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> Connection:
        connection = psycopg.connect(
            self._url,
            autocommit=True,  # we say BEGIN ourselves
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="asheard transcript",
            # A host that vanished without a word is found out within seconds.
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
        wrapped = _Connection(connection)
        try:
            # Whatever the server's default is: acknowledged means durable.
            connection.execute("SET synchronous_commit = on")
            connection.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}")
            bring_up_to_date(wrapped, self)
        except (psycopg.Error, UnusableStore):
            connection.close()
            raise
        return wrapped

    def reason(self, error: Exception) -> str:
        # The server's text may quote values, the driver's the URL; the code says what to look for.
        state = getattr(error, "sqlstate", None)
        words = _REASONS.get(state[:2] if state else "08", "it reports an error")
        return f"{words} ({type(error).__name__})"

    def verify(self, connection: Connection) -> None:
        """Find out when this server has become a replica that takes no writes."""
        if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
            raise psycopg.errors.ReadOnlySqlTransaction

    def forget(self, connection: Connection) -> None:
        """Deleted rows leave the files with the server's own vacuum."""


class _Connection:
    """psycopg's connection, with ``?`` for parameters."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.close = connection.close

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        return self._connection.execute(_query(sql), parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_query(sql), rows)


def _query(sql: str) -> LiteralString:
    # Statements are constants of the store's modules; no value is ever pasted into one.
    return sql.replace("?", "%s")
