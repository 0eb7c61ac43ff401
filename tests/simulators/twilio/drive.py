"""Messages of a server, and what a carrier sent, for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

from simulators.twilio.carrier import Carrier
from simulators.twilio.stream_truth import Outgoing

SID = "MZ00000000000000000000000000000001"


def media(size: int, *, first: int = 0) -> str:
    """Agent audio: bytes that count upwards, so that each stretch can be told from another."""
    payload = bytes((first + i) % 251 for i in range(size))
    return media_of(payload)


def media_of(payload: bytes, *, sid: str = SID) -> str:
    body = {"payload": base64.b64encode(payload).decode()}
    return json.dumps({"event": "media", "streamSid": sid, "media": body})


def mark(name: str, *, sid: str = SID) -> str:
    return json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": name}})


def clear(*, sid: str = SID) -> str:
    return json.dumps({"event": "clear", "streamSid": sid})


def quiet_carrier(**options: object) -> Carrier:
    """A carrier that sends no caller frames, on a grid through 0."""
    return Carrier(stream_sid=SID, first_timestamp_ms=0, send_frames=False, **options)  # type: ignore[arg-type]


def marks(outgoing: Iterable[Outgoing]) -> list[tuple[str, int]]:
    """Name and time of each echo."""
    return [(o.message["mark"]["name"], o.at_ms) for o in outgoing if o.message["event"] == "mark"]
