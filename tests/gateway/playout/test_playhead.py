"""The machine's own rules (M1 to M5 in ``gateway/playout/playhead.py``) and its manners."""

from __future__ import annotations

import pytest

from gateway.playout import (
    Cause,
    PlaybackProgressed,
    PlaybackStarted,
    Playhead,
    PositionFixed,
    Rule,
    TimedBy,
    TraceKind,
)
from tests.gateway.playout.stage import A, B, Stage, names


def idle(stage: Stage) -> bool:
    return stage.head.idle


# -- M1: marks ------------------------------------------------------------------------------------


def test_a_mark_goes_behind_every_message_and_a_start_mark_ahead_of_a_part() -> None:
    stage = Stage().to(100)
    first, second = stage.send(600, 100)
    (third,) = stage.send(100, part=B)
    assert (len(first.marks_before), len(first.marks_after)) == (1, 1)
    assert (second.marks_before, len(second.marks_after)) == ((), 1)
    assert (len(third.marks_before), len(third.marks_after)) == (1, 1)


def test_audio_that_may_come_too_late_gets_a_start_mark() -> None:
    """Less than half a second ahead of what plays is no safe lead on a bad network."""
    stage = Stage().to(100)
    stage.send(1_000)
    assert stage.to(550).send(100)[0].marks_before == ()
    assert len(stage.to(800).send(100)[0].marks_before) == 1


def test_names_are_unique_over_the_stream() -> None:
    stage = Stage().to(100)
    seen = names(stage.send(100, 100))
    fence = stage.interrupt()
    seen += [str(fence), *names(stage.send(100, 100, part=B))]
    assert len(set(seen)) == len(seen)


def test_no_audio_is_no_message() -> None:
    sent = Stage().send(0)[0]
    assert (sent.marks_before, sent.marks_after) == ((), ())


def test_negative_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="audio_bytes must not be negative, got -1"):
        Playhead().send(A, -1, now_us=0)


# -- M2: stretches --------------------------------------------------------------------------------


def test_marks_of_a_cleared_stretch_never_move_the_next_one() -> None:
    stage = Stage().to(100)
    old = names(stage.send(300, 300))
    stage.echo(old[0])
    fence = stage.to(200).interrupt()
    new = names(stage.send(300, part=B))
    stage.to(210).echo(*old[1:])
    assert not idle(stage)
    stage.echo(str(fence), new[0]).to(260)
    stage.to(300).echo(*old)  # once more, for good measure
    stage.stop()
    assert stage.fixed(B).position.low_ms == 0
    assert stage.head.counts.repeated_echoes > 0


def test_a_second_interrupt_with_nothing_new_sent_is_settled_at_once() -> None:
    stage = Stage().to(100)
    stage.send(300)
    assert stage.interrupt(1) is not None
    assert stage.interrupt(2) is None
    assert stage.settled() == [2]


def test_audio_of_a_cleared_part_is_not_reported_again() -> None:
    """The shell should not have sent it; its time in the queue counts all the same."""
    stage = Stage().to(100)
    old = names(stage.send(300))
    stage.echo(old[0])
    fence = stage.to(200).interrupt()
    stage.echo(*old[1:], str(fence)).to(240)
    stray = names(stage.send(100, part=A))
    good = names(stage.send(100, part=B))
    stage.echo(stray[0]).to(340).echo(stray[1], good[0]).to(440).echo(good[1]).end(B)
    assert stage.fixed(A).position.sent_ms == 300
    assert stage.fixed(B).position.low_ms == 100
    assert stage.head.counts.stray_bytes == 800


def test_audio_of_a_part_that_is_being_cleared_is_not_reported_again() -> None:
    """The same while the fence is still under way."""
    stage = Stage().to(100)
    stage.send(300)
    stage.play(200, since_ms=100)
    fence = stage.interrupt()
    stray = names(stage.send(100, part=A))
    stage.flush().echo(str(fence)).to(240).echo(*stray).to(300).end(A).stop()
    assert stage.fixed(A).position.sent_ms == 300


def test_a_stream_that_had_a_late_echo_is_not_trusted_in_its_next_stretch() -> None:
    """Dates prove nothing there (R3): low stays at what was echoed before the clear was written."""
    lows = []
    for late in (False, True):
        stage = Stage().to(100)
        marks = names(stage.send(600, 100))
        kept = marks.pop(1) if late else ""
        stage.echo(marks[0]).to(700)
        if not late:
            stage.echo(marks[1])
        stage.to(800).echo(marks[-1], *([kept] if late else []))
        stage.send(100)
        stage.flush(stage.interrupt(1)).to(1_000)
        new = names(stage.send(600, *[100] * 8, part=B))
        stage.echo(new[0])
        for index, name in enumerate(new[1:6]):
            stage.to(1_600 + 100 * index).echo(name)
        fence = stage.to(2_010).interrupt(2)
        stage.to(2_100).echo(new[6]).to(2_200).echo(new[7])
        stage.to(2_290).echo(*new[8:], str(fence)).to(2_340)
        lows.append(stage.range(B)[0])
    assert lows[1] == 1_000 < lows[0]


