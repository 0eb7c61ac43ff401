"""Facts in one SQLite file: the default, for one transcript service on one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runtime.errors import ConfigurationError
from transcript.store_sql import SCHEMA, Connection, Rows, SqlStore

_LOCKED_AFTER_S = 2.0
"""Long enough for a backup to take its turn, well below the ten seconds that writers wait."""


def open_sqlite(path: Path, *, locked_after_s: float = _LOCKED_AFTER_S) -> SqlStore:
    """Open, or make, the file.

    Args:
        path: The file; its directory must exist.
        locked_after_s: How long to wait for another process that has the file locked.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    dialect = _Sqlite(path, locked_after_s)
    try:
        dialect.connect().close()
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"ASHEARD_STORE: {path} cannot be used as a SQLite file ({error}); give sqlite:///PATH "
            "in a directory that this service may write to"
        ) from error
    return SqlStore(dialect)


class _Sqlite:
    name = "SQLite"
    shared = False
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    begin = "BEGIN IMMEDIATE"
    for_update = ""  # BEGIN IMMEDIATE keeps all other writers out

    attempts = 1  # there is no line that could have been cut

    def __init__(self, path: Path, locked_after_s: float) -> None:
        self._path = path
        self._locked_after_s = locked_after_s
        self._made = False

    def connect(self) -> Connection:
        # The file is made once, at the start. Were it made again whenever it is missing, facts
        # that were acknowledged would vanish without a word.
        mode = "rw" if self._made else "rwc"
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={mode}",
            uri=True,
            timeout=self._locked_after_s,
            isolation_level=None,  # we say BEGIN ourselves
            check_same_thread=False,  # closed by another thread, when its own has ended
        )
        try:
            # FULL flushes the log at every commit: acknowledged means durable, through a power cut.
            connection.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
                + SCHEMA.format(blob="BLOB")
            )
        except sqlite3.Error:
            connection.close()
            raise
        self._made = True
        return _Connection(connection, self._inode())

    def verify(self, connection: Connection) -> None:
        """Find out when the file was taken away beneath us: SQLite would write on, into nothing."""
        if not isinstance(connection, _Connection) or connection.inode != self._inode():
            raise sqlite3.OperationalError("the file was removed or replaced")

    def _inode(self) -> int | None:
        try:
            return os.stat(self._path).st_ino
        except OSError:
            return None

    def forget(self, connection: Connection) -> None:
        # What was deleted is overwritten in the file (secure_delete), but older pages of the log
        # still hold it: write them back and cut the log off. A reader may hold that up; the log
        # is cut off by the next checkpoint then.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class _Connection:
    """sqlite3's connection, and which file it writes to."""

    def __init__(self, connection: sqlite3.Connection, inode: int | None) -> None:
        self._connection = connection
        self.inode = inode
        self.close = connection.close

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)
