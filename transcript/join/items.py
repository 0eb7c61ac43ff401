"""What all writers together say about each conversation item, gathered in canonical order.

Of a part that was playing when its stream was over without a PositionFixed (the gateway is lost, or
had to give that fact up), the last that was proven stands: so much was heard, and more is not
claimed. Up to all that was generated may have been heard, for more may have been sent than the
gateway could tell. Where the gateway is lost, that goes for parts as well of which it had told
nothing yet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from asheard.v1.fact_pb2 import (
    CallerTranscribed,
    Fact,
    ItemGenerated,
    ItemProgressed,
    PositionCause,
    PositionFixed,
    ToolCalled,
    WordsTimed,
)
from asheard.v1.transcript_pb2 import ItemPosition, PositionEvidence, PositionRule, Role
from transcript.join.lifecycle import is_complete, is_over
from transcript.join.log import CallLog

_AGENT, _CALLER = Role.ROLE_AGENT, Role.ROLE_CALLER
"""An enumeration's wrapper looks each up by name, and there are many facts."""


@dataclass(frozen=True, slots=True)
class StreamTime:
    """An instant on the clock of one media stream; each stream's clock begins anew near 0."""

    stream: int
    """Which stream, in the order in which they started."""
    at_ms: int


@dataclass(slots=True)
class Part:
    """One content part of an agent's item."""

    pieces: list[ItemProgressed] = field(default_factory=list)
    generated: ItemGenerated | None = None
    """The last of them."""
    text: str = ""
    """The longest text of those; among equals the last."""
    times: list[WordsTimed] = field(default_factory=list)
    """In the order of their writing."""
    started: StreamTime | None = None
    played_ms: int = 0
    """Proven while it plays."""
    proven_at_ms: int | None = None
    """When that was proven, on its stream's clock."""
    sent_ms: int = 0
    fixed: PositionFixed | None = None

    @property
    def audio_ms(self) -> int:
        """All that was generated; until the worker's last word, all that is known to exist."""
        if self.generated is not None:
            return max(0, self.generated.audio_ms)
        known = [piece.audio_ms for piece in self.pieces]
        known += [self.played_ms, self.sent_ms]
        if self.fixed is not None:
            known += [self.fixed.position.best_ms, self.fixed.position.sent_ms]
        return max(0, *known)


@dataclass(slots=True)
class Item:
    """One conversation item."""

    item_id: str
    writer: str
    """Whose order it takes its place in: the session's that added it; a gateway's while no
    session's fact arrived."""
    sequence: int
    """Its place in that order."""
    role: Role.ValueType = Role.ROLE_UNSPECIFIED
    parts: dict[int, Part] = field(default_factory=dict)
    """Agent: by content index."""
    spoke: bool = False
    """Caller: there is evidence of speech, if only a failed transcription."""
    speech_started: StreamTime | None = None
    speech_stopped: StreamTime | None = None
    transcriptions: list[CallerTranscribed] = field(default_factory=list)
    notice: bool = False
    """Agent: the worker said it by itself, without the model."""
    tool: ToolCalled | None = None
    added: bool = False
    facts: list[Fact] = field(default_factory=list)
    """All that say anything about it, in canonical order."""
    left_playing: list[int] = field(default_factory=list)
    """Parts that were playing when their stream was over without a word on them."""

    def part(self, content_index: int) -> Part:
        """The part with this index, made on first mention."""
        part = self.parts.get(content_index)
        if part is None:
            part = self.parts[content_index] = Part()
        return part

    @property
    def started(self) -> StreamTime | None:
        """When people on the line began to experience it. None: it never began, so far."""
        if self.role == Role.ROLE_CALLER:
            return self.speech_started
        starts = [part.started for part in self.parts.values() if part.started is not None]
        return min(starts, key=lambda start: (start.stream, start.at_ms), default=None)


def gather(log: CallLog) -> list[Item]:
    """Every item that any fact mentions, with all that was said about it."""
    items = _Gathering()
    # Sessions first: the place of an item is its session's to say.
    for writer, facts in log.sessions.items():
        for fact in facts:
            items.hear_session(fact, log.stream_of_session[writer])
    for stream, (writer, facts) in enumerate(log.streams.items()):
        items.begin_stream()
        for fact in facts:
            items.hear_gateway(fact, stream)
        if is_over(log, writer):
            items.end_stream()
            if not is_complete(facts, "call_ended"):
                items.lose_stream(_sessions_on(log, stream))
    if log.closed and not log.streams:
        items.lose_stream(_sessions_on(log, 0))
    return list(items.by_id.values())


def _sessions_on(log: CallLog, stream: int) -> set[str]:
    return {writer for writer, place in log.stream_of_session.items() if place == stream}


