"""What a peer's WebSocket writes, made by hand: independent of the libraries under test."""

from __future__ import annotations

import base64
import json

TEXT, BINARY, CLOSE, PING, PONG, CONTINUED = 0x81, 0x82, 0x88, 0x89, 0x8A, 0x80
"""First bytes of whole frames, or of the last piece of a message."""

PIECE_OF_TEXT, PIECE = 0x01, 0x00
"""First bytes of the first piece of a message, and of one in the middle."""

MASK = b"\x12\x34\x56\x78"

STREAM = "MZ0123456789abcdef0123456789abcdef"
FRAME = base64.b64encode(bytes(range(160))).decode()


def frame(first_byte: int, content: bytes, mask: bytes = MASK) -> bytes:
    """A client's frame."""
    length = len(content)
    if length < 126:
        head = bytes((first_byte, 0x80 | length))
    elif length < 65536:
        head = bytes((first_byte, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first_byte, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))


def text(message: object, **style: object) -> bytes:
    """A message of Twilio in its frame; ``style`` is of how its JSON is written."""
    written = json.dumps(message, **(style or {"separators": (",", ":")}))  # type: ignore[arg-type]
    return frame(TEXT, written.encode())


def started(call_sid: str = "CA1") -> bytes:
    """The message that starts a stream."""
    details = {"callSid": call_sid, "streamSid": STREAM, "accountSid": "AC1"}
    return text({"event": "start", "streamSid": STREAM, "start": details})


def media(timestamp_ms: object, payload: object = FRAME, /, **changes: object) -> dict[str, object]:
    """A media message, changed; ``"none"`` leaves a field out."""
    details = {"track": "inbound", "chunk": "1", "timestamp": timestamp_ms, "payload": payload}
    return {
        "event": "media",
        "sequenceNumber": "2",
        "media": {k: changes.get(k, v) for k, v in details.items() if changes.get(k, v) != "none"},
        "streamSid": changes.get("streamSid", STREAM),
        **{k: v for k, v in changes.items() if k not in (*details, "streamSid")},
    }
