"""The three messages a server may send to Twilio, judged as strictly as Twilio judges them.

From the Media Streams message reference and the pages of the warnings: text frames only (31950);
JSON, a known event, exactly the documented fields, the stream's own ``streamSid`` (31951).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

UNDECODABLE = 31950
"""Warning: the message is not a text frame."""
INVALID_MESSAGE = 31951
"""Warning: not JSON, unknown event, missing or extra field, wrong streamSid."""
AUDIO_DISCARDED = 31931
"""Warning: more than ten minutes of audio were buffered."""
PROTOCOL_ERROR = 31924
"""Error: the server broke the WebSocket protocol."""
HANDSHAKE_FAILED = 31920
"""Error: the server answered the upgrade with something other than 101."""
CONNECTION_REFUSED = 31902
"""Error: nothing listens there."""
SCHEME_UNSUPPORTED = 31922
"""Error: the stream's URL is not wss."""
INVALID_TRACK = 31941
"""Error: a bidirectional stream has a track other than inbound_track."""


@dataclass(frozen=True, slots=True)
class Media:
    """Audio for the caller: mono µ-law at 8 kHz."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """A name to echo when the audio sent before it has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Drop what is buffered."""


class Violation(Exception):
    """The server sent what Twilio does not accept; ``code`` is Twilio's warning."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def parse(message: str | bytes, stream_sid: str) -> Media | Mark | Clear:
    """Read one message of the server.

    Raises:
        Violation: Twilio would not accept the message.
    """
    if not isinstance(message, str):
        raise Violation(UNDECODABLE, "binary frame; Twilio takes text frames only")
    try:
        fields = json.loads(message)
    except ValueError:
        raise Violation(INVALID_MESSAGE, "the message is not JSON") from None
    if not isinstance(fields, dict):
        raise Violation(INVALID_MESSAGE, "the message is not a JSON object")
    event = fields.get("event")
    match event:
        case "media" | "mark":
            _exactly(fields, {"event", "streamSid", event}, "message")
        case "clear":
            _exactly(fields, {"event", "streamSid"}, "message")
        case _:
            raise Violation(INVALID_MESSAGE, "event is none of media, mark, clear")
    if fields["streamSid"] != stream_sid:
        raise Violation(INVALID_MESSAGE, "streamSid is not this stream's")
    if event == "media":
        return Media(_payload(_object(fields, "media", "payload")))
    if event == "mark":
        return Mark(_object(fields, "mark", "name"))
    return Clear()


def _object(fields: dict[str, Any], name: str, only: str) -> str:
    inner = fields[name]
    if not isinstance(inner, dict):
        raise Violation(INVALID_MESSAGE, f"{name} is not an object")
    _exactly(inner, {only}, name)
    value = inner[only]
    if not isinstance(value, str):
        raise Violation(INVALID_MESSAGE, f"{name}.{only} is not a string")
    return value


def _payload(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Violation(INVALID_MESSAGE, "media.payload is not base64") from None


def _exactly(fields: dict[str, Any], expected: set[str], where: str) -> None:
    if missing := expected - fields.keys():
        raise Violation(INVALID_MESSAGE, f"{where} lacks {', '.join(sorted(missing))}")
    if extra := fields.keys() - expected:
        raise Violation(INVALID_MESSAGE, f"{where} has unknown {', '.join(sorted(extra))}")
