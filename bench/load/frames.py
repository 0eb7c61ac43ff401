"""The caller's frames on both sockets: how Twilio's end writes one, and where the model's end finds it.

Fifty a second and call. The load is to cost little, or it, and not the bridge, is what is measured.
"""

from __future__ import annotations

import os
import struct

from bench.load import tag

_MEDIA = (
    '{"event":"media","sequenceNumber":"%%d","streamSid":"%s","media":{"track":"inbound",'
    '"chunk":"%%d","timestamp":"%%d","payload":"%%b%s"}}'
)
"""A media message without what differs from frame to frame, once the stream and the rest of the payload
are in it."""

_HEADER = struct.Struct(">HH4x")
"""Of a client's frame: final text, a length of two bytes, and the mask 0, which is as good as any."""
_MASKED_TEXT = 0x81FE

_APPEND = b"input_audio_buffer.append"
_AUDIO = b'"audio"'
_HEAD_BYTES = 100
"""The type of an event is among its first so many."""


class MediaMessages:
    """Writes the media messages of a call.

    Args:
        stream_sid: Twilio's identifier of the stream.
        call: The number of the call, for the tags.
    """

    def __init__(self, stream_sid: str, call: int) -> None:
        self._call = call
        self._media = (_MEDIA % (stream_sid, tag.REST.decode())).encode()

    def write(
        self, sequence: int, flags: int, number: int, timestamp_ms: int, now_ns: int
    ) -> bytes:
        """The message of a frame that is sent now."""
        head = tag.head(flags, self._call, number, now_ns)
        return self._media % (sequence, number + 1, timestamp_ms, head)


def send_text(fd: int, message: bytes) -> bytes:
    """Write a message of 126 bytes to 64 KiB to a socket, as a client's frame.

    Returns:
        What the socket did not take of the frame. Nothing as well when the peer has gone: that the
        event loop will tell.
    """
    frame = _HEADER.pack(_MASKED_TEXT, len(message)) + message
    try:
        written = os.write(fd, frame)
    except BlockingIOError:
        return frame
    except OSError:
        return b""
    return frame[written:] if written < len(frame) else b""


class AppendedAudio:
    """Finds the audio in the appends of a session. They all begin alike, as a rule."""

    def __init__(self) -> None:
        self._head = b"\0"
        """What was before the audio in the last one; at first, what no event begins with."""
        self._at = 0

    def find(self, event: bytes) -> int:
        """Where the base64 text begins; -1: the event is no append."""
        if event.startswith(self._head):
            return self._at
        if event.find(_APPEND, 0, _HEAD_BYTES) < 0:
            return -1
        field = event.find(_AUDIO)
        if field < 0:
            return -1
        at = event.find(b'"', field + len(_AUDIO)) + 1
        if not at:
            return -1
        self._head, self._at = event[:at], at
        return at
