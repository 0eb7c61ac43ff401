"""One agent's item: what was generated, what was played, and so which words were heard.

No word is said to be heard beyond the evidence; :mod:`words.heard` decides by the cautious side of
whatever is in doubt. Here stands what is in doubt.

Rules:

1. Generated text and audio are the worker's last word on them (ItemGenerated); until it comes,
   the pieces that follow each other without a gap, and all audio that is known to exist. The last
   word may be said again, when text comes after its item's end: then the longest text stands, of
   texts of one length the later, and the later word on everything else.
2. How much was played is the gateway's last word (PositionFixed); until it comes, what is proven.
   ``best_ms`` decides where playback was timed on Twilio's media clock or proven to an end
   (PLAYED_TO_END, MARK, MEDIA_CLOCK). In 1,500 random calls with every fault of network and carrier
   it was more than 40 ms above the truth in 0.8 % of such cuts and in 5 % of hang-ups, and never
   for a proven end. Where the gateway's own clock timed it, or nothing did (LOCAL_CLOCK,
   PROVEN_ONLY, NOT_STARTED, rules of a newer gateway), 12 % of cuts and a tenth of the parts that
   looked as if played to their end were above it, by up to 1 s: there ``low_ms`` decides, which
   never was, whether the caller cut in, hung up or the socket was dropped. ``high_ms`` says what
   may have been heard.
3. A part that was generated completely and played to its end was heard in full. Otherwise its
   words are placed by the best word times there are: refined before estimated, later before
   earlier. Times say nothing that were found with less audio than was played, nor, of a part that
   is complete, with less text. Failing such times, characters in proportion decide.
4. Refined times, and a provider's, are taken as they are. Others have a bound (:mod:`words.doubt`):
   WHOLE for characters in proportion over a part that is complete, FOLLOWED for alignment that is
   not refined, CUT_OFF for all else.
5. The parts of an item follow each other; its text is theirs, parted by a space where they would
   run together, and its audio is theirs in a row.
6. Text without sound is never heard. A part that has text and no audio holds up nothing: its words
   lie between its neighbours and last no time, and what was heard is the text of the others.
7. It was interrupted when the caller's barge-in left something unplayed or ungenerated.
8. Why generation fell short is the model's word, of the last part that has one. An item of which
   nothing at all was generated is a turn if there is such a word: somebody was to be answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asheard.v1.fact_pb2 import GenerationStatus, PositionCause, PositionFixed, WordsTimed
from asheard.v1.transcript_pb2 import Heard, PositionRule, Role, Turn, Word, WordTimesSource
from transcript.join.items import Item, Part
from words.doubt import CUT_OFF, EXACT, FOLLOWED, WHOLE, Doubt
from words.heard import Heard as HeardWords
from words.heard import HeardText, Position, heard
from words.proportional import proportional_times
from words.timing import Method, WordTime, WordTimes
from words.tokenize import tokenize

_CUT_OFF = (
    GenerationStatus.GENERATION_STATUS_CANCELLED,
    GenerationStatus.GENERATION_STATUS_INCOMPLETE,
    GenerationStatus.GENERATION_STATUS_FAILED,
)
_FELL_SHORT = (
    GenerationStatus.GENERATION_STATUS_INCOMPLETE,
    GenerationStatus.GENERATION_STATUS_FAILED,
)
_COMPLETED = GenerationStatus.GENERATION_STATUS_COMPLETED

_TIMED = (
    PositionRule.POSITION_RULE_PLAYED_TO_END,
    PositionRule.POSITION_RULE_MARK,
    PositionRule.POSITION_RULE_MEDIA_CLOCK,
)

_FRAME_MS = 20
"""What Twilio plays at a time, and more than sent and generated audio are rounded apart."""

_MAX_MS = (1 << 63) - 1
"""What a field of milliseconds holds."""

_HEARD = {state: Heard.Value(state.value) for state in HeardWords}

_LESS_THAN_HALF = 0.4999999
"""The largest share of a word that did not count; the field's precision must not round it up."""


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
    """The turn of an agent's item; None while there is neither audio nor text of it, nor a reason
    why not (rule 8)."""
    turn = Turn(
        item_id=item.item_id,
        role=Role.ROLE_AGENT,
        notice=item.notice,
        incomplete_reason=_incomplete_reason(item),
    )
    parts = [_hear(item.parts[index]) for index in sorted(item.parts)]
    parts = [part for part in parts if part.text or part.audio_ms]
    if not parts:
        return turn if turn.incomplete_reason else None
    # What lasts no time decides nothing, unless there is nothing else.
    sounding = [part for part in parts if part.audio_ms] or parts
    turn.interrupted = any(_is_interrupted(part) for part in sounding)
    turn.generated_audio_ms = _ms(sum(part.audio_ms for part in parts))
    turn.heard_audio_ms = _ms(sum(part.played_ms for part in parts))
    turn.words.extend(_words(parts))
    turn.generated_text = _joined(part.text for part in parts)
    turn.heard_text = _joined(part.heard.heard_text for part in parts)
    if item.started is not None:
        turn.start_ms = item.started.at_ms
    boundary = _boundary(sounding)
    turn.word_times.CopyFrom(boundary.source)
    fixed = [part.part.fixed for part in sounding if part.part.fixed is not None]
    if len(fixed) == len(sounding):  # nothing of it plays any more
        ends = [position.at_ms for position in fixed if position.HasField("at_ms")]
        if ends:
            turn.end_ms = max(ends)
        if boundary.part.fixed is not None:
            turn.position.CopyFrom(boundary.part.fixed.position)
    return turn


