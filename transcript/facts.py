"""What a fact must be like to be stored (pure).

Everything is bounded here, where it comes in, so that the join and readers need not mind: the size
of a fact, the length of names, the range of times and indices. A fact beyond a bound is refused
alone, with the field named. What a newer writer says in fields that we do not know is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from asheard.v1.fact_pb2 import Fact

MAX_FACT_BYTES = 256 * 1024
"""A minute of speech is 1 KB of text and 5 KB of times; writers split what grows with the call."""

MAX_NAME = 256
"""Characters of an id or a name. Twilio's and OpenAI's have 20 to 40, SIP addresses up to 255."""

MAX_REASON = 4_096
"""Characters of a text for engineers."""

MAX_SEQUENCE = 10_000_000
"""A hundred times as many facts as a call may hold."""

MAX_CONTENT_INDEX = 1_023
"""Items have one or two parts."""

MAX_MS = 10 * 86_400_000
"""Ten days either way, in milliseconds: ten times the longest call. Sums of them stay far within
what the transcript's fields can hold."""

_CALL_SID = re.compile(r"[\x21-\x7e]{1,128}")
"""Twilio's are "CA" and 32 hexadecimal digits; whatever else names a call is as good a key."""

_WRITER = re.compile(r"(gateway|session)/[\x21-\x7e]{1,128}")

_SESSION = re.compile(r"session/[\x21-\x7e]{1,128}")

_PROCESS = re.compile(r"[\x21-\x7e]{0,128}")

_OURS = frozenset({"writer_lost", "call_closed"})
"""Only the transcript service says so."""


def is_call_sid(text: str) -> bool:
    """Whether anything can be stored under this name of a call."""
    return _CALL_SID.fullmatch(text) is not None


def is_process(text: str) -> bool:
    """Whether this names a process; "" names none, which is allowed."""
    return _PROCESS.fullmatch(text) is not None


def fault(fact: Fact) -> str | None:
    """What makes a fact impossible to store; None when nothing does."""
    if not _CALL_SID.fullmatch(fact.call_sid):
        return "call_sid: give Twilio's identifier of the call"
    if not _WRITER.fullmatch(fact.writer):
        return 'writer: give "gateway/<stream_sid>" or "session/<id>"'
    if not 1 <= fact.sequence <= MAX_SEQUENCE:
        return f"sequence: number the facts of a writer from 1, up to {MAX_SEQUENCE}"
    if fact.ByteSize() > MAX_FACT_BYTES:
        return f"fact: at most {MAX_FACT_BYTES} bytes"
    body = fact.WhichOneof("body")
    if body is None:
        # What we do not know may be the body of a newer writer, and is kept for a newer reader.
        return None if UnknownFieldSet(fact) else "body: a fact says that something happened"
    if body in _OURS:
        return f"{body}: only the transcript service says so"
    try:
        reason = _message_fault(getattr(fact, body))
    except Exception as error:  # a fact that nobody foresaw must not keep others from being stored
        return f"{body}: cannot be checked ({type(error).__name__})"
    return None if reason is None else f"{body}.{reason}"


def _message_fault(message: Message) -> str | None:
    """The first field that is out of bounds, and why."""
    for field, value in message.ListFields():
        name = field.name
        check = _CHECKS.get(name)
        if check is not None:
            reason = check(value)
        elif isinstance(value, str):
            reason = _name_fault(value)
        elif name.endswith("_ms"):
            reason = _ms_fault(value)
        elif isinstance(value, Message):
            reason = _message_fault(value)
            if reason is not None:
                return f"{name}.{reason}"
        else:
            continue  # an enumeration, a flag, a number that nothing is reckoned with
        if reason is not None:
            return f"{name}: {reason}"
    return None


def _name_fault(value: str) -> str | None:
    return f"at most {MAX_NAME} characters" if len(value) > MAX_NAME else None


def _reason_fault(value: str | int) -> str | None:
    too_long = isinstance(value, str) and len(value) > MAX_REASON  # else one of a few, by number
    return f"at most {MAX_REASON} characters" if too_long else None


def _ms_fault(value: int) -> str | None:
    return None if -MAX_MS <= value <= MAX_MS else "is not a time within any call"


def _index_fault(value: int) -> str | None:
    return None if 0 <= value <= MAX_CONTENT_INDEX else f"give 0 to {MAX_CONTENT_INDEX}"


def _count_fault(value: int) -> str | None:
    return None if value >= 0 else "must not be below 0"


def _session_fault(value: str) -> str | None:
    return None if _SESSION.fullmatch(value) else 'give "session/<id>"'


def _time_fault(value: Timestamp) -> str | None:
    """Whether a time can be shown: 1970 to 9999, as protobuf has it."""
    shown = 0 <= value.seconds < 253_402_300_800 and 0 <= value.nanos < 1_000_000_000
    return None if shown else "is not a time of this era"


def _words_fault(words: Any) -> str | None:
    for word in words:
        if word.text_start < 0 or word.text_end < word.text_start:
            return "a word must begin before it ends, and not before the text"
        if not (0 <= word.start_ms <= MAX_MS and 0 <= word.end_ms <= MAX_MS):
            return "a word's time is not within any item"
    return None


def _anything(_value: object) -> None:
    return None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "text": _anything,  # as long as a fact may be
    "arguments": _anything,
    "reason": _reason_fault,
    "session_writer": _session_fault,
    "content_index": _index_fault,
    "text_offset": _count_fault,
    "stream_number": _count_fault,
    "start_time": _time_fault,
    "end_time": _time_fault,
    "words": _words_fault,
    "events": _anything,  # nothing is reckoned with them: they are for replays
}
"""What is asked of fields by their names, which mean the same wherever they stand. All other texts
are names, all other times in milliseconds lie within a call."""
