"""Where playback stopped: from marks, echoes and timestamps to a position with its range.

The range rests on what cannot be otherwise; the best estimate rests on Twilio's media clock. So a
clock at fault or an unpunctual echo moves the estimate within the range, never the truth out of it.
Behind each rule stands its test, all in ``tests/gateway/playout/test_estimate.py``.

The range
 R1 **An echo that came before the clear was written is playback**: all before its mark was played.
    No later echo proves that, for the clear itself returns every mark.
    (test_low_is_what_was_echoed_before_the_clear_was_written)
 R2 **Nothing sounds before it is sent, nor faster than real time.** A mark echoed before its audio
    can have sounded was flushed, and so the clear was done by then; until then, no more can have
    been played than had time to sound. Both by the gateway's own clock.
    (test_high_is_what_had_time_to_sound_since_it_was_sent,
    test_high_is_bound_by_the_first_mark_that_came_before_its_audio_could_have_sounded)
 R3 **While echoes keep time, timestamps prove as well.** If the last four or more echoes of a
    segment agree on when it began, the range shrinks to what timestamps allow: echoes that came
    well before the burst were playback in flight, and no more was played than the media clock
    leaves time for. One echo out of order or out of time, and R1 and R2 stand alone.
    (test_punctual_echoes_prove_by_their_timestamps,
    test_one_echo_out_of_order_and_timestamps_prove_nothing)

The best estimate
 B1 **A segment began when its echoes say**: an echo at time T of a mark at p puts the beginning at
    T - p, within a frame. They are intersected; a late echo puts it too late and is left out,
    because an earlier one contradicts it. (test_a_late_echo_is_contradicted_by_an_earlier_one)
 B2 **A mark echoed too early was flushed.** After the last proven echo, marks are taken in order;
    one that came before playback can have reached it is the first of the burst, and the earliest
    time of the burst is the flush. (test_the_first_echo_that_comes_too_early_times_the_flush,
    test_of_a_burst_the_earliest_echo_counts)
 B3 **Without such an echo the fence times the flush**; it follows the clear at once. Without the
    fence, the clear's writing and the measured round trip do.
    (test_without_a_burst_the_fence_times_the_flush,
    test_a_lost_fence_is_made_up_for_by_the_round_trip)
 B4 **The position is what had time to sound between the beginning and the flush**, less the pauses
    where audio came too late; not before a mark echoed before the burst, not beyond the first
    mark of the burst, not beyond what was sent. (test_an_underrun_does_not_count_as_playback,
    test_an_underrun_is_known_though_its_start_mark_is_lost,
    test_best_does_not_pass_the_first_mark_of_the_burst)
 B5 **One missing echo is a lost one, two in a row are a stall**: at a hang-up, where no burst tells
    what was pending, best does not pass the second mark that is silent.
    (test_one_silent_mark_before_a_hang_up_is_a_lost_echo,
    test_a_stall_before_a_hang_up_holds_best_at_the_second_silent_mark)
 B6 **A lost socket has no timestamp.** Best is where playback was at the last word we had.
    (test_a_dropped_socket_leaves_the_last_word_and_an_open_end)
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.playout.clock import MediaClock, Stamp, Timestamp
from gateway.playout.positions import US_PER_BYTE, Rule, TimedBy
from gateway.playout.stretch import ECHOES_KEPT, Chunk, Mark, Stretch

FRAME_US = 20_000
"""What Twilio's playout and its media messages are cut into."""

DRIFT = 5_000
"""Two crystals may run apart by one part in so many (200 ppm, twice what the worst may)."""

PUNCTUAL_ECHOES = 4
"""So many agreeing echoes make timestamps proof (R3). With every third echo late by 0 to 400 ms,
four late ones agree within a frame, and none that is in time among them, about once in a
million."""

RAGGED_US = 2_000
"""Echoes may be rounded to whole milliseconds by Twilio and still agree."""

LOCAL_DOUBT_US = 100_000
"""Without the media clock an arrival is out by the network's jitter; so much of it is allowed for
before an echo counts as too early."""

BURST_US = 2 * FRAME_US
"""Echoes whose timestamps lie closer together may have come from one burst."""


class Ending(enum.Enum):
    """What stopped playback."""

    CLEAR = enum.auto()
    STOP = enum.auto()
    DROP = enum.auto()


@dataclass(frozen=True, slots=True)
class Stop:
    """What is known of the end of a stretch."""

    ending: Ending
    written: Stamp
    """When the clear was written; at a hang-up or a drop, when we heard of it."""
    fence: Stamp | None = None
    """When the fence came back; or, for want of it, an echo of something written later."""
    fence_is_later_echo: bool = False
    round_trip_us: int | None = None
    """As last measured on the media clock. None: never."""


