"""The playhead: how much of what was sent the caller heard. A pure state machine.

Facts go in (`send`, `end`, `receive_media`, `receive_mark`, `interrupt`, `stop`, `drop`,
`handle_timer`), answers come out of `events()`; `now_us` is an argument and counts microseconds of
a monotonic clock from the stream's start. Nothing here reads a clock, waits or logs, or raises over
what the peer does. The estimator's rules are at the top of ``estimate.py``, the media clock's at
the top of ``clock.py``. The machine's own, tested in ``tests/gateway/playout/test_playhead.py``:

 M1 Marks have unique names and one position each. Behind every media message goes a mark; ahead of
    audio before which playback may have run dry goes a start mark, which dates its beginning.
 M2 ``clear`` cuts the stream into **stretches**. An echo proves playback only while its stretch is
    the current one; of a cleared one it is a hint at best, and it never moves another stretch.
 M3 A cleared stretch is **settled** when its fence returns, when anything written later is echoed
    (the fence was lost), when the wait is over, or when the stream ends; whatever comes first.
    A fence that has returned waits for the next media message as well, 20 ms as a rule and 60 at
    most: between two of them it is dated, and one that tells of omitted silence corrects the date.
 M4 A part's position is fixed once: when all of it is proven and `end` was called; when its stretch
    is settled; at an interrupt with nothing left to clear; at the end of the stream.
 M5 The echo of a part's last mark may be lost. Two seconds overdue, the part counts as played to
    its end by the clock; the range says that it is not proven. A barge-in still clears it.

What the shell owes: call `send` right before the message is written and write the marks as told;
after `interrupt` returned a name, drop what is not yet written, write ``clear`` and a mark of that
name at once; send nothing more of the parts that were open then; never send more than
`room_bytes`; after every call take `events()` and look at `next_timer_us()`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.playout.clock import MAX_AHEAD_US, Date, MediaClock, Stamp
from gateway.playout.estimate import (
    Ending,
    Stop,
    StretchPosition,
    estimate,
    line_of_proofs,
    line_through,
    proofs_in,
)
from gateway.playout.positions import (
    BYTES_PER_MS,
    US_PER_BYTE,
    Cause,
    DatedBy,
    Evidence,
    Flushed,
    ItemPosition,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    PositionsSettled,
    Rule,
    Sent,
    TraceEvent,
    TraceKind,
    floor_ms,
)
from gateway.playout.stretch import (
    BUFFER_LIMIT_BYTES,
    Chunk,
    Mark,
    PartPlayout,
    PartsOf,
    Stretch,
    heard_prefix,
)

PROGRESS_BYTES = 1000 * BYTES_PER_MS
"""A second: those who watch a call want no more, and a turn has few of them."""

CLOCK_WAIT_US = 60_000
"""Three frames: how long a fence waits for the media message that dates it (M3)."""

UNKNOWN_WAY_US = 300_000
"""What is allowed for the way there and back before the first echo measured it."""

SLOWEST_WAY_US = 700_000
"""With the wait on top of it a second: positions are wanted while the caller is still speaking."""

MAX_UNEXPECTED = 100
"""Echoes of marks that nobody waits for, that are looked at. A network's repeats are a few; a peer that
sends more is only counted."""

MAX_NAME_CHARS = 32
"""What is kept of a name that is not ours."""

MAX_MEDIA_TRACED = 10_000
"""Trace events about inbound media that does not tick on regularly, two of each. Beyond it a replay knows
the media clock only from what else was traced."""

LONG_TRACE = 1_000
"""Events. The shell is told then, so that it hands the trace in."""

OVERDUE_US = 2_000_000
"""See M5. More than a bad network's way there and back with a retransmission; there is no hurry."""


@dataclass(slots=True, eq=False)
class _Clearing:
    """A stretch that was cleared and is not settled."""

    stretch: Stretch
    interrupt_id: int
    written: Stamp
    due_us: int
    fence: Stamp | None = None
    fence_is_later_echo: bool = False


