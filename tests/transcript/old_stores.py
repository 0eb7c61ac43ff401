"""Stores as earlier versions of asheard left them, for tests of their migration."""

from __future__ import annotations

import hashlib

from asheard.v1.fact_pb2 import CallOutcome, Fact
from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import CallSummary
from tests.transcript.call_facts import short_call

VERSION_1 = """
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
"""The schema as it was made before stores had versions, letter by letter."""

FINAL = short_call("CA1", outcome=CallOutcome.CALL_OUTCOME_DROPPED)
"""Was final then: a dropped stream was the end. A version that waits for a new stream would say
otherwise, and must not."""

REOPENED = short_call("CA2", ended=False)
"""Was final once, and went on."""

UNREAD = short_call("CA3")
"""Complete, and nobody had read it yet."""

DELETED = "CA4"
"""Was deleted."""

Row = tuple[object, ...]


def rows() -> tuple[list[Row], list[Row]]:
    """Rows of the tables ``calls`` (all columns but start_us and numbers) and ``facts``."""
    calls: list[Row] = []
    facts: list[Row] = []
    for stored, final, sealed in (
        (FINAL, True, '["gateway/MZ1", "session/1"]'),
        (REOPENED, False, '["gateway/MZ1"]'),
        (UNREAD, None, "[]"),
    ):
        call_sid = stored[0].call_sid
        summary = CallSummary(call_sid=call_sid, state=CallState.CALL_STATE_ACTIVE)
        summary.final = bool(final)
        indexed = 0 if final is None else len(stored)
        body = None if final is None else summary.SerializeToString()
        calls.append((call_sid, len(stored), indexed, 1, sealed, body))
        facts += [_row(position, fact) for position, fact in enumerate(stored, start=1)]
    return calls, facts


def _row(position: int, fact: Fact) -> Row:
    body = fact.SerializeToString(deterministic=True)
    return (fact.call_sid, position, fact.writer, fact.sequence, body)


INSERT_DELETED = "INSERT INTO deleted_calls (digest) VALUES (?)"
DELETED_ROW: Row = (hashlib.sha256(DELETED.encode()).hexdigest(),)
INSERT_CALL = (
    "INSERT INTO calls (call_sid, revision, indexed, state, sealed, summary)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_FACT = (
    "INSERT INTO facts (call_sid, position, writer, sequence, body) VALUES (?, ?, ?, ?, ?)"
)
