"""What became of agent audio, as facts and as link messages: one mapping, by hand, in one place.

``Rule``, ``Cause`` and ``TraceKind`` carry the numbers of their protobuf enums; a test holds them
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asheard.v1 import fact_pb2, session_service_pb2, transcript_pb2
from gateway.delivery import TellPositions
from gateway.playout.positions import (
    Cause,
    ItemPosition,
    Part,
    PlaybackProgressed,
    PlaybackStarted,
    PositionFixed,
    TraceEvent,
    TraceKind,
)

MAX_TRACE_BYTES = 32 * 1024
"""Of one ``PlayoutTraced``: some 800 events, and half of the maximum of a fact."""

_EVENT_HEADER_BYTES = 4
"""The maximum that a message costs as an element of another when it is as small as these."""


def playback_started(event: PlaybackStarted) -> fact_pb2.PlaybackStarted:
    """Twilio began to play a part."""
    return fact_pb2.PlaybackStarted(
        item_id=event.part.item_id, content_index=event.part.content_index, at_ms=event.at_ms
    )


def playback_progressed(event: PlaybackProgressed) -> fact_pb2.PlaybackProgressed:
    """How far playback of a part is proven."""
    return fact_pb2.PlaybackProgressed(
        item_id=event.part.item_id,
        content_index=event.part.content_index,
        played_ms=event.played_ms,
        sent_ms=event.sent_ms,
        at_ms=event.at_ms,
    )


def position_fixed(event: PositionFixed) -> fact_pb2.PositionFixed:
    """The last word on a part."""
    return fact_pb2.PositionFixed(
        position=item_position(event.position),
        cause=cause(event.cause),
        at_ms=event.at_ms,
        interrupt_id=event.interrupt_id,
    )


def cause(value: Cause) -> fact_pb2.PositionCause.ValueType:
    """Why playback of a part ended."""
    return fact_pb2.PositionCause.ValueType(value)


def item_position(position: ItemPosition) -> transcript_pb2.ItemPosition:
    """A range with its evidence."""
    evidence = position.evidence
    return transcript_pb2.ItemPosition(
        item_id=position.part.item_id,
        content_index=position.part.content_index,
        low_ms=position.low_ms,
        best_ms=position.best_ms,
        high_ms=position.high_ms,
        sent_ms=position.sent_ms,
        evidence=transcript_pb2.PositionEvidence(
            rule=transcript_pb2.PositionRule.ValueType(evidence.rule),
            proven_mark=evidence.proven_mark,
            proven_at_ms=evidence.proven_at_ms,
            next_mark=evidence.next_mark,
            stopped_at_ms=evidence.stopped_at_ms,
        ),
    )


def positions_fixed(told: TellPositions) -> session_service_pb2.GatewayControl:
    """Positions, for the session worker."""
    return session_service_pb2.GatewayControl(
        positions_fixed=session_service_pb2.PositionsFixed(
            interrupt_id=told.interrupt_id,
            positions=[item_position(position) for position in told.positions],
            cause=cause(told.cause),
        )
    )


def playout_traced(trace: Iterable[TraceEvent]) -> Iterator[fact_pb2.PlayoutTraced]:
    """What the playhead was told, in order, in pieces that each fit into a fact."""
    piece, piece_bytes = fact_pb2.PlayoutTraced(), 0
    for event in trace:
        traced = _traced(event)
        event_bytes = traced.ByteSize() + _EVENT_HEADER_BYTES
        if piece_bytes and piece_bytes + event_bytes > MAX_TRACE_BYTES:
            yield piece
            piece, piece_bytes = fact_pb2.PlayoutTraced(), 0
        piece.events.append(traced)
        piece_bytes += event_bytes
    if piece_bytes:
        yield piece


def _traced(event: TraceEvent) -> fact_pb2.PlayoutEvent:
    part = event.part
    return fact_pb2.PlayoutEvent(
        kind=fact_pb2.PlayoutEventKind.ValueType(event.kind),
        now_us=event.now_us,
        media_ms=event.media_ms,
        media_us=event.media_us,
        item_id=part.item_id if part is not None else "",
        content_index=part.content_index if part is not None else 0,
        audio_bytes=event.audio_bytes,
        mark=event.mark,
        interrupt_id=event.interrupt_id,
    )


def trace_event(event: fact_pb2.PlayoutEvent) -> TraceEvent:
    """A stored input of the playhead, as it was."""
    kind = TraceKind(event.kind)
    has_part = kind in (TraceKind.SENT, TraceKind.ENDED)
    return TraceEvent(
        kind=kind,
        now_us=event.now_us,
        media_ms=event.media_ms if event.HasField("media_ms") else None,
        media_us=event.media_us if event.HasField("media_us") else None,
        part=Part(event.item_id, event.content_index) if has_part else None,
        audio_bytes=event.audio_bytes,
        mark=event.mark,
        interrupt_id=event.interrupt_id,
    )
