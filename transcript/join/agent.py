"""One agent's item: what was generated, what was played, and so which words were heard.

Rules:

1. Generated text and audio are the worker's last word on them (ItemGenerated); until it comes,
   the pieces that follow each other without a gap, and all audio that is known to exist.
2. How much was played is the gateway's last word (PositionFixed); until it comes, what is proven.
3. A part that was generated completely and played to its end was heard in full. Otherwise its
   words are placed by the best word times there are: refined before estimated, later before
   earlier, by characters in proportion when there are none that reach as far as playback did.
4. The parts of an item follow each other; its text is theirs, parted by a space where they would
   run together, and its audio is theirs in a row.
5. It was interrupted when the caller's barge-in left something unplayed or ungenerated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from asheard.v1.fact_pb2 import GenerationStatus, PositionCause, WordsTimed
from asheard.v1.transcript_pb2 import Heard, Role, Turn, Word, WordTimesSource
from transcript.join.items import Item, Part
from words.heard import HeardText, Position, heard
from words.proportional import proportional_times
from words.timing import Method, WordTime, WordTimes
from words.tokenize import tokenize

_CUT_OFF = (
    GenerationStatus.GENERATION_STATUS_CANCELLED,
    GenerationStatus.GENERATION_STATUS_INCOMPLETE,
    GenerationStatus.GENERATION_STATUS_FAILED,
)


@dataclass(frozen=True, slots=True)
class _PartHeard:
    """One content part, joined."""

    part: Part
    text: str
    audio_ms: int
    played_ms: int
    heard: HeardText
    source: WordTimesSource


def agent_turn(item: Item) -> Turn | None:
    """The turn of an agent's item; None while there is neither audio nor text of it."""
    parts = [_hear(item.parts[index]) for index in sorted(item.parts)]
    parts = [part for part in parts if part.text or part.audio_ms]
    if not parts:
        return None
    turn = Turn(
        item_id=item.item_id,
        role=Role.ROLE_AGENT,
        interrupted=any(_is_interrupted(part) for part in parts),
        generated_audio_ms=sum(part.audio_ms for part in parts),
        heard_audio_ms=sum(part.played_ms for part in parts),
        words=_words(parts),
    )
    turn.generated_text, turn.heard_text = _texts(parts)
    if item.started is not None:
        turn.start_ms = item.started.at_ms
    fixed = [part.part.fixed for part in parts if part.part.fixed is not None]
    if len(fixed) == len(parts):  # nothing of it plays any more
        ends = [position.at_ms for position in fixed if position.HasField("at_ms")]
        if ends:
            turn.end_ms = max(ends)
    boundary = _boundary(parts)
    turn.word_times.CopyFrom(boundary.source)
    if len(fixed) == len(parts) and boundary.part.fixed is not None:
        turn.position.CopyFrom(boundary.part.fixed.position)
    return turn


def _hear(part: Part) -> _PartHeard:
    text = _text(part)
    audio_ms = _audio_ms(part)
    fixed = part.fixed
    # Sent audio is counted in bytes, generated audio is floored to milliseconds: never more
    # played than generated.
    played_ms = min(fixed.position.best_ms if fixed else part.played_ms, audio_ms)
    times, source = _best_times(part, text, audio_ms, played_ms)
    position = Position.exactly(max(played_ms, 0))
    if fixed is not None:
        position = Position(
            low_ms=max(min(fixed.position.low_ms, played_ms), 0),
            best_ms=position.best_ms,
            high_ms=max(fixed.position.high_ms, position.best_ms),
        )
    to_end = _is_played_to_end(part, audio_ms, played_ms)
    return _PartHeard(
        part, text, audio_ms, position.best_ms,
        heard(text, times, position, played_to_end=to_end), source,
    )  # fmt: skip


def _text(part: Part) -> str:
    if part.generated is not None:
        return part.generated.text
    text = ""
    for piece in sorted(part.pieces, key=lambda piece: (piece.text_offset, len(piece.text))):
        if piece.text_offset > len(text):
            break  # a piece is still under way; what lies behind it cannot be placed
        text += piece.text[len(text) - piece.text_offset :]
    return text


def _audio_ms(part: Part) -> int:
    if part.generated is not None:
        return max(0, part.generated.audio_ms)
    known = [piece.audio_ms for piece in part.pieces]
    known += [part.played_ms, part.sent_ms]
    if part.fixed is not None:
        known += [part.fixed.position.best_ms, part.fixed.position.sent_ms]
    return max(0, *known)


