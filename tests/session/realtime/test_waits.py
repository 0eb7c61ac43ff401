"""How long to wait before the model is asked again."""

from __future__ import annotations

import pytest

from session.realtime.events import RateLimit
from session.realtime.waits import (
    FIRST_BACKOFF_S,
    JITTER,
    LONGEST_BACKOFF_S,
    LONGEST_NAMED_S,
    PER_MINUTE,
    Pace,
    exhausted_s,
    named_wait_s,
)

NOW = 1000.0


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-realtime. Please try again in 6s. Visit https://x", 6.0),
        ("Please try again in 1.5s", 1.5),
        ("try again in 300ms.", 0.3),
        ("Please try again in 1m2.5s.", LONGEST_NAMED_S),
        ("please retry after 20 seconds.", 20.0),
        ("Try again in 3 milliseconds", 0.003),
        ("try again in 2 hours", LONGEST_NAMED_S),
        ("try again in a moment", None),
        ("try again in 5 apples", None),
        ("in 6s", None),
        ("x" * 2000 + " try again in 6s", None),
        ("try again in " + "9" * 400 + "s", None),
        ("", None),
        (None, None),
    ],
)
def test_the_wait_that_a_message_names(message: str | None, seconds: float | None) -> None:
    assert named_wait_s(message) == (None if seconds is None else pytest.approx(seconds))


def test_a_limit_that_is_used_up_names_a_wait_too() -> None:
    left = RateLimit(name="requests", limit=100, remaining=3, reset_seconds=50)
    for used_up, seconds in (
        ([], 0.0),
        ([RateLimit(name="tokens", limit=100, remaining=0, reset_seconds=4.5)], 4.5),
        ([RateLimit(name="tokens", limit=100, remaining=0)], 0.0),
        ([RateLimit(name="tokens", limit=100, remaining=-1, reset_seconds=-3)], 0.0),
        ([RateLimit(name="tokens", remaining=0, reset_seconds=7200)], LONGEST_NAMED_S),
    ):
        assert exhausted_s([left, *used_up]) == seconds


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_backoffs_double_up_to_a_bound_and_differ_by_chance(chance: float) -> None:
    pace = Pace(lambda: chance)
    for attempt in range(20):
        pace.failed(now=NOW)
        backoff_s = min(FIRST_BACKOFF_S * 2**attempt, LONGEST_BACKOFF_S)
        assert pace.due_at <= NOW + LONGEST_BACKOFF_S * (1 + JITTER)
        assert pace.due_at == NOW + backoff_s * (1 + JITTER * chance)
    pace.succeeded()
    assert pace.due_at > NOW, "a wait that was begun is ended"
    pace.failed(now=NOW + 100)
    assert pace.due_at == NOW + 100 + FIRST_BACKOFF_S * (1 + JITTER * chance)


def test_no_more_requests_go_out_than_a_minute_has_room_for() -> None:
    pace = Pace(lambda: 0.0)
    for n in range(PER_MINUTE):
        assert pace.due_at == 0
        pace.asked(now=NOW + n)
    assert pace.due_at == NOW + 60
    pace.asked(now=NOW + 60)
    assert pace.due_at == NOW + 61
