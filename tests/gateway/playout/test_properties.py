"""What must hold in every call, whatever the network, the carrier's echoes and the clocks do.

The traffic of each call is drawn by Hypothesis, so that a failure shrinks to a small call; the noise
of its network comes from a seed. The truth is the reference carrier's.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.playout import (
    Cause,
    Flushed,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PositionFixed,
    PositionsSettled,
    Rule,
)
from gateway.playout.replay import answers, rewrite, scenario_text
from tests.examples import examples
from tests.gateway.playout.random_calls import EVERYTHING, Kind, random_call
from tests.gateway.playout.reference_carrier import Call, Faults, Network, Outcome, Way

TRAFFIC = st.randoms(use_true_random=False)
NOISE = st.integers(0, 2**32)

calls = settings(
    deadline=None, max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow]
)


@calls
@given(TRAFFIC, NOISE)
def test_the_truth_lies_within_the_range(traffic: random.Random, noise: int) -> None:
    """Delay, jitter, loss, repeats, late echoes, stalls, underruns, clocks at fault: always."""
    outcome = random_call(traffic, noise, EVERYTHING)
    for part, fixed in outcome.fixed().items():
        position, truth_ms = fixed.position, outcome.truth_ms(part)
        assert position.low_ms <= truth_ms < position.high_ms + 1, (position, truth_ms)


@calls
@given(TRAFFIC, NOISE)
def test_a_range_is_in_order_and_never_beyond_what_was_sent(
    traffic: random.Random, noise: int
) -> None:
    outcome = random_call(traffic, noise, EVERYTHING)
    for fixed in outcome.fixed().values():
        p = fixed.position
        assert 0 <= p.low_ms <= p.best_ms <= p.high_ms <= p.sent_ms


@calls
@given(TRAFFIC, NOISE)
def test_each_part_is_fixed_once_and_never_moves_back(traffic: random.Random, noise: int) -> None:
    outcome = random_call(traffic, noise, EVERYTHING)
    played: dict[Part, int] = {}
    started: set[Part] = set()
    fixed: set[Part] = set()
    for event in outcome.events:
        match event:
            case PlaybackStarted():
                assert event.part not in started | fixed
                started.add(event.part)
            case PlaybackProgressed():
                assert event.part in started - fixed
                assert event.played_ms >= played.get(event.part, 0)
                played[event.part] = event.played_ms
            case PositionFixed():
                part = event.position.part
                assert part not in fixed
                fixed.add(part)
                assert event.position.low_ms >= played.get(part, 0)
                assert (part in started) == (event.position.best_ms > 0 or part in started)
            case _:
                pass


@calls
@given(TRAFFIC, NOISE)
def test_every_interrupt_is_settled_once(traffic: random.Random, noise: int) -> None:
    outcome = random_call(traffic, noise, EVERYTHING)
    settled = [e.interrupt_id for e in outcome.events if isinstance(e, PositionsSettled)]
    assert sorted(settled) == sorted(outcome.interrupted)
    flushed = [e.interrupt_id for e in outcome.events if isinstance(e, Flushed)]
    assert sorted(flushed) == sorted(outcome.fences)


@calls
@given(TRAFFIC, NOISE)
def test_a_mark_that_a_clear_returned_proves_nothing(traffic: random.Random, noise: int) -> None:
    """Low is never above the truth; a mark the carrier flushed is never the proof of a position."""
    outcome = random_call(traffic, noise, EVERYTHING)
    for part, fixed in outcome.fixed().items():
        if fixed.position.low_ms:
            assert fixed.position.low_ms <= outcome.truth_ms(part)
        if fixed.cause is Cause.CLEARED and fixed.position.evidence.rule is not Rule.NOT_STARTED:
            assert fixed.position.evidence.proven_mark not in outcome.flushed_marks


@settings(calls, max_examples=examples(60))
@given(TRAFFIC, NOISE)
def test_a_trace_replays_to_the_same_answers(traffic: random.Random, noise: int) -> None:
    outcome = random_call(traffic, noise, EVERYTHING)
    text = scenario_text(outcome.trace)
    assert answers(text) == outcome.events
    assert rewrite(text) == text


# -- how good the best estimate is ---------------------------------------------------------------


ITEM = Part("item")


def cut_once(network: Network, seed: int, *, chunk_ms: int = 60, speed: float = 4.0) -> Outcome:
    """An item of five seconds, cut somewhere."""
    call = Call(network, seed=seed)
    rng = random.Random(f"cut {seed}")
    call.say(ITEM, 200, 5_000, chunk_ms=chunk_ms, speed=speed)
    call.interrupt(rng.randint(300, 5_000))
    return call.run(12_000)


def errors_ms(network: Network, count: int, **how: float) -> list[float]:
    """|best - truth| of so many cuts, in order of size."""
    found = []
    for seed in range(count):
        outcome = cut_once(network, seed, **how)  # type: ignore[arg-type]
        position = outcome.fixed()[ITEM].position
        found.append(abs(position.best_ms - outcome.truth_ms(ITEM)))
    return sorted(found)


def share_within(errors: list[float], limit_ms: float) -> float:
    return sum(error <= limit_ms for error in errors) / len(errors)


@pytest.mark.parametrize("delay_ms", [0, 1, 20, 60, 150, 400])
@pytest.mark.parametrize("tick", [False, True], ids=["at once", "on a grid"])
def test_without_loss_best_is_within_a_frame_whatever_the_constant_delay(
    delay_ms: int, tick: bool
) -> None:
    network = Network(Way(delay_ms * 1000), Way(delay_ms * 1000), tick=tick)
    errors = errors_ms(network, 120)
    assert share_within(errors, 20) >= 0.99
    assert errors[-1] <= 40


@pytest.mark.parametrize("split_writes", [False, True], ids=["as written", "message by message"])
def test_jitter_does_not_reach_the_estimate(split_writes: bool) -> None:
    """The two echoes' jitters differ by up to 200 ms; the media clock leaves a frame of it."""
    bad = Way(150_000, 100_000)
    errors = errors_ms(Network(bad, bad, split_writes=split_writes), 200)
    assert share_within(errors, 20) >= 0.99
    assert errors[-1] <= 40


