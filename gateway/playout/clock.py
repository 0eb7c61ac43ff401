"""Twilio's media clock, as seen from the other end of an ordered socket.

Rules, each with its tests in ``tests/gateway/playout/test_clock.py``:

1. Inbound media comes every 20 ms and carries ``media.timestamp``. Echoes come in the same socket,
   in order: what arrives between two media messages was sent between them. So the newest timestamp
   times an echo to within a frame, and how long the network kept both is of no account.
   (test_an_echo_is_timed_to_the_frame_it_came_in,
   test_delay_and_jitter_of_the_network_do_not_move_a_timestamp)
2. Timestamps may jump forward over silence that Twilio left out. Then an echo in the gap lies
   somewhere between two readings, and the gateway's clock says where.
   (test_an_echo_in_omitted_silence_is_placed_by_the_local_clock)
3. No reading can run ahead of real time: a message never travels for a shorter time than the
   fastest one. A jump that would is a fault of the clock, and so is a step back; the clock goes on
   by local time instead, so that differences across the fault still mean something.
   (test_a_step_back_does_not_turn_the_clock_back, test_a_jump_that_outruns_real_time_is_a_fault,
   test_a_jump_over_omitted_silence_is_believed)
4. Audio that comes faster than it can have been spoken is not Twilio's: see
   :attr:`MediaClock.ahead_us`.
   (test_how_far_audio_outruns_real_time_is_known)
5. Without inbound media there is only the gateway's clock.
   (test_without_media_there_is_only_the_local_clock)

The call's clock is this one: equal to ``media.timestamp`` until a timestamp is at fault, and never
going back.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from runtime.units import BYTES_PER_MS, FRAME_BYTES, FRAME_MS

STEP_TOLERANCE_MS = 10
STEP_TOLERANCE_US = STEP_TOLERANCE_MS * 1000
"""Timestamps that are ragged by so much still follow one another."""

AHEAD_TOLERANCE_US = 100_000
"""How far a jump may outrun real time before it is a fault: the network may be faster than it was
by its jitter. What is wrongly believed or not believed moves an estimate by no more than this."""

MAX_AHEAD_US = 30_000_000
"""How far readings may outrun real time before the stream is given up: a network, or this process,
that stood still while a stream began delivers what it kept in one heap, and half a minute is more
than any connection survives. Beyond it, somebody plays a recording into the model."""

MAX_GAPS = 1_000
"""Gaps that are remembered. The timestamps of a stretch need the few within it."""

STALL_US = 250_000
"""At a fault without other knowledge, so long a local pause counts as a pause; a shorter one is the
network's jitter and the next frame is taken to follow at once."""

STALE_US = 40_000
"""Two frames. No media for so long means omitted silence or a network's hiccup; the next media
message tells which."""


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """The clocks as they stood when something happened."""

    now_us: int
    """The gateway's."""
    reading_us: int | None
    """The media clock's newest reading. None before the first media message."""
    received_us: int | None
    """When that reading came, by the gateway's clock."""


class Timestamp(msgspec.Struct, frozen=True, gc=False):
    """When something happened, on the call's clock: not before and before."""

    earliest_us: int
    latest_us: int
    local: bool = False
    """The gateway's clock placed it: right only as far as the network is steady."""

    @property
    def at_us(self) -> int:
        """The middle."""
        return (self.earliest_us + self.latest_us) // 2

    @property
    def at_ms(self) -> int:
        """The media clock's reading then, in whole milliseconds."""
        return self.earliest_us // 1000


@dataclass(frozen=True, slots=True)
class _Gap:
    """Two successive readings that do not follow one another, and when the first came."""

    before_us: int
    after_us: int
    before_received_us: int


