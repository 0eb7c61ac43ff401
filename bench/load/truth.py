"""What really happened on the calls of a bench, joined from what each end wrote down. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import lines
from bench.load.record import CallerCall, Cut, ModelCall, PlayedItem, SpokenItem
from simulators import frame_tag


@dataclass(frozen=True, slots=True)
class Played:
    """What came to Twilio's end of a call."""

    items: list[PlayedItem]
    """In the order in which they came."""
    foreign_bytes: int
    """Audio of no line, apart from the last piece of a frame that a cut leaves behind."""


@dataclass(slots=True)
class _Stretch:
    line: int
    start: int
    end: int
    next_frame: int
    whole: bool


def played_items(audio: bytes, played: Sequence[tuple[int, int]]) -> Played:
    """Find the agent's items in what a call received, and how much of each was played.

    Args:
        audio: All agent audio of the call, tagged by :mod:`bench.load.lines`.
        played: Half-open ranges of it that sounded, in order.
    """
    found = frame_tag.scan(audio)
    stretches: list[_Stretch] = []
    for (line, number), offset in zip(found.frames, found.offsets, strict=True):
        last = stretches[-1] if stretches else None
        if last is None or line != last.line or number < last.next_frame:
            stretches.append(_Stretch(line, offset, offset, 0, True))
            last = stretches[-1]
        if number != last.next_frame or offset - last.start != number * frame_tag.FRAME_BYTES:
            last.whole = False
        last.next_frame = number + 1
        last.end = offset + frame_tag.FRAME_BYTES
    foreign_bytes = stretches[0].start if stretches else len(audio)
    # Behind an item's last whole frame is the rest of a delta, unless it is too long for that.
    for place, stretch in enumerate(stretches):
        border = stretches[place + 1].start if place + 1 < len(stretches) else len(audio)
        tail = border - stretch.end
        if tail < frame_tag.FRAME_BYTES:
            stretch.end = border
        else:
            foreign_bytes += tail
    return Played(
        [
            PlayedItem(s.line, s.end - s.start, _overlap(s.start, s.end, played), s.whole)
            for s in stretches
        ],
        foreign_bytes,
    )


def _overlap(start: int, end: int, ranges: Sequence[tuple[int, int]]) -> int:
    return sum(max(0, min(end, b) - max(start, a)) for a, b in ranges)


@dataclass(frozen=True, slots=True)
class TrueItem:
    """One item, from generation to the caller's ear."""

    call: int
    call_sid: str
    spoken: SpokenItem
    received_bytes: int
    heard_ms: int
    whole: bool
    """Nothing of what came was lost, repeated or out of order."""
    cut: Cut | None
    """The barge-in that ended it, if one did."""
    last: bool
    """The call's last item: it may be the hang-up that ended it."""

    @property
    def audio_ms(self) -> int:
        """All that was generated."""
        return self.spoken.audio_bytes // 8

    @property
    def text(self) -> str:
        """All that was generated."""
        return lines.speech(self.spoken.line).text[: self.spoken.chars]

    @property
    def heard_words(self) -> int:
        """Words of which at least half was played; the last of them closes the list."""
        count = 0
        for place, word in enumerate(lines.speech(self.spoken.line).words):
            if 2 * self.heard_ms >= word.start_ms + word.end_ms:
                count = place + 1
        return count

    @property
    def heard_text(self) -> str:
        """Those words."""
        words = lines.speech(self.spoken.line).words
        return " ".join(word.text for word in words[: self.heard_words])


def true_items(model: ModelCall, caller: CallerCall) -> list[TrueItem]:
    """Join the two ends of one call: every item the model began, in order.

    An item that never came to Twilio's end was not heard. Lines do not come again before all
    others have (``bench.load.model``), so that their order tells the items apart.
    """
    cuts = list(caller.cuts)
    place = 0
    joined: list[TrueItem] = []
    for spoken in model.items:
        came: PlayedItem | None = None
        if place < len(caller.items) and caller.items[place].line == spoken.line:
            came = caller.items[place]
            place += 1
        cut = cuts.pop(0) if cuts and came is not None and cuts[0].line == spoken.line else None
        joined.append(
            TrueItem(
                call=caller.call,
                call_sid=caller.call_sid,
                spoken=spoken,
                received_bytes=0 if came is None else came.received_bytes,
                heard_ms=0 if came is None else came.played_bytes // 8,
                whole=came is None or came.whole,
                cut=cut,
                last=spoken is model.items[-1],
            )
        )
    return joined


def lost_agent_audio(items: Sequence[TrueItem]) -> int:
    """Items that did not come as they were sent although nobody cut them off.

    An item that the model broke off is cut off even if nothing of it sounded yet.
    """
    return sum(
        not item.whole
        or (
            item.spoken.completed
            and item.cut is None
            and not item.last
            and item.received_bytes != item.spoken.audio_bytes
        )
        for item in items
    )
