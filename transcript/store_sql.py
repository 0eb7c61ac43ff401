"""The store in SQL, once for all databases; a database brings its dialect.

One thread writes, a few read; the event loop waits for neither. All appends that wait when the
writer becomes free are one transaction, so one flush to the disk makes them all durable (group
commit): the more callers, the larger the groups, at the same rate of flushes. A fact that the
database cannot take is found by halving its group, and refused alone. Every operation can
be repeated, so over a network each is tried a second time on a new connection before it counts as
failed; then the store is ``Unavailable``, until an attempt finds the database again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import AsheardError, NotFound, Unavailable
from runtime.log import get_log
from transcript.store import (
    LISTED,
    MAX_CALL_BYTES,
    MAX_CALL_FACTS,
    MAX_CALL_WRITERS,
    Behind,
    CallQuery,
    OpenCall,
    Outcome,
    StoredFacts,
    WriterState,
    closes,
    start_us,
)

log = get_log(__name__)

T = TypeVar("T")

READERS = 2
"""Reading threads: one long read must not hold up all others, and there are few cores."""

GROUP_FACTS = 20_000
"""The most facts in one transaction, so that nobody waits long for the first of them."""

WAITING_FACTS = 200_000
"""The most facts that may wait; beyond, writers keep them and try again later."""

CLOSING_BYTES = 4096
"""The largest fact that closes a writer of a call which holds as much as a call may."""

WAITING_BYTES = 128 * 1024 * 1024
"""The most bytes of them: eight requests of the largest size that gRPC lets through."""


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
    """Behind a SELECT: keeps the row from all others until the end of the transaction."""
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


class _Job:
    """Something the writer thread has to do."""

    def __init__(
        self, run: Callable[[Connection], Any], facts: Sequence[Fact] = (), process: str = ""
    ) -> None:
        self.run = run
        self.facts = facts
        """Not empty: an append, which may share its transaction with others."""
        self.process = process
        self.future: Future[Any] = Future()


class SqlStore:
    """Implements :class:`transcript.store.Store` over one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.shared = dialect.shared
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting_facts = 0
        self._waiting_bytes = 0
        # What a check writes when no process was heard of. Forgotten like a lost one, in the end.
        self._own_process = f"transcript/{uuid.uuid4().hex}"
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store reader")
        self._connections: set[Connection] = set()
        self._connections_lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="store writer", daemon=True)
        self._writer.start()

    async def append(self, facts: Sequence[Fact], process: str = "") -> list[Outcome]:
        """Store facts; see :class:`transcript.store.Store`."""
        if not facts:
            return []
        size = sum(fact.ByteSize() for fact in facts)
        if self._waiting_facts > WAITING_FACTS or self._waiting_bytes > WAITING_BYTES:
            raise Behind("the store is behind; try again later")
        self._waiting_facts += len(facts)
        self._waiting_bytes += size
        try:
            outcomes: list[Outcome] = await self._submit(_Job(lambda _: None, facts, process))
            return outcomes
        finally:
            self._waiting_facts -= len(facts)
            self._waiting_bytes -= size

    async def add(self, facts: Sequence[Fact], revision: int) -> bool:
        """Store facts of the service itself; see :class:`transcript.store.Store`."""
        (call_sid,) = {fact.call_sid for fact in facts}

        def run(connection: Connection) -> bool:
            call = _lock_call(connection, call_sid, self._dialect)
            if call is None or call.final or call.revision != revision:
                return False
            _store_in_call(connection, call, [(fact, "") for fact in facts], bounded=False)
            return True

        return await self._submit_transaction(run)

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        """Read facts; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> StoredFacts:
            row = connection.execute(
                "SELECT revision, indexed, final FROM calls WHERE call_sid = ?", (call_sid,)
            ).fetchone()
            if row is None:
                raise NotFound("call_sid: there is no such call")
            if row[0] <= after:
                return StoredFacts(row[0], row[1], (), bool(row[2]))
            rows = connection.execute(
                "SELECT body FROM facts WHERE call_sid = ? AND position > ? AND position <= ?"
                " ORDER BY position",
                (call_sid, after, row[0]),
            ).fetchall()
            if len(rows) < row[0] - after:
                raise NotFound("call_sid: there is no such call")  # deleted in this moment
            facts = tuple(Fact.FromString(body) for (body,) in rows)
            return StoredFacts(row[0], row[1], facts, bool(row[2]))

        return await self._read(run)

    async def index(self, summary: CallSummary, revision: int) -> bool:
        """Write an entry of the index; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> bool:
            return (
                connection.execute(
                    "UPDATE calls SET indexed = ?, start_us = ?, from_number = ?, to_number = ?,"
                    " state = ?, summary = ?, final = CASE WHEN ? = 1 THEN 1 ELSE final END,"
                    " writers = CASE WHEN ? = 1 THEN '{}' ELSE writers END"
                    " WHERE call_sid = ? AND revision = ? AND (final = 0 OR ? = 1)",
                    (
                        revision,
                        start_us(summary),
                        _sql_text(summary.from_number),
                        _sql_text(summary.to_number),
                        summary.state,
                        summary.SerializeToString(),
                        *[int(summary.final)] * 2,
                        summary.call_sid,
                        revision,
                        int(summary.final),
                    ),
                ).rowcount
                == 1
            )

        return await self._submit_transaction(run)

    async def open_calls(self) -> list[OpenCall]:
        """Calls that are not final; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> list[OpenCall]:
            rows = connection.execute(
                "SELECT call_sid, revision, writers FROM calls WHERE final = 0"
            ).fetchall()
            return [OpenCall(sid, revision, _read_writers(text)) for sid, revision, text in rows]

        return await self._read(run)

    async def processes(self) -> dict[str, int]:
        """Signs of life; see :class:`transcript.store.Store`."""
        return dict(
            await self._read(
                lambda connection: connection.execute(
                    "SELECT process, seen_us FROM processes"
                ).fetchall()
            )
        )

    async def forget_processes(self, seen_us: Mapping[str, int]) -> None:
        """Forget processes; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> None:
            connection.executemany(
                "DELETE FROM processes WHERE process = ? AND seen_us = ?", sorted(seen_us.items())
            )

        if seen_us:
            await self._submit_transaction(run)

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

    async def check(self, alive: Collection[str] = ()) -> None:
        """Return when the store works; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> None:
            self._dialect.verify(connection)
            _write_alive(connection, {*alive, self._own_process}, self._dialect)

        await self._submit_transaction(run)
        await self._read(
            lambda connection: connection.execute("SELECT revision FROM calls LIMIT 1").fetchone()
        )

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
        """Store what several handed in. Errors of the database are everybody's; a fault that one of
        them causes is found by taking each alone."""
        group = [job for job in group if job.future.set_running_or_notify_cancel()]
        if not group:
            return
        entries = [(fact, job.process) for job in group for fact in job.facts]
        try:
            outcomes = self._store(entries)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, AsheardError):
                for job in group:
                    self._append_alone(job)
            else:
                for job in group:
                    job.future.set_exception(error)
            return
        place = 0
        for job in group:
            job.future.set_result(outcomes[place : place + len(job.facts)])
            place += len(job.facts)

    def _append_alone(self, job: _Job) -> None:
        try:
            job.future.set_result(self._store([(fact, job.process) for fact in job.facts]))
        except Exception as error:  # it belongs to whoever waits, whatever it is
            job.future.set_exception(error)

    def _store(self, entries: Sequence[_Entry]) -> list[Outcome]:
        """Store facts in one transaction, or where one of them cannot be stored, in several."""
        try:
            return self._attempt(
                lambda connection: _append(connection, entries, self._dialect),
                self._dialect.attempts,
            )
        except self._dialect.data_errors as error:
            if len(entries) == 1:
                ((fact, _),) = entries
                log.error("fact cannot be stored", call=fact.call_sid, writer=fact.writer,
                          sequence=fact.sequence, error=type(error).__name__)  # fmt: skip
                return [Outcome.UNSTORABLE]
            half = len(entries) // 2
            return self._store(entries[:half]) + self._store(entries[half:])

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
        except self._dialect.data_errors:
            raise
        except self._dialect.errors as error:
            self._drop_connection()
            if attempts > 1:
                return self._attempt(run, attempts - 1)
            raise Unavailable(
                f"the {self._dialect.name} store does not answer: {self._dialect.reason(error)}"
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


@dataclass(slots=True)
class _Call:
    """A call's row, kept to one transaction."""

    call_sid: str
    revision: int
    indexed: int
    final: bool
    fact_bytes: int
    writers: dict[str, WriterState]


