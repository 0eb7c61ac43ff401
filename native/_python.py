"""What ``native`` computes, readable: the specification, and the half that needs no compiler.

``_speedups.c`` computes the same. ``tests/native`` is one suite for both, and ``make fuzz`` holds them
against each other.
"""

from __future__ import annotations

import re

import pybase64

MAX_TIMESTAMP_MS = 2 * 86_400_000
"""Timestamps are below this: Twilio ends a call after a day."""

MAX_PAYLOAD_CHARS = 21_336
"""Of base64 text in one media message: two seconds."""

MAX_MEDIA_BYTES = 24_576
"""Of one media message: the longest payload, and the rest many times over."""

_FINAL_TEXT = 0x81
"""First byte of a frame (RFC 6455, 5.2): final, not compressed, text."""
_MASKED = 0x80
_LENGTH_FOLLOWS = 126
"""Instead of a length: it is in the next two bytes. One more: in the next eight."""

_MEDIA = re.compile(
    rb"""
    \{(?: (?: "event":"(media)"
            | "streamSid":"(PLAIN*)"
            | "sequenceNumber":"(PLAIN*)"
            | "media":\{(?: (?: "timestamp":"(0|[1-9][0-9]{0,8})"
                              | "payload":"(PLAIN+)"
                              | "track":"(inbound)"
                              | "chunk":"(PLAIN*)"
                            ) (?: ,(?=") | (?=\}) )
                       )+\}
          ) (?: ,(?=") | (?=\}) )
       )+\}
    """.replace(b"PLAIN", rb"[\ !\#-\[\]-~]"),
    re.VERBOSE,
)
"""The fields of Twilio's media message in any order, and no others, with their values; how often each
is there is not said. PLAIN is a character that stands for itself within a JSON string: printable ASCII
but quotes and backslashes."""


def read_media(data: bytes, stream_sid: bytes, /) -> list[tuple[int, bytes, int, int]]:
    """The media messages at the beginning of what a socket gave.

    Whole, final, masked text frames with Twilio's media message of this stream and of the inbound
    track. It stops at the first frame that is anything else, or not whole. Every message that it takes
    is one for :func:`gateway.twilio.messages.decode`, with the same values; not the other way round.

    Args:
        data: From the beginning of a frame on.
        stream_sid: The stream whose messages are taken.

    Returns:
        For each message (timestamp_ms, payload, audio_bytes, end): Twilio's timestamp; the payload,
        which is printable ASCII without quotes and backslashes, but not proved to be base64; the
        bytes of audio that base64 text of its length stands for, one or more; and where in ``data``
        the next frame begins.
    """
    messages: list[tuple[int, bytes, int, int]] = []
    at = 0
    while True:
        frame = _unwrap(data, at)
        if frame is None:
            return messages
        begin, at = frame
        if at - begin > MAX_MEDIA_BYTES:
            return messages
        content = _unmask(data, begin, at)
        media = _MEDIA.fullmatch(content)
        if media is None:
            return messages
        values = media.groups()
        event, sid, _, timestamp, payload, *_ = values
        if event is None or timestamp is None or payload is None or sid != stream_sid:
            return messages
        if content.count(b'"') > 4 * (len(values) - values.count(None)) + 2:
            return messages  # a field comes twice: there are more quotes than around each once
        timestamp_ms, chars = int(timestamp), len(payload)
        if timestamp_ms >= MAX_TIMESTAMP_MS or chars > MAX_PAYLOAD_CHARS or chars % 4:
            return messages
        messages.append((timestamp_ms, payload, _bytes_of_base64(payload), at))


def read_text(data: bytes, /) -> tuple[bytes, int] | None:
    """The content of the frame at the beginning of ``data``, and where the next frame begins.

    None: it is not a final, masked text frame of less than 64 KiB, or not whole.
    """
    frame = _unwrap(data, 0)
    if frame is None:
        return None
    begin, end = frame
    return _unmask(data, begin, end), end


def append_message(payload: bytes, /) -> tuple[bytes, int] | None:
    """``input_audio_buffer.append`` around base64 text, and the bytes of audio that it stands for.

    None: it is not padded base64, and who sent it may have wanted to end the string around it.
    """
    try:
        audio = pybase64.b64decode(payload, None, True)
    except ValueError:
        return None
    return b'{"type":"input_audio_buffer.append","audio":"' + payload + b'"}', len(audio)


def _unwrap(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the content of the whole, final, masked text frame at ``at`` begins and ends."""
    if len(data) - at < 6 or data[at] != _FINAL_TEXT or data[at + 1] < _MASKED:
        return None
    length, begin = data[at + 1] - _MASKED, at + 6
    if length > _LENGTH_FOLLOWS:
        return None
    if length == _LENGTH_FOLLOWS:
        length, begin = data[at + 2] << 8 | data[at + 3], at + 8
    end = begin + length
    return (begin, end) if end <= len(data) else None


def _unmask(data: bytes, begin: int, end: int) -> bytes:
    """The content of a frame; its mask is the four bytes before it."""
    length = end - begin
    mask = (data[begin - 4 : begin] * (length // 4 + 1))[:length]
    number = int.from_bytes(data[begin:end], "little") ^ int.from_bytes(mask, "little")
    return number.to_bytes(length, "little")


def _bytes_of_base64(payload: bytes) -> int:
    """How many bytes base64 text of this length and padding stands for."""
    padding = 2 if payload.endswith(b"==") else 1 if payload.endswith(b"=") else 0
    return len(payload) // 4 * 3 - padding
