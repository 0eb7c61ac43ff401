"""What a database has of its own, for the statements that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows."""


class Connection(Protocol):
    """One connection to a database, outside a transaction until ``BEGIN``."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement with ``?`` for each parameter."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""

    def close(self) -> None:
        """Close it."""


class Dialect(Protocol):
    """What one database has of its own."""

    name: str
    shared: bool
    errors: tuple[type[Exception], ...]
    """What its driver raises."""
    data_errors: tuple[type[Exception], ...]
    """What it raises for values that it cannot store, whatever the state of the database."""
    now_us: str
    """SQL: the database's clock, in microseconds since 1970."""
    begin: str
    """Opens a transaction that writes."""
    for_update: str
    """At the end of a SELECT: keeps the row from all others until the end of the transaction."""
    attempts: int
    """How often to try before the store counts as unavailable, each time on a new connection."""

    def connect(self) -> Connection:
        """Open a connection to a store that is at the newest version.

        Raises:
            ConfigurationError: What is there is no store that can be used.
        """

    def reason(self, error: Exception) -> str:
        """What an error of the driver means, in words for an operator, without values."""

    def verify(self, connection: Connection) -> None:
        """Raise one of ``errors`` when writing would not be durable."""

    def forget(self, connection: Connection) -> None:
        """After a delete: let nothing of the deleted rows stay in files, where that can be done."""


@contextmanager
def transaction(connection: Connection, dialect: Dialect) -> Iterator[None]:
    """Commit what is done inside, or nothing of it when that raises."""
    connection.execute(dialect.begin)
    try:
        yield
    except BaseException:
        try:
            connection.execute("ROLLBACK")
        except dialect.errors:
            pass  # The connection is gone, and the transaction with it.
        raise
    connection.execute("COMMIT")
