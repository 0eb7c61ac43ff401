"""The store in SQL, once for all databases; a database brings its dialect.

What becomes of facts that are handed in stands in :mod:`transcript.store_append`, who runs the
statements in :mod:`transcript.store_threads`.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from asheard.v1.fact_pb2 import Fact
from asheard.v1.transcript_service_pb2 import CallSummary
from runtime.errors import NotFound
from transcript.store import CallQuery, OpenCall, Outcome, StoredFacts, StoreOverloaded, start_us
from transcript.store_append import digest, lock_call, read_writers, store_in_call, write_alive
from transcript.store_dialect import Connection, Dialect
from transcript.store_threads import StoreThreads

MAX_WAITING_FACTS = 200_000
"""How many facts may wait to be stored; beyond, writers keep them and try again later."""

MAX_WAITING_BYTES = 128 * 1024 * 1024
"""How many bytes of them: eight requests of the largest size that gRPC lets through."""


class SqlStore:
    """Implements :class:`transcript.store.Store` over one database.

    Args:
        dialect: Of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.shared = dialect.shared
        self._threads = StoreThreads(dialect)
        self._waiting_facts = 0
        self._waiting_bytes = 0
        # What a check writes when no process was heard of. Forgotten like a lost one, in the end.
        self._own_process = f"transcript/{uuid.uuid4().hex}"

    async def append(self, facts: Sequence[Fact], process: str = "") -> list[Outcome]:
        """Store facts; see :class:`transcript.store.Store`."""
        if not facts:
            return []
        size = sum(fact.ByteSize() for fact in facts)
        if self._waiting_facts > MAX_WAITING_FACTS or self._waiting_bytes > MAX_WAITING_BYTES:
            raise StoreOverloaded("too many facts wait to be stored; try again later")
        self._waiting_facts += len(facts)
        self._waiting_bytes += size
        try:
            return await self._threads.append([(fact, process) for fact in facts])
        finally:
            self._waiting_facts -= len(facts)
            self._waiting_bytes -= size

    async def add(self, facts: Sequence[Fact], revision: int) -> bool:
        """Store facts of the service itself; see :class:`transcript.store.Store`."""
        (call_sid,) = {fact.call_sid for fact in facts}

        def run(connection: Connection) -> bool:
            call = lock_call(connection, call_sid, self._dialect)
            if call is None or call.final or call.revision != revision:
                return False
            store_in_call(connection, call, [(fact, "") for fact in facts], bounded=False)
            return True

        return await self._threads.write(run)

    async def read(self, call_sid: str, *, after: int = 0) -> StoredFacts:
        """Read facts; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> StoredFacts:
            row = connection.execute(
                "SELECT revision, indexed, final FROM calls WHERE call_sid = ?", (call_sid,)
            ).fetchone()
            if row is None:
                raise NotFound("call_sid: there is no such call")
            revision, indexed, final = row
            if revision <= after:
                return StoredFacts(revision, indexed, (), bool(final))
            rows = connection.execute(
                "SELECT body FROM facts WHERE call_sid = ? AND position > ? AND position <= ?"
                " ORDER BY position",
                (call_sid, after, revision),
            ).fetchall()
            if len(rows) < revision - after:
                raise NotFound("call_sid: there is no such call")  # deleted in this moment
            facts = tuple(Fact.FromString(body) for (body,) in rows)
            return StoredFacts(revision, indexed, facts, bool(final))

        return await self._threads.read(run)

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

        return await self._threads.write(run)

    async def open_calls(self) -> list[OpenCall]:
        """Calls that are not final; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> list[OpenCall]:
            rows = connection.execute(
                "SELECT call_sid, revision, writers FROM calls WHERE final = 0"
            ).fetchall()
            return [OpenCall(sid, revision, read_writers(text)) for sid, revision, text in rows]

        return await self._threads.read(run)

    async def processes(self) -> dict[str, int]:
        """Signs of life; see :class:`transcript.store.Store`."""
        return dict(
            await self._threads.read(
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
            await self._threads.write(run)

    async def unindexed(self) -> list[str]:
        """Calls with an old entry; see :class:`transcript.store.Store`."""
        return await self._threads.read(
            lambda connection: [
                call_sid
                for (call_sid,) in connection.execute(
                    "SELECT call_sid FROM calls WHERE indexed < revision"
                ).fetchall()
            ]
        )

    async def calls(self, query: CallQuery) -> list[CallSummary]:
        """List calls; see :class:`transcript.store.Store`."""
        sql, parameters = _listing(query)
        rows = await self._threads.read(
            lambda connection: connection.execute(sql, parameters).fetchall()
        )
        return [CallSummary.FromString(summary) for (summary,) in rows]

    async def delete(self, call_sid: str) -> None:
        """Forget a call; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> bool:
            if lock_call(connection, call_sid, self._dialect) is None:
                return False
            connection.execute(
                "INSERT INTO deleted_calls (digest) VALUES (?) ON CONFLICT DO NOTHING",
                (digest(call_sid),),
            )
            connection.execute("DELETE FROM facts WHERE call_sid = ?", (call_sid,))
            connection.execute("DELETE FROM calls WHERE call_sid = ?", (call_sid,))
            return True

        if not await self._threads.write(run):
            raise NotFound("call_sid: there is no such call")
        await self._threads.write_alone(self._dialect.forget)

    async def check(self, alive: Collection[str] = ()) -> None:
        """Return when the store works; see :class:`transcript.store.Store`."""

        def run(connection: Connection) -> None:
            self._dialect.verify(connection)
            write_alive(connection, {*alive, self._own_process}, self._dialect)

        await self._threads.write(run)
        await self._threads.read(
            lambda connection: connection.execute("SELECT revision FROM calls LIMIT 1").fetchone()
        )

    async def close(self) -> None:
        """Finish and let go; see :class:`transcript.store.Store`."""
        await self._threads.close()


def _listing(query: CallQuery) -> tuple[str, list[Any]]:
    """The statement that lists calls, and its parameters."""
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
    if query.after is not None:
        conditions.append("(start_us < ? OR (start_us = ? AND call_sid < ?))")
        parameters += [query.after.start_us] * 2 + [query.after.call_sid]
    sql = (
        f"SELECT summary FROM calls WHERE {' AND '.join(conditions)}"
        " ORDER BY start_us DESC, call_sid DESC LIMIT ?"
    )
    return sql, [*parameters, query.limit]


def _sql_text(text: str) -> str:
    """PostgreSQL stores every character but NUL."""
    return text.replace("\0", "")
