"""Notices: sentences that the worker says by itself, because the model cannot speak. Pure values.

When each is said is the conversation's to decide (:mod:`session.realtime.notices`). Which sentences
a worker has, in the agent's language or in the agent file's words, is settled once, when it starts
(:mod:`session.notices.book`).
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from runtime.units import BYTES_PER_MS

PIECE_BYTES = 1000 * BYTES_PER_MS
"""Of audio at a time, a second, as the model's deltas hold: so is a notice taken back as quickly."""


class Notice(enum.Enum):
    """What the caller is told; the values are keys of the agent file."""

    HOLD = "hold"
    """Somebody is still there: the answer takes long."""
    SORRY = "sorry"
    """There will be no answer to what was said; the caller may say it again."""
    GOODBYE = "goodbye"
    """The call ends, since the model cannot be reached any more."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A notice as it is spoken, ready for the gateway; one for all calls."""

    text: str
    pieces: tuple[bytes, ...]
    """Base64 of mono µ-law at 8 kHz, each decodable by itself."""
    audio_bytes: int
    """Length of the audio."""

    @classmethod
    def of(cls, text: str, ulaw: bytes) -> Sentence:
        """The sentence that is a text and its recording, mono µ-law at 8 kHz."""
        pieces = tuple(
            base64.b64encode(ulaw[at : at + PIECE_BYTES]) for at in range(0, len(ulaw), PIECE_BYTES)
        )
        return cls(text, pieces, len(ulaw))


NoticeBook: TypeAlias = Mapping[Notice, Sentence]
"""The sentences of a worker. One that is not in it is not said."""

NO_NOTICES: NoticeBook = MappingProxyType({})
