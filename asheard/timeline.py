"""A call in the order in which people on the line experienced it: turns, and what was between them."""

from __future__ import annotations

from collections.abc import Iterator

from asheard.v1.transcript_pb2 import CallEvent, DeadAirReason, Silence, Transcript, Turn

_WAITED_FOR = {
    DeadAirReason.DEAD_AIR_REASON_MODEL: "waiting for the model",
    DeadAirReason.DEAD_AIR_REASON_TOOL: "waiting for a tool",
    DeadAirReason.DEAD_AIR_REASON_REFUSED: "the model refused or failed",
    DeadAirReason.DEAD_AIR_REASON_NO_RESPONSE: "the model began no answer",
    DeadAirReason.DEAD_AIR_REASON_RECONNECT: "no session with the model",
}


def timeline(transcript: Transcript) -> Iterator[Turn | CallEvent]:
    """All turns, each followed by the events that began after it."""
    following: dict[str, list[CallEvent]] = {}
    for event in transcript.events:
        following.setdefault(event.after_item_id, []).append(event)
    yield from following.get("", ())
    for turn in transcript.turns:
        yield turn
        yield from following.get(turn.item_id, ())


def silence_in_words(silence: Silence) -> str:
    """How long, and what was waited for."""
    reason = _WAITED_FOR.get(silence.reason, "the reason is not known")
    return f"{silence.lasted_ms / 1000:.1f} s of silence: {reason}"
