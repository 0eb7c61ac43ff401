"""The messages of a bidirectional Twilio Media Stream.

What Twilio sends is decoded into frozen values with the fields that are needed, and no others: a
media message comes fifty times a second and call. Its payload stays the base64 text it was, for a
model that wants base64 text. Here it is proved to be that; for the regular frames that do not come
here (:mod:`gateway.caller_path`) the session worker proves it, where it pastes the text between the
quotes of another JSON text, which it must not be able to end.

Everything that comes is bounded before it is kept or passed on; a bound that is passed is an error
of the peer with the close code that says so.

What Twilio gets is pasted together. It may have exactly the fields that Twilio knows: a message
with one more is warning 31951, raised once per stream, so that the second mistake is silent.

Source: Twilio, "Media Streams - WebSocket messages". Numbers come as JSON strings, except within
``mediaFormat``; a peer that sends them as numbers is understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pybase64

from runtime.errors import PeerProtocolError

INVALID_PAYLOAD = 1007
"""Close code: a message's content is not what its type promises (RFC 6455, 7.4.1)."""
UNSUPPORTED_DATA = 1003
"""Close code: a kind of data we do not take, here binary."""
POLICY_VIOLATION = 1008
"""Close code: a well-formed message that may not come here, now, or from this peer."""
MESSAGE_TOO_BIG = 1009
"""Close code: more than we take at once."""

MAX_MESSAGE_BYTES = 64 * 1024
"""Of one message. Twilio's have 400 bytes; ``start`` may have some kilobytes of parameters."""

MAX_PAYLOAD_CHARS = 21_336
"""Of base64 text in one media message: two seconds. Twilio sends 20 ms, other carriers up to 100.
What waits for a slow session worker is bounded in frames, and so in bytes."""

MAX_KEY_CHARS = 8
"""In one ``dtmf`` message; Twilio sends one."""

MAX_PARAMETERS = 100
"""Custom parameters in ``start``. Twilio names no limit; ours are five."""

MAX_PARAMETER_CHARS = 500
"""In the value of one. Twilio takes no longer ones (TwiML ``<Parameter>``), so a longer one is not
ours."""

_MAX_FAULT_CHARS = 200
"""Of what is logged about a malformed message: it names fields, and fields may have any name."""

_VALUE = re.compile(r"'.*'", re.DOTALL)


LATEST_MS = 2 * 86_400_000
"""Timestamps are below this: Twilio ends a call after a day. More is a fault, and facts with it
could not be stored."""


class TwilioProtocolError(PeerProtocolError):
    """Twilio, or somebody who claims to be, broke the protocol of Media Streams.

    Args:
        text: What came, without its payload.
        close_code: The WebSocket close code that tells the peer.
        limit: Which of our limits was exceeded, for the metrics; empty: none was.
    """

    def __init__(self, text: str, close_code: int, *, limit: str = "") -> None:
        super().__init__(text)
        self.close_code = close_code
        self.limit = limit


class _Message(
    msgspec.Struct, frozen=True, gc=False, tag_field="event", tag=str.lower, rename="camel"
):
    pass


class Connected(_Message, frozen=True):
    """The socket is open. Twilio's first message; it has no ``streamSid``."""


class MediaFormat(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The encoding of the caller's audio."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class StartDetails(msgspec.Struct, frozen=True, rename="camel"):
    """What ``start`` says of the call."""

    call_sid: str
    stream_sid: str = ""
    account_sid: str = ""
    media_format: MediaFormat = MediaFormat()
    custom_parameters: dict[str, Any] = {}
    """What the TwiML's ``<Parameter>`` elements said. Anybody may have written that TwiML."""

    def parameter(self, name: str) -> str:
        """One custom parameter; empty when it is missing, not text, or longer than any of ours."""
        value = self.custom_parameters.get(name)
        return value if isinstance(value, str) and len(value) <= MAX_PARAMETER_CHARS else ""


class Start(_Message, frozen=True):
    """The stream begins."""

    stream_sid: str
    start: StartDetails


class MediaDetails(msgspec.Struct, frozen=True, gc=False):
    """One piece of audio, 20 ms as a rule."""

    timestamp: Annotated[int, msgspec.Meta(ge=0, lt=LATEST_MS)]
    """Milliseconds on the call's clock, at the beginning of the piece."""
    payload: str
    """Base64 text of mono µ-law at 8 kHz, without any header."""
    track: str = "inbound"
    """``inbound`` is the caller; a bidirectional stream carries nothing else."""

    def audio(self) -> tuple[bytes, int]:
        """The payload as it came, and the length of its audio: bytes, and so eighths of a
        millisecond.

        Raises:
            TwilioProtocolError: The payload is not base64, or too long.
        """
        if len(self.payload) > MAX_PAYLOAD_CHARS:
            raise TwilioProtocolError(
                "media.payload of more than two seconds", MESSAGE_TOO_BIG, limit="payload"
            )
        base64 = self.payload.encode()
        try:
            # A quarter of a microsecond; nothing cheaper proves as much. (Text instead of bytes, or
            # `validate=True` by its name, would take twice as long.)
            return base64, len(pybase64.b64decode(base64, None, True))
        except ValueError as error:
            raise TwilioProtocolError(
                "media.payload is not base64 text", INVALID_PAYLOAD
            ) from error


class Media(_Message, frozen=True):
    """Audio of the caller."""

    stream_sid: str
    media: MediaDetails


class MarkDetails(msgspec.Struct, frozen=True, gc=False):
    """Which mark."""

    name: str


class Mark(_Message, frozen=True):
    """A mark came back: what was before it was played, or dropped by a ``clear``."""

    stream_sid: str
    mark: MarkDetails


class DtmfDetails(msgspec.Struct, frozen=True, gc=False):
    """Which key. Sensitive: it may be a digit of a card."""

    digit: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_CHARS)]

    def __repr__(self) -> str:
        return "DtmfDetails(digit=hidden)"