_Entry = tuple[Fact, str]
"""A fact, and the process that writes it."""


def _append(connection: Connection, entries: Sequence[_Entry], dialect: Dialect) -> list[Outcome]:
    """Store a group of facts in one transaction."""
    outcomes = [Outcome.DISCARDED] * len(entries)
    by_call: dict[str, list[int]] = {}
    for place, (fact, _) in enumerate(entries):
        by_call.setdefault(fact.call_sid, []).append(place)
    with _transaction(connection, dialect):
        new_processes: set[str] = set()
        # In one order everywhere, or two processes that lock the same calls could wait in a ring.
        for call_sid, places in sorted(by_call.items()):
            call = _lock_call(connection, call_sid, dialect, create=True)
            if call is None:
                continue
            before = {writer.process for writer in call.writers.values()}
            stored = _store_in_call(connection, call, [entries[place] for place in places])
            for place, outcome in zip(places, stored, strict=True):
                outcomes[place] = outcome
            new_processes |= {writer.process for writer in call.writers.values()} - before - {""}
        if new_processes:
            _write_alive(connection, new_processes, dialect)
    return outcomes


def _store_in_call(
    connection: Connection, call: _Call, entries: Sequence[_Entry], *, bounded: bool = True
) -> list[Outcome]:
    """Store facts of a call whose row is ours; what became of each."""
    known = _known_bodies(connection, call.call_sid, [fact for fact, _ in entries])
    rows: list[tuple[str, int, str, int, bytes]] = []
    outcomes: list[Outcome] = []
    is_listed = call.indexed == call.revision > 0
    for fact, process in entries:
        body = fact.SerializeToString(deterministic=True)
        number = (fact.writer, fact.sequence)
        if number in known:
            same = known[number] == body
            outcomes.append(Outcome.REPEATED if same else Outcome.CONFLICTING)
            continue
        if call.final:
            outcomes.append(Outcome.LATE)
            continue
        if bounded and _is_surplus(call, fact, len(body)):
            outcomes.append(Outcome.SURPLUS)
            continue
        outcomes.append(Outcome.STORED)
        known[number] = body
        call.revision += 1
        call.fact_bytes += len(body)
        if bounded:
            _note_writer(call, fact, process)
        is_listed = is_listed and fact.WhichOneof("body") not in LISTED
        rows.append((call.call_sid, call.revision, *number, body))
    if rows:
        if is_listed and not all(state.closed for state in call.writers.values()):
            call.indexed = call.revision
        connection.execute(
            "UPDATE calls SET revision = ?, indexed = ?, fact_bytes = ?, writers = ?"
            " WHERE call_sid = ?",
            (
                call.revision,
                call.indexed,
                call.fact_bytes,
                _write_writers(call.writers),
                call.call_sid,
            ),
        )
        connection.executemany(
            "INSERT INTO facts (call_sid, position, writer, sequence, body) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
    return outcomes


def _is_surplus(call: _Call, fact: Fact, size: int) -> bool:
    """Whether a fact is beyond what a call may hold (rule 6 of the store)."""
    if fact.writer not in call.writers and len(call.writers) >= MAX_CALL_WRITERS:
        return True
    if call.revision < MAX_CALL_FACTS and call.fact_bytes + size <= MAX_CALL_BYTES:
        return False
    room = call.revision < MAX_CALL_FACTS + 2 * MAX_CALL_WRITERS
    return not (room and size <= CLOSING_BYTES and closes(fact))


def _note_writer(call: _Call, fact: Fact, process: str) -> None:
    before = call.writers.get(fact.writer, WriterState("", closed=False))
    now = WriterState(process or before.process, before.closed or closes(fact))
    if now != before or fact.writer not in call.writers:
        call.writers[fact.writer] = now


def _write_writers(writers: Mapping[str, WriterState]) -> str:
    return json.dumps({name: [state.process, state.closed] for name, state in writers.items()})


def _read_writers(text: str) -> dict[str, WriterState]:
    return {name: WriterState(*state) for name, state in json.loads(text).items()}


def _write_alive(connection: Connection, processes: Collection[str], dialect: Dialect) -> None:
    # In one order everywhere, as with calls; and whoever holds these rows waits for no others.
    connection.executemany(
        f"INSERT INTO processes (process, seen_us) VALUES (?, {dialect.now_us})"
        " ON CONFLICT (process) DO UPDATE SET seen_us = excluded.seen_us",
        [(process,) for process in sorted(processes)],
    )


def _lock_call(
    connection: Connection, call_sid: str, dialect: Dialect, *, create: bool = False
) -> _Call | None:
    """Keep a call to this transaction.

    None when it does not exist, or with ``create``, when it was deleted.
    """
    select = (
        "SELECT revision, indexed, final, fact_bytes, writers FROM calls WHERE call_sid = ?"
        f"{dialect.for_update}"
    )
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
    revision, indexed, final, fact_bytes, writers = row
    return _Call(call_sid, revision, indexed, bool(final), fact_bytes, _read_writers(writers))


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
