"""How a part's position is fixed: read off what its stretch has played, with its evidence. Pure.

A part's position is fixed once (rule M4 at the top of ``playhead.py``): by proof, when all that was sent of it is
proven to be played; or by an estimate of its stretch (``estimate.py``), when that was cleared,
overdue or cut off.
"""

from __future__ import annotations

from gateway.playout.clock import MediaClock, Timestamp
from gateway.playout.estimate import StretchPosition, line_of_proofs, line_through, proofs_in
from gateway.playout.positions import (
    US_PER_BYTE,
    Cause,
    Evidence,
    ItemPosition,
    Part,
    PlaybackStarted,
    PlayoutEvent,
    PositionFixed,
    Rule,
    TimedBy,
    floor_ms,
)
from gateway.playout.stretch import Chunk, Mark, PartPlayout, PartsOf, Stretch, heard_prefix


class Fixing:
    """One stream's.

    Args:
        clock: The stream's media clock.
        events: Where positions are said, in order.
    """

    def __init__(self, clock: MediaClock, events: list[PlayoutEvent]) -> None:
        self.closed_parts: set[Part] = set()
        """Parts whose position is fixed, or that an interrupt has closed."""
        self._clock = clock
        self._events = events

    def fix_played(
        self, stretch: Stretch, owner: PartPlayout, cause: Cause, interrupt_id: int
    ) -> None:
        """Fix a part of which all that was sent is proven."""
        self._close(stretch, owner)
        proven_at = None if owner.proven is None else self._clock.timestamp(owner.proven).at_ms
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

    def fix_presumed(self, stretch: Stretch) -> None:
        """Fix the ended parts of a stretch that counts as played without proof (M5)."""
        played = StretchPosition(
            low=stretch.proven_bytes,
            best=stretch.sent_bytes,
            high=stretch.sent_bytes,
            rule=Rule.MEDIA_CLOCK if self._clock.reading_us is not None else Rule.LOCAL_CLOCK,
            timed_by=TimedBy.NOTHING,
            stopped=None,
            proven=None,
            flight=(),
            line=line_of_proofs(stretch, self._clock),
        )
        ended = [owner for owner in stretch.parts.values() if owner.ended]
        self._fix_owners(stretch, ended, played, Cause.PLAYED, 0)

    def fix_estimated(
        self, stretch: Stretch, found: StretchPosition, cause: Cause, interrupt_id: int
    ) -> None:
        """Fix all parts of a stretch of which it is estimated how far it was played."""
        self._fix_owners(stretch, list(stretch.parts.values()), found, cause, interrupt_id)

    def reached_end_us(self, stretch: Stretch, chunk: Chunk, mark: Mark, proven: Timestamp) -> int:
        """When proven audio ended, also if only a later mark proves it.

        Args:
            stretch: What it is in.
            chunk: The audio.
            mark: The mark that proves it.
            proven: When that was echoed.
        """
        if mark.at == chunk.end and mark.segment == chunk.segment:
            return proven.earliest_us
        line = line_through(proofs_in(stretch, chunk.segment, self._clock))
        if line is None:
            return proven.earliest_us - (mark.at - chunk.end) * US_PER_BYTE
        return min(proven.earliest_us, line.earliest_us + chunk.end * US_PER_BYTE)

    def _close(self, stretch: Stretch, owner: PartPlayout) -> None:
        owner.closed = True
        stretch.parts.pop(owner.part, None)
        self.closed_parts.add(owner.part)

    def _fix_owners(
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
                self.fix_played(stretch, owner, cause, interrupt_id)
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
                started_us = self._clock.timestamp(first.sent).earliest_us
            self._events.append(PlaybackStarted(owner.part, max(0, started_us) // 1000))
        stopped_us = None if found.stopped is None else found.stopped.earliest_us
        if not best:
            ended_us = None
        elif best == owner.sent_bytes:
            reached_us = _reached_us(found, last.end)
            ended_us = stopped_us if reached_us is None else reached_us
        else:
            ended_us = stopped_us
        position = ItemPosition(
            part=owner.part,
            low_ms=floor_ms(low),
            best_ms=floor_ms(best),
            high_ms=floor_ms(high),
            sent_ms=floor_ms(owner.sent_bytes),
            evidence=self._evidence(stretch, owner, found, rule, None if whole else stopped_us),
        )
        self._events.append(
            PositionFixed(
                position,
                Cause.PLAYED if whole else cause,
                None if ended_us is None else ended_us // 1000,
                0 if whole else interrupt_id,
            )
        )

    def _evidence(
        self,
        stretch: Stretch,
        owner: PartPlayout,
        found: StretchPosition,
        rule: Rule,
        stopped_us: int | None,
    ) -> Evidence:
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
        return Evidence(
            rule=rule,
            proven_mark=proven,
            proven_at_ms=None if echo is None else self._clock.timestamp(echo).at_ms,
            next_mark=next_mark,
            stopped_at_ms=None if stopped_us is None else stopped_us // 1000,
        )


def _proven_rule(owner: PartPlayout, whole: bool) -> Rule:
    """The rule of a part of which nothing is left in the queue."""
    if not whole:
        return Rule.PROVEN_ONLY  # Twilio's buffer was full: see PartPlayout.lost_at
    return Rule.PLAYED_TO_END if owner.ended else Rule.MARK


def _reached_us(found: StretchPosition, at: int) -> int | None:
    """When playback reached a position: by an echo of a mark there, else by the line."""
    for mark, echoed in found.flight:
        if mark.at == at:
            return echoed.earliest_us
    return None if found.line is None else found.line.earliest_us + at * US_PER_BYTE
