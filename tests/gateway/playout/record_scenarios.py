"""The calls behind ``tests/scenarios/playout``: played once with the reference carrier, then kept.

    python -m tests.gateway.playout.record_scenarios [NAME ...]

records all of them anew, or those named. That changes their inputs; to bring only their answers up to
date, run the scenario tests with ``ASHEARD_REWRITE_SCENARIOS=1``. Whoever does either explains the difference in
the commit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.playout import Part
from gateway.playout.replay import scenario_text
from tests.gateway.playout.reference_carrier import Call, Faults, Network, Way

FOLDER = Path(__file__).parents[2] / "scenarios" / "playout"

A, B, C = Part("item_a"), Part("item_b"), Part("item_c")

NEAR = Way(20_000)
FAR = Way(150_000)
BAD = Way(150_000, 100_000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One call."""

    name: str
    prose: str
    within_ms: int
    """How near best must be to the truth, in every item."""
    play: Callable[[], Call]
    until_ms: int = 6_000


def _cut(network: Network, at_ms: int, *, length_ms: int = 2_000, seed: int = 1) -> Call:
    call = Call(network, seed=seed)
    call.say(A, 100, length_ms, chunk_ms=200)
    call.interrupt(at_ms)
    return call


def _second_barge_in() -> Call:
    call = Call(Network(FAR, FAR))
    call.say(A, 100, 2_000, chunk_ms=200)
    call.interrupt(1_000, 1)
    call.say(B, 1_040, 1_000, chunk_ms=200)
    call.interrupt(1_200, 2)
    call.say(C, 1_250, 600, chunk_ms=200)
    call.interrupt(1_260, 3)
    return call


def _several_items() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.say(A, 100, 600, chunk_ms=200)
    call.say(B, 300, 1_500, chunk_ms=200)
    call.say(C, 800, 1_000, chunk_ms=200)
    call.interrupt(1_400)
    return call


def _interleaved() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.say(A, 100, 500, chunk_ms=250, end=False)
    call.say(B, 250, 500, chunk_ms=250, end=False)
    call.say(A, 400, 500, chunk_ms=250)
    call.say(B, 550, 500, chunk_ms=250)
    call.interrupt(1_400)
    return call


def _bursts() -> Call:
    stalled = Way(30_000, stalls=((400_000, 900_000), (1_300_000, 1_700_000)))
    call = Call(Network(NEAR, stalled))
    call.say(A, 100, 3_000, chunk_ms=200)
    call.interrupt(1_500)
    return call


def _late_audio() -> Call:
    call = Call(Network(Way(30_000, stalls=((600_000, 1_300_000),)), NEAR))
    call.say(A, 100, 2_500, chunk_ms=200, speed=1.0)
    call.interrupt(1_200)
    return call


def _underruns() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.say(A, 100, 2_000, chunk_ms=250, speed=0.6)
    call.interrupt(2_300)
    return call


def _hang_up() -> Call:
    call = Call(Network(Way(60_000), Way(60_000)))
    call.say(A, 100, 1_000, chunk_ms=200)
    call.say(B, 400, 2_000, chunk_ms=200)
    call.hang_up(1_900)
    return call


def _dropped() -> Call:
    call = Call(Network(Way(60_000), Way(60_000)))
    call.say(A, 100, 2_000, chunk_ms=200)
    call.drop(1_200, plays_on_ms=300)
    return call


def _buffer_limit() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.say(A, 100, 620_000, delta_ms=20_000, speed=1_000.0, chunk_ms=20_000)
    call.say(B, 800, 2_000, delta_ms=1_000, chunk_ms=1_000)
    call.hang_up(605_000)
    return call


def _false_alarm() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.interrupt(60, 1)
    call.say(A, 100, 600, chunk_ms=200)
    call.interrupt(1_000, 2)
    return call


def _open_and_played() -> Call:
    call = Call(Network(NEAR, NEAR))
    call.say(A, 100, 500, chunk_ms=250, end=False)
    call.interrupt(1_000)
    return call


def _lost_last_echo() -> Call:
    call = Call(Network(NEAR, NEAR, Faults(silent=((515_000, 525_000), (1_315_000, 1_325_000)))))
    call.say(A, 100, 400, delta_ms=400, chunk_ms=400)
    call.say(B, 900, 400, delta_ms=400, chunk_ms=400)
    return call


def _keys() -> Call:
    call = _cut(Network(NEAR, NEAR), 1_100)
    for at_ms in (500, 700, 900, 1_110):
        call.press(at_ms)
    return call