def _incomplete_reason(item: Item) -> str:
    """Rule 8."""
    reasons = (
        part.generated.reason
        for _, part in sorted(item.parts.items(), reverse=True)
        if part.generated is not None and part.generated.status in _FELL_SHORT
    )
    return next(filter(None, reasons), "")


def _hear(part: Part) -> _PartHeard:
    text = _text(part)
    audio_ms = part.audio_ms
    position = _position(part, audio_ms)
    times, source, doubt = _best_times(part, text, audio_ms, position.sure_ms)
    to_end = _is_played_to_end(part, audio_ms, position)
    return _PartHeard(
        part, text, audio_ms, position.best_ms,
        heard(text, times, position, played_to_end=to_end, doubt=doubt), source,
    )  # fmt: skip


def _position(part: Part, audio_ms: int) -> Position:
    """How much of the part was played (rule 2).

    Sent audio is counted in bytes, generated audio is floored to milliseconds: never more played
    than generated.
    """
    if part.fixed is None:
        return Position.exactly(max(min(part.played_ms, audio_ms), 0))
    fixed = part.fixed.position
    best_ms = max(min(fixed.best_ms, audio_ms), 0)
    low_ms = max(min(fixed.low_ms, best_ms), 0)
    high_ms = max(min(fixed.high_ms, audio_ms), best_ms)
    return Position(low_ms, best_ms, high_ms, _is_timed(part.fixed))


def _is_timed(fixed: PositionFixed) -> bool:
    evidence = fixed.position.evidence
    if evidence.rule == PositionRule.POSITION_RULE_MEDIA_CLOCK:
        # Played to the end, it was not stopped, and needs no time of that.
        is_played = fixed.cause == PositionCause.POSITION_CAUSE_PLAYED
        return is_played or evidence.HasField("stopped_at_ms")
    return evidence.rule in _TIMED


def _text(part: Part) -> str:
    if part.generated is not None:
        return part.text
    text = ""
    for piece in sorted(part.pieces, key=lambda piece: (piece.text_offset, len(piece.text))):
        if piece.text_offset > len(text):
            break  # a piece is still under way; what lies after it cannot be placed
        text += piece.text[len(text) - piece.text_offset :]
    return text


def _status(part: Part) -> GenerationStatus.ValueType | None:
    return part.generated.status if part.generated else None


