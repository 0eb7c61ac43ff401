"""What readers are told of a call that has ended and is not sealed yet (unit)."""

from __future__ import annotations

import random

import pytest

from asheard.v1.fact_pb2 import CallEnded, CallOutcome, Fact
from asheard.v1.transcript_pb2 import CallState
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.hostile_facts import hostile_facts
from transcript.join import join
from transcript.unsealed import last_open


@pytest.mark.parametrize("seed", range(30))
def test_it_is_what_was_told_before_the_last_missing_fact(seed: int) -> None:
    facts = short_call()
    random.Random(seed).shuffle(facts)
    told = last_open(facts)
    assert told == join(facts[: told.revision])
    assert not told.final
    assert all(join(facts[:count]).final for count in range(told.revision + 1, len(facts) + 1))


def test_what_came_after_the_end_is_not_told_either() -> None:
    facts = short_call()
    noted = Fact(call_sid="CA1", writer="webhook/1", sequence=1)  # of a newer version's writer
    assert last_open([*facts, noted]) == join(facts[:-1])


def test_a_call_of_one_fact_has_no_earlier_state() -> None:
    gateway = Writer("CA1", "gateway/MZ1")
    ended = gateway.write(call_ended=CallEnded(outcome=CallOutcome.CALL_OUTCOME_COMPLETED))
    assert join([ended]).final
    told = last_open([ended])
    assert (told.call_sid, told.revision, told.final) == ("CA1", 0, False)
    assert told.state == CallState.CALL_STATE_ACTIVE


def test_no_facts_make_it_fail() -> None:
    for seed in range(50):
        assert not last_open(hostile_facts(random.Random(seed), 40)).final
