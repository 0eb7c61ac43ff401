"""The playhead: how much of what was sent the caller heard. A pure state machine.

Facts go in (`send`, `end`, `receive_media`, `receive_mark`, `interrupt`, `stop`, `drop`,
`handle_timer`), answers come out of `events()`; `now_us` is an argument and counts microseconds of
a monotonic clock from the stream's start. Nothing here reads a clock, waits or logs, or raises over
what the peer does. The estimator's rules are at the top of ``estimate.py``, the media clock's at
the top of ``clock.py``. The machine's own, tested in ``tests/gateway/playout/test_playhead.py``:

 M1 Marks have unique names and one position each. After every media message goes a mark; before
    audio that playback may have run dry before goes a start mark, which tells when it begins.
 M2 ``clear`` cuts the stream into **stretches**. An echo proves playback only while its stretch is
    the current one; of a cleared one it is a hint at best, and it never moves another stretch.
 M3 A cleared stretch is **settled** when its fence returns, when anything written later is echoed
    (the fence was lost), when the wait is over, or when the stream ends; whatever comes first.
    A fence that has returned waits for the next media message as well, 20 ms as a rule and 60 at
    most: its timestamp lies between two of them, and one that tells of omitted silence corrects it.
 M4 A part's position is fixed once (``fixing.py``): when all of it is proven and `end` was called;
    when its stretch is settled; at an interrupt with nothing left to clear; at the end of the
    stream.
 M5 The echo of a part's last mark may be lost. Two seconds overdue, the part counts as played to
    its end by the clock; the range says that it is not proven. A barge-in still clears it.

===================  =============================  ===========================  =====================
of a stretch         CURRENT                        CLEARED                      SETTLED
===================  =============================  ===========================  =====================
`send`               it grows                       –                            –
an echo              proves; fixes what is ended    a hint for the estimate      late, counted
                     and all played (M4)
`interrupt`          → CLEARED, and the next one    –                            –
                     begins; when nothing is left
                     to play, its parts are fixed
its fence            cannot be                      → SETTLED, with the next     –
                                                    media message
a later echo         cannot be                      → SETTLED                    –
`handle_timer`       overdue: its ended parts       → SETTLED, when the wait     –
                     are fixed (M5)                 is over
`stop`, `drop`       all its parts are fixed        → SETTLED                    –
===================  =============================  ===========================  =====================

What the shell owes: call `send` right before the message is written and write the marks as told;
after `interrupt` returned a name, drop what is not yet written, write ``clear`` and a mark of that
name at once; send nothing more of the parts that were open then; never send more than
`room_bytes`; after every call take `events()` and look at `next_timer_us()`.
"""

from __future__ import annotations

from gateway.playout.clock import MAX_AHEAD_US, MediaClock, Stamp
from gateway.playout.echoes import Counts, Echoes, RoundTrip
from gateway.playout.estimate import Ending, Stop, estimate
from gateway.playout.fixing import Fixing
from gateway.playout.positions import (
    US_PER_BYTE,
    Cause,
    Flushed,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionsSettled,
    Sent,
    TimedBy,
    TraceEvent,
    TraceKind,
    floor_ms,
)
from gateway.playout.stretch import (
    BUFFER_LIMIT_BYTES,
    Chunk,
    Clearing,
    Mark,
    PartPlayout,
    Stretch,
    heard_prefix,
)
from gateway.playout.trace import LONG_TRACE, Trace
from runtime.units import BYTES_PER_MS

PROGRESS_BYTES = 1000 * BYTES_PER_MS
"""A second: those who watch a call want no more, and a turn has few of them."""

CLOCK_WAIT_US = 60_000
"""Three frames: how long a fence waits for the media message after it (M3)."""


