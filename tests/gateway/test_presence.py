"""The tables at the top of ``gateway/presence.py``, row by row."""

from __future__ import annotations

import pytest

from gateway.playout.clock import MediaClock
from gateway.presence import (
    ANSWER_US,
    QUIET_US,
    STOOD_STILL_US,
    STOP_WAIT_US,
    Ask,
    GoesOn,
    Presence,
    Stopped,
    Vanished,
    Verdict,
)


def until(presence: Presence, us: int, *, idle: bool = True) -> list[tuple[int, Verdict]]:
    """Let time pass up to and with ``us``, without a late look; what is said when."""
    said: list[tuple[int, Verdict]] = []
    while (due_us := presence.next_timer_us()) <= us:
        verdict = presence.handle_timer(due_us, idle=idle)
        if verdict is not None:
            said.append((due_us, verdict))
        if isinstance(verdict, Stopped | Vanished):
            break
    return said


def test_a_quiet_stream_is_asked_and_given_up_without_an_answer() -> None:
    assert until(Presence(MediaClock()), 2 * QUIET_US) == [
        (QUIET_US, Ask("w1")),
        (QUIET_US + ANSWER_US, Vanished((QUIET_US + ANSWER_US) // 1_000_000)),
    ]


def test_marks_under_way_need_no_question_and_may_still_not_come() -> None:
    assert until(Presence(MediaClock()), 2 * QUIET_US, idle=False) == [
        (QUIET_US + ANSWER_US, Vanished((QUIET_US + ANSWER_US) // 1_000_000))
    ]


@pytest.mark.parametrize("by_media", [False, True])
def test_what_comes_begins_the_quiet_anew(by_media: bool) -> None:
    clock = MediaClock()
    presence = Presence(clock)
    heard_us = 10_000_000
    if by_media:
        clock.receive(0, 160, heard_us)
    else:
        presence.heard_us = heard_us
    assert until(presence, heard_us + QUIET_US) == [(heard_us + QUIET_US, Ask("w1"))]
    presence.heard_us = answered_us = heard_us + QUIET_US + ANSWER_US // 2
    assert until(presence, answered_us + QUIET_US) == [(answered_us + QUIET_US, Ask("w2"))]


def test_a_late_look_says_nothing_of_the_peer() -> None:
    presence = Presence(MediaClock())
    assert until(presence, QUIET_US) == [(QUIET_US, Ask("w1"))]
    late_us = QUIET_US + ANSWER_US + STOOD_STILL_US + 1
    assert presence.handle_timer(late_us, idle=True) is None
    assert presence.next_timer_us() == late_us + STOOD_STILL_US
    assert isinstance(presence.handle_timer(late_us + STOOD_STILL_US, idle=True), Vanished)


@pytest.mark.parametrize("heard_after_us", [0, STOP_WAIT_US // 2])
def test_a_callback_of_an_error_is_right_when_nothing_more_comes(heard_after_us: int) -> None:
    presence = Presence(MediaClock())
    presence.stream_failed(1_000_000)
    presence.heard_us = 1_000_000 + heard_after_us
    assert until(presence, QUIET_US) == [(1_000_000 + STOP_WAIT_US, Stopped())]


def test_a_stream_that_goes_on_after_an_error_may_be_called_over_again() -> None:
    presence = Presence(MediaClock())
    presence.stream_failed(1_000_000)
    presence.stream_stopped(1_500_000)  # ignored: the first one is waited for
    presence.heard_us = 1_000_000 + STOP_WAIT_US // 2 + 1
    assert until(presence, 4_000_000) == [(1_000_000 + STOP_WAIT_US, GoesOn())]
    presence.stream_stopped(5_000_000)
    presence.heard_us = 5_000_000 + STOP_WAIT_US - 1
    assert until(presence, QUIET_US) == [(5_000_000 + STOP_WAIT_US, Stopped())], "whatever comes"