def test_without_the_media_clock_the_error_is_the_jitter_of_two_echoes() -> None:
    bad = Way(150_000, 100_000)
    errors = errors_ms(Network(bad, bad, faults=Faults(no_media=True)), 200)
    median_ms = errors[len(errors) // 2]
    assert median_ms <= 200
    with_clock = errors_ms(Network(bad, bad), 200)
    assert with_clock[len(with_clock) // 2] * 5 < median_ms


@pytest.mark.parametrize("delay_ms", [0, 40, 150])
def test_with_every_third_echo_lost_best_is_within_60_ms(delay_ms: int) -> None:
    way = Way(delay_ms * 1000)
    errors = errors_ms(Network(way, way, faults=Faults(every_third_lost=True)), 150)
    assert errors[-1] <= 60


@pytest.mark.parametrize("chunk_ms", [20, 100, 200, 500])
def test_larger_messages_cost_no_accuracy_without_loss(chunk_ms: int) -> None:
    way = Way(80_000, 20_000)
    errors = errors_ms(Network(way, way), 80, chunk_ms=chunk_ms)
    assert errors[-1] <= 40


@pytest.mark.parametrize("speed", [0.7, 1.0, 1.3])
def test_a_slow_model_costs_no_accuracy_on_a_steady_line(speed: float) -> None:
    """Start marks date each resumption, so the pauses are known."""
    way = Way(60_000)
    errors = errors_ms(Network(way, way), 100, speed=speed)
    assert errors[-1] <= 40


FAULTY: dict[str, Callable[[], Network]] = {
    "a fence that never returns": lambda: Network(
        Way(40_000), Way(40_000), Faults(fence_lost=True)
    ),
    "a step back": lambda: Network(Way(40_000), Way(40_000), Faults(shifts=((1_000_000, -5_000),))),
    "a jump that time cannot have made": lambda: Network(
        Way(40_000), Way(40_000), Faults(shifts=((1_000_000, 4_000),))
    ),
    "repeated echoes": lambda: Network(Way(40_000), Way(40_000), Faults(repeated=0.5)),
    "omitted silence": lambda: Network(
        Way(40_000), Way(40_000), Faults(omitted=((400_000, 900_000), (1_500_000, 2_600_000)))
    ),
    "no inbound media at all": lambda: Network(Way(40_000), Way(40_000), Faults(no_media=True)),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_on_a_steady_line_these_faults_cost_no_accuracy(fault: str) -> None:
    errors = errors_ms(FAULTY[fault](), 100)
    assert errors[-1] <= 40


def test_echoes_that_never_come_leave_the_gateways_own_clock() -> None:
    """How long from the first write to the clear: the network's delay cancels out."""
    errors = errors_ms(Network(Way(40_000), Way(40_000), Faults(lost=1.0)), 60)
    assert errors[-1] <= 40


def test_the_kinds_of_calls_that_are_drawn_do_happen() -> None:
    """So that the properties above are not about nothing."""
    causes, rules, interrupts = set(), set(), 0
    for seed in range(150):
        outcome = random_call(random.Random(seed), seed, Kind())
        interrupts += len(outcome.fences)
        for fixed in outcome.fixed().values():
            causes.add(fixed.cause)
            rules.add(fixed.position.evidence.rule)
    assert causes == set(Cause)
    assert rules == set(Rule)
    assert interrupts > 75
