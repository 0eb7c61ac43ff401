"""Small matters of the wire: beta names, padding of deltas, audio in the session's format. Pure."""

from __future__ import annotations

import base64
import functools

from simulators.speech import spoken
from simulators.speech.g711 import ULAW_TO_ALAW, ulaw_to_pcm24k

_BETA_NAMES = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}
"""GA name to beta name (B.6); ``conversation.item.done`` has no beta twin."""

_PADDING = "q7ZtK2mWx9RbV4Ld"


def beta_name(name: str) -> str:
    """The beta interface's name of an event."""
    return _BETA_NAMES.get(name, name)


def obfuscation(delta: str) -> str:
    """Padding that brings a delta to an even length, as recorded beside every text delta."""
    return _PADDING[len(delta) % 16 :]


@functools.lru_cache(maxsize=8192)
def delta_audio(text: str, start_byte: int, end_byte: int, audio_format: str) -> str:
    """A stretch of a line's speech in base64, made once however many sessions say it.

    Args:
        text: The line.
        start_byte: First byte of its µ-law.
        end_byte: Byte after the last.
        audio_format: ``audio/pcmu``, ``audio/pcma`` or ``audio/pcm``.
    """
    ulaw = spoken(text).ulaw[start_byte:end_byte]
    if audio_format == "audio/pcma":
        raw = ulaw.translate(ULAW_TO_ALAW)
    elif audio_format == "audio/pcm":
        raw = ulaw_to_pcm24k(ulaw)
    else:
        raw = ulaw
    return base64.b64encode(raw).decode("ascii")
