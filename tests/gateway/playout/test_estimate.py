"""The rules at the top of ``gateway/playout/estimate.py``, one or two tests each."""

from __future__ import annotations

import pytest

from gateway.playout import Cause, Rule, TimedBy
from tests.gateway.playout.stage import A, B, Stage, names


def playing(*chunks_ms: int) -> Stage:
    """An item sent at 100 ms; nothing echoed yet."""
    stage = Stage().to(100)
    stage.send(*chunks_ms)
    return stage


# -- the range: R1, R2, R3 ------------------------------------------------------------------------


def test_low_is_what_was_echoed_before_the_clear_was_written() -> None:
    """R1. The end of the second message comes back after the clear: that may be the clear's."""
    stage = playing(100, 100, 100).play(299, since_ms=100)
    fence = stage.interrupt()
    stage.to(303).flush(fence).to(340)
    low, best, _ = stage.range()
    assert low == 100
    assert 180 <= best <= 220


def test_high_is_what_had_time_to_sound_since_it_was_sent() -> None:
    """R2. 50 ms after it was sent no more than 50 ms and a frame can have been played."""
    stage = playing(1_000).to(150)
    stage.flush(stage.interrupt()).to(200)
    assert stage.range()[2] == 70


def test_high_is_bound_by_the_first_mark_that_came_before_its_audio_could_have_sounded() -> None:
    """R2. The fence is 400 ms late; a mark that came too early says when the clear was done."""
    stage = playing(300, 300).to(150)
    fence = stage.interrupt()
    stage.to(160).flush().to(560).echo(str(fence)).to(600)
    assert stage.range()[2] <= 80


def test_high_holds_though_the_fence_never_comes() -> None:
    """Without any proof of when the clear was done, all that was sent may have been played."""
    stage = playing(300).to(150)
    assert stage.interrupt() is not None
    stage.timer()
    assert stage.range()[0::2] == (0, 300)


def test_punctual_echoes_prove_by_their_timestamps() -> None:
    """R3. Echoes keep time; the clear takes 240 ms to arrive, and two more come before it does."""
    stage = playing(600, *[100] * 8).play(1_110, since_ms=100)
    fence = stage.interrupt()
    stage.play(1_350, since_ms=100).flush(fence).to(1_400)
    low, best, high = stage.range()
    assert 1_060 <= low <= 1_250  # R1 alone says 1000
    assert 1_250 <= high < 1_310
    assert abs(best - 1_250) <= 20


def test_one_echo_out_of_order_and_timestamps_prove_nothing() -> None:
    """R3. The same call, but one echo was overtaken by the next: R1 and R2 alone."""
    stage = Stage().to(100)
    marks = names(stage.send(600, *[100] * 8))
    stage.echo(marks[0]).to(700).echo(marks[1])
    stage.to(900).echo(marks[3], marks[2])
    stage.to(1_000).echo(marks[4]).to(1_100).echo(marks[5])
    fence = stage.to(1_110).interrupt()
    stage.to(1_200).echo(marks[6]).to(1_300).echo(marks[7])
    stage.to(1_350).echo(*marks[8:], str(fence)).to(1_400)
    assert stage.range()[0] == 1_000


def test_an_echo_out_of_order_behind_the_clear_counts_as_well() -> None:
    """R3. The punctual call, but the two echoes in flight change places."""
    stage = Stage().to(100)
    marks = names(stage.send(600, *[100] * 8))
    stage.play(1_110, since_ms=100)
    fence = stage.interrupt()
    stage.to(1_200).echo(marks[7]).to(1_300).echo(marks[6])
    stage.to(1_350).echo(*marks[8:], str(fence)).to(1_400)
    assert stage.range()[0] == 1_000


@pytest.mark.parametrize("late_ms", [0, 150])
def test_one_echo_out_of_time_and_dates_prove_nothing(late_ms: int) -> None:
    """R3. In order, but the last echo before the clear is late; B1 leaves it out."""
    stage = Stage().to(100)
    marks = names(stage.send(600, *[100] * 8))
    stage.to(400).echo(marks[0])
    for index in range(5):
        stage.to(1_000 + 100 * index).echo(marks[1 + index])
    stage.to(1_500 + late_ms).echo(marks[6])
    fence = stage.to(1_660).interrupt()
    stage.to(1_700).echo(*marks[7:], str(fence)).to(1_740)
    high = stage.range()[2]
    assert high == 1_400 if late_ms else high < 1_350


# -- best: B1 to B6 -------------------------------------------------------------------------------


def test_a_late_echo_is_contradicted_by_an_earlier_one() -> None:
    """B1. The last echo before the clear is 150 ms late; the ones before it say so."""
    stage = Stage().to(100)
    marks = names(stage.send(600, *[100] * 8))
    stage.echo(marks[0]).to(700).echo(marks[1]).to(800).echo(marks[2])
    stage.to(1_050).echo(marks[3])
    fence = stage.to(1_060).interrupt()
    stage.to(1_080).echo(*marks[5:], str(fence)).to(1_120)
    assert abs(stage.range()[1] - 980) <= 20
    assert stage.fixed().position.evidence.rule is Rule.MEDIA_CLOCK


def test_the_first_echo_that_comes_too_early_times_the_flush() -> None:
    """B2. The fence comes 200 ms later, which would be 200 ms too much."""
    stage = playing(300, 300, 300).play(250, since_ms=100)
    fence = stage.interrupt()
    stage.to(260).flush().to(460).echo(str(fence)).to(500)
    assert abs(stage.range()[1] - 160) <= 20
    assert stage.flushed().timed_by is TimedBy.BURST
    assert stage.flushed().at_ms == 260


