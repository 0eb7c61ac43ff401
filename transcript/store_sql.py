"""The store in SQL, once for all databases; a database brings its dialect.

One thread writes, a few read; the event loop waits for neither. All appends that wait when the
writer becomes free are one transaction, so one flush to the disk makes them all durable (group
commit): the more callers, the larger the groups, at the same rate of flushes. Every operation can
be repeated, so over a network each is tried a second time on a new connection before it counts as
failed; then the store is ``Unavailable``, until an attempt finds the database again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound, Unavailable
from transcript.store import CallQuery, Outcome, StoredFacts, start_us

T = TypeVar("T")

READERS = 2
"""Reading threads: one long read must not hold up all others, and there are few cores."""

GROUP_FACTS = 20_000
"""The most facts in one transaction, so that nobody waits long for the first of them."""

WAITING_FACTS = 200_000
"""The most facts that may wait; beyond, writers keep them and try again later."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    call_sid    TEXT PRIMARY KEY,
    revision    BIGINT NOT NULL,            -- position of the newest fact
    indexed     BIGINT NOT NULL DEFAULT 0,  -- revision that the columns below were made from
    start_us    BIGINT NOT NULL DEFAULT 4611686018427387904,
    from_number TEXT NOT NULL DEFAULT '',
    to_number   TEXT NOT NULL DEFAULT '',
    state       INTEGER NOT NULL DEFAULT 0,
    sealed      TEXT NOT NULL DEFAULT '[]', -- JSON: writers that a final transcript rests on
    summary     {blob}                      -- asheard.v1.CallSummary
);
CREATE INDEX IF NOT EXISTS calls_newest ON calls (start_us DESC, call_sid DESC);
CREATE INDEX IF NOT EXISTS calls_from ON calls (from_number, start_us DESC);
CREATE INDEX IF NOT EXISTS calls_to ON calls (to_number, start_us DESC);
CREATE INDEX IF NOT EXISTS calls_unindexed ON calls (call_sid) WHERE indexed < revision;
CREATE TABLE IF NOT EXISTS facts (
    call_sid TEXT NOT NULL,
    position BIGINT NOT NULL,
    writer   TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    body     {blob} NOT NULL,               -- asheard.v1.Fact
    PRIMARY KEY (call_sid, position),
    UNIQUE (call_sid, writer, sequence)
);
CREATE TABLE IF NOT EXISTS deleted_calls (
    digest TEXT PRIMARY KEY                 -- SHA-256 of the call's id
);
"""


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
    begin: str
    """Opens a transaction that writes."""
    for_update: str
    """Behind a SELECT: keeps the row from all others until the end of the transaction."""
    attempts: int
    """How often to try before the store counts as unavailable, each time on a new connection."""

    def connect(self) -> Connection:
        """Open a connection, and make the tables where they are not there yet."""

    def verify(self, connection: Connection) -> None:
        """Raise one of ``errors`` when writing would not be durable."""

    def forget(self, connection: Connection) -> None:
        """After a delete: let nothing of the deleted rows stay in files, where that can be done."""


class _Job:
    """Something the writer thread has to do."""

    def __init__(self, run: Callable[[Connection], Any], facts: Sequence[Fact] = ()) -> None:
        self.run = run
        self.facts = facts
        """Not empty: an append, which may share its transaction with others."""
        self.future: Future[Any] = Future()


class SqlStore:
    """Implements :class:`transcript.store.Store` over one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.shared = dialect.shared
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting_facts = 0
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store reader")
        self._connections: set[Connection] = set()
        self._connections_lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="store writer", daemon=True)
        self._writer.start()

    async def append(self, facts: Sequence[Fact]) -> list[Outcome]:
        """Store facts; see :class:`transcript.store.Store`."""
        if not facts:
            return []
        if self._waiting_facts > WAITING_FACTS:
            raise Unavailable("the store is behind; try again later")
        self._waiting_facts += len(facts)
        try:
            outcomes: list[Outcome] = await self._submit(_Job(lambda _: None, facts))
            return outcomes
        finally:
            self._waiting_facts -= len(facts)

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        """Read facts; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> StoredFacts:
            row = connection.execute(
                "SELECT revision, indexed FROM calls WHERE call_sid = ?", (call_sid,)
            ).fetchone()
            if row is None:
                raise NotFound("call_sid: there is no such call")
            if row[0] <= after:
                return StoredFacts(row[0], row[1], ())
            rows = connection.execute(
                "SELECT body FROM facts WHERE call_sid = ? AND position > ? AND position <= ?"
                " ORDER BY position",
                (call_sid, after, row[0]),
            ).fetchall()
            if len(rows) < row[0] - after:
                raise NotFound("call_sid: there is no such call")  # deleted in this moment
            return StoredFacts(row[0], row[1], tuple(Fact.FromString(body) for (body,) in rows))

        return await self._read(run)

    async def index(self, summary: CallSummary, revision: int, sealed: Collection[str]) -> bool:
        """Write an entry of the index; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> bool:
            return (
                connection.execute(
                    "UPDATE calls SET indexed = ?, start_us = ?, from_number = ?, to_number = ?,"
                    " state = ?, sealed = CASE WHEN ? = '[]' THEN sealed ELSE ? END, summary = ?"
                    " WHERE call_sid = ? AND revision = ?",
                    (
                        revision,
                        start_us(summary),
                        _sql_text(summary.from_number),
                        _sql_text(summary.to_number),
                        summary.state,
                        *[json.dumps(sorted(sealed))] * 2,
                        summary.SerializeToString(),
                        summary.call_sid,
                        revision,
                    ),
                ).rowcount
                == 1
            )

        return await self._submit_transaction(run)

    async def unindexed(self) -> list[str]:
        """Calls with an old entry; see :class:`transcript.store.Store`."""
        return await self._read(
            lambda connection: [
                call_sid
                for (call_sid,) in connection.execute(
                    "SELECT call_sid FROM calls WHERE indexed < revision"
                ).fetchall()
            ]
        )

    async def calls(self, query: CallQuery) -> list[CallSummary]:
        """List calls; see :class:`transcript.store.Store`."""
        conditions, parameters = ["summary IS NOT NULL"], list[Any]()
        if query.started_after_us is not None:
            conditions.append("start_us >= ?")
            parameters.append(query.started_after_us)
        if query.started_before_us is not None:
            conditions.append("start_us < ?")
            parameters.append(query.started_before_us)
        if query.number:
            conditions.append("(from_number = ? OR to_number = ?)")
            parameters += [_sql_text(query.number)] * 2
        if query.state is not None:
            conditions.append("state = ?")
            parameters.append(query.state)
        if query.behind is not None:
            conditions.append("(start_us < ? OR (start_us = ? AND call_sid < ?))")
            parameters += [query.behind.start_us] * 2 + [query.behind.call_sid]
        sql = (
            f"SELECT summary FROM calls WHERE {' AND '.join(conditions)}"
            " ORDER BY start_us DESC, call_sid DESC LIMIT ?"
        )
        rows = await self._read(
            lambda connection: connection.execute(sql, (*parameters, query.limit)).fetchall()
        )
        return [CallSummary.FromString(summary) for (summary,) in rows]

    async def delete(self, call_sid: str) -> None:
        """Forget a call; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> bool:
            if _lock_call(connection, call_sid, self._dialect) is None:
                return False
            connection.execute(
                "INSERT INTO deleted_calls (digest) VALUES (?) ON CONFLICT DO NOTHING",
                (_digest(call_sid),),
            )
            connection.execute("DELETE FROM facts WHERE call_sid = ?", (call_sid,))
            connection.execute("DELETE FROM calls WHERE call_sid = ?", (call_sid,))
            return True

        if not await self._submit_transaction(run):
            raise NotFound("call_sid: there is no such call")
        await self._submit(_Job(self._dialect.forget))

    async def check(self) -> None:
        """Return when the store works; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> None:
            self._dialect.verify(connection)
            connection.execute("SELECT revision FROM calls LIMIT 1").fetchone()

        await self._submit_transaction(run)
        await self._read(lambda connection: connection.execute("SELECT 1").fetchone())

    async def close(self) -> None:
        """Finish and let go; see :class:`transcript.store.Store`."""
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def _submit(self, job: _Job) -> Any:
        self._jobs.put(job)
        return await asyncio.wrap_future(job.future)

    async def _submit_transaction(self, run: Callable[[Connection], T]) -> T:
        def transaction(connection: Connection) -> T:
            with _transaction(connection, self._dialect):
                return run(connection)

        result: T = await self._submit(_Job(transaction))
        return result

    async def _read(self, run: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._attempt, run, self._dialect.attempts
        )

    def _write(self) -> None:
        """The writer thread: groups of appends, and other jobs one by one, in their order."""
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            group: list[_Job] = []
            size = 0
            for job in jobs:
                if group and (job is None or not job.facts or size + len(job.facts) > GROUP_FACTS):
                    self._append_group(group)
                    group, size = [], 0
                if job is None:
                    return
                if job.facts:
                    group.append(job)
                    size += len(job.facts)
                else:
                    self._settle(job.future, job.run)
            if group:
                self._append_group(group)

    def _append_group(self, group: list[_Job]) -> None:
        facts = [fact for job in group for fact in job.facts]
        whole: Future[list[Outcome]] = Future()
        self._settle(whole, lambda connection: _append(connection, facts, self._dialect))
        place = 0
        for job in group:
            if job.future.set_running_or_notify_cancel():
                if (error := whole.exception()) is not None:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(whole.result()[place : place + len(job.facts)])
            place += len(job.facts)

    def _settle(self, future: Future[T], run: Callable[[Connection], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._attempt(run, self._dialect.attempts))
        except Exception as error:  # it belongs to whoever waits, whatever it is
            future.set_exception(error)

    def _attempt(self, run: Callable[[Connection], T], attempts: int) -> T:
        """Run on this thread's connection; again on a new one when that fails."""
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._dialect.connect()
                with self._connections_lock:
                    self._connections.add(connection)
            return run(connection)
        except self._dialect.errors as error:
            self._drop_connection()
            if attempts > 1:
                return self._attempt(run, attempts - 1)
            # The driver's text may quote values; its type is enough to know what to look for.
            raise Unavailable(
                f"the {self._dialect.name} store does not answer ({type(error).__name__})"
            ) from error

    def _drop_connection(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is None:
            return
        with self._connections_lock:
            self._connections.discard(connection)
        try:
            connection.close()
        except self._dialect.errors:
            pass  # It was broken before.


@contextmanager
def _transaction(connection: Connection, dialect: Dialect) -> Any:
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


def _append(connection: Connection, facts: Sequence[Fact], dialect: Dialect) -> list[Outcome]:
    """Store a group of facts in one transaction."""
    outcomes = [Outcome.DISCARDED] * len(facts)
    by_call: dict[str, list[int]] = {}
    for place, fact in enumerate(facts):
        by_call.setdefault(fact.call_sid, []).append(place)
    with _transaction(connection, dialect):
        rows: list[tuple[str, int, str, int, bytes]] = []
        # In one order everywhere, or two processes that lock the same calls could wait in a ring.
        for call_sid, places in sorted(by_call.items()):
            call = _lock_call(connection, call_sid, dialect, create=True)
            if call is None:
                continue
            revision, sealed = call
            known = _known_bodies(connection, call_sid, [facts[place] for place in places])
            before = revision
            for place in places:
                fact = facts[place]
                body = fact.SerializeToString(deterministic=True)
                number = (fact.writer, fact.sequence)
                if number in known:
                    same = known[number] == body
                    outcomes[place] = Outcome.REPEATED if same else Outcome.CONFLICTING
                elif fact.writer not in sealed:
                    outcomes[place] = Outcome.STORED
                    known[number] = body
                    revision += 1
                    rows.append((call_sid, revision, *number, body))
            if revision > before:
                connection.execute(
                    "UPDATE calls SET revision = ? WHERE call_sid = ?", (revision, call_sid)
                )
        if rows:
            connection.executemany(
                "INSERT INTO facts (call_sid, position, writer, sequence, body)"
                " VALUES (?, ?, ?, ?, ?)",
                rows,
            )
    return outcomes


def _lock_call(
    connection: Connection, call_sid: str, dialect: Dialect, *, create: bool = False
) -> tuple[int, frozenset[str]] | None:
    """Keep a call to this transaction; its revision and sealed writers.

    None when it does not exist, or with ``create``, when it was deleted.
    """
    select = f"SELECT revision, sealed FROM calls WHERE call_sid = ?{dialect.for_update}"
    row = connection.execute(select, (call_sid,)).fetchone()
    if row is None and create:
        deleted = "SELECT 1 FROM deleted_calls WHERE digest = ?"
        if connection.execute(deleted, (_digest(call_sid),)).fetchone():
            return None
        connection.execute(
            "INSERT INTO calls (call_sid, revision) VALUES (?, 0) ON CONFLICT DO NOTHING",
            (call_sid,),
        )
        # Another process may have created it first, or deleted it while we waited for that.
        row = connection.execute(select, (call_sid,)).fetchone()
        if connection.execute(deleted, (_digest(call_sid),)).fetchone():
            connection.execute("DELETE FROM calls WHERE call_sid = ?", (call_sid,))
            return None
    if row is None:
        return None
    return row[0], frozenset(json.loads(row[1]))


def _known_bodies(
    connection: Connection, call_sid: str, facts: Sequence[Fact]
) -> dict[tuple[str, int], bytes]:
    """Stored facts of a call in the ranges of numbers that these have, each writer's own."""
    ranges: dict[str, tuple[int, int]] = {}
    for fact in facts:
        first, last = ranges.get(fact.writer, (fact.sequence, fact.sequence))
        ranges[fact.writer] = (min(first, fact.sequence), max(last, fact.sequence))
    known: dict[tuple[str, int], bytes] = {}
    for writer, (first, last) in ranges.items():
        rows = connection.execute(
            "SELECT sequence, body FROM facts"
            " WHERE call_sid = ? AND writer = ? AND sequence BETWEEN ? AND ?",
            (call_sid, writer, first, last),
        ).fetchall()
        known.update({(writer, sequence): bytes(body) for sequence, body in rows})
    return known


def _digest(call_sid: str) -> str:
    # A call's id holds 128 random bits, so its digest cannot be guessed back.
    return hashlib.sha256(call_sid.encode()).hexdigest()


def _sql_text(text: str) -> str:
    """PostgreSQL stores every character but NUL."""
    return text.replace("\0", "")
