"""Waits between attempts."""

from __future__ import annotations

from runtime.backoff import Backoff


def test_waits_double_up_to_the_maximum_and_are_shortened_by_a_half_at_most() -> None:
    backoff = Backoff(0.1, 1.0)
    waits = [backoff.next_s() for _ in range(6)]
    for wait_s, full_s in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
        assert full_s / 2 <= wait_s <= full_s


def test_after_a_success_the_first_wait_is_short_again() -> None:
    backoff = Backoff(0.1, 1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_many_do_not_wait_in_step() -> None:
    waits = {Backoff(1.0, 5.0).next_s() for _ in range(50)}
    assert len(waits) > 40
