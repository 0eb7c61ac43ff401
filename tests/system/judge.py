"""Holds the system's transcript of a call against what the simulators know to be true."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from asheard.v1 import transcript_pb2
from simulators import truth
from simulators.realtime.session_truth import SessionTruth
from simulators.twilio import CallTruth

AGENT, CALLER = transcript_pb2.ROLE_AGENT, transcript_pb2.ROLE_CALLER

WORD_MS = 60
"""A word whose middle lies within this of the stop may be told as heard or not: positions are good to
a frame, and a word is not claimed before that is sure to 40 ms."""


def agent_turns(transcript: transcript_pb2.Transcript) -> list[transcript_pb2.Turn]:
    """What the agent said, in order."""
    return [turn for turn in transcript.turns if turn.role == AGENT]


def caller_turns(transcript: transcript_pb2.Transcript) -> list[transcript_pb2.Turn]:
    """What the caller said, in order."""
    return [turn for turn in transcript.turns if turn.role == CALLER]


async def truly_heard(
    calls: Iterable[CallTruth], sessions: Iterable[SessionTruth]
) -> list[truth.HeardCall]:
    """What was really heard; found in a thread, since the simulators of other tests must not wait."""
    return await asyncio.to_thread(truth.join, list(calls), list(sessions))


def right_texts(item: truth.HeardItem) -> list[str]:
    """What may be said to be heard of an item that was played from its beginning, perhaps cut."""
    if item.played_ms >= item.generated_ms:
        return [item.heard_text]
    middles = [(start_ms + end_ms) / 2 for _, start_ms, end_ms in item.words]
    surely = sum(middle <= item.played_ms - WORD_MS for middle in middles)
    perhaps = sum(middle <= item.played_ms + WORD_MS for middle in middles)
    texts = [text for text, _, _ in item.words]
    return [" ".join(texts[:words]) for words in range(surely, perhaps + 1)]


def assert_right(
    transcript: transcript_pb2.Transcript,
    heard: truth.HeardCall,
    call: CallTruth,
    *,
    position_ms: int = 40,
) -> None:
    """The transcript says what was heard, to the word, and how long, to two frames; see `WORD_MS`.

    Args:
        transcript: Final.
        heard: The truth of the same call.
        call: The carrier's side of it.
        position_ms: How far ``heard_audio_ms`` may be from the truth.
    """
    assert transcript.final
    assert call.warnings == []
    assert heard.frames.intact, heard.frames
    turns = {turn.item_id: turn for turn in agent_turns(transcript)}
    for item in heard.items:
        turn = turns[item.item_id]
        assert turn.heard_text in right_texts(item)
        assert turn.generated_text.startswith(turn.heard_text)
        assert turn.generated_text == item.generated_text
        assert turn.generated_audio_ms == item.generated_ms
        assert abs(turn.heard_audio_ms - item.played_ms) <= position_ms
        assert turn.position.low_ms <= item.played_ms + 1
        assert item.played_ms <= turn.position.high_ms + 1
        if item.start_ms is not None:
            assert abs(turn.start_ms - item.start_ms) <= position_ms
    spoken = [line.text for line in call.caller_lines]
    assert [turn.heard_text for turn in caller_turns(transcript)] == spoken
    for turn, line in zip(caller_turns(transcript), call.caller_lines, strict=True):
        # The model's voice detection misses the weak beginning of a word such as "Sorry".
        assert -60 <= turn.start_ms - line.onset_ms <= 250
