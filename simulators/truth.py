"""What was really heard: the carrier's truth joined with the model's, by the audio itself. Pure.

A call is matched with its sessions (several, if a session was lost) by the tags in the caller's
frames. Then the agent's audio that the carrier accepted is laid over the audio the model sent,
both in order: what a bridge dropped leaves a gap, what it made up is ``foreign``. Where a carrier
byte was played, the item's byte was heard. No clock, mark or event of the bridge takes part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from simulators import frame_tag
from simulators.realtime.session_truth import AgentItem, SessionTruth, SpokenWord
from simulators.speech.g711 import BYTES_PER_MS
from simulators.twilio.call_truth import CallTruth

_MIN_MATCH_BYTES = 64
_SILENT = frozenset(code for code in range(256) if code & 0x7F >= 0x78)
"""The eight quietest steps of µ-law of either sign: the pauses of different voices have stretches of
them in common."""

Ranges = tuple[tuple[int, int], ...]
"""Half-open byte ranges, in order, not touching."""


@dataclass(frozen=True, slots=True)
class HeardItem:
    """What became of one item of the model's."""

    session_id: str
    item_id: str
    generated_text: str
    """Transcript the model sent."""
    words: tuple[SpokenWord, ...]
    """Every planned word, with its times in the item's audio."""
    generated_bytes: int
    reached: Ranges
    """Positions of the item's audio that reached the carrier."""
    played: Ranges
    """Positions of the item's audio that sounded."""
    start_ms: int | None
    """Media clock when its first byte sounded; None if none did."""
    end_ms: int | None
    """Media clock when its last sounding byte had sounded, rounded up."""
    stream: int | None
    """Index of the call's stream that played it."""

    @property
    def generated_ms(self) -> int:
        """Audio the model sent, rounded down."""
        return self.generated_bytes // BYTES_PER_MS

    @property
    def played_ms(self) -> float:
        """Audio that sounded, exactly."""
        return sum(end - start for start, end in self.played) / BYTES_PER_MS

    @property
    def heard(self) -> tuple[bool, ...]:
        """For each word, whether at least half of it was played."""
        return tuple(self._half_played(start, end) for _, start, end in self.words)

    @property
    def heard_text(self) -> str:
        """The words that were heard."""
        pairs = zip(self.words, self.heard, strict=True)
        return " ".join(word for (word, _, _), heard in pairs if heard)

    @property
    def unheard_text(self) -> str:
        """The words that were not, also those that never became audio."""
        pairs = zip(self.words, self.heard, strict=True)
        return " ".join(word for (word, _, _), heard in pairs if not heard)

    def _half_played(self, start_ms: int, end_ms: int) -> bool:
        start, end = start_ms * BYTES_PER_MS, end_ms * BYTES_PER_MS
        played = sum(max(0, min(end, b) - max(start, a)) for a, b in self.played)
        return 2 * played >= end - start


@dataclass(frozen=True, slots=True)
class CallerFrames:
    """How the caller's frames came through to the model."""

    sent: int
    received: int
    lost: tuple[int, ...]
    """Numbers of frames that never arrived. The last few of a call may still be on their way when
    it ends; see ``lost_before_end``."""
    repeated: tuple[int, ...]
    out_of_order: tuple[int, ...]
    strangers: int
    """Frames of other calls."""
    foreign_bytes: int
    """Audio in the sessions that is no frame of the caller: filled-in silence."""

    def lost_before_end(self, tail_frames: int = 25) -> tuple[int, ...]:
        """Lost frames but for the last half second of the call."""
        return tuple(n for n in self.lost if n < self.sent - tail_frames)

    @property
    def intact(self) -> bool:
        """Nothing lost before the end, repeated, out of order or mixed up."""
        return not (self.lost_before_end() or self.repeated or self.out_of_order or self.strangers)


@dataclass(frozen=True, slots=True)
class HeardCall:
    """One call, joined."""

    call_sid: str
    session_ids: tuple[str, ...]
    """The call's sessions, in order."""
    items: tuple[HeardItem, ...]
    """The model's items with audio, in the order in which their audio was sent."""
    frames: CallerFrames
    foreign_bytes: int
    """Audio the carrier was given that no session of the call had sent."""

    def item(self, item_id: str) -> HeardItem:
        """The item of that name.

        Raises:
            KeyError: No audio of it was sent.
        """
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)


def join(calls: Iterable[CallTruth], sessions: Iterable[SessionTruth]) -> list[HeardCall]:
    """Join calls with their sessions.

    Args:
        calls: Calls whose carriers tagged their frames and kept their audio.
        sessions: All sessions of the run.

    Returns:
        One entry for each call, in their order.
    """
    scanned = [(session, frame_tag.scan(bytes(session.appended))) for session in sessions]
    joined = []
    for call in calls:
        own = [
            (session, tags)
            for session, tags in scanned
            if Counter(tag for tag, _ in tags.frames).most_common(1)[:1]
            and Counter(tag for tag, _ in tags.frames).most_common(1)[0][0] == call.tag
        ]
        own.sort(key=lambda pair: next(n for tag, n in pair[1].frames if tag == call.tag))
        joined.append(_join_call(call, own))
    return joined


