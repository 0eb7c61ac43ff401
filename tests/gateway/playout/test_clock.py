"""Twilio's media clock: what it can date, and what it does when timestamps are at fault."""

from __future__ import annotations

from gateway.playout.clock import MAX_GAPS, MediaClock, Timestamp

MS = 1000
FRAME = 160


def ticking(until_ms: int, *, way_ms: int = 0, offset_ms: int = 0) -> MediaClock:
    """A clock that has heard a message each 20 ms."""
    clock = MediaClock()
    for at_ms in range(0, until_ms + 1, 20):
        clock.receive(at_ms + offset_ms, FRAME, (at_ms + way_ms) * MS)
    return clock


def test_an_echo_is_timed_to_the_frame_it_came_in() -> None:
    clock = ticking(100)
    stamp = clock.stamp(113 * MS)
    clock.receive(120, FRAME, 120 * MS)
    assert clock.timestamp(stamp) == Timestamp(100 * MS, 120 * MS)


def test_delay_and_jitter_of_the_network_do_not_move_a_timestamp() -> None:
    """The echo left 13 ms after the message of 100 ms and travels behind it, however long."""
    for way_ms in (0, 80, 250):
        clock = ticking(100, way_ms=way_ms)
        stamp = clock.stamp((100 + way_ms + 190) * MS)
        clock.receive(120, FRAME, (100 + way_ms + 190) * MS)
        assert clock.timestamp(stamp) == Timestamp(100 * MS, 120 * MS)


def test_an_echo_in_omitted_silence_is_placed_by_the_local_clock() -> None:
    clock = ticking(100, way_ms=30)
    stamp = clock.stamp(630 * MS)
    clock.receive(1_100, FRAME, 1_130 * MS)
    assert clock.timestamp(stamp) == Timestamp(600 * MS, 600 * MS, local=True)


def test_a_date_in_a_gap_does_not_pass_the_message_that_ends_it() -> None:
    clock = ticking(100)
    stamp = clock.stamp(630 * MS)
    clock.receive(500, FRAME, 640 * MS)
    assert clock.timestamp(stamp).at_us == 500 * MS


def test_while_no_message_has_followed_for_long_the_local_clock_places_an_echo() -> None:
    clock = ticking(100)
    stamp = clock.stamp(190 * MS)
    assert clock.timestamp(stamp) == Timestamp(190 * MS, 190 * MS, local=True)


def test_a_step_back_does_not_turn_the_clock_back() -> None:
    clock = ticking(1_000)
    clock.receive(20, FRAME, 1_020 * MS)
    assert clock.reading_us == 1_020 * MS
    clock.receive(40, FRAME, 1_040 * MS)
    assert clock.reading_us == 1_040 * MS


def test_a_step_back_after_a_pause_counts_the_pause() -> None:
    clock = ticking(1_000)
    clock.receive(20, FRAME, 1_700 * MS)
    assert clock.reading_us == 1_700 * MS


def test_a_jump_that_outruns_real_time_is_a_fault() -> None:
    clock = ticking(1_000, way_ms=50)
    clock.receive(9_000, FRAME, 1_070 * MS)
    assert clock.reading_us == 1_020 * MS


def test_a_jump_over_omitted_silence_is_believed() -> None:
    clock = ticking(1_000, way_ms=50)
    clock.receive(9_000, FRAME, 9_050 * MS)
    assert clock.reading_us == 9_000 * MS


def test_the_network_may_be_faster_after_a_gap_than_before() -> None:
    clock = ticking(1_000, way_ms=90)
    clock.receive(3_000, FRAME, 3_010 * MS)
    assert clock.reading_us == 3_000 * MS


def test_a_timestamp_that_comes_twice_says_nothing_new() -> None:
    clock = ticking(100)
    assert not clock.receive(100, FRAME, 111 * MS)
    assert (clock.reading_us, clock.received_us) == (100 * MS, 100 * MS)


def test_longer_messages_date_more_coarsely() -> None:
    clock = MediaClock()
    clock.receive(0, 800, 0)
    clock.receive(100, 800, 100 * MS)
    stamp = clock.stamp(110 * MS)
    clock.receive(200, 800, 200 * MS)
    assert clock.timestamp(stamp) == Timestamp(100 * MS, 200 * MS)


def test_without_media_there_is_only_the_local_clock() -> None:
    clock = MediaClock()
    assert clock.timestamp(clock.stamp(77 * MS)) == Timestamp(77 * MS, 77 * MS, local=True)


def test_what_came_before_the_first_media_is_dated_when_it_comes() -> None:
    clock = MediaClock()
    stamp = clock.stamp(30 * MS)
    clock.receive(5, FRAME, 100 * MS)
    assert clock.timestamp(stamp) == Timestamp(-65 * MS, -65 * MS, local=True)


def test_a_regular_message_is_not_worth_a_note_and_an_irregular_one_is() -> None:
    clock = ticking(100)
    assert not clock.receive(120, FRAME, 120 * MS)
    assert clock.receive(400, FRAME, 400 * MS)
    assert clock.receive(20, FRAME, 420 * MS)


def test_the_newest_gaps_are_remembered_and_no_others() -> None:
    clock = ticking(100)
    within = clock.stamp(300 * MS)
    stamps = [within]
    for number in range(1, MAX_GAPS + 1):
        at_ms = 100 + 400 * number
        clock.receive(at_ms, 160, at_ms * MS)
        stamps.append(clock.stamp((at_ms + 200) * MS))
    clock.receive(at_ms + 400, 160, (at_ms + 400) * MS)
    assert [clock.timestamp(stamp).local for stamp in stamps[:2]] == [False, True]
    assert clock.timestamp(stamps[-1]).local
