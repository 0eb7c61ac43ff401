"""Facts in PostgreSQL: for several transcript services, and wherever one is kept anyway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import psycopg

from transcript.store_sql import SCHEMA, Connection, Rows, SqlStore

_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 5_000
"""Below the ten seconds that a writer waits for its answer."""

_SCHEMA_LOCK = 0x61736865_61726400
"""Two services that start at once must not make the tables at once ("asheard" in ASCII)."""


def open_postgres(url: str) -> SqlStore:
    """A store in the database at ``url``, which need not be up yet."""
    return SqlStore(_Postgres(url))


class _Postgres:
    name = "PostgreSQL"
    shared = True
    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    begin = "BEGIN"
    for_update = " FOR UPDATE"
    attempts = 2  # the server may have been started anew since we last asked

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
        with connection.transaction():
            # Whatever the server's default is: acknowledged means durable.
            connection.execute("SET synchronous_commit = on")
            connection.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}")
            connection.execute("SET client_min_messages = warning")  # no "already exists"
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            connection.execute(SCHEMA.format(blob="BYTEA"))
        return _Connection(connection)

    def verify(self, connection: Connection) -> None:
        """Find out when this server has become a replica that takes no writes."""
        if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
            raise psycopg.OperationalError("the server takes no writes")

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
    # Statements are constants of store_sql; no value is ever pasted into one.
    return sql.replace("?", "%s")
