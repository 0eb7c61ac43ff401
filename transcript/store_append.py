"""What becomes of facts that are handed in: stored, repeated, late, beyond a bound.

Everything here runs inside one transaction, on calls whose rows are kept to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from asheard.v1.fact_pb2 import Fact
from transcript.store import (
    LISTED,
    MAX_CALL_BYTES,
    MAX_CALL_FACTS,
    MAX_CALL_WRITERS,
    Outcome,
    WriterState,
    closes,
)
from transcript.store_dialect import Connection, Dialect, transaction

MAX_CLOSING_BYTES = 4096
"""The largest fact that closes a writer of a call which holds as much as a call may."""

Entry = tuple[Fact, str]
"""A fact, and the process that writes it."""


@dataclass(slots=True)
class CallRow:
    """A call's row, kept to one transaction."""

    call_sid: str
    revision: int
    indexed: int
    final: bool
    fact_bytes: int
    writers: dict[str, WriterState]


def append_facts(
    connection: Connection, entries: Sequence[Entry], dialect: Dialect
) -> list[Outcome]:
    """Store a group of facts of any number of calls, in one transaction."""
    outcomes = [Outcome.DISCARDED] * len(entries)
    by_call: dict[str, list[int]] = {}
    for place, (fact, _) in enumerate(entries):
        by_call.setdefault(fact.call_sid, []).append(place)
    with transaction(connection, dialect):
        new_processes: set[str] = set()
        # In one order everywhere, or two processes that lock the same calls could wait in a ring.
        for call_sid, places in sorted(by_call.items()):
            call = lock_call(connection, call_sid, dialect, create=True)
            if call is None:
                continue
            before = {writer.process for writer in call.writers.values()}
            stored = store_in_call(connection, call, [entries[place] for place in places])
            for place, outcome in zip(places, stored, strict=True):
                outcomes[place] = outcome
            new_processes |= {writer.process for writer in call.writers.values()} - before - {""}
        if new_processes:
            write_alive(connection, new_processes, dialect)
    return outcomes


def lock_call(
    connection: Connection, call_sid: str, dialect: Dialect, *, create: bool = False
) -> CallRow | None:
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
        if connection.execute(deleted, (digest(call_sid),)).fetchone():
            return None
        connection.execute(
            "INSERT INTO calls (call_sid, revision) VALUES (?, 0) ON CONFLICT DO NOTHING",
            (call_sid,),
        )
        # Another process may have created it first, or deleted it while we waited for that.
        row = connection.execute(select, (call_sid,)).fetchone()
        if connection.execute(deleted, (digest(call_sid),)).fetchone():
            connection.execute("DELETE FROM calls WHERE call_sid = ?", (call_sid,))
            return None
    if row is None:
        return None
    revision, indexed, final, fact_bytes, writers = row
    return CallRow(call_sid, revision, indexed, bool(final), fact_bytes, read_writers(writers))


def store_in_call(
    connection: Connection, call: CallRow, entries: Sequence[Entry], *, bounded: bool = True
) -> list[Outcome]:
    """Store facts of one call; what became of each.

    Args:
        connection: In a transaction.
        call: Kept to that transaction.
        entries: All of that call.
        bounded: False for facts of the service itself, which belong to no writer of the call.
    """
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


def write_alive(connection: Connection, processes: Collection[str], dialect: Dialect) -> None:
    """Write that processes gave a sign of life."""
    # In one order everywhere, as with calls; and whoever holds these rows waits for no others.
    connection.executemany(
        f"INSERT INTO processes (process, seen_us) VALUES (?, {dialect.now_us})"
        " ON CONFLICT (process) DO UPDATE SET seen_us = excluded.seen_us",
        [(process,) for process in sorted(processes)],
    )


def read_writers(text: str) -> dict[str, WriterState]:
    """Writers of a call, as its row keeps them."""
    return {name: WriterState(*state) for name, state in json.loads(text).items()}


def digest(call_sid: str) -> str:
    """What is kept of a deleted call: its id holds 128 random bits and cannot be guessed back."""
    return hashlib.sha256(call_sid.encode()).hexdigest()


def _write_writers(writers: Mapping[str, WriterState]) -> str:
    return json.dumps({name: [state.process, state.closed] for name, state in writers.items()})


def _is_surplus(call: CallRow, fact: Fact, size: int) -> bool:
    """Whether a fact is beyond what a call may hold (rule 6 of the store)."""
    if fact.writer not in call.writers and len(call.writers) >= MAX_CALL_WRITERS:
        return True
    if call.revision < MAX_CALL_FACTS and call.fact_bytes + size <= MAX_CALL_BYTES:
        return False
    room = call.revision < MAX_CALL_FACTS + 2 * MAX_CALL_WRITERS
    return not (room and size <= MAX_CLOSING_BYTES and closes(fact))


def _note_writer(call: CallRow, fact: Fact, process: str) -> None:
    before = call.writers.get(fact.writer, WriterState("", closed=False))
    now = WriterState(process or before.process, before.closed or closes(fact))
    if now != before or fact.writer not in call.writers:
        call.writers[fact.writer] = now


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