@dataclass(slots=True)
class Counts:
    """What did not go as it should, for the metrics. Nothing here is an error of ours."""

    unknown_echoes: int = 0
    """Names that were never sent."""
    repeated_echoes: int = 0
    late_echoes: int = 0
    """Came after an echo that proves more, or after their stretch was settled."""
    missed_echoes: int = 0
    """Proven by a later echo; some still come late."""
    ignored_echoes: int = 0
    """Unknown and repeated ones beyond what is looked at."""
    stray_bytes: int = 0
    """Sent of parts whose position was fixed: the shell broke its word."""


class Playhead:
    """What one media stream has played. See the module's docstring."""

    def __init__(self, *, fence_wait_us: int = 300_000) -> None:
        """Begin with an empty queue.

        Args:
            fence_wait_us: How much longer than the slowest way there and back seen so far a fence
                is waited for. The model is not told where playback stopped before.
        """
        self.counts = Counts()
        self._fence_wait_us = fence_wait_us
        self._clock = MediaClock()
        self._stretch = Stretch(number=0)
        self._clearing: list[_Clearing] = []
        self._marks: dict[str, tuple[Mark, Stretch]] = {}
        """Echoes that are still expected, of all stretches not settled."""
        self._fences: dict[str, _Clearing] = {}
        self._late: dict[str, Stretch] = {}
        """Echoes that are not expected any more, and would be late if they came."""
        self._names = 0
        self._closed_parts: set[Part] = set()
        self._strays: dict[Part, PartPlayout] = {}
        self._way_us: int | None = None
        """There and back, as last measured."""
        self._slowest_way_us: int | None = None
        self._last_us = 0
        """When the current stretch last changed: something sent, something proven."""
        self._presumed = False
        """M5 has been applied, and nothing was sent since."""
        self._unexpected = 0
        self._media_traced = 0
        self._over = False
        self._events: list[PlayoutEvent] = []
        self._trace: list[TraceEvent] = []

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
        self._note(TraceKind.SENT, now_us, part=part, audio_bytes=audio_bytes)
        self._last_us = now_us
        self._presumed = False
        stretch, sent = self._stretch, self._clock.stamp(now_us)
        owner = self._owner(part)
        if owner.closed:
            self.counts.stray_bytes += audio_bytes
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
        self._note(TraceKind.ENDED, now_us, part=part)
        for stretch in (*(clearing.stretch for clearing in self._clearing), self._stretch):
            owner = stretch.parts.get(part)
            if owner is not None:
                owner.ended = True
                self._presumed = False
                self._fix_if_played(stretch, owner)

    def receive_media(self, timestamp_ms: int, audio_bytes: int, now_us: int) -> bool:
        """Note an inbound media message: its ``media.timestamp`` and length. The hot path.

        Returns:
            Whether `events` may have something to say, the trace is long, or the clock runs away; as a
            rule none is so.
        """
        clock = self._clock
        if not clock.awaited and clock.receive_regular(timestamp_ms, audio_bytes, now_us):
            return False
        before = (clock.newest_ms, clock.received_us, clock.frame_bytes)
        irregular = clock.receive(timestamp_ms, audio_bytes, now_us)
        if not (irregular or clock.awaited) or self._over:
            return False
        self._note_media(before)
        if not clock.awaited:
            return clock.ahead_us > MAX_AHEAD_US or len(self._trace) >= LONG_TRACE
        clock.awaited = False
        self._settle_due(now_us)
        return True

    def receive_mark(self, name: str, *, now_us: int) -> None:
        """Note that Twilio sent a mark back. Unknown and repeated names are counted, no more."""
        if self._over:
            return
        if name not in self._marks and name not in self._fences and name not in self._late:
            name = name[:MAX_NAME_CHARS]
            if self._unexpected >= MAX_UNEXPECTED:
                self._count_unexpected(name)
                self.counts.ignored_echoes += 1
                return
            self._unexpected += 1
        self._note(TraceKind.ECHOED, now_us, mark=name)
        echo = self._clock.stamp(now_us)
        expected = self._marks.pop(name, None)
        if expected is not None:
            mark, stretch = expected
            if mark.dry:
                self._measure_way(mark.sent, echo)
            if stretch is self._stretch:
                self._proved(mark, echo)
            else:
                mark.echo = echo  # playback in flight or a flush; its date will tell
            self._settle_before(stretch.number, echo)
            return
        clearing = self._fences.pop(name, None)
        if clearing is not None:
            if clearing not in self._clearing:
                self.counts.late_echoes += 1
                return
            self._settle_before(clearing.stretch.number, echo)
            self._measure_way(clearing.written, echo)
            clearing.fence = echo
            if self._clock.reading_us is None:
                self._settle(clearing)
            else:
                self._clock.awaited = True
                clearing.due_us = min(clearing.due_us, now_us + CLOCK_WAIT_US)
            return
        self._count_unexpected(name)

    def interrupt(self, interrupt_id: int, *, now_us: int) -> str | None:
        """The caller speaks: say whether there is anything to clear.

        Returns:
            None when nothing is playing: write no ``clear``. Otherwise the name of the fence: drop
            what is not written yet, write ``clear`` and then a mark of this name, at once.
        """
        if self._over:
            return None
        self._note(TraceKind.CLEARED, now_us, interrupt_id=interrupt_id)
        stretch = self._stretch
        if stretch.dry:
            for owner in list(stretch.parts.values()):
                self._fix_all_played(stretch, owner, Cause.CLEARED, interrupt_id)
            self._events.append(PositionsSettled(interrupt_id))
            return None
        clearing = _Clearing(
            stretch=stretch,
            interrupt_id=interrupt_id,
            written=self._clock.stamp(now_us),
            due_us=now_us + self._fence_wait_us + self._way_allowed_us(),
        )
        self._clearing.append(clearing)
        self._closed_parts.update(stretch.parts)
        self._stretch = Stretch(number=stretch.number + 1, unpunctual=stretch.unpunctual)
        fence = self._name("f")
        self._fences[fence] = clearing
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
        self._note(TraceKind.TIMED, now_us)
        self._settle_due(now_us)
        overdue_us = self._overdue_us()
        if overdue_us is not None and now_us >= overdue_us:
            self._presume_played()

    # -- answers out ---------------------------------------------------------------------------

    def next_timer_us(self) -> int | None:
        """When `handle_timer` wants to be called. None: not at all."""
        if self._over:
            return None
        due_us = self._overdue_us()
        for clearing in self._clearing:
            if due_us is None or clearing.due_us < due_us:
                due_us = clearing.due_us
        return due_us

    def events(self) -> list[PlayoutEvent]:
        """Hand over what happened since the last call."""
        events, self._events = self._events, []
        return events

    def trace(self) -> list[TraceEvent]:
        """Hand over the inputs since the last call; ``replay.py`` makes the same call of them."""
        trace, self._trace = self._trace, []
        return trace

    @property
    def trace_events(self) -> int:
        """How many inputs `trace` would hand over."""
        return len(self._trace)

    @property
    def idle(self) -> bool:
        """Nothing that was sent is still unplayed, as far as one can know."""
        return not self._clearing and (self._stretch.dry or self._presumed)

    @property
    def clock(self) -> MediaClock:
        """The stream's, which a media message may pass by `receive_media` as long as it is regular
        and not awaited."""
        return self._clock

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

    def _name(self, kind: str) -> str:
        """One counter for all, so that a name says when it was given: s3, p4, f5."""
        self._names += 1
        return f"{kind}{self._names}"

    def _mark(self, kind: str, at: int, chunk: Chunk, dry: bool) -> str:
        mark = Mark(self._name(kind), at, chunk.segment, chunk.owner, chunk.sent, dry)
        self._stretch.marks.append(mark)
        self._marks[mark.name] = (mark, self._stretch)
        return mark.name

    def _measure_way(self, sent: Stamp, echo: Stamp) -> None:
        """A mark that found an empty buffer measures the way there and back, on the media clock."""
        if sent.reading_us is None or echo.reading_us is None:
            self._way_us = echo.now_us - sent.now_us
        else:
            self._way_us = max(0, echo.reading_us - sent.reading_us)
        self._slowest_way_us = min(max(self._slowest_way_us or 0, self._way_us), SLOWEST_WAY_US)

    def _way_allowed_us(self) -> int:
        return UNKNOWN_WAY_US if self._slowest_way_us is None else self._slowest_way_us

    def _count_unexpected(self, name: str) -> None:
        late = self._late.pop(name, None)
        if late is not None:
            self.counts.late_echoes += 1
            late.unpunctual = self._stretch.unpunctual = True
        elif self._is_ours(name):
            self.counts.repeated_echoes += 1
        else:
            self.counts.unknown_echoes += 1

    def _is_ours(self, name: str) -> bool:
        """Whether a mark of this name was ever given."""
        number = name[1:]
        if name[:1] not in ("s", "p", "f") or not (number.isascii() and number.isdecimal()):
            return False
        return len(number) <= len(str(self._names)) and 0 < int(number) <= self._names

    # -- playback ------------------------------------------------------------------------------

    def _owner(self, part: Part) -> PartPlayout:
        owner = self._stretch.parts.get(part)
        if owner is None:
            if part in self._closed_parts:
                return self._strays.setdefault(part, PartPlayout(part, closed=True))
            owner = self._stretch.parts[part] = PartPlayout(part)
        return owner

    def _proved(self, mark: Mark, echo: Stamp) -> None:
        stretch = self._stretch
        self._last_us = echo.now_us
        played, missed = stretch.prove(mark, echo)
        self.counts.missed_echoes += len(missed)
        self._expect_no_more(missed, stretch)
        date = self._clock.date(echo)
        by_owner: dict[PartPlayout, list[Chunk]] = {}
        for chunk in played:
            by_owner.setdefault(chunk.owner, []).append(chunk)
        by_owner.setdefault(mark.owner, [])
        for owner, chunks in by_owner.items():
            if owner.closed:
                continue
            owner.proven_mark, owner.proven = mark.name, echo
            if chunks:
                owner.reached_us = self._reached_end_us(chunks[-1], mark, date)
            if not owner.started:
                owner.started = True
                since_us = (mark.at - chunks[0].start) * US_PER_BYTE if chunks else 0
                at_ms = max(0, date.earliest_us - since_us) // 1000
                self._events.append(PlaybackStarted(owner.part, at_ms))
            if owner.played_bytes - owner.told_bytes >= PROGRESS_BYTES:
                owner.told_bytes = owner.played_bytes
                self._events.append(
                    PlaybackProgressed(
                        owner.part,
                        floor_ms(heard_prefix(owner, owner.played_bytes)),
                        floor_ms(owner.sent_bytes),
                        date.at_ms,
                    )
                )
            self._fix_if_played(stretch, owner)

    def _reached_end_us(self, chunk: Chunk, mark: Mark, date: Date) -> int:
        """When proven audio ended, also if only a later mark proves it."""
        if mark.at == chunk.end and mark.segment == chunk.segment:
            return date.earliest_us
        line = line_through(proofs_in(self._stretch, chunk.segment, self._clock))
        if line is None:
            return date.earliest_us - (mark.at - chunk.end) * US_PER_BYTE
        return min(date.earliest_us, line.earliest_us + chunk.end * US_PER_BYTE)

    def _fix_if_played(self, stretch: Stretch, owner: PartPlayout) -> None:
        if stretch is self._stretch and owner.ended and owner.played_bytes == owner.sent_bytes:
            self._fix_all_played(stretch, owner, Cause.PLAYED, 0)

    def _fix_all_played(
        self, stretch: Stretch, owner: PartPlayout, cause: Cause, interrupt_id: int
    ) -> None:
        """Fix a part of which all that was sent is proven."""
        self._close(stretch, owner)
        proven_at = None if owner.proven is None else self._clock.date(owner.proven).at_ms
        heard_ms = floor_ms(heard_prefix(owner, owner.sent_bytes))
        sent_ms = floor_ms(owner.sent_bytes)
        position = ItemPosition(
            part=owner.part,
            low_ms=heard_ms,
            best_ms=heard_ms,
            high_ms=sent_ms,
            sent_ms=sent_ms,
            evidence=Evidence(
                rule=_proven_rule(owner, heard_ms == sent_ms),
                proven_mark=owner.proven_mark,
                proven_at_ms=proven_at,
            ),
        )
        ended_ms = None if owner.reached_us is None else max(0, owner.reached_us) // 1000
        self._events.append(PositionFixed(position, cause, ended_ms, interrupt_id))

    def _overdue_us(self) -> int | None:
        """When M5 applies."""
        stretch = self._stretch
        if stretch.dry or self._presumed:
            return None
        queued_us = (stretch.sent_bytes - stretch.proven_bytes) * US_PER_BYTE
        return max(self._last_us + queued_us, stretch.earliest_end_us) + OVERDUE_US

    def _presume_played(self) -> None:
        """Count what is overdue as played (M5)."""
        self._presumed = True
        stretch = self._stretch
        played = StretchPosition(
            low=stretch.proven_bytes,
            best=stretch.sent_bytes,
            high=stretch.sent_bytes,
            rule=Rule.MEDIA_CLOCK if self._clock.reading_us is not None else Rule.LOCAL_CLOCK,
            dated_by=DatedBy.NOTHING,
            stopped=None,
            proven=None,
            flight=(),
            line=line_of_proofs(stretch, self._clock),
        )
        self._fix_estimated(
            stretch, [o for o in stretch.parts.values() if o.ended], played, Cause.PLAYED, 0
        )

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

    def _settle(self, clearing: _Clearing) -> None:
        """Fix the positions of everything in a cleared stretch."""
        self._clearing.remove(clearing)
        stop = Stop(
            Ending.CLEAR,
            written=clearing.written,
            fence=clearing.fence,
            fence_is_later_echo=clearing.fence_is_later_echo,
            way_us=self._way_us,
        )
        stretch = clearing.stretch
        position = estimate(stretch, stop, self._clock)
        if position.line is not None and position.line.late:
            self._stretch.unpunctual = True
        date = None if position.dated_by is DatedBy.NOTHING else position.stopped
        unheard = stretch.sent_bytes - position.best
        self._events.append(
            Flushed(
                clearing.interrupt_id,
                None if date is None else date.at_ms,
                position.dated_by,
                floor_ms(unheard),
            )
        )
        self._fix_stretch(stretch, position, Cause.CLEARED, clearing.interrupt_id)
        self._events.append(PositionsSettled(clearing.interrupt_id))

    def _finish(self, kind: TraceKind, ending: Ending, cause: Cause, now_us: int) -> None:
        if self._over:
            return
        self._note(kind, now_us)
        stamp = self._clock.stamp(now_us)
        for clearing in list(self._clearing):
            if clearing.fence is None and ending is Ending.STOP:
                # Whatever became of the clear, playback was over by now.
                clearing.fence, clearing.fence_is_later_echo = stamp, True
            self._settle(clearing)
        stretch = self._stretch
        if stretch.dry:
            for owner in list(stretch.parts.values()):
                self._fix_all_played(stretch, owner, cause, 0)
        else:
            stop = Stop(ending, written=stamp, way_us=self._way_us)
            self._fix_stretch(stretch, estimate(stretch, stop, self._clock), cause, 0)
        self._over = True

    def _fix_stretch(
        self, stretch: Stretch, position: StretchPosition, cause: Cause, interrupt_id: int
    ) -> None:
        owners = list(stretch.parts.values())
        self._fix_estimated(stretch, owners, position, cause, interrupt_id)
        self._expect_no_more(stretch.marks, stretch)

    def _expect_no_more(self, marks: Iterable[Mark], stretch: Stretch) -> None:
        for mark in marks:
            if self._marks.pop(mark.name, None) is not None:
                self._late[mark.name] = stretch

    def _close(self, stretch: Stretch, owner: PartPlayout) -> None:
        owner.closed = True
        stretch.parts.pop(owner.part, None)
        self._closed_parts.add(owner.part)

    def _fix_estimated(
        self,
        stretch: Stretch,
        owners: list[PartPlayout],
        found: StretchPosition,
        cause: Cause,
        interrupt_id: int,
    ) -> None:
        """Read the parts' positions off their stretch's."""
        parts = PartsOf(stretch)
        for owner in owners:
            if not parts.chunks(owner):
                self._fix_all_played(stretch, owner, cause, interrupt_id)
            else:
                self._fix_from(stretch, owner, parts, found, cause, interrupt_id)

    def _fix_from(
        self,
        stretch: Stretch,
        owner: PartPlayout,
        parts: PartsOf,
        found: StretchPosition,
        cause: Cause,
        interrupt_id: int,
    ) -> None:
        self._close(stretch, owner)
        low = heard_prefix(owner, parts.played_bytes(owner, found.low))
        high = parts.played_bytes(owner, found.high)
        best = max(low, heard_prefix(owner, parts.played_bytes(owner, found.best)))
        whole = owner.ended and best == owner.sent_bytes
        if low == owner.sent_bytes:
            rule = _proven_rule(owner, True)
        elif not best:
            rule = Rule.NOT_STARTED
        elif low == high:
            rule = Rule.MARK
        else:
            rule = found.rule
        first, last = parts.chunks(owner)[0], parts.chunks(owner)[-1]
        if best and not owner.started:
            started_us = _reached_us(found, first.start)
            if started_us is None:
                started_us = self._clock.date(first.sent).earliest_us
            self._events.append(PlaybackStarted(owner.part, max(0, started_us) // 1000))
        stopped_us = None if found.stopped is None else found.stopped.earliest_us
        if not best:
            ended_us = None
        elif best == owner.sent_bytes:
            reached_us = _reached_us(found, last.end)
            ended_us = stopped_us if reached_us is None else reached_us
        else:
            ended_us = stopped_us
        proven, echo = owner.proven_mark, owner.proven
        if found.proven is not None and found.proven.owner is owner:
            proven, echo = found.proven.name, found.proven.echo
        next_mark = next(
            (
                mark.name
                for mark in stretch.marks
                if mark.owner is owner and mark.at > found.low and mark.name != proven
            ),
            "",
        )
        position = ItemPosition(
            part=owner.part,
            low_ms=floor_ms(low),
            best_ms=floor_ms(best),
            high_ms=floor_ms(high),
            sent_ms=floor_ms(owner.sent_bytes),
            evidence=Evidence(
                rule=rule,
                proven_mark=proven,
                proven_at_ms=None if echo is None else self._clock.date(echo).at_ms,
                next_mark=next_mark,
                stopped_at_ms=None if whole or stopped_us is None else stopped_us // 1000,
            ),
        )
        self._events.append(
            PositionFixed(
                position,
                Cause.PLAYED if whole else cause,
                None if ended_us is None else ended_us // 1000,
                0 if whole else interrupt_id,
            )
        )

    # -- trace ---------------------------------------------------------------------------------

    def _note(
        self,
        kind: TraceKind,
        now_us: int,
        *,
        part: Part | None = None,
        audio_bytes: int = 0,
        mark: str = "",
        interrupt_id: int = 0,
    ) -> None:
        clock = self._clock
        self._trace.append(
            TraceEvent(
                kind=kind,
                now_us=now_us,
                media_ms=clock.newest_ms,
                media_us=clock.received_us,
                part=part,
                audio_bytes=audio_bytes,
                mark=mark,
                interrupt_id=interrupt_id,
            )
        )

    def _note_media(self, before: tuple[int | None, int | None, int]) -> None:
        """Trace two media messages, the one before and the newest: only so is the step told."""
        if self._media_traced >= MAX_MEDIA_TRACED:
            return
        self._media_traced += 2
        clock = self._clock
        newest = (clock.newest_ms, clock.received_us, clock.frame_bytes)
        for media_ms, media_us, frame_bytes in (newest if before[1] is None else before, newest):
            self._trace.append(
                TraceEvent(
                    kind=TraceKind.MEDIA,
                    now_us=media_us or 0,
                    media_ms=media_ms,
                    media_us=media_us,
                    audio_bytes=frame_bytes,
                )
            )


def _proven_rule(owner: PartPlayout, whole: bool) -> Rule:
    """The rule of a part of which nothing is left in the queue."""
    if not whole:
        return Rule.PROVEN_ONLY  # Twilio's buffer was full: see PartPlayout.lost_at
    return Rule.PLAYED_TO_END if owner.ended else Rule.MARK


def _reached_us(found: StretchPosition, at: int) -> int | None:
    """When playback reached a position: by an echo of a mark there, else by the line."""
    for mark, date in found.flight:
        if mark.at == at:
            return date.earliest_us
    return None if found.line is None else found.line.earliest_us + at * US_PER_BYTE