@dataclass(frozen=True, slots=True)
class StretchPosition:
    """How far a stretch was played, in bytes of it."""

    low: int
    best: int
    high: int
    rule: Rule
    timed_by: TimedBy
    stopped: Timestamp | None
    """When playback stopped. None: unknown."""
    proven: Mark | None
    """The mark that proves ``low``, if its echo is available."""
    flight: tuple[tuple[Mark, Timestamp], ...]
    """The echoes that were taken for playback in flight, in order."""
    line: Line | None
    """How the last segment played. None: not known."""


@dataclass(frozen=True, slots=True)
class Line:
    """When byte 0 of the stretch would have begun, had all been like the present segment."""

    earliest_us: int
    latest_us: int
    echoes: int
    """How many agree."""
    late: int
    """How many do not."""
    local: bool

    @property
    def origin_us(self) -> int:
        """The middle."""
        return (self.earliest_us + self.latest_us) // 2

    def reaches_us(self, at: int) -> int:
        """When playback reaches a position of this segment."""
        return self.origin_us + at * US_PER_BYTE


def line_through(echoes: Iterable[tuple[int, Timestamp]]) -> Line | None:
    """Intersect what each echo of one segment, (position, timestamp), says about its beginning
    (B1)."""
    timed = list(echoes)
    if not timed:
        return None
    by_media = [(at, when) for at, when in timed if not when.local]
    if not by_media:
        origins = sorted(when.at_us - at * US_PER_BYTE for at, when in timed)
        middle_us = origins[len(origins) // 2]
        return Line(middle_us - LOCAL_DOUBT_US, middle_us + LOCAL_DOUBT_US, len(origins), 0, True)
    spans = [
        (when.earliest_us - at * US_PER_BYTE, when.latest_us - at * US_PER_BYTE)
        for at, when in by_media
    ]
    latest_us = min(latest for _, latest in spans)
    agreeing = [earliest for earliest, _ in spans if earliest <= latest_us + RAGGED_US]
    return Line(
        earliest_us=min(max(agreeing), latest_us),
        latest_us=latest_us,
        echoes=len(agreeing),
        late=len(spans) - len(agreeing),
        local=False,
    )


def proofs_in(stretch: Stretch, segment: int, clock: MediaClock) -> list[tuple[int, Timestamp]]:
    """The proven echoes of one segment, as :func:`line_through` takes them."""
    return [
        (mark.at, clock.timestamp(mark.echo))
        for mark in stretch.proofs
        if mark.segment == segment and mark.echo is not None
    ]


def line_of_proofs(stretch: Stretch, clock: MediaClock) -> Line | None:
    """How the last proven segment plays."""
    if not stretch.proofs:
        return None
    return line_through(proofs_in(stretch, stretch.proofs[-1].segment, clock))


@dataclass(slots=True)
class _Head:
    """Playback on the media clock, worked forward from the last thing known (B4)."""

    at: int
    reached_us: int | None
    """When. None: not known."""
    round_trip_us: int
    """How long audio is taken to have travelled, by the round trip on the media clock."""
    segment: int = 0
    """Up to which that is known to hold, pauses and all."""

    def forward(self, chunk: Chunk, sent: Timestamp) -> None:
        """Play one more chunk to its end."""
        self.await_chunk(chunk, sent)
        if self.reached_us is not None:
            self.reached_us += chunk.duration_us
        self.at = chunk.end

    def await_chunk(self, chunk: Chunk, sent: Timestamp) -> None:
        """Pause until the chunk was there, if it may have come too late."""
        if chunk.opens_segment and chunk.segment > self.segment:
            # With no round trip measured, none is assumed here nor for the clear: both cancel out.
            arrived_us = sent.earliest_us + self.round_trip_us
            if self.reached_us is None or arrived_us > self.reached_us:
                self.reached_us = arrived_us


def estimate(stretch: Stretch, stop: Stop, clock: MediaClock) -> StretchPosition:
    """Say how far a stretch was played before it was stopped."""
    return _Estimate(stretch, stop, clock).result()


class _Estimate:
    """One estimate in the making; a class only so that the steps can share what they found."""

    def __init__(self, stretch: Stretch, stop: Stop, clock: MediaClock) -> None:
        self.stretch = stretch
        self.stop = stop
        self.clock = clock
        self.chunks = list(stretch.chunks)
        self.fence = None if stop.fence is None else clock.timestamp(stop.fence)
        self.written = clock.timestamp(stop.written)
        self.proven = stretch.proofs[-1] if stretch.proofs else None
        self.round_trip_us = stop.round_trip_us
        if self.fence is not None and not stop.fence_is_later_echo:
            # The fence found an empty buffer, so its round trip is a fresh measure.
            self.round_trip_us = max(0, self.fence.earliest_us - self.written.earliest_us)
        self.flight: list[tuple[Mark, Timestamp]] = []
        """Marks that came back after the clear was written and were played by then, in order."""
        self.burst: list[tuple[Mark, Timestamp]] = []
        """The first that were flushed, or came back together with those."""
        self.line: Line | None = None

    # -- best ----------------------------------------------------------------------------------

    def result(self) -> StretchPosition:
        """Put the parts together."""
        self._walk()
        stopped, timed_by = self._stop_date()
        self._split(stopped)
        best = self._best(stopped)
        low, high = self._range()
        proven = self.proven
        tight = self._tight_range(stopped, timed_by)
        if tight is not None:
            if tight[0] > low:
                low, proven = tight[0], tight[2] or proven
            high = max(low, min(high, tight[1]))
        if stopped is None or self.stop.ending is Ending.DROP:
            rule = Rule.PROVEN_ONLY
        elif stopped.local or (self.line is not None and self.line.local):
            rule = Rule.LOCAL_CLOCK
        else:
            rule = Rule.MEDIA_CLOCK
        return StretchPosition(
            low=low,
            best=min(max(best, low), high),
            high=high,
            rule=rule,
            timed_by=timed_by,
            stopped=stopped,
            proven=proven,
            flight=tuple(self.flight),
            line=self.line,
        )

    def _anchor(self) -> tuple[Mark, Timestamp] | None:
        """The last mark whose timestamp says how playback runs.

        An arrival without a timestamp might as well be the clear's, unless nothing was buffered
        before.
        """
        for mark, when in reversed(self.flight):
            if mark.dry or not when.local:
                return mark, when
        if self.proven is None or self.proven.echo is None:
            return None
        return self.proven, self.clock.timestamp(self.proven.echo)

    def _line(self) -> Line | None:
        """How the segment of the last echo taken for playback runs (B1)."""
        anchor = self._anchor()
        if anchor is None:
            return None
        segment = anchor[0].segment
        echoes = proofs_in(self.stretch, segment, self.clock)
        echoes += [
            (mark.at, when)
            for mark, when in self.flight[-ECHOES_KEPT:]
            if mark.segment == segment and (mark.dry or not when.local)
        ]
        return line_through(echoes)

    def _walk(self) -> None:
        """Take the marks in order until one came too early (B1, B2)."""
        self.line = self._line()
        head = _Head(self.stretch.proven_bytes, None, 0)
        if self.line is not None:
            head.reached_us = self.line.earliest_us + head.at * US_PER_BYTE
        unpassed = deque(self.chunks)
        for mark in self.stretch.marks:
            while unpassed and unpassed[0].end <= mark.at:
                chunk = unpassed.popleft()
                head.forward(chunk, self.clock.timestamp(chunk.sent))
            if mark.echo is None:
                continue
            when = self.clock.timestamp(mark.echo)
            too_early = head.reached_us is not None and when.latest_us + RAGGED_US < head.reached_us
            if too_early:
                self.burst = [(mark, when)]
                break
            self.flight.append((mark, when))
            self.line = self._line()
            if self.line is not None and not when.local:
                head.reached_us = self.line.earliest_us + mark.at * US_PER_BYTE

    def _stop_date(self) -> tuple[Timestamp | None, TimedBy]:
        """When playback stopped, and what says so (B2, B3)."""
        if self.stop.ending is not Ending.CLEAR:
            return self.written, TimedBy.NOTHING
        fence = None if self.stop.fence_is_later_echo else self.fence
        if self.burst and (fence is None or not self.burst[0][1].local):
            return self._burst_date(self.burst[0][0]), TimedBy.BURST
        if fence is not None:
            return fence, TimedBy.FENCE
        if self.fence is None and self.round_trip_us is None:
            return None, TimedBy.NOTHING
        at_us = self.written.at_us + (self.round_trip_us or 0)
        if self.fence is None:
            return Timestamp(at_us, at_us, local=True), TimedBy.NOTHING
        at_us = min(at_us, self.fence.latest_us)
        return Timestamp(at_us, at_us, local=True), TimedBy.LATER_ECHO

    def _burst_date(self, first: Mark) -> Timestamp:
        """The earliest echo from the first flushed mark on: all were flushed, and some may be
        late."""
        returned = [
            mark.echo
            for mark in self.stretch.marks
            if mark.echo is not None and mark.at >= first.at and not mark.dry
        ]
        if self.stop.fence is not None:
            returned.append(self.stop.fence)
        return self.clock.timestamp(min(returned, key=lambda echo: echo.now_us))

    def _split(self, stopped: Timestamp | None) -> None:
        """What came back together with the flush may be part of it, and proves no time."""
        if stopped is None:
            return
        returned, self.flight = self.flight, []
        burst: list[tuple[Mark, Timestamp]] = []
        for mark, when in returned:
            if when.latest_us <= stopped.earliest_us and not when.local:
                self.flight += [*burst, (mark, when)]
                burst = []
            elif when.earliest_us <= stopped.latest_us:
                if mark.dry or when.latest_us < stopped.earliest_us:
                    self.flight.append((mark, when))
                else:
                    burst.append((mark, when))
            # What came later still was late: it says nothing.
        self.burst = burst + self.burst
        self.line = self._line()

    def _best(self, stopped: Timestamp | None) -> int:
        """Play on until the stop, between the marks that bound it (B4, B5, B6)."""
        stop_us = (self.written if stopped is None else stopped).at_us
        floor, ceiling = self._bounds()
        anchor = self._anchor()
        head = _Head(floor, None, self.round_trip_us or 0)
        if self.line is not None and anchor is not None:
            head.at = anchor[0].at
            head.reached_us = self.line.reaches_us(head.at)
            head.segment = anchor[0].segment
        for chunk in self.chunks:
            if chunk.end <= head.at:
                continue
            sent = self.clock.timestamp(chunk.sent)
            head.await_chunk(chunk, sent)
            if head.reached_us is None or stop_us <= head.reached_us:
                break
            left_us = stop_us - head.reached_us
            if left_us < chunk.duration_us:
                head.at = chunk.start + left_us // US_PER_BYTE
                break
            head.forward(chunk, sent)
        return min(max(head.at, floor), max(floor, ceiling))

    def _bounds(self) -> tuple[int, int]:
        """Between which marks best must lie."""
        floor, ceiling = self.stretch.proven_bytes, self.stretch.sent_bytes
        if self.stop.ending is Ending.CLEAR:
            if self.burst and not self.burst[0][1].local:
                ceiling = self.burst[0][0].at
            return floor, ceiling
        silent = sorted({mark.at for mark in self.stretch.marks if mark.at > floor})
        return floor, silent[1] if len(silent) > 1 else ceiling

    # -- the range -----------------------------------------------------------------------------

    def _range(self) -> tuple[int, int]:
        """What cannot be otherwise (R1, R2)."""
        low = self.stretch.proven_bytes
        if self.stop.ending is Ending.DROP:
            return low, self.stretch.sent_bytes
        until_us = self.stop.written.now_us if self.stop.ending is Ending.STOP else None
        if self.stop.fence is not None:
            until_us = self.stop.fence.now_us
        ends = {chunk.end: chunk for chunk in self.chunks}
        for mark in self.stretch.marks:
            chunk = ends.get(mark.at)
            if mark.echo is None or chunk is None:
                continue
            soonest_us = chunk.earliest_us + chunk.duration_us
            if mark.echo.now_us + self._slack_us(soonest_us, chunk.sent) < soonest_us and (
                until_us is None or mark.echo.now_us < until_us
            ):
                until_us = mark.echo.now_us
        if until_us is None:
            return low, self.stretch.sent_bytes
        high = low
        for chunk in self.chunks:
            left_us = until_us + self._slack_us(until_us, chunk.sent) - chunk.earliest_us
            if left_us <= 0:
                break
            played = chunk.end - chunk.start
            if not chunk.overflow:
                played = min(played, -(-left_us // US_PER_BYTE))
            high = max(high, chunk.start + played)
            if chunk.start + played < chunk.end:
                break
        return low, high

    def _slack_us(self, until_us: int, sent: Stamp) -> int:
        """A frame may count as played when it begins, and crystals run apart."""
        return FRAME_US + max(0, until_us - sent.now_us) // DRIFT

    def _tight_range(
        self, stopped: Timestamp | None, timed_by: TimedBy
    ) -> tuple[int, int, Mark | None] | None:
        """What the timestamps prove while echoes keep time (R3); None when they do not."""
        line = self.line
        if (
            line is None
            or stopped is None
            or stopped.local
            or line.local
            or line.late
            or line.echoes < PUNCTUAL_ECHOES
            or self.stretch.unpunctual
            or self.stop.ending is Ending.DROP
            or (self.stop.ending is Ending.CLEAR and timed_by not in (TimedBy.BURST, TimedBy.FENCE))
        ):
            return None
        high_us = stopped.latest_us - line.earliest_us + FRAME_US
        high = -(-high_us // US_PER_BYTE)
        low, proven = 0, None
        for mark, when in self.flight:
            if when.local or when.latest_us + BURST_US > stopped.earliest_us:
                break
            reached = (when.earliest_us - line.latest_us) // US_PER_BYTE
            at = min(mark.at, max(0, reached))
            if at > low:
                low = at
            if at == mark.at:
                proven = mark
        return low, high, proven