class Dtmf(_Message, frozen=True):
    """The caller pressed a key."""

    stream_sid: str
    dtmf: DtmfDetails


class Stop(_Message, frozen=True):
    """The stream is over: the caller hung up, or the call was moved elsewhere."""

    stream_sid: str


class Unknown(msgspec.Struct, frozen=True):
    """An event that this version of the codec has not heard of. It is to be ignored."""

    event: str
    """Its name, cut to what a log line can bear."""


Message = Connected | Start | Media | Mark | Dtmf | Stop | Unknown

KNOWN_EVENTS = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})


class _EventOnly(msgspec.Struct):
    event: str


# `strict=False` reads Twilio's numbers out of their strings.
_decoder = msgspec.json.Decoder(Connected | Start | Media | Mark | Dtmf | Stop, strict=False)
_event_decoder = msgspec.json.Decoder(_EventOnly)


def decode(text: str | bytes | bytearray) -> Message:
    """Read one message of Twilio.

    Args:
        text: The content of one WebSocket text frame.

    Raises:
        TwilioProtocolError: It is not JSON, or a field that we need is missing or malformed.
            The text names the field and never quotes a value.
    """
    try:
        message: Message = _decoder.decode(text)
        return message
    except msgspec.ValidationError as error:
        fault = error
    except _NO_JSON as error:
        raise _no_json(error) from error
    try:
        event = _event_decoder.decode(text).event
    except msgspec.ValidationError as error:
        raise TwilioProtocolError("the message has no event name", INVALID_PAYLOAD) from error
    except _NO_JSON as error:  # only its beginning was
        raise _no_json(error) from error
    if event in KNOWN_EVENTS:
        raise TwilioProtocolError(
            f"{event} message is malformed: {_without_value(fault)}", INVALID_PAYLOAD
        )
    return Unknown(event[:40])


_NO_JSON = (msgspec.DecodeError, ValueError, RecursionError)
"""What a decoder raises when a text is not JSON, not UTF-8, or nested beyond the interpreter's
stack."""


def _no_json(error: Exception) -> TwilioProtocolError:
    if isinstance(error, RecursionError):
        return TwilioProtocolError("the message is nested too deeply", INVALID_PAYLOAD)
    return TwilioProtocolError("the message is not JSON", INVALID_PAYLOAD)


def _without_value(fault: msgspec.ValidationError) -> str:
    """The fault as msgspec words it: it names types and paths, and what it quotes is left out."""
    text = _VALUE.sub("…", str(fault).replace("Object ", "").replace("`", ""))
    return text[:_MAX_FAULT_CHARS]


class Encoder:
    """Writes the messages that Twilio takes, for one stream.

    Args:
        stream_sid: Twilio's identifier of the stream, which every message repeats.
    """

    def __init__(self, stream_sid: str) -> None:
        sid = msgspec.json.encode(stream_sid)
        self._media = b'{"event":"media","streamSid":' + sid + b',"media":{"payload":"'
        self._mark = b'{"event":"mark","streamSid":' + sid + b',"mark":{"name":'
        self._clear = b'{"event":"clear","streamSid":' + sid + b"}"

    def media(self, payload: bytes) -> bytes:
        """Audio to be played after what was sent before; ``payload`` is base64 text of µ-law."""
        return self._media + payload + b'"}}'

    def mark(self, name: str) -> bytes:
        """A mark, to be echoed when all audio before it was played or dropped."""
        return self._mark + msgspec.json.encode(name) + b"}}"

    def clear(self) -> bytes:
        """Drop all audio that was not played yet and echo the marks in it."""
        return self._clear


PIECE_CHARS = 3200
"""The most base64 characters in one media message: 2,400 bytes, 300 ms.

A model's delta is 250 ms as a rule and stays whole. Each message costs a mark and its echo, beside
the caller's fifty frames a second, and small ones buy nothing: the media clock places a cut between
two marks to within 20 ms whether they are 60 or 500 ms apart (`asheard bench playhead`). What grows
with the distance is the proven range, and that only where echoes are lost. 640 characters (480
bytes, 60 ms) are the least that are both whole frames of 20 ms and whole groups of base64, so
multiples of them cut without decoding."""


def split(payload: bytes) -> Iterator[tuple[bytes, int]]:
    """Cut base64 text into pieces that are base64 text themselves, without decoding it.

    Args:
        payload: Padded base64 text of µ-law.

    Yields:
        A piece, and how many bytes of audio are in it.
    """
    for start in range(0, len(payload), PIECE_CHARS):
        piece = payload[start : start + PIECE_CHARS]
        yield piece, decoded_bytes(piece)


def decoded_bytes(payload: bytes) -> int:
    """How many bytes padded base64 text stands for."""
    return len(payload) // 4 * 3 - payload.count(b"=", -2)