class _Gathering:
    def __init__(self) -> None:
        self.by_id: dict[str, Item] = {}
        self._playing: dict[tuple[str, int], Part] = {}
        """Parts that began in this stream and of which no last word came yet."""

    def _item(self, item_id: str, fact: Fact, role: Role.ValueType) -> Item:
        item = self.by_id.get(item_id)
        if item is None:
            item = self.by_id[item_id] = Item(item_id, fact.writer, fact.sequence, role)
        item.facts.append(fact)
        return item

    def hear_session(self, fact: Fact, stream: int) -> None:
        """Take in a session worker's fact; its times count on ``stream``'s clock."""
        match fact.WhichOneof("body"):
            case "item_added":
                added = fact.item_added
                item = self._item(added.item_id, fact, added.role)
                item.notice = item.notice or added.notice
                if not item.added:
                    item.writer, item.sequence = fact.writer, fact.sequence
                    item.role = added.role or item.role
                    item.added = True
            case "item_progressed":
                progressed = fact.item_progressed
                item = self._item(progressed.item_id, fact, _AGENT)
                item.part(progressed.content_index).pieces.append(progressed)
            case "item_generated":
                generated = fact.item_generated
                item = self._item(generated.item_id, fact, _AGENT)
                part = item.part(generated.content_index)
                part.generated = generated
                if len(generated.text) >= len(part.text):
                    part.text = generated.text
            case "words_timed":
                timed = fact.words_timed
                item = self._item(timed.item_id, fact, _AGENT)
                item.part(timed.content_index).times.append(timed)
            case "caller_speech_started":
                speech = fact.caller_speech_started
                item = self._item(speech.item_id, fact, _CALLER)
                item.spoke = True
                if speech.HasField("at_ms"):
                    item.speech_started = StreamTime(stream, speech.at_ms)
            case "caller_speech_stopped":
                stopped = fact.caller_speech_stopped
                item = self._item(stopped.item_id, fact, _CALLER)
                item.spoke = True
                if stopped.HasField("at_ms"):
                    item.speech_stopped = StreamTime(stream, stopped.at_ms)
            case "caller_transcribed":
                item = self._item(fact.caller_transcribed.item_id, fact, _CALLER)
                item.spoke = True
                item.transcriptions.append(fact.caller_transcribed)
            case "tool_called":
                item = self._item(fact.tool_called.item_id, fact, Role.ROLE_TOOL)
                item.role = Role.ROLE_TOOL
                item.tool = fact.tool_called
            case _:
                pass  # not about an item's place in the transcript

    def hear_gateway(self, fact: Fact, stream: int) -> None:
        """Take in a gateway's fact."""
        match fact.WhichOneof("body"):
            case "playback_started":
                started = fact.playback_started
                part = self._part(started.item_id, started.content_index, fact)
                part.started = part.started or StreamTime(stream, started.at_ms)
                if part.proven_at_ms is None:
                    part.proven_at_ms = started.at_ms
            case "playback_progressed":
                progressed = fact.playback_progressed
                part = self._part(progressed.item_id, progressed.content_index, fact)
                part.played_ms = progressed.played_ms
                part.sent_ms = progressed.sent_ms
                part.proven_at_ms = progressed.at_ms
            case "position_fixed":
                position = fact.position_fixed.position
                part = self._part(position.item_id, position.content_index, fact)
                part.fixed = fact.position_fixed
            case _:
                pass

    def _part(self, item_id: str, content_index: int, fact: Fact) -> Part:
        part = self._item(item_id, fact, _AGENT).part(content_index)
        self._playing[item_id, content_index] = part
        return part

    def begin_stream(self) -> None:
        """What follows is another stream's."""
        self._playing.clear()

    def end_stream(self) -> None:
        """No more is to be heard of the stream: what was playing stays as far as proven."""
        for (item_id, content_index), part in self._playing.items():
            if part.fixed is None:
                self._leave_playing(self.by_id[item_id], content_index, part)

    def lose_stream(self, sessions: Collection[str]) -> None:
        """The gateway is lost: it may have played more of these sessions than it told."""
        for item in self.by_id.values():
            if item.writer in sessions:
                for content_index, part in item.parts.items():
                    if part.fixed is None and part.audio_ms:
                        self._leave_playing(item, content_index, part)

    def _leave_playing(self, item: Item, content_index: int, part: Part) -> None:
        item.left_playing.append(content_index)
        part.fixed = _left_playing(item.item_id, content_index, part)


def _left_playing(item_id: str, content_index: int, part: Part) -> PositionFixed:
    """The last word on a part of which its gateway could not say it."""
    proven_ms = max(0, part.played_ms)
    sent_ms = max(proven_ms, part.sent_ms)
    high_ms = max(sent_ms, part.audio_ms)
    return PositionFixed(
        position=ItemPosition(
            item_id=item_id,
            content_index=content_index,
            low_ms=proven_ms,
            best_ms=proven_ms,
            high_ms=high_ms,
            sent_ms=sent_ms,
            evidence=PositionEvidence(
                rule=PositionRule.POSITION_RULE_PROVEN_ONLY, proven_at_ms=part.proven_at_ms
            ),
        ),
        cause=PositionCause.POSITION_CAUSE_DROPPED,
        at_ms=part.proven_at_ms,
    )