def _is_played_to_end(part: Part, audio_ms: int, position: Position) -> bool:
    """Whether all that there is to hear was heard. Of an incomplete part, nobody knows what there
    is: there may be more text than the audio that exists."""
    if part.fixed is None or not audio_ms or _status(part) != _COMPLETED:
        return False
    left_ms = audio_ms - position.sure_ms
    if part.fixed.cause == PositionCause.POSITION_CAUSE_PLAYED:
        return left_ms <= _FRAME_MS
    return left_ms <= 0


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
) -> tuple[WordTimes, WordTimesSource, Doubt]:
    """Rules 3 and 4."""
    is_complete = _status(part) == _COMPLETED
    best: WordsTimed | None = None
    for timed in part.times:
        if timed.audio_ms < played_ms or not audio_ms:
            continue
        if is_complete and not (_is_measured(timed) and _covers(timed, text)):
            continue
        if best is None or timed.source.refined or not best.source.refined:
            best = timed
    if best is None:
        times = _proportional(text, audio_ms, is_complete)
        source = WordTimesSource(
            method=str(times.method), version=times.version, confidence=times.confidence
        )
        return times, source, WHOLE if is_complete else CUT_OFF
    doubt = CUT_OFF
    if best.source.refined or best.source.method == Method.PROVIDER:
        doubt = EXACT if _covers(best, text) else FOLLOWED
    elif best.source.method == Method.ALIGNED:
        doubt = FOLLOWED
    return _fitted(text, best), best.source, doubt


def _is_measured(timed: WordsTimed) -> bool:
    """Whether somebody listened. Characters in proportion are better counted with all the text."""
    return timed.source.refined or timed.source.method != Method.PROPORTIONAL


def _covers(timed: WordsTimed, text: str) -> bool:
    """Whether the times were found with all of the text."""
    return bool(timed.words) and timed.words[-1].text_end >= len(text.rstrip())


def _fitted(text: str, timed: WordsTimed) -> WordTimes:
    """Lay the times of a fact over the words of the text as it is now.

    The text may have grown since the times were found: a word that was cut in two takes the times
    of its beginning, and words after the last timed one have no audio.
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
        words.append(WordTime(token.text, token.char_start, token.char_end, start_ms, end_ms))
        start_ms = end_ms if not starts else start_ms
    # `heard` asks only for the words and the extent of the audio; the method's name goes with the
    # fact's own source, which may be newer than this service.
    return WordTimes(
        Method.ALIGNED, timed.source.version, timed.source.confidence, beyond_ms, tuple(words)
    )


def _proportional(text: str, audio_ms: int, complete: bool) -> WordTimes:
    """Characters in proportion. Nobody listened for pauses: the audio is not here."""
    return proportional_times(tokenize(text), audio_ms, complete=complete)


def _boundary(parts: Sequence[_PartHeard]) -> _PartHeard:
    """The part in which playback stopped, or is: the last of which anything was played."""
    played = [part for part in parts if part.played_ms > 0]
    return played[-1] if played else parts[0]


def _joined(texts: Iterable[str]) -> str:
    """Texts in a row, parted by a space where they would run together."""
    joined = ""
    for text in texts:
        if joined and text and not (joined[-1].isspace() or text[0].isspace()):
            joined += " "
        joined += text
    return joined


def _words(parts: Sequence[_PartHeard]) -> list[Word]:
    words: list[Word] = []
    before_ms = 0
    for part in parts:
        words.extend(
            Word(
                text=word.text,
                start_ms=_ms(before_ms + (word.start_ms if part.audio_ms else 0)),
                end_ms=_ms(before_ms + (word.end_ms if part.audio_ms else 0)),
                heard=_HEARD[word.heard],
                played_share=word.fraction if word.counts else min(word.fraction, _LESS_THAN_HALF),
                uncertain=word.uncertain,
            )
            for word in part.heard.words
        )
        before_ms += part.audio_ms
    return words


def _ms(value: int) -> int:
    """A time as its field holds it; facts of a writer with a bug may add up to more."""
    return min(value, _MAX_MS)