def _is_played_to_end(part: Part, audio_ms: int, played_ms: int) -> bool:
    if part.fixed is None:
        return False
    status = part.generated.status if part.generated else None
    if status in _CUT_OFF:
        return False  # text may have run ahead of the audio that exists
    if part.fixed.cause == PositionCause.POSITION_CAUSE_PLAYED:
        return True
    complete = status == GenerationStatus.GENERATION_STATUS_COMPLETED
    return complete and 0 < audio_ms <= played_ms


def _is_interrupted(part: _PartHeard) -> bool:
    fixed, generated = part.part.fixed, part.part.generated
    cancelled = (
        generated is not None and generated.status == GenerationStatus.GENERATION_STATUS_CANCELLED
    )
    if fixed is None:
        return cancelled  # before any of its audio reached the gateway, or just now
    if fixed.cause != PositionCause.POSITION_CAUSE_CLEARED:
        return False
    return cancelled or fixed.position.best_ms < max(part.audio_ms, fixed.position.sent_ms)


def _best_times(
    part: Part, text: str, audio_ms: int, played_ms: int
) -> tuple[WordTimes, WordTimesSource]:
    best: WordsTimed | None = None
    for timed in part.times:
        # An estimate that knew less audio than was played says nothing about the words there.
        if timed.audio_ms >= played_ms and (
            best is None or timed.source.refined or not best.source.refined
        ):
            best = timed
    if best is not None:
        return _fitted(text, best), best.source
    status = part.generated.status if part.generated else None
    times = _proportional(text, audio_ms, status == GenerationStatus.GENERATION_STATUS_COMPLETED)
    return times, WordTimesSource(
        method=str(times.method), version=times.version, confidence=times.confidence
    )


def _fitted(text: str, timed: WordsTimed) -> WordTimes:
    """Lay the times of a fact over the words of the text as it is now.

    The text may have grown since the times were found: a word that was cut in two takes the times
    of its beginning, and words behind the last timed one have no audio.
    """
    words: list[WordTime] = []
    beyond_ms = timed.audio_ms
    start_ms, index = 0, 0
    for token in tokenize(text):
        ends: list[int] = []
        starts: list[int] = []
        while index < len(timed.words) and timed.words[index].text_start < token.char_end:
            word = timed.words[index]
            if word.text_end > token.char_start:
                starts.append(word.start_ms)
                ends.append(word.end_ms)
            if word.text_end > token.char_end:
                break  # it reaches into the next word of this text
            index += 1
        if starts:
            start_ms = max(start_ms, min(starts))
            end_ms = max(start_ms, *ends)
        else:
            start_ms = end_ms = max(start_ms, beyond_ms) if index == len(timed.words) else start_ms
        if start_ms >= beyond_ms:
            # Lasting no time at the very end of the audio would look like played with it.
            end_ms = max(end_ms, start_ms + 1)
        words.append(WordTime(token.text, token.char_start, token.char_end, start_ms, end_ms))
        start_ms = end_ms if not starts else start_ms
    # `heard` asks only for the words and the extent of the audio; the method's name goes with the
    # fact's own source, which may be newer than this service.
    return WordTimes(
        Method.ALIGNED, timed.source.version, timed.source.confidence, beyond_ms, tuple(words)
    )


@lru_cache(maxsize=4096)
def _proportional(text: str, audio_ms: int, complete: bool) -> WordTimes:
    """Remembered, because a call under way is joined again and again and only its end changes."""
    return proportional_times(tokenize(text), audio_ms, complete=complete)


def _boundary(parts: Sequence[_PartHeard]) -> _PartHeard:
    """The part in which playback stopped, or is: the last of which anything was played."""
    played = [part for part in parts if part.played_ms > 0]
    return played[-1] if played else parts[0]


def _texts(parts: Sequence[_PartHeard]) -> tuple[str, str]:
    """Generated text of the item, and the prefix of it that was heard."""
    generated = heard_text = ""
    for part in parts:
        if generated and part.text and not (generated[-1].isspace() or part.text[0].isspace()):
            generated += " "
        if part.heard.heard_text:
            heard_text = generated + part.heard.heard_text
        generated += part.text
    return generated, heard_text


def _words(parts: Sequence[_PartHeard]) -> list[Word]:
    words: list[Word] = []
    before_ms = 0
    for part in parts:
        words.extend(
            Word(
                text=word.text,
                start_ms=before_ms + word.start_ms,
                end_ms=before_ms + word.end_ms,
                heard=Heard.Value(word.heard.value),
                played_share=word.fraction,
                uncertain=word.uncertain,
            )
            for word in part.heard.words
        )
        before_ms += part.audio_ms
    return words