class Playhead:
    """What one media stream has played. See the module's docstring."""

    def __init__(self, clock: MediaClock | None = None, *, fence_wait_us: int = 300_000) -> None:
        """Begin with an empty queue.

        Args:
            clock: The stream's media clock, for those who give it regular media themselves while
                nobody awaits it. None: one of its own.
            fence_wait_us: How much longer than the slowest round trip seen so far a fence is
                waited for. The model is not told where playback stopped before.
        """
        self._fence_wait_us = fence_wait_us
        self._clock = clock = MediaClock() if clock is None else clock
        self._stretch = Stretch(number=0)
        self._clearing: list[Clearing] = []
        self._echoes = Echoes()
        self._strays: dict[Part, PartPlayout] = {}
        self._round_trip = RoundTrip()
        self._over = False
        self._events: list[PlayoutEvent] = []
        self._fixing = Fixing(clock, self._events)
        self._trace = Trace(clock)

    # -- facts in ------------------------------------------------------------------------------

    def send(self, part: Part, audio_bytes: int, *, now_us: int) -> Sent:
        """Note one media message that is about to be written.

        Args:
            part: What the audio belongs to.
            audio_bytes: Its length in bytes of µ-law, as it is decoded. 0 is no message.
            now_us: The gateway's clock.

        Returns:
            The marks to write before and after it.

        Raises:
            ValueError: ``audio_bytes`` is negative.
        """
        if audio_bytes < 0:
            raise ValueError(f"audio_bytes must not be negative, got {audio_bytes}")
        if self._over or not audio_bytes:
            return Sent((), ())
        self._trace.note(TraceKind.SENT, now_us, part=part, audio_bytes=audio_bytes)
        stretch, sent = self._stretch, self._clock.stamp(now_us)
        owner = self._owner(part)
        if owner.closed:
            self._echoes.counts.stray_bytes += audio_bytes
        dry = stretch.dry
        chunk = stretch.append(owner, audio_bytes, sent)
        before: tuple[str, ...] = ()
        if chunk.opens_segment or not chunk.owner_start:
            before = (self._mark("s", chunk.start, chunk, dry),)
        return Sent(before, (self._mark("p", chunk.end, chunk, False),))

    def end(self, part: Part, *, now_us: int) -> None:
        """Note that no more audio of this part will come."""
        if self._over:
            return
        self._trace.note(TraceKind.ENDED, now_us, part=part)
        for stretch in (*(clearing.stretch for clearing in self._clearing), self._stretch):
            owner = stretch.parts.get(part)
            if owner is not None:
                owner.ended = True
                self._stretch.presumed = False
                self._fix_if_played(stretch, owner)

    def receive_media(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        """Note an inbound media message: its ``media.timestamp`` and length. The hot path.

        Returns:
            Whether `events` may have something to say, the trace is long, or the clock runs away;
            as a rule none is so.
        """
        clock = self._clock
        if not clock.awaited and clock.receive_regular(timestamp_ms, audio_bytes, now_us):
            return False
        before = self._trace.reading()
        irregular = clock.receive(timestamp_ms, audio_bytes, now_us)
        if not (irregular or clock.awaited) or self._over:
            return False
        self._trace.note_media(before)
        if not clock.awaited:
            return clock.ahead_us > MAX_AHEAD_US or len(self._trace) >= LONG_TRACE
        clock.awaited = False
        self._settle_due(now_us)
        return True

    def receive_mark(self, name: str, *, now_us: int) -> None:
        """Note that Twilio sent a mark back. Unknown and repeated names are counted, no more."""
        if self._over:
            return
        echoes = self._echoes
        kept_name = echoes.look_at(name)
        if kept_name is None:
            return
        self._trace.note(TraceKind.ECHOED, now_us, mark=kept_name)
        echo = self._clock.stamp(now_us)
        expected = echoes.marks.pop(name, None)
        if expected is not None:
            mark, stretch = expected
            if mark.dry:
                self._round_trip.measure(mark.sent, echo)
            if stretch is self._stretch:
                self._proved(mark, echo)
            else:
                mark.echo = echo  # playback in flight or a flush; its timestamp will tell
            self._settle_before(stretch.number, echo)
            return
        clearing = echoes.fences.pop(name, None)
        if clearing is not None:
            if clearing not in self._clearing:
                echoes.counts.late_echoes += 1
                return
            self._settle_before(clearing.stretch.number, echo)
            self._round_trip.measure(clearing.written, echo)
            clearing.fence = echo
            if self._clock.reading_us is None:
                self._settle(clearing)
            else:
                self._clock.awaited = True
                clearing.due_us = min(clearing.due_us, now_us + CLOCK_WAIT_US)
            return
        late = echoes.count_unexpected(kept_name)
        if late is not None:
            late.unpunctual = self._stretch.unpunctual = True

    def interrupt(self, interrupt_id: int, *, now_us: int) -> str | None:
        """The caller speaks: say whether there is anything to clear.

        Returns:
            None when nothing is playing: write no ``clear``. Otherwise the name of the fence: drop
            what is not written yet, write ``clear`` and then a mark of this name, at once.
        """
        if self._over:
            return None
        self._trace.note(TraceKind.CLEARED, now_us, interrupt_id=interrupt_id)
        stretch = self._stretch
        if stretch.dry:
            for owner in list(stretch.parts.values()):
                self._fixing.fix_played(stretch, owner, Cause.CLEARED, interrupt_id)
            self._events.append(PositionsSettled(interrupt_id))
            return None
        clearing = Clearing(
            stretch=stretch,
            interrupt_id=interrupt_id,
            written=self._clock.stamp(now_us),
            due_us=now_us + self._fence_wait_us + self._round_trip.allowed_us,
        )
        self._clearing.append(clearing)
        self._fixing.closed_parts.update(stretch.parts)
        self._stretch = Stretch(number=stretch.number + 1, unpunctual=stretch.unpunctual)
        fence = self._echoes.next_name("f")
        self._echoes.fences[fence] = clearing
        return fence

    def stop(self, *, now_us: int) -> None:
        """Note Twilio's ``stop``: the call is over, and so is playback."""
        self._finish(TraceKind.STOPPED, Ending.STOP, Cause.HUNG_UP, now_us)

    def drop(self, *, now_us: int) -> None:
        """Note that the socket is gone without ``stop``."""
        self._finish(TraceKind.DROPPED, Ending.DROP, Cause.DROPPED, now_us)

    def handle_timer(self, *, now_us: int) -> None:
        """Do what is due; see `next_timer_us`. Too early a call does nothing."""
        due_us = self.next_timer_us()
        if due_us is None or now_us < due_us:
            return
        self._clock.stamp(now_us)
        self._trace.note(TraceKind.TIMED, now_us)
        self._settle_due(now_us)
        overdue_us = self._stretch.overdue_us()
        if overdue_us is not None and now_us >= overdue_us:
            self._stretch.presumed = True
            self._fixing.fix_presumed(self._stretch)

    # -- answers out ---------------------------------------------------------------------------

    def next_timer_us(self) -> int | None:
        """When `handle_timer` wants to be called. None: not at all."""
        if self._over:
            return None
        due_us = self._stretch.overdue_us()
        for clearing in self._clearing:
            if due_us is None or clearing.due_us < due_us:
                due_us = clearing.due_us
        return due_us

    def events(self) -> list[PlayoutEvent]:
        """Hand over what happened since the last call."""
        if not self._events:
            return []
        events = self._events.copy()
        self._events.clear()
        return events

    def trace(self) -> list[TraceEvent]:
        """Hand over the inputs since the last call; ``replay.py`` makes the same call of them."""
        return self._trace.take()

    @property
    def trace_events(self) -> int:
        """How many inputs `trace` would hand over."""
        return len(self._trace)

    @property
    def counts(self) -> Counts:
        """What did not go as it should, so far."""
        return self._echoes.counts

    @property
    def idle(self) -> bool:
        """Nothing that was sent is still unplayed, as far as one can know."""
        return not self._clearing and (self._stretch.dry or self._stretch.presumed)

    @property
    def media_ms(self) -> int | None:
        """The call's clock: the newest media timestamp, put right where it was at fault."""
        reading_us = self._clock.reading_us
        return None if reading_us is None else reading_us // 1000

    @property
    def room_bytes(self) -> int:
        """How much more audio Twilio's ten minutes of buffer surely hold."""
        return max(0, BUFFER_LIMIT_BYTES - self._stretch.sent_bytes + self._stretch.proven_bytes)

    # -- marks ---------------------------------------------------------------------------------

    def _mark(self, kind: str, at: int, chunk: Chunk, dry: bool) -> str:
        name = self._echoes.next_name(kind)
        mark = Mark(name, at, chunk.segment, chunk.owner, chunk.sent, dry)
        stretch = self._stretch
        stretch.marks.append(mark)
        self._echoes.marks[name] = (mark, stretch)
        return name

    # -- playback ------------------------------------------------------------------------------

    def _owner(self, part: Part) -> PartPlayout:
        owner = self._stretch.parts.get(part)
        if owner is None:
            if part in self._fixing.closed_parts:
                return self._strays.setdefault(part, PartPlayout(part, closed=True))
            owner = self._stretch.parts[part] = PartPlayout(part)
        return owner

    def _proved(self, mark: Mark, echo: Stamp) -> None:
        stretch = self._stretch
        played, missed = stretch.prove(mark, echo)
        self._echoes.counts.missed_echoes += len(missed)
        self._echoes.expect_no_more(missed, stretch)
        proven = self._clock.timestamp(echo)
        by_owner: dict[PartPlayout, list[Chunk]] = {}
        for chunk in played:
            by_owner.setdefault(chunk.owner, []).append(chunk)
        by_owner.setdefault(mark.owner, [])
        for owner, chunks in by_owner.items():
            if owner.closed:
                continue
            owner.proven_mark, owner.proven = mark.name, echo
            if chunks:
                owner.reached_us = self._fixing.reached_end_us(stretch, chunks[-1], mark, proven)
            if not owner.started:
                owner.started = True
                since_us = (mark.at - chunks[0].start) * US_PER_BYTE if chunks else 0
                at_ms = max(0, proven.earliest_us - since_us) // 1000
                self._events.append(PlaybackStarted(owner.part, at_ms))
            if owner.played_bytes - owner.told_bytes >= PROGRESS_BYTES:
                owner.told_bytes = owner.played_bytes
                self._events.append(
                    PlaybackProgressed(
                        owner.part,
                        floor_ms(heard_prefix(owner, owner.played_bytes)),
                        floor_ms(owner.sent_bytes),
                        proven.at_ms,
                    )
                )
            self._fix_if_played(stretch, owner)

    def _fix_if_played(self, stretch: Stretch, owner: PartPlayout) -> None:
        if stretch is self._stretch and owner.ended and owner.played_bytes == owner.sent_bytes:
            self._fixing.fix_played(stretch, owner, Cause.PLAYED, 0)

    # -- settling ------------------------------------------------------------------------------

    def _settle_due(self, now_us: int) -> None:
        for clearing in list(self._clearing):
            waited_for_media = clearing.fence is not None and not self._clock.awaited
            if waited_for_media or now_us >= clearing.due_us:
                self._settle(clearing)
        self._clock.awaited = any(clearing.fence is not None for clearing in self._clearing)

    def _settle_before(self, number: int, echo: Stamp) -> None:
        """An echo of something written after a clear: that clear is done, fence or no fence."""
        for clearing in [c for c in self._clearing if c.stretch.number < number]:
            if clearing.fence is None:
                clearing.fence, clearing.fence_is_later_echo = echo, True
            self._settle(clearing)

    def _settle(self, clearing: Clearing) -> None:
        """Fix the positions of everything in a cleared stretch."""
        self._clearing.remove(clearing)
        stop = Stop(
            Ending.CLEAR,
            written=clearing.written,
            fence=clearing.fence,
            fence_is_later_echo=clearing.fence_is_later_echo,
            round_trip_us=self._round_trip.last_us,
        )
        stretch = clearing.stretch
        position = estimate(stretch, stop, self._clock)
        if position.line is not None and position.line.late:
            self._stretch.unpunctual = True
        stopped = None if position.timed_by is TimedBy.NOTHING else position.stopped
        unheard = stretch.sent_bytes - position.best
        self._events.append(
            Flushed(
                clearing.interrupt_id,
                None if stopped is None else stopped.at_ms,
                position.timed_by,
                floor_ms(unheard),
            )
        )
        self._fixing.fix_estimated(stretch, position, Cause.CLEARED, clearing.interrupt_id)
        self._echoes.expect_no_more(stretch.marks, stretch)
        self._events.append(PositionsSettled(clearing.interrupt_id))

    def _finish(self, kind: TraceKind, ending: Ending, cause: Cause, now_us: int) -> None:
        if self._over:
            return
        self._trace.note(kind, now_us)
        stamp = self._clock.stamp(now_us)
        for clearing in list(self._clearing):
            if clearing.fence is None and ending is Ending.STOP:
                # Whatever became of the clear, playback was over by now.
                clearing.fence, clearing.fence_is_later_echo = stamp, True
            self._settle(clearing)
        stretch = self._stretch
        if stretch.dry:
            for owner in list(stretch.parts.values()):
                self._fixing.fix_played(stretch, owner, cause, 0)
        else:
            stop = Stop(ending, written=stamp, round_trip_us=self._round_trip.last_us)
            position = estimate(stretch, stop, self._clock)
            self._fixing.fix_estimated(stretch, position, cause, 0)
        self._over = True
