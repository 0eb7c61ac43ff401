"""Facts in one SQLite file: the default, for one transcript service on one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runtime.errors import ConfigurationError
from transcript.migrations import UnusableStore, bring_up_to_date
from transcript.store_dialect import Connection, Rows
from transcript.store_sql import SqlStore

LOCKED_AFTER_S = 2.0
"""Long enough for a backup to take its turn, well below the ten seconds that writers wait."""


def open_sqlite(path: Path, *, locked_after_s: float = LOCKED_AFTER_S) -> SqlStore:
    """Open, or make, the file.

    Args:
        path: The file; its directory must exist.
        locked_after_s: How long to wait for another process that has the file locked.

    Raises:
        ConfigurationError: The file cannot be used.
    """
    dialect = SqliteDialect(path, locked_after_s)
    try:
        dialect.connect().close()
    except UnusableStore as error:
        raise ConfigurationError(f"ASHEARD_STORE: {path}: {error}") from error
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"ASHEARD_STORE: {path} cannot be used: {dialect.reason(error)}. Give sqlite:///PATH "
            "in a directory that this service may write to"
        ) from error
    return SqlStore(dialect)


_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "its file or directory may not be written to",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_PERM: "its file may not be opened",
    sqlite3.SQLITE_BUSY: "another process has its file locked",
    sqlite3.SQLITE_LOCKED: "another process has its file locked",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CORRUPT: "its file is damaged; stop the service and restore the file from a backup",
    sqlite3.SQLITE_NOTADB: "its file is no SQLite file, or damaged; restore it from a backup",
}
"""What SQLite's error codes mean to an operator."""


class SqliteDialect:
    """SQLite, in one file.

    Args:
        path: The file; its directory must exist.
        locked_after_s: How long to wait for another process that has the file locked.
    """

    name = "SQLite"
    shared = False
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    data_errors: tuple[type[Exception], ...] = (
        sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError, UnicodeError,
    )  # fmt: skip
    now_us = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"
    begin = "BEGIN IMMEDIATE"
    for_update = ""  # BEGIN IMMEDIATE keeps all other writers out

    attempts = 1  # there is no line that could have been cut

    blob = "BLOB"
    migrate: Sequence[str] = ("BEGIN IMMEDIATE",)
    columns = (
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c"
        " WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    private = True

    def __init__(self, path: Path, locked_after_s: float = LOCKED_AFTER_S) -> None:
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
            connection.executescript("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON")
            wrapped = _Connection(connection, self._inode())
            bring_up_to_date(wrapped, self)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()  # kept in the file
        except (sqlite3.Error, UnusableStore):
            connection.close()
            raise
        self._made = True
        return wrapped

    def reason(self, error: Exception) -> str:
        # The driver's text may quote values; the code tells what to look for. Its low byte is the
        # kind, the rest a detail.
        if isinstance(error, _Replaced):
            return str(error)
        kind = type(error).__name__
        code: int = getattr(error, "sqlite_errorcode", 0)
        name: str = getattr(error, "sqlite_errorname", kind)
        return f"{_REASONS.get(code & 0xFF, 'it reports an error')} ({name})"

    def verify(self, connection: Connection) -> None:
        """Find out when the file was taken away beneath us: SQLite would write on, into nothing."""
        if not isinstance(connection, _Connection) or connection.inode != self._inode():
            raise _Replaced("its file was removed or replaced")

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


class _Replaced(sqlite3.OperationalError):
    """What is at the path is not the file that the connection writes to."""


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