# -- M3: settling ---------------------------------------------------------------------------------


def test_the_fence_settles_when_the_next_media_message_has_dated_it() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    fence = stage.to(150).interrupt()
    stage.to(155).echo(*marks, str(fence))
    assert stage.settled() == []
    stage.to(160)
    assert stage.settled() == [1]


def test_without_further_media_the_fence_waits_three_frames() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    fence = stage.to(150).interrupt()
    stage.to(155).echo(*marks, str(fence))
    assert stage.head.next_timer_us() == 215_000
    stage.omit(215)
    stage.head.handle_timer(now_us=215_000)
    assert [e for e in stage.head.events() if isinstance(e, PositionFixed)]


def test_a_fence_that_does_not_return_is_waited_for_beyond_the_slowest_way_only() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300, 300))
    stage.to(180).echo(marks[0])
    assert stage.to(250).interrupt() is not None
    assert stage.head.next_timer_us() == (250 + 80 + 300) * 1000
    stage.timer()
    assert stage.settled() == [1]


def test_a_fence_that_comes_after_its_time_is_counted_and_moves_nothing() -> None:
    stage = Stage().to(100)
    stage.send(300)
    fence = stage.to(150).interrupt()
    stage.timer()
    before = stage.fixed()
    stage.to(stage.now_ms + 100).echo(str(fence)).to(stage.now_ms + 40)
    assert stage.fixed() == before
    assert stage.settled() == [1]
    assert stage.head.counts.late_echoes == 1


def test_an_echo_of_the_next_answer_does_the_fences_work() -> None:
    stage = Stage().to(100)
    old = names(stage.send(300))
    stage.echo(old[0])
    assert stage.to(200).interrupt() is not None
    new = names(stage.to(210).send(300, part=B))
    stage.to(230).echo(new[0])
    assert stage.settled() == [1]
    assert stage.flushed().timed_by is TimedBy.LATER_ECHO
    assert abs(stage.range()[1] - 100) <= 20


def test_fences_settle_in_the_order_of_their_interrupts() -> None:
    stage = Stage().to(100)
    stage.send(300)
    assert stage.interrupt(1) is not None
    stage.send(300, part=B)
    second = stage.to(120).interrupt(2)
    stage.to(140).echo(str(second)).to(180)
    assert stage.settled() == [1, 2]


def test_a_hang_up_settles_what_is_being_cleared() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    stage.echo(marks[0])
    assert stage.to(200).interrupt() is not None
    stage.to(210).stop()
    assert stage.settled() == [1]
    assert stage.fixed().cause is Cause.CLEARED
    assert stage.range()[2] <= 140


# -- M4: fixing -----------------------------------------------------------------------------------


def test_a_part_is_fixed_when_its_end_is_both_said_and_proven() -> None:
    said_first = Stage().to(100)
    marks = names(said_first.send(100))
    said_first.end().echo(marks[0]).to(200).echo(marks[1])
    proven_first = Stage().to(100)
    marks = names(proven_first.send(100))
    proven_first.echo(marks[0]).to(200).echo(marks[1])
    assert proven_first.settled() == []
    proven_first.to(300).end()
    for stage in (said_first, proven_first):
        fixed = stage.fixed()
        assert (fixed.cause, fixed.at_ms, fixed.interrupt_id) == (Cause.PLAYED, 200, 0)
        assert fixed.position.evidence.rule is Rule.PLAYED_TO_END


def test_a_false_alarm_clears_nothing_and_is_settled_at_once() -> None:
    stage = Stage().to(100)
    assert stage.interrupt(7) is None
    assert stage.settled() == [7]


def test_a_flush_that_threw_nothing_away_says_so() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(100))
    stage.end().echo(marks[0])
    fence = stage.to(210).interrupt()
    stage.to(220).echo(marks[1]).to(300).echo(str(fence)).to(340)
    assert stage.flushed().unheard_ms == 0
    assert stage.fixed().cause is Cause.PLAYED


def test_an_end_that_was_proven_by_a_later_mark_lies_where_the_audio_ended() -> None:
    stage = Stage().to(100)
    first = names(stage.send(200))
    stage.end()
    stage.echo(first[0])
    second = names(stage.to(900).send(100, part=B))
    stage.echo(second[0])
    assert stage.fixed().at_ms == 300


def test_nothing_is_fixed_twice_after_the_end() -> None:
    stage = Stage().to(100)
    stage.send(300)
    stage.to(200).stop()
    events = list(stage.events)
    stage.echo("p2").stop().drop().end()
    assert stage.interrupt(3) is None
    assert stage.send(100)[0].marks_after == ()
    assert stage.events == events
    assert stage.head.next_timer_us() is None


