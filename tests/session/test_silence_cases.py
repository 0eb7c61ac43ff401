"""The conversation in calls that have fallen silent elsewhere, in virtual time."""

from __future__ import annotations

import pytest

from session.realtime.dead_air import MIN_FACT_S
from tests.session import noise_cases, silence_cases
from tests.session.silence_cases import HOLD, Case
from tests.session.virtual_call import VirtualCall, bakery

CASES = (*silence_cases.CASES, *noise_cases.NOISE)
MIN_FACT_MS = int(1_000 * MIN_FACT_S)
TOLERANCE_MS = 100
"""Voice detection judges windows of 32 ms, and the line moves by frames of 20."""


def played(case: Case) -> VirtualCall:
    """The case, to its end."""
    return VirtualCall(
        case.model,
        case.caller,
        bakery(case.agent),
        tool_ms=case.tool_ms,
        tool_answers=case.tool_answers,
    ).run()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_caller_hears_an_answer_in_time(case: Case) -> None:
    call = played(case)
    assert call.fatal is None
    heard = [line for line in call.heard if line != HOLD]
    assert len(heard) == len(case.heard), heard
    for line, expected in zip(heard, case.heard, strict=True):
        if expected.endswith("…"):
            assert line.startswith(expected[:-1]), heard
        else:
            assert line == expected, heard
    *owed, _ = call.silences  # In the last one the caller waits for what may still come.
    assert max(silence.lasted_ms for silence in owed) <= case.longest_ms, owed
    assert len(call.engine.truth.requests) <= case.requests


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_written_down_of_silence_is_what_there_was(case: Case) -> None:
    call = played(case)
    *silences, _ = call.silences
    waited = [silence for silence in silences if silence.before in case.waited_after]
    told = list(call.dead_air)
    for silence in waited:
        if told and abs(told[0].end_ms - silence.end_ms) <= TOLERANCE_MS:
            assert abs(told.pop(0).lasted_ms - silence.lasted_ms) <= TOLERANCE_MS
        else:
            assert silence.lasted_ms < MIN_FACT_MS + TOLERANCE_MS, (waited, call.dead_air)
    assert not told, (waited, told)
