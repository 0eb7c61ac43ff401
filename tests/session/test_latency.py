"""What a caller waits for, by the clocks of two machines."""

from __future__ import annotations

import pytest

from session.latency import MAX_APART_US, MAX_WAITED_US, Onset, TurnLatency, passed_us
from session.realtime.input_clock import InputClock

BEGAN_UNIX_US = 1_750_000_000_000_000


@pytest.mark.parametrize("passed", [0, 1, MAX_APART_US])
def test_a_difference_of_clocks_is_time_that_passed(passed: int) -> None:
    assert passed_us(5, 5 + passed) == passed


@pytest.mark.parametrize("passed", [-3_600_000_000, -1, MAX_APART_US + 1, 3_600_000_000])
def test_or_it_is_not(passed: int) -> None:
    assert passed_us(5, 5 + passed) is None


def heard_frames(n: int) -> InputClock:
    """A clock that was given so many frames, at 1 s of the call's clock, in real time."""
    clock = InputClock()
    for i in range(n):
        clock.receive(160, 1000 + 20 * i, BEGAN_UNIX_US + 20_000 * i, 0.0)
    return clock


def test_the_onset_is_on_the_calls_clock_with_what_it_took_to_be_noticed() -> None:
    latency = TurnLatency(heard_frames(10))
    latency.speech_started(7.5)
    onset = latency.onset(90, now_unix_us=BEGAN_UNIX_US + 380_000, now=7.75)
    assert onset == Onset(1090, 380_000 - 80_000, 250_000)


def test_an_onset_that_nobody_can_tell_is_none() -> None:
    latency = TurnLatency(heard_frames(10))
    assert latency.onset(None, now_unix_us=BEGAN_UNIX_US, now=9.0) == Onset(None, 0, 0)
    apart = latency.onset(90, now_unix_us=BEGAN_UNIX_US - 1, now=0.0)
    assert (apart.media_ms, apart.detection_us) == (1090, 0)


def test_the_first_audio_of_an_answer_is_timed_and_no_other() -> None:
    latency = TurnLatency(heard_frames(10))
    unanswered = [latency.unanswered]
    latency.speech_stopped(200)
    unanswered.append(latency.unanswered)
    assert latency.answered(BEGAN_UNIX_US + 680_000) == 0.5
    unanswered.append(latency.unanswered)
    assert unanswered == [False, True, False]
    assert latency.answered(BEGAN_UNIX_US + 900_000) is None


@pytest.mark.parametrize("passed", [-1, MAX_WAITED_US + 1])
def test_clocks_that_contradict_it_are_no_waiting(passed: int) -> None:
    latency = TurnLatency(heard_frames(1))
    latency.speech_stopped(20)
    assert latency.answered(BEGAN_UNIX_US + passed) is None
    assert not latency.unanswered
