"""Codec of the OpenAI Realtime API: bytes of the socket to values and back. Pure.

An event is decoded in one pass. Where that fails for an event that is known, it is read once more
with tolerance: what is needed of it must be there, the rest may be odd. An event that is not known
is :class:`~session.realtime.events.UnknownEvent`, one that cannot be read is
:class:`~session.realtime.events.MalformedEvent`: both are to be counted and ignored, since OpenAI
adds events and fields without notice, and whatever an event looks like, the call goes on.
"""

from __future__ import annotations

import re
from typing import get_args

import msgspec

from session.realtime import tolerant
from session.realtime.events import (
    UNREADABLE,
    UNUSED,
    AnyServerEvent,
    ClientEvent,
    MalformedEvent,
    Response,
    ResponseDone,
    UnknownEvent,
)


class _Typed(msgspec.Struct, frozen=True):
    type: str


_decoder: msgspec.json.Decoder[AnyServerEvent] = msgspec.json.Decoder(AnyServerEvent)
_type_decoder = msgspec.json.Decoder(_Typed)
_known: dict[str, type[AnyServerEvent]] = {
    str(struct.__struct_config__.tag): struct for struct in get_args(AnyServerEvent)
}


def decode(data: bytes | str) -> AnyServerEvent | UnknownEvent | MalformedEvent:
    """Decode one event; never raises.

    Args:
        data: One frame of the socket.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # ValidationError is a DecodeError: known events that are odd, and all unknown ones.
        return _decode_odd(data)


def _decode_odd(data: bytes | str) -> AnyServerEvent | UnknownEvent | MalformedEvent:
    try:
        kind = _type_decoder.decode(data).type
        raw = tolerant.parse(data) if kind in _known else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, tolerant.UnreadableError):
        # Not quite UTF-8, half a surrogate pair; or no event.
        kind = ""
        try:
            raw = tolerant.parse(data)
        except tolerant.UnreadableError as error:
            return _unreadable(_guessed_type(data), str(error))
    if not isinstance(raw, dict):
        return MalformedEvent(UNREADABLE, "it is no object")
    kind = kind or raw.get("type") or ""
    if not isinstance(kind, str):
        return MalformedEvent(UNREADABLE, "type")
    struct = _known.get(kind)
    if struct is None:
        return UnknownEvent(kind, kind in UNUSED) if kind else MalformedEvent(UNREADABLE, "type")
    try:
        return tolerant.read(struct, raw)
    except tolerant.UnreadableError as error:
        return _unreadable(kind, str(error))


def _unreadable(kind: str, detail: str) -> ResponseDone | MalformedEvent:
    if kind == "response.done":
        # Some response is over; as a rule there is but one.
        return ResponseDone(Response(""))
    return MalformedEvent(kind if kind in _known else UNREADABLE, detail)


_TYPE = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')

_TYPE_WITHIN = 1024
"""Bytes; the API's events begin with their type."""


def _guessed_type(data: bytes | str) -> str:
    found = _TYPE.search(data.encode() if isinstance(data, str) else data, 0, _TYPE_WITHIN)
    return found[1].decode() if found is not None else ""


_encoder = msgspec.json.Encoder()


def encode(event: ClientEvent) -> bytes:
    """One text frame."""
    return _encoder.encode(event)
