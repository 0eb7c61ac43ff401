"""A page of the list while some entries in the store are old (unit)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from asheard.v1.transcript_pb2 import CallState
from asheard.v1.transcript_service_pb2 import CallSummary
from tests.transcript.call_facts import START_S
from transcript.listing import is_listed, page
from transcript.store import CallQuery, Cursor, start_us


def entry(call_sid: str, chance: random.Random) -> CallSummary:
    """Of any call; some start at the same time, of some it is not known when."""
    made = CallSummary(
        call_sid=call_sid,
        from_number=chance.choice(("+1", "+2")),
        to_number=chance.choice(("+1", "+3")),
        state=chance.choice(CallState.values()),
        final=chance.random() < 0.5,
    )
    if chance.random() < 0.8:
        made.start_time.FromSeconds(START_S + chance.randint(0, 5))
    return made


def listing(entries: Iterable[CallSummary], query: CallQuery) -> list[CallSummary]:
    """What a store gives, as its contract has it."""
    found = [entry for entry in entries if is_listed(entry, query)]
    found.sort(key=lambda entry: (start_us(entry), entry.call_sid), reverse=True)
    return found[: query.limit]


@pytest.mark.parametrize("seed", range(50))
def test_old_entries_are_replaced_as_if_they_had_been_written(seed: int) -> None:
    chance = random.Random(seed)
    stored = {f"CA{n}": entry(f"CA{n}", chance) for n in range(12)}
    newer = {f"CA{n}": entry(f"CA{n}", chance) for n in chance.sample(range(15), 5)}
    after = chance.choice([None, *stored.values()])
    query = CallQuery(
        limit=chance.randint(1, 8),
        started_after_us=chance.choice((None, (START_S + 1) * 1_000_000)),
        started_before_us=chance.choice((None, (START_S + 4) * 1_000_000)),
        number=chance.choice(("", "", "+1")),
        state=chance.choice((None, None, CallState.CALL_STATE_ACTIVE)),
        after=None if after is None else Cursor(start_us(after), after.call_sid),
    )
    more = CallQuery(
        query.limit + len(newer),
        query.started_after_us,
        query.started_before_us,
        query.number,
        query.state,
        query.after,
    )
    given = page(listing(stored.values(), more), list(newer.values()), query)
    assert given == listing({**stored, **newer}.values(), query)
