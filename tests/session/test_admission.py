"""When a worker takes a call, and what it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asheard.v1 import session_service_pb2
from session.admission import Admission

EXHAUSTED = session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED
DRAINING = session_service_pb2.REFUSAL_REASON_DRAINING


@pytest.mark.parametrize(
    ("active_calls", "usual_lag_s", "reason", "detail"),
    [
        (0, 0.0, None, ""),
        (6, 0.1, None, ""),
        (7, 0.0, EXHAUSTED, "the worker has 7 calls, its most"),
        (8, 9.0, EXHAUSTED, "the worker has 7 calls, its most"),
        (0, 0.101, EXHAUSTED, "the worker is short of CPU: its event loop is 101 ms late"),
    ],
)
def test_a_call_is_refused_with_the_reason(
    active_calls: int, usual_lag_s: float, reason: int | None, detail: str
) -> None:
    admission = Admission(max_calls=7, max_lag_s=0.1)
    refusal = admission.refusal(active_calls=active_calls, usual_lag_s=usual_lag_s)
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert (refusal.reason, refusal.detail) == (reason, detail)


@given(st.integers(1, 10), st.integers(0, 12), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_call_is_taken_if_and_only_if_there_is_room_time_and_no_drain(
    max_calls: int, active_calls: int, max_lag_s: float, usual_lag_s: float, draining: bool
) -> None:
    admission = Admission(max_calls=max_calls, max_lag_s=max_lag_s)
    if draining:
        admission.drain()
    refusal = admission.refusal(active_calls=active_calls, usual_lag_s=usual_lag_s)
    taken = not draining and active_calls < max_calls and usual_lag_s <= max_lag_s
    assert (refusal is None) is taken
    if draining:
        assert refusal is not None
        assert refusal.reason == DRAINING


def test_the_load_is_what_there_is() -> None:
    admission = Admission(max_calls=7, max_lag_s=0.1)
    report = admission.load_report(active_calls=3, recent_lag_s=0.0125)
    assert (report.active_calls, report.max_calls, report.event_loop_lag_us) == (3, 7, 12_500)
    assert not report.draining
    admission.drain()
    assert admission.load_report(active_calls=3, recent_lag_s=0.0125).draining


def test_a_worker_that_was_halted_for_hours_says_how_late_it_is_as_far_as_it_can() -> None:
    report = Admission(max_calls=1, max_lag_s=0.1).load_report(active_calls=0, recent_lag_s=5_000.0)
    assert report.event_loop_lag_us == 2**32 - 1
