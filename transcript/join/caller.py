"""One caller's item: what was transcribed, unless nobody spoke.

Rules:

1. An item is a turn from the first sign of speech, or of transcription.
2. The longest complete transcription stands; until there is one, the longest so far. Of a
   transcription that failed, what it had before counts as complete.
3. Nobody spoke when the worker says so and no transcription has a word: then it is no turn. Of an
   item whose transcription failed nobody knows; it is a turn, and marked.
4. Workers of before say nothing about nobody, and what they found empty stays a turn without text:
   no improvement changes what was said to be final.
"""

from __future__ import annotations

from asheard.v1.fact_pb2 import CallerTranscribed
from asheard.v1.transcript_pb2 import Role, Turn
from transcript.join.items import Item


def caller_turn(item: Item) -> Turn | None:
    """The turn of a caller's item; None when there is no sign of speech, or nobody spoke."""
    if not item.spoke or _is_nobodys(item.transcriptions):
        return None
    turn = Turn(item_id=item.item_id, role=Role.ROLE_CALLER)
    if item.transcriptions:
        best = max(item.transcriptions, key=_worth)
        turn.heard_text = best.text
        turn.transcription_failed = best.failed
    if item.speech_started is not None:
        turn.start_ms = item.speech_started.at_ms
    if item.speech_stopped is not None:
        turn.end_ms = item.speech_stopped.at_ms
    return turn


def _is_nobodys(transcriptions: list[CallerTranscribed]) -> bool:
    """Rule 3."""
    return any(said.nobody_spoke for said in transcriptions) and not any(
        said.failed or said.text.strip() for said in transcriptions
    )


def _worth(said: CallerTranscribed) -> tuple[bool, int, str, bool]:
    """Rule 2."""
    return said.complete and not said.nobody_spoke, len(said.text), said.text, said.failed