def test_of_a_burst_the_earliest_echo_counts() -> None:
    """B2. Its first mark is held back by 100 ms; those behind it were flushed as well."""
    stage = Stage().to(100)
    marks = names(stage.send(600, 300, 300))
    stage.echo(marks[0])
    fence = stage.to(250).interrupt()
    stage.to(260).echo(*marks[2:])
    stage.to(360).echo(marks[1], str(fence)).to(400)
    assert abs(stage.range()[1] - 160) <= 20


def test_without_a_burst_the_fence_times_the_flush() -> None:
    """B3. Every flushed mark is lost."""
    stage = playing(300, 300).play(250, since_ms=100)
    fence = stage.interrupt()
    stage.to(260).echo(str(fence)).to(300)
    assert abs(stage.range()[1] - 160) <= 20
    assert stage.flushed().timed_by is TimedBy.FENCE


def test_a_lost_fence_is_made_up_for_by_the_round_trip() -> None:
    """B3. The round trip of the start mark took 60 ms, and so did the clear."""
    stage = playing(300, 300).play(300, since_ms=160)
    assert stage.interrupt() is not None
    stage.timer()
    assert abs(stage.range()[1] - 200) <= 20
    flushed = stage.flushed()
    assert (flushed.at_ms, flushed.timed_by) == (None, TimedBy.NOTHING)


def test_an_underrun_does_not_count_as_playback() -> None:
    """B4. 200 ms of audio, a pause of 300 ms, 200 ms more; the clear is done 100 ms into those."""
    stage = playing(200).play(600, since_ms=100)
    more = stage.send(200)
    assert more[0].marks_before
    stage.play(700, since_ms=400)
    stage.flush(stage.interrupt()).to(740)
    assert abs(stage.range()[1] - 300) <= 20


def test_an_underrun_is_known_though_its_start_mark_is_lost() -> None:
    """B4. Then from when it was sent, and the round trip."""
    stage = playing(200).play(600, since_ms=140)
    ((_, end),) = [names([one]) for one in stage.send(200)]
    fence = stage.to(700).interrupt()
    stage.to(740).echo(end, str(fence)).to(780)
    assert abs(stage.range()[1] - 300) <= 20


def test_best_does_not_pass_the_first_mark_of_the_burst() -> None:
    """B4. By the clock playback should be at 900 ms; the mark at 700 came back with the flush."""
    stage = playing(600, 100, 100, 100, 100).play(790, since_ms=100)
    stage.to(1_000)
    stage.flush(stage.interrupt()).to(1_040)
    assert stage.range()[1] == 700


def test_one_silent_mark_before_a_hang_up_is_a_lost_echo() -> None:
    """B5."""
    stage = playing(600, 100, 100, 100, 100).play(790, since_ms=100)
    stage.to(890).stop()
    assert abs(stage.range()[1] - 790) <= 20


def test_a_stall_before_a_hang_up_holds_best_at_the_second_silent_mark() -> None:
    """B5."""
    stage = playing(600, 100, 100, 100, 100).play(790, since_ms=100)
    stage.to(1_080).stop()
    assert stage.range()[1] == 800
    assert stage.fixed().cause is Cause.HUNG_UP


def test_a_dropped_socket_leaves_the_last_word_and_an_open_end() -> None:
    """B6."""
    stage = playing(600, 600).play(400, since_ms=100)
    stage.drop()
    low, best, high = stage.range()
    assert (low, high) == (0, 1_200)
    assert abs(best - 300) <= 20
    assert stage.fixed().position.evidence.rule is Rule.PROVEN_ONLY
    assert stage.fixed().cause is Cause.DROPPED


# -- which rule is said ---------------------------------------------------------------------------


def test_without_media_the_local_clock_is_said_to_have_decided() -> None:
    stage = Stage(media=False).to(100)
    stage.send(300, 300)
    stage.play(250, since_ms=100)
    stage.flush(stage.interrupt())
    assert stage.range()[1] == 150
    assert stage.fixed().position.evidence.rule is Rule.LOCAL_CLOCK


def test_what_was_not_reached_has_not_started() -> None:
    stage = playing(300, 300)
    stage.send(300, part=B)
    stage.play(250, since_ms=100)
    stage.flush(stage.interrupt()).to(300)
    assert stage.range(B) == (0, 0, 0)
    fixed = stage.fixed(B)
    assert fixed.position.evidence.rule is Rule.NOT_STARTED
    assert (fixed.at_ms, fixed.position.sent_ms) == (None, 300)


def test_a_part_that_ended_in_flight_was_played_and_is_not_cut() -> None:
    """Echoes take 100 ms: that of A's end and of B's start come after the clear was written."""
    stage = Stage().to(100)
    stage.send(200, 600)
    stage.end()
    stage.send(300, part=B)
    stage.play(950, since_ms=100, way_ms=100)
    fence = stage.interrupt()
    stage.play(1_100, since_ms=100, way_ms=100).flush(fence).to(1_140)
    played, cut = stage.fixed(A), stage.fixed(B)
    assert (played.cause, played.interrupt_id, played.position.best_ms) == (Cause.PLAYED, 0, 800)
    assert (cut.cause, cut.interrupt_id) == (Cause.CLEARED, 1)
    assert abs(cut.position.best_ms - 100) <= 20


@pytest.mark.parametrize("ended", [False, True])
def test_a_proven_end_needs_no_estimate(ended: bool) -> None:
    stage = playing(200)
    if ended:
        stage.end()
    stage.play(400, since_ms=100)
    assert stage.interrupt() is None
    fixed = stage.fixed()
    assert stage.range() == (200, 200, 200)
    assert fixed.position.evidence.rule is (Rule.PLAYED_TO_END if ended else Rule.MARK)
    assert fixed.cause is (Cause.PLAYED if ended else Cause.CLEARED)
    assert fixed.at_ms == 300
