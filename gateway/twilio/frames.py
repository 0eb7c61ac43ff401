"""WebSocket frames from a server (RFC 6455, 5.2): unmasked and in one piece.

The calls write frames themselves, many in one piece, at once and without waiting: a ``clear`` must
not wait for a task's turn.
"""

from __future__ import annotations

_FINAL_TEXT = 0x81
_CLOSE = 0x88

_REASON_BYTES = 123
"""A control frame has at most 125 bytes, two of which are the close code (5.5)."""


def text_frame(content: bytes) -> bytes:
    """Frame UTF-8 text as one WebSocket text message."""
    length = len(content)
    if length < 126:
        return bytes((_FINAL_TEXT, length)) + content
    if length < 65536:
        return bytes((_FINAL_TEXT, 126)) + length.to_bytes(2, "big") + content
    return bytes((_FINAL_TEXT, 127)) + length.to_bytes(8, "big") + content


def close_frame(code: int, reason: str) -> bytes:
    """Frame the beginning, or the answer, of the closing handshake; a long reason is cut."""
    text = reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()
    return bytes((_CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text