# -- M5: a lost last echo -------------------------------------------------------------------------


def test_a_last_echo_that_is_two_seconds_overdue_is_presumed() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    stage.end().echo(marks[0])
    assert not idle(stage)
    assert stage.head.next_timer_us() == 2_400_000
    stage.timer()
    fixed = stage.fixed()
    assert stage.range() == (0, 300, 300)
    assert (fixed.cause, fixed.at_ms) == (Cause.PLAYED, 400)
    assert idle(stage)
    assert stage.head.next_timer_us() is None


def test_what_is_only_presumed_is_still_cleared_at_a_barge_in() -> None:
    """If it was a stall after all, the caller must not be talked over."""
    stage = Stage().to(100)
    stage.send(300)
    stage.end().timer()
    assert stage.interrupt() is not None


def test_a_part_whose_end_is_said_after_it_was_overdue_is_presumed_then() -> None:
    stage = Stage().to(100)
    stage.send(300)
    stage.timer()
    assert stage.settled() == []
    stage.to(4_000).end().timer()
    assert stage.range() == (0, 300, 300)


def test_its_echo_may_still_come() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    stage.end().timer()
    before = list(stage.events)
    stage.to(4_000).echo(*marks)
    assert stage.events == before
    assert stage.interrupt() is None


# -- what is told while it goes on ----------------------------------------------------------------


def test_start_and_progress_are_told_and_few() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(600, *[100] * 40))
    stage.echo(marks[0]).to(700).echo(marks[1])
    for index, name in enumerate(marks[2:]):
        stage.to(800 + 100 * index).echo(name)
    started = [e for e in stage.events if isinstance(e, PlaybackStarted)]
    progress = [e for e in stage.events if isinstance(e, PlaybackProgressed)]
    assert [e.at_ms for e in started] == [100]
    assert [e.played_ms for e in progress] == [1_000, 2_000, 3_000, 4_000]
    assert progress[0].at_ms == 1_100


def test_a_start_whose_mark_was_lost_is_reckoned_from_the_first_echo() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(200))
    stage.to(300).echo(marks[1])
    assert [e.at_ms for e in stage.events if isinstance(e, PlaybackStarted)] == [100]


def test_idle_is_when_all_that_was_sent_is_proven() -> None:
    stage = Stage().to(100)
    assert idle(stage)
    marks = names(stage.send(100))
    assert not idle(stage)
    stage.echo(marks[0]).to(200).echo(marks[1])
    assert idle(stage)


def test_unknown_names_are_counted_and_do_no_harm() -> None:
    stage = Stage().to(100)
    stage.send(100)
    stage.echo("responsePart", "", "p", "p99", "s0", "pö")
    assert stage.head.counts.unknown_echoes == 6


def test_missed_echoes_are_counted_and_late_ones_too() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(600, 100))
    stage.to(800).echo(marks[2])
    assert stage.head.counts.missed_echoes == 2
    stage.echo(marks[0])
    assert stage.head.counts.late_echoes == 1


def test_room_shrinks_with_what_is_unproven_and_comes_back() -> None:
    stage = Stage().to(100)
    whole = stage.head.room_bytes
    assert whole == 600 * 8_000
    marks = names(stage.send(1_000))
    assert stage.head.room_bytes == whole - 8_000
    stage.to(1_100).echo(marks[1])
    assert stage.head.room_bytes == whole


def test_beyond_ten_minutes_nothing_counts_as_heard() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(599_000, 2_000))
    stage.end().to(700_000).echo(*marks)
    position = stage.fixed().position
    assert (position.low_ms, position.best_ms, position.high_ms) == (599_000, 599_000, 601_000)
    assert position.evidence.rule is Rule.PROVEN_ONLY


# -- trace ----------------------------------------------------------------------------------------


def test_the_trace_has_every_input_but_regular_media() -> None:
    stage = Stage().to(100)
    marks = names(stage.send(300))
    stage.end().to(160).echo(marks[0])
    stage.interrupt(9)
    stage.stop()
    kinds = [event.kind for event in stage.head.trace()]
    assert kinds == [
        TraceKind.MEDIA,
        TraceKind.MEDIA,
        TraceKind.SENT,
        TraceKind.ENDED,
        TraceKind.ECHOED,
        TraceKind.CLEARED,
        TraceKind.STOPPED,
    ]
    assert stage.head.trace() == []


def test_an_irregular_media_message_is_traced_with_the_one_before() -> None:
    stage = Stage().to(100)
    stage.head.trace()
    stage.head.receive_media(5_000, 160, now_us=5_000_000)
    before, jump = stage.head.trace()
    assert (before.media_ms, before.media_us) == (100, 100_000)
    assert (jump.media_ms, jump.media_us) == (5_000, 5_000_000)