def _join_call(
    call: CallTruth, own: Sequence[tuple[SessionTruth, frame_tag.TaggedFrames]]
) -> HeardCall:
    sent = _Sent([session for session, _ in own])
    foreign = 0
    at = 0
    placed: list[_Placed] = []
    for index, stream in enumerate(call.streams):
        audio = bytes(stream.audio)
        for message in stream.media:
            for start, end, found in sent.place(audio, message.start_byte, message.end_byte, at):
                if found is None:
                    foreign += end - start
                else:
                    placed.append(_Placed(index, start, end, found))
                    at = found + end - start
    return HeardCall(
        call_sid=call.call_sid,
        session_ids=tuple(session.session_id for session, _ in own),
        items=tuple(_heard(call, sent, placed)),
        frames=_frames(call, [tags for _, tags in own]),
        foreign_bytes=foreign,
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A stretch of a stream's audio and where the model sent it."""

    stream: int
    start: int
    end: int
    sent_at: int


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch of sent audio that belongs to one item."""

    start: int
    end: int
    session_id: str
    item: AgentItem
    item_start: int


class _Sent:
    """All the audio the sessions of one call sent, in order."""

    def __init__(self, sessions: Sequence[SessionTruth]) -> None:
        audio = bytearray()
        self.runs: list[_Run] = []
        for session in sessions:
            items = {item.item_id: item for item in session.agent_items}
            for item_id, start, end in session.sent_order:
                item = items[item_id]
                self.runs.append(
                    _Run(len(audio), len(audio) + end - start, session.session_id, item, start)
                )
                audio += item.audio[start:end]
        self.audio = bytes(audio)
        self._item_starts = [run.start for run in self.runs if run.item_start == 0]

    def place(
        self, audio: bytes, start: int, end: int, at: int
    ) -> Iterator[tuple[int, int, int | None]]:
        """Find where a message's audio was sent, at or after ``at``.

        Yields:
            Start and end in ``audio``, and the position in the sent audio; None if it is not there.
        """
        while start < end:
            wanted = audio[start:end]
            found = self._whole(wanted, at)
            if found is not None:
                yield start, end, found
                return
            common = _common(wanted, self.audio[at : at + len(wanted)])
            if _tells(wanted[:common]):
                yield start, start + common, at
                start, at = start + common, at + common
                continue
            head = wanted[:_MIN_MATCH_BYTES]
            found = self.audio.find(head, at) if _tells(head) else -1
            if found < 0:
                yield start, end, None
                return
            common = _common(wanted, self.audio[found : found + len(wanted)])
            yield start, start + common, found
            start, at = start + common, found + common

    def _whole(self, wanted: bytes, at: int) -> int | None:
        """Going on where the last message ended, else at an item's start, else anywhere after."""
        candidates = [at, *(s for s in self._item_starts if s > at)]
        for candidate in candidates:
            if self.audio.startswith(wanted, candidate):
                return candidate
        found = self.audio.find(wanted, at)
        return found if found >= 0 else None


def _tells(stretch: bytes) -> bool:
    """Whether it says anything that two stretches have this in common: silence is everywhere."""
    return len(stretch) >= _MIN_MATCH_BYTES and not set(stretch) <= _SILENT


def _common(a: bytes, b: bytes) -> int:
    """Length of the common beginning."""
    if a == b:
        return len(a)
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _heard(call: CallTruth, sent: _Sent, placed: Sequence[_Placed]) -> Iterator[HeardItem]:
    by_item: dict[str, list[_Run]] = {}
    for run in sent.runs:
        by_item.setdefault(run.item.item_id, []).append(run)
    for runs in by_item.values():
        reached: list[tuple[int, int]] = []
        played: list[tuple[int, int]] = []
        starts: list[int] = []
        ends: list[int] = []
        stream_index: int | None = None
        for run in runs:
            for p in placed:
                a = max(run.start, p.sent_at)
                b = min(run.end, p.sent_at + p.end - p.start)
                if a >= b:
                    continue
                to_item = run.item_start - run.start
                to_stream = p.start - p.sent_at
                reached.append((a + to_item, b + to_item))
                for stretch in call.streams[p.stream].played:
                    c = max(a + to_stream, stretch.start_byte)
                    d = min(b + to_stream, stretch.end_byte)
                    if c >= d:
                        continue
                    stream_index = p.stream
                    played.append((c - to_stream + to_item, d - to_stream + to_item))
                    first = (c - stretch.start_byte) // BYTES_PER_MS
                    last = -(-(d - stretch.start_byte) // BYTES_PER_MS)
                    starts.append(stretch.start_ms + first)
                    ends.append(stretch.start_ms + last)
        item = runs[0].item
        yield HeardItem(
            session_id=runs[0].session_id,
            item_id=item.item_id,
            generated_text=item.text,
            words=tuple(item.words),
            generated_bytes=len(item.audio),
            reached=_merged(reached),
            played=_merged(played),
            start_ms=starts[0] if starts else None,
            end_ms=ends[-1] if ends else None,
            stream=stream_index,
        )


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _frames(call: CallTruth, scans: Sequence[frame_tag.TaggedFrames]) -> CallerFrames:
    numbers = [n for scan in scans for tag, n in scan.frames if tag == call.tag]
    seen = Counter(numbers)
    late = [n for before, n in zip(numbers, numbers[1:], strict=False) if n < before]
    return CallerFrames(
        sent=call.frames_sent,
        received=len(numbers),
        lost=tuple(n for n in range(call.frames_sent) if n not in seen),
        repeated=tuple(sorted(n for n, count in seen.items() if count > 1)),
        out_of_order=tuple(late),
        strangers=sum(tag != call.tag for scan in scans for tag, _ in scan.frames),
        foreign_bytes=sum(scan.foreign_bytes for scan in scans),
    )
