"""The order of messages within one Media Stream.

::

    AWAITING ── connected ──▶ CONNECTED ── start ──▶ STARTED ── stop ──▶ STOPPED
        └────────────── start ─────────────────────────▲ └ media, mark, dtmf ┘

``connected`` carries nothing that is needed, so a peer that leaves it out is forgiven. Whatever is
not in the table is an error of the peer, and so is a message of another stream. Unknown events
pass in every state: Twilio may add some.
"""

from __future__ import annotations

import enum
import re

from gateway.twilio.messages import (
    MAX_PARAMETERS,
    POLICY_VIOLATION,
    Connected,
    Dtmf,
    Mark,
    Media,
    Message,
    Start,
    Stop,
    TwilioProtocolError,
    Unknown,
)

_SID = re.compile(r"[\x21-\x7e]{1,128}")
"""Twilio's have two letters and 32 hexadecimal digits. They become keys of facts and parts of log
lines, and the transcript service takes no others."""


def is_sid(text: str) -> bool:
    """Whether a text may name a call, a stream or an account: 1 to 128 visible ASCII characters."""
    return _SID.fullmatch(text) is not None


class StreamState(enum.Enum):
    """How far a stream has come."""

    AWAITING = "awaiting"
    CONNECTED = "connected"
    STARTED = "started"
    STOPPED = "stopped"


TRANSITIONS: dict[tuple[StreamState, type], StreamState] = {
    (StreamState.AWAITING, Connected): StreamState.CONNECTED,
    (StreamState.AWAITING, Start): StreamState.STARTED,
    (StreamState.CONNECTED, Start): StreamState.STARTED,
    (StreamState.STARTED, Media): StreamState.STARTED,
    (StreamState.STARTED, Mark): StreamState.STARTED,
    (StreamState.STARTED, Dtmf): StreamState.STARTED,
    (StreamState.STARTED, Stop): StreamState.STOPPED,
}


class MediaStream:
    """One stream, from its first message to its last."""

    def __init__(self) -> None:
        self.state = StreamState.AWAITING
        self.stream_sid = ""
        """Twilio's identifier of the stream; empty before ``start``."""

    def receive(self, message: Message) -> None:
        """Judge that a message may come now.

        Raises:
            TwilioProtocolError: It may not, belongs to another stream, or starts a stream whose
                audio is not µ-law at 8 kHz.
        """
        kind = type(message)
        if kind is Unknown:
            return
        state = TRANSITIONS.get((self.state, kind))
        if state is None:
            raise TwilioProtocolError(
                f"{kind.__name__.lower()} message in a stream that is {self.state.value}",
                POLICY_VIOLATION,
            )
        if isinstance(message, Start):
            self._check_start(message)
            self.stream_sid = message.stream_sid
        elif not isinstance(message, Connected | Unknown) and (
            message.stream_sid != self.stream_sid
        ):
            raise TwilioProtocolError(
                f"{kind.__name__.lower()} message with the streamSid of another stream",
                POLICY_VIOLATION,
            )
        self.state = state

    @staticmethod
    def _check_start(message: Start) -> None:
        details = message.start
        for name, sid in (("streamSid", message.stream_sid), ("callSid", details.call_sid)):
            if not is_sid(sid):
                raise TwilioProtocolError(
                    f"start message with a {name} that is not 1 to 128 visible ASCII characters",
                    POLICY_VIOLATION,
                )
        if details.account_sid and not is_sid(details.account_sid):
            raise TwilioProtocolError("start message with an odd accountSid", POLICY_VIOLATION)
        if len(details.custom_parameters) > MAX_PARAMETERS:
            raise TwilioProtocolError(
                f"start message with more than {MAX_PARAMETERS} parameters",
                POLICY_VIOLATION,
                limit="parameters",
            )
        if details.stream_sid not in ("", message.stream_sid):
            raise TwilioProtocolError(
                "start message with two different streamSids", POLICY_VIOLATION
            )
        format_ = details.media_format
        if (format_.encoding, format_.sample_rate, format_.channels) != ("audio/x-mulaw", 8000, 1):
            raise TwilioProtocolError(
                "start message with a mediaFormat other than mono audio/x-mulaw at 8000 Hz",
                POLICY_VIOLATION,
            )