SCENARIOS = (
    Scenario(
        "steady_delay",
        "A cut in mid-sentence on a steady line, 150 ms each way.\n"
        "\n"
        "Echoes arrive 150 ms after the fact and the clear takes as long, so at the barge-in the last\n"
        "proven mark is some 300 ms behind the flush. Differences on Twilio's clock do not care.",
        20,
        lambda: _cut(Network(FAR, FAR), 1_234),
    ),
    Scenario(
        "jitter",
        "Jitter of 150 +- 100 ms each way, every message by itself.\n"
        "\n"
        "The arrival of an echo says little. But inbound media shares its socket, so the newest timestamp\n"
        "still dates it to a frame.",
        20,
        lambda: _cut(Network(BAD, BAD, split_writes=True), 1_400, seed=3),
    ),
    Scenario(
        "echoes_late",
        "Some echoes are held back at Twilio by up to 400 ms while others pass them.\n"
        "\n"
        "A late echo puts the beginning of playback too late; an earlier one contradicts it and wins. Since\n"
        "echoes do not keep time here, the range falls back on what cannot be otherwise.",
        40,
        lambda: _cut(Network(NEAR, NEAR, Faults(late=0.3)), 1_500, seed=5),
    ),
    Scenario(
        "echoes_lost",
        "Every third echo is lost.\n"
        "\n"
        "A mark proves all before it, so a lost one is made good by the next; among the flushed ones any\n"
        "dates the flush.",
        60,
        lambda: _cut(Network(NEAR, NEAR, Faults(every_third_lost=True)), 1_380),
    ),
    Scenario(
        "echoes_repeated",
        "Every echo comes twice. The second says nothing new, before the clear as after it.",
        20,
        lambda: _cut(Network(NEAR, NEAR, Faults(repeated=1.0)), 1_290),
    ),
    Scenario(
        "echoes_never",
        "No echo ever comes.\n"
        "\n"
        "Nothing is proven: the range is all that was sent. The best guess is how long it was from the first\n"
        "audio to the clear, both by our own clock; the way there is the same for both.",
        40,
        lambda: _cut(Network(NEAR, NEAR, Faults(lost=1.0)), 1_111),
    ),
    Scenario(
        "fence_never_returns",
        "The fence is lost, all else comes.\n"
        "\n"
        "The wait ends by the timer; the burst of flushed marks dates the flush as well as the fence would.",
        20,
        lambda: _cut(Network(NEAR, NEAR, Faults(fence_lost=True)), 1_150),
    ),
    Scenario(
        "fence_lost_next_answer_plays",
        "Fence and burst are lost, and the next answer begins to play before the wait is over.\n"
        "\n"
        "Its start mark was written behind the clear, so its echo says that the clear is done.",
        60,
        lambda: _lost_fence_next_answer(),
    ),
    Scenario(
        "flush_before_echoes_in_flight",
        "The clear is done just after playback began: no playback echo is in flight, all are the clear's.\n"
        "\n"
        "Only the start mark dates something; every other echo came too early to be playback.",
        20,
        lambda: _cut(Network(FAR, FAR), 150),
    ),
    Scenario(
        "flush_between_echoes_in_flight",
        "Playback echoes are in flight when the clear is written, and more marks are pending behind them.\n"
        "\n"
        "The first that come back after the clear are playback, at their time; then comes the burst. Only\n"
        "the dates tell them apart.",
        20,
        lambda: _cut(Network(Way(250_000), Way(250_000)), 1_200),
    ),
    Scenario(
        "flush_after_echoes_in_flight",
        "All was played when the clear arrived, but its last echoes were still in flight when it was written.\n"
        "\n"
        "The clear found nothing: best is the end, and the cause is that it was played.",
        20,
        lambda: _cut(Network(FAR, FAR), 2_300),
    ),
    Scenario(
        "omitted_silence",
        "Twilio leaves inbound silence out and timestamps jump, twice, the second time over the flush.\n"
        "\n"
        "An echo in the gap lies somewhere between two readings; the local clock says where.",
        40,
        lambda: _cut(
            Network(
                Way(40_000),
                Way(40_000),
                Faults(omitted=((400_000, 900_000), (1_150_000, 1_900_000))),
            ),
            1_234,
        ),
    ),
    Scenario(
        "timestamps_step_back",
        "Timestamps step back by five seconds in mid-item, and later jump ahead by two.\n"
        "\n"
        "Neither can be: the first goes back, the second outruns real time. The call's clock goes on.",
        40,
        lambda: _cut(
            Network(
                Way(40_000), Way(40_000), Faults(shifts=((700_000, -5_000), (1_100_000, 2_000)))
            ),
            1_234,
        ),
    ),
    Scenario(
        "no_inbound_media",
        "No inbound media at all: there is only the gateway's clock, and the position says so.",
        40,
        lambda: _cut(Network(Way(40_000), Way(40_000), Faults(no_media=True)), 1_234),
    ),
    Scenario(
        "bursts",
        "The way from Twilio stalls twice; echoes and media come in bursts, the flush in the second one.\n"
        "\n"
        "Order is kept, so dates are as good as ever.",
        20,
        _bursts,
    ),
    Scenario(
        "audio_stalls",
        "The way to Twilio stalls: audio written in time arrives late, and the clear with it.\n"
        "\n"
        "Playback ran dry unseen. The marks behind the stall all come back with the flush, so best stays at\n"
        "the first of them.",
        60,
        _late_audio,
    ),
    Scenario(
        "underruns",
        "The model is slower than real time: playback runs dry between any two deltas.\n"
        "\n"
        "A start mark ahead of each delta dates when it really began, so the pauses are not counted.",
        20,
        _underruns,
    ),
    Scenario(
        "second_barge_in",
        "Three barge-ins in a quarter of a second, on a way of 300 ms there and back.\n"
        "\n"
        "Each clears what was sent since the one before. Marks of one stretch never move another; the third\n"
        "finds its item hardly begun or not at all.",
        40,
        _second_barge_in,
    ),
    Scenario(
        "several_items",
        "Three items in the queue, the second is being played when the caller cuts in.\n"
        "\n"
        "One position in the queue; each item reads its own off it: played, cut, not started.",
        20,
        _several_items,
    ),
    Scenario(
        "interleaved_parts",
        "Two parts interleaved in the queue, A B A B, cut in the second A.",
        20,
        _interleaved,
    ),
    Scenario(
        "cut_before_first_audio",
        "The barge-in comes before the item's first audio can have reached Twilio's loudspeaker.",
        40,
        lambda: _cut(Network(FAR, FAR), 102),
    ),
    Scenario(
        "cut_in_the_last_100_ms",
        "Cut 60 ms before the end: nearly all was heard, but not all, and that is what is said.",
        20,
        lambda: _cut(Network(Way(10_000), Way(10_000)), 2_040),
    ),
    Scenario(
        "played_a_moment_before_the_clear",
        "The item ends 30 ms before the clear is done; the echo of its end and the clear cross.",
        20,
        lambda: _cut(Network(Way(40_000), Way(40_000)), 2_130),
    ),
    Scenario(
        "hang_up_in_mid_sentence",
        "The caller hangs up while the second item plays. `stop` comes in order, so it has a date.",
        20,
        _hang_up,
    ),
    Scenario(
        "socket_dropped",
        "The socket is lost without `stop`, and Twilio plays on for 300 ms.\n"
        "\n"
        "Nothing dates the end: what was sent bounds the range, best is where playback was at the last word.",
        400,
        _dropped,
    ),
    Scenario(
        "buffer_limit",
        "620 s of one item at once: Twilio buffers ten minutes and throws the rest away.\n"
        "\n"
        "What was beyond the limit may never have been played, whatever its marks say; the item behind it has\n"
        "no room either. The caller hangs up five seconds after the ten minutes.",
        1_000,
        _buffer_limit,
        until_ms=610_000,
    ),
    Scenario(
        "keys_in_between",
        "The caller presses keys before and during the barge-in. They are no echoes and move nothing.",
        20,
        _keys,
    ),
    Scenario(
        "false_alarm",
        "Two barge-ins with nothing playing: before anything was said, and after all was heard.\n"
        "\n"
        "No clear is written; what there is to settle is settled at once.",
        0,
        _false_alarm,
    ),
    Scenario(
        "open_item_heard_so_far",
        "The model is still generating, but all that came of the item was heard when the caller speaks.\n"
        "\n"
        "Nothing is playing, so there is no clear; the item ends where it stands.",
        0,
        _open_and_played,
    ),
    Scenario(
        "last_echo_lost",
        "The echo of each item's end is lost.\n"
        "\n"
        "The first is proven by the second's start mark; the second, two seconds later, by the clock alone,\n"
        "and its range says so.",
        0,
        _lost_last_echo,
    ),
)


def _lost_fence_next_answer() -> Call:
    call = Call(Network(FAR, FAR, Faults(silent=((1_150_000, 1_300_000),))))
    call.say(A, 100, 2_000, chunk_ms=200)
    call.interrupt(1_100)
    call.say(B, 1_180, 500, chunk_ms=250)
    return call


def record(scenario: Scenario) -> str:
    """Play a scenario's call and write it down with its truth."""
    outcome = scenario.play().run(scenario.until_ms)
    prose = scenario.prose + "\n"
    for part, fixed in outcome.fixed().items():
        prose += (
            f"\nTruth: {part.item_id}/{part.content_index} {fixed.cause.name} "
            f"{outcome.truth_ms(part):.3f} ms, best within {scenario.within_ms} ms."
        )
    return scenario_text(outcome.trace, prose)


def main(names: list[str]) -> None:
    """Record the scenarios of these names, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        if not names or scenario.name in names:
            (FOLDER / f"{scenario.name}.txt").write_text(record(scenario))


if __name__ == "__main__":
    main(sys.argv[1:])
