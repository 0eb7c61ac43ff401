"""Transcripts for people: unheard words struck out on a terminal, marked in brackets elsewhere.

What was said on the telephone is a stranger's text. Control characters in it would steer the
terminal, and are shown as �.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from asheard.timeline import silence_in_words, timeline
from asheard.v1.transcript_pb2 import CallEvent, CallState, Heard, Role, Transcript, Turn, Word
from asheard.v1.transcript_service_pb2 import CallSummary

_STRUCK, _UNDERLINED, _DIM, _PLAIN = "\x1b[9m", "\x1b[4m", "\x1b[2m", "\x1b[0m"
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of all text after them."""

_SPEAKERS = {Role.ROLE_CALLER: "caller", Role.ROLE_AGENT: "agent", Role.ROLE_TOOL: "tool"}


def heading(transcript: Transcript) -> str:
    """The call in one line."""
    finality = "final" if transcript.final else "may still change"
    start = _time(transcript.start_time) if transcript.HasField("start_time") else "start unknown"
    numbers = f"{clean(transcript.from_number) or '?'} → {clean(transcript.to_number) or '?'}"
    return (
        f"{clean(transcript.call_sid)}  {numbers}  {start}  "
        f"{state_name(transcript.state)}, {finality}, revision {transcript.revision}"
    )


def lines(transcript: Transcript, *, terminal: bool) -> Iterator[str]:
    """All of a call: its turns, and the silences between them."""
    yield heading(transcript)
    for entry in timeline(transcript):
        if isinstance(entry, Turn):
            yield turn_line(entry, terminal=terminal)
        elif entry.HasField("silence"):
            yield silence_line(entry, terminal=terminal)


def silence_line(event: CallEvent, *, terminal: bool) -> str:
    """One silence in one line: when, how long, and what was waited for."""
    start = _clock(event.start_ms) if event.HasField("start_ms") else ""
    text = silence_in_words(event.silence)
    return f"{start:>8}  {'—':<6}  " + (f"{_DIM}({text}){_PLAIN}" if terminal else f"({text})")


def turn_line(turn: Turn, *, terminal: bool) -> str:
    """One turn in one line: when, who, what, and for the agent how much of it was heard."""
    start = _clock(turn.start_ms) if turn.HasField("start_ms") else ""
    speaker = _SPEAKERS.get(turn.role, "?")
    if turn.role == Role.ROLE_AGENT:
        text = " ".join(_runs(turn, terminal=terminal))
        notes = f"{turn.heard_audio_ms / 1000:.1f} of {turn.generated_audio_ms / 1000:.1f} s"
        notes += ", interrupted" if turn.interrupted else ""
        notes += ", notice" if turn.notice else ""
        if turn.incomplete_reason:
            notes += f", incomplete: {clean(turn.incomplete_reason)}"
        text += f"  {_DIM}({notes}){_PLAIN}" if terminal else f"  ({notes})"
    elif turn.role == Role.ROLE_CALLER:
        text = _caller_text(turn)
    else:
        text = clean(turn.generated_text)
    return f"{start:>8}  {speaker:<6}  {text}"


def call_line(call: CallSummary) -> str:
    """One call of a list in one line."""
    start = _time(call.start_time) if call.HasField("start_time") else ""
    state = state_name(call.state) + ("" if call.final else " …")
    numbers = f"{clean(call.from_number) or '?'} → {clean(call.to_number) or '?'}"
    return f"{start:<20}  {clean(call.call_sid):<34}  {state:<11}  {numbers}"


def state_name(state: CallState.ValueType) -> str:
    """``CALL_STATE_COMPLETED`` as ``completed``."""
    if state not in CallState.values():
        return "unknown"
    return CallState.Name(state).removeprefix("CALL_STATE_").lower()


def clean(text: str) -> str:
    """The text without power over the terminal."""
    return "".join(
        "�" if unicodedata.category(char) == "Cc" or char in _DIRECTIONS else char for char in text
    )


def _caller_text(turn: Turn) -> str:
    text = clean(turn.heard_text)
    if turn.transcription_failed:
        return (
            f"{text}  (the rest could not be transcribed)" if text else "(could not be transcribed)"
        )
    return text or "(not transcribed)"


def _runs(turn: Turn, *, terminal: bool) -> Iterator[str]:
    """Words of one fate at a time."""
    run: list[str] = []
    fate: Heard.ValueType = Heard.HEARD_FULL
    for word in turn.words:
        if run and (word.heard != fate or word.heard == Heard.HEARD_PARTIAL):
            yield _marked(run, fate, terminal=terminal)
            run = []
        fate = word.heard
        if fate == Heard.HEARD_PARTIAL:
            yield _partial(word, terminal=terminal)
        else:
            run.append(clean(word.text))
    if run:
        yield _marked(run, fate, terminal=terminal)


def _marked(run: list[str], fate: Heard.ValueType, *, terminal: bool) -> str:
    text = " ".join(run)
    if fate != Heard.HEARD_NONE:
        return text
    return f"{_STRUCK}{text}{_PLAIN}" if terminal else f"[unheard: {text}]"


def _partial(word: Word, *, terminal: bool) -> str:
    text, share = clean(word.text), round(100 * word.played_share)
    return f"{_UNDERLINED}{text}{_PLAIN}" if terminal else f"[{share} % heard: {text}]"


def _time(time: Timestamp) -> str:
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")


def _clock(ms: int) -> str:
    minutes, rest_ms = divmod(ms, 60_000)
    return f"{minutes}:{rest_ms / 1000:04.1f}"