class MediaClock:
    """Turns media timestamps into times on the call's clock. ``receive_regular`` is on the hot
    path."""

    __slots__ = (
        "_fastest_us",
        "_first_us",
        "_frame_bytes",
        "_frame_us",
        "_gaps",
        "_longest_step_ms",
        "_now_us",
        "_offset_us",
        "_shortest_step_ms",
        "awaited",
        "newest_ms",
        "reading_us",
        "received_us",
    )

    def __init__(self) -> None:
        self.newest_ms: int | None = None
        """The newest ``media.timestamp`` as it came."""
        self.reading_us: int | None = None
        """The clock's newest reading: the timestamp unless one was at fault."""
        self.received_us: int | None = None
        """When it came, by the gateway's clock."""
        self.awaited = False
        """Somebody waits for the next message, so that it means more than the others."""
        self._offset_us = 0
        self._frame_bytes = FRAME_BYTES
        """Of the newest message; what Twilio sends as a rule, until the first one tells."""
        self._frame_us = FRAME_MS * 1000
        self._shortest_step_ms = self._longest_step_ms = FRAME_MS
        """Between timestamps that follow one another, by the length of a frame."""
        self._first_us = 0
        """Reading of the call's clock when the gateway's was 0, by the first media message."""
        self._fastest_us = 0
        """Least (arrival - reading) that was looked at: the fastest trip plus a constant. Not every
        message is looked at; only what a trace holds as well, so that a replay does the same."""
        self._now_us = 0
        """The gateway's clock when something other than media last came."""
        self._gaps: dict[int, _Gap] = {}
        """By the reading before. A call has few."""

    @property
    def frame_bytes(self) -> int:
        """Length of the newest media message."""
        return self._frame_bytes

    @property
    def ahead_us(self) -> int:
        """How far the newest reading has outrun real time since the first one came; negative when
        it has fallen back."""
        if self.reading_us is None or self.received_us is None:
            return 0
        return self.reading_us - self.received_us - self._first_us

    def receive_regular(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        """Take a media message that simply follows the one before; False: it does not, `receive`
        is to take it."""
        newest_ms = self.newest_ms
        if newest_ms is None or audio_bytes != self._frame_bytes:
            return False
        # A reading is the timestamp and the offset, so readings are as far apart as timestamps.
        if not self._shortest_step_ms <= timestamp_ms - newest_ms <= self._longest_step_ms:
            return False
        reading_us = timestamp_ms * 1000 + self._offset_us
        if reading_us - now_us > self._first_us + MAX_AHEAD_US:
            return False
        self.newest_ms = timestamp_ms
        self.reading_us = reading_us
        self.received_us = now_us
        return True

    def receive(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        """Take a media message's timestamp; say whether it did not simply follow the one before."""
        if self.receive_regular(timestamp_ms, audio_bytes, now_us):
            return False
        return self._receive_irregular(timestamp_ms, audio_bytes, now_us)

    def _receive_irregular(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        before_us, received_us = self.reading_us, self.received_us
        if audio_bytes > 0:
            self._frame_bytes = audio_bytes
            frame_ms = max(1, audio_bytes // BYTES_PER_MS)
            self._frame_us = frame_ms * 1000
            self._shortest_step_ms = max(1, frame_ms - STEP_TOLERANCE_MS)
            self._longest_step_ms = frame_ms + STEP_TOLERANCE_MS
        if before_us is None or received_us is None:
            reading_us = timestamp_ms * 1000
            self._first_us = reading_us - now_us
            self._fastest_us = now_us - reading_us
        else:
            if timestamp_ms == self.newest_ms:
                return False  # the same frame once more says nothing new
            self._fastest_us = min(self._fastest_us, received_us - before_us)
            reading_us = timestamp_ms * 1000 + self._offset_us
            ahead_us = self._fastest_us - (now_us - reading_us)
            if reading_us <= before_us or ahead_us > AHEAD_TOLERANCE_US:
                passed_us = now_us - received_us
                pause_us = passed_us if passed_us >= STALL_US else 0
                reading_us = before_us + max(self._frame_us, pause_us // 1000 * 1000)
                self._offset_us = reading_us - timestamp_ms * 1000
            if reading_us - before_us > self._frame_us + STEP_TOLERANCE_US:
                self._gaps[before_us] = _Gap(before_us, reading_us, received_us)
                if len(self._gaps) > MAX_GAPS:
                    del self._gaps[next(iter(self._gaps))]
            self._fastest_us = min(self._fastest_us, now_us - reading_us)
        self.newest_ms = timestamp_ms
        self.reading_us = reading_us
        self.received_us = now_us
        return True

    def stamp(self, now_us: int) -> Stamp:
        """Note what the clocks say now; :meth:`timestamp` turns it into one, best not at once."""
        self._now_us = now_us
        if self.received_us is not None and self.reading_us is not None:
            self._fastest_us = min(self._fastest_us, self.received_us - self.reading_us)
        return Stamp(now_us, self.reading_us, self.received_us)

    def timestamp(self, stamp: Stamp) -> Timestamp:
        """When the stamped thing happened, on the call's clock."""
        if stamp.reading_us is None or stamp.received_us is None:
            at_us = stamp.now_us + self._first_us
            return Timestamp(at_us, at_us, local=True)
        passed_us = stamp.now_us - stamp.received_us
        gap = self._gaps.get(stamp.reading_us)
        if gap is not None:
            at_us = min(stamp.reading_us + passed_us, gap.after_us)
            return Timestamp(at_us, at_us, local=True)
        if stamp.reading_us == self.reading_us and self._now_us - stamp.received_us > STALE_US:
            # Nothing has come since that could tell a gap from a network's hiccup.
            at_us = stamp.reading_us + passed_us
            return Timestamp(at_us, at_us, local=True)
        return Timestamp(stamp.reading_us, stamp.reading_us + self._frame_us)
