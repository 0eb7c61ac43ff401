"""The threads of a store in SQL: one writes, a few read; the event loop waits for neither.

All appends that wait when the writer becomes free are one transaction, so one flush to the disk
makes them all durable (group commit): the more callers, the larger the groups, at the same rate of
flushes. A fact that the database cannot take is found by halving its group, and refused alone.

Every operation can be repeated, so over a network each is tried a second time on a new connection
before it counts as failed; then the store is ``Unavailable``, until an attempt finds the database
again.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from runtime.errors import AsheardError, Unavailable
from runtime.log import get_log
from transcript.store import Outcome
from transcript.store_append import Entry, append_facts
from transcript.store_dialect import Connection, Dialect, transaction

log = get_log(__name__)

T = TypeVar("T")

READERS = 2
"""Reading threads: one long read must not hold up all others, and there are few cores."""

MAX_GROUP_FACTS = 20_000
"""In one transaction, so that nobody waits long for the first of them."""


class _Job:
    """Something the writer thread has to do."""

    def __init__(self, run: Callable[[Connection], Any], entries: Sequence[Entry] = ()) -> None:
        self.run = run
        self.entries = entries
        """Not empty: an append, which may share its transaction with others."""
        self.future: Future[Any] = Future()


class StoreThreads:
    """Runs statements on threads, each with a connection of its own.

    Args:
        dialect: Of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store reader")
        self._connections: set[Connection] = set()
        self._connections_lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="store writer", daemon=True)
        self._writer.start()

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Store facts, in one transaction with all others that wait; what became of each.

        Raises:
            Unavailable: The database does not answer.
        """
        outcomes: list[Outcome] = await self._submit(_Job(lambda _: None, entries))
        return outcomes

    async def write(self, run: Callable[[Connection], T]) -> T:
        """Run in a transaction of its own, after all that was asked for before.

        Raises:
            Unavailable: The database does not answer.
        """

        def in_transaction(connection: Connection) -> T:
            with transaction(connection, self._dialect):
                return run(connection)

        result: T = await self._submit(_Job(in_transaction))
        return result

    async def write_alone(self, run: Callable[[Connection], T]) -> T:
        """Run on the writer's connection, outside of any transaction.

        Raises:
            Unavailable: The database does not answer.
        """
        result: T = await self._submit(_Job(run))
        return result

    async def read(self, run: Callable[[Connection], T]) -> T:
        """Run on a reader's connection, beside what is written.

        Raises:
            Unavailable: The database does not answer.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._attempt, run, self._dialect.attempts
        )

    async def close(self) -> None:
        """Finish what was asked for, and close all connections."""
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def _submit(self, job: _Job) -> Any:
        self._jobs.put(job)
        return await asyncio.wrap_future(job.future)

    def _write(self) -> None:
        """The writer thread: groups of appends, and other jobs one by one, in their order."""
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            group: list[_Job] = []
            size = 0
            for job in jobs:
                if group and (
                    job is None or not job.entries or size + len(job.entries) > MAX_GROUP_FACTS
                ):
                    self._append_group(group)
                    group, size = [], 0
                if job is None:
                    return
                if job.entries:
                    group.append(job)
                    size += len(job.entries)
                else:
                    self._run_job(job)
            if group:
                self._append_group(group)

    def _append_group(self, group: list[_Job]) -> None:
        """Store what several handed in. Errors of the database are everybody's; a fault that one of
        them causes is found by taking each alone."""
        group = [job for job in group if job.future.set_running_or_notify_cancel()]
        if not group:
            return
        try:
            outcomes = self._store([entry for job in group for entry in job.entries])
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
            job.future.set_result(outcomes[place : place + len(job.entries)])
            place += len(job.entries)

    def _append_alone(self, job: _Job) -> None:
        try:
            job.future.set_result(self._store(job.entries))
        except Exception as error:  # it belongs to whoever waits, whatever it is
            job.future.set_exception(error)

    def _store(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Store facts in one transaction, or where one of them cannot be stored, in several."""
        try:
            return self._attempt(
                lambda connection: append_facts(connection, entries, self._dialect),
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

    def _run_job(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            job.future.set_result(self._attempt(job.run, self._dialect.attempts))
        except Exception as error:  # it belongs to whoever waits, whatever it is
            job.future.set_exception(error)

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
