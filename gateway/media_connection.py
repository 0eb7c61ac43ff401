"""One WebSocket of Twilio: one door for what comes, one way to the call.

::

    socket ── Seat ──▶ take ─┬─ the caller's regular frames ──▶ CallerPath ──▶ lane
                             ├─ other plain text ──▶ receive_text ──▶ Call
                             └─ anything else, and all after it ──▶ AllFrames ──▶ receive ──▶ Call

What Twilio sends are text messages in one masked frame each, until it closes. Those are read here.
With the first frame of another kind (a ping, a piece of a message, a close, nonsense) the general
protocol takes over for good, and the event loop reads the socket: it holds back who is answered and
does not read the answers.

A socket is not a call until ``start`` came, with a good nonce where one is asked for. From then on
it hands messages on to its :class:`~gateway.call.Call`. Every fault of the peer ends here: one log
line, one close code, and no other call disturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from asheard.v1 import fact_pb2
from gateway.barrier import FAULTS, Arguments, guarded, report
from gateway.call import Call, CallServices
from gateway.caller_path import CallerPath
from gateway.instant import Instant
from gateway.last_line import LastLine
from gateway.media_sink import MediaSink
from gateway.nonce import NonceChecker
from gateway.registry import Registry
from gateway.turns import ReadingTurns, Seat
from gateway.twilio.messages import (
    MAX_MESSAGE_BYTES,
    MESSAGE_TOO_BIG,
    POLICY_VIOLATION,
    UNSUPPORTED_DATA,
    Dtmf,
    Mark,
    Media,
    Start,
    Stop,
    TwilioProtocolError,
    Unknown,
    decode,
)
from gateway.twilio.stream import MediaStream
from gateway.webhook import STREAM_PARAMETER, stream_number_of
from gateway.websocket_protocol import AllFrames, Kind, Received, may_be_plain
from native import read_text
from runtime.errors import PeerProtocolError
from runtime.log import get_log

START_DEADLINE_S = 10.0
"""A socket without ``start`` for so long is not a call; Twilio sends it at once."""

MESSAGES_AT_ONCE = 6_000
MESSAGES_PER_S = 200
"""How many messages are taken of one stream that are not regular frames: at once, such as after a
network's stall (two minutes of frames), and on the average. Frames are 50 a second, 100 with some
carriers, and marks and keys a few."""

KEYS_AT_ONCE = 100
KEYS_PER_S = 10
"""Pressed keys that are passed on; nobody presses more. The others are dropped."""

NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
INTERNAL_ERROR = 1011


class MediaConnection:
    """One socket at ``/twilio/media``, from its opening to its end.

    Args:
        sink: Twilio's end.
        services: What calls share.
        registry: Where running calls are known.
        nonces: None: anybody may start a stream, and no nonce is looked at.
    """

    def __init__(
        self,
        sink: MediaSink,
        services: CallServices,
        registry: Registry,
        nonces: NonceChecker | None,
    ) -> None:
        self.seat: Seat | None = None
        """Where the socket is read; None before and after."""
        self._sink = sink
        self._services = services
        self._registry = registry
        self._nonces = nonces
        self._rest = b""
        """The part of a frame that came."""
        self._all_frames: AllFrames | None = None
        """None while all that came is plain text."""
        self._stream = MediaStream()
        self._call: Call | None = None
        self._path: CallerPath | None = None
        """For the regular frames of the call that runs; None before and after."""
        self._call_sid = ""
        """Of the call that was started; empty before."""
        self._stream_number = 0
        self._told = False
        self._over = False
        self._unknown_said = False
        self._opened_us = services.now().mono_us
        self._messages = 0
        self._messages_due = MESSAGES_AT_ONCE
        """At so many messages their pace is looked at again."""
        self._keys = 0
        self._log = get_log(__name__)
        self._start_timer = asyncio.get_running_loop().call_later(START_DEADLINE_S, self._no_start)
        registry.opened(self)

    @property
    def stream_sid(self) -> str:
        """Twilio's identifier of the stream; empty before ``start``."""
        return self._stream.stream_sid

    @property
    def stream_number(self) -> int:
        """Which stream of its call it is, from 1; 0: not known."""
        return self._stream_number

    @property
    def told(self) -> bool:
        """The caller heard in words that the call ends; known once it has."""
        return self._told

    # -- what the socket gives ---------------------------------------------------------------

    def take(self, data: bytes, at: Instant) -> None:
        """Take what came next. What a message raises ends the call; what that raises comes out
        here, and ends the socket."""
        if self._all_frames is not None:
            self._take_all_kinds(self._all_frames, data, at)
            return
        if self._rest:
            data = self._rest + data
        while data:
            if self._path is not None:
                try:
                    data = self._path.take(data, at)
                except FAULTS as error:
                    self._meet(error)
                if not data:
                    break
            text = read_text(data)
            if text is None:
                break
            content, end = text
            data = data[end:]
            self._in_call(self.receive_text, content, at)
        self._rest = data
        if data and not may_be_plain(data):
            self._leave_plain_text(at)

    def _leave_plain_text(self, at: Instant) -> None:
        self._all_frames = AllFrames(MAX_MESSAGE_BYTES)
        if self.seat is not None:
            self.seat.leave_turns()
        data, self._rest = self._rest, b""
        self._take_all_kinds(self._all_frames, data, at)

    def _take_all_kinds(self, frames: AllFrames, data: bytes, at: Instant) -> None:
        for received in frames.receive(data):
            self._in_call(self.receive, received, at)

    def _in_call(
        self,
        action: Callable[Arguments, object],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        try:
            action(*args, **kwargs)
        except FAULTS as error:
            self._meet(error)

    def _meet(self, error: BaseException) -> None:
        """A fault of our own: it ends this call."""
        report(self._log, "fault while handling a media stream", error)
        self._path = None
        self.fail()

    # -- what Twilio says --------------------------------------------------------------------

    def receive(self, received: Received, at: Instant) -> None:
        """Take what came in frames of any kind."""
        match received.kind:
            case Kind.TEXT:
                self.receive_text(received.content, at)
            case Kind.PING:
                self._sink.write(received.content)
            case Kind.CLOSE:
                guarded(self._log, self._end, fact_pb2.CALL_OUTCOME_DROPPED, NORMAL_CLOSURE, "")
                self._sink.peer_closed()
            case Kind.BINARY if not self._over:
                self._break(TwilioProtocolError("a binary WebSocket message", UNSUPPORTED_DATA))
            case Kind.FAULT if not self._over:
                code = received.close_code
                fault = f"no message that we take (close code {code})"
                limit = "message" if code == MESSAGE_TOO_BIG else ""
                self._break(TwilioProtocolError(fault, code, limit=limit))

    def receive_text(self, text: bytes, at: Instant) -> None:
        """Take one WebSocket text message."""
        if self._over:
            return
        try:
            self._messages += 1
            if self._messages > self._messages_due:
                self._check_pace(at)
            message = decode(text)
            call = self._call
            if type(message) is Media and call is not None:  # first: there may be fifty a second
                if message.stream_sid != self._stream.stream_sid:
                    self._stream.receive(message)
                call.receive_media(message.media, at)
                return
            self._stream.receive(message)
            if call is None:
                if type(message) is Start:
                    self._start(message, at)
                elif type(message) is Unknown:
                    self._unknown(message)
            elif type(message) is Mark:
                call.receive_mark(message.mark.name, at)
            elif type(message) is Dtmf:
                self._key(call, message.dtmf.digit, at)
            elif type(message) is Stop:
                call.receive_stop(at)
            elif type(message) is Unknown:
                self._unknown(message)
        except PeerProtocolError as error:
            self._break(error)

    def disconnected(self) -> None:
        """The socket is closed, whoever did it. Nothing follows; repeats are ignored."""
        guarded(self._log, self._end, fact_pb2.CALL_OUTCOME_DROPPED, NORMAL_CLOSURE, "")
        self._registry.closed(self)

    # -- what this process does --------------------------------------------------------------

    def supersede(self) -> None:
        """End: the same call has a newer stream, so this one was lost without our noticing."""
        self._end(fact_pb2.CALL_OUTCOME_DROPPED, POLICY_VIOLATION, "replaced by a newer stream")

    def stream_stopped(self) -> None:
        """Twilio told a webhook that the stream is over."""
        if self._call is not None:
            self._call.stream_stopped(self._services.now())

    def stream_failed(self) -> None:
        """Twilio told a webhook of an error of the stream."""
        if self._call is not None:
            self._call.stream_failed(self._services.now())

    def call_over(self) -> None:
        """Twilio told a webhook that the call is over, and so the stream."""
        if self._call is not None:
            self._call.call_over(self._services.now())

    def abort(self) -> None:
        """End: the process does."""
        self._end(fact_pb2.CALL_OUTCOME_DROPPED, GOING_AWAY, "the gateway is going away")

    def fail(self) -> None:
        """End: a fault of our own met this call."""
        self._end(fact_pb2.CALL_OUTCOME_DROPPED, INTERNAL_ERROR, "internal error")

    def cut(self) -> None:
        """Lose the socket, when nothing else ends it; :meth:`disconnected` follows."""
        self._sink.abort()

    # -- how it does it ----------------------------------------------------------------------

    def _start(self, message: Start, at: Instant) -> None:
        call_sid = message.start.call_sid
        self._log = self._log.bind(call=call_sid)
        if self._nonces is not None:
            nonce = message.start.parameter("nonce")
            fault = self._nonces.fault(nonce, call_sid, now_s=at.unix_us // 1_000_000)
            if fault is not None:
                self._services.metrics.rejected_requests.labels("nonce").inc()
                raise TwilioProtocolError(f"start message: {fault}", POLICY_VIOLATION)
        self._start_timer.cancel()
        self._call_sid = call_sid
        self._stream_number = stream_number_of(message.start.parameter(STREAM_PARAMETER))
        self._registry.started(self, call_sid)
        self._call = Call(message, self._sink, self._services, at=at, on_end=self._call_ended)
        self._path = self._call.path

    def _check_pace(self, at: Instant) -> None:
        seconds = (at.mono_us - self._opened_us) / 1e6
        self._messages_due = MESSAGES_AT_ONCE + int(MESSAGES_PER_S * seconds)
        if self._messages > self._messages_due:
            raise TwilioProtocolError(
                f"more than {MESSAGES_PER_S} messages a second", POLICY_VIOLATION, limit="messages"
            )

    def _key(self, call: Call, digit: str, at: Instant) -> None:
        self._keys += 1
        seconds = (at.mono_us - self._opened_us) / 1e6
        if self._keys > KEYS_AT_ONCE + KEYS_PER_S * seconds:
            self._keys -= 1
            self._services.metrics.limits.labels("keys").inc()
        else:
            call.receive_key(digit, at)

    def _unknown(self, message: Unknown) -> None:
        self._services.metrics.unknown_events.inc()
        if not self._unknown_said:
            self._unknown_said = True
            self._log.warning("unknown event of Twilio ignored", event_name=message.event)

    def _break(self, error: PeerProtocolError) -> None:
        """The peer broke its protocol: say so once, and end."""
        code = POLICY_VIOLATION
        if isinstance(error, TwilioProtocolError):
            code = error.close_code
            if error.limit:
                self._services.metrics.limits.labels(error.limit).inc()
        self._services.metrics.protocol_errors.inc()
        said = "media stream broke its protocol"
        guarded(self._log, self._log.warning, said, fault=str(error), close_code=code)
        self._end(fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR, code, str(error))

    def _no_start(self) -> None:
        self._break(TwilioProtocolError("no start message in time", POLICY_VIOLATION))

    def _end(self, outcome: fact_pb2.CallOutcome.ValueType, code: int, reason: str) -> None:
        """End the call, if there is one, and the socket, whatever the call raises over it."""
        if self._over:
            return
        call = self._call
        at = self._services.now()
        # The call comes back through _call_ended, and then all is done.
        if call is not None and not guarded(self._log, call.end, outcome, code, reason, at):
            guarded(self._log, call.abandon, outcome, at)
        if not self._over:
            self._call_ended(self._call_sid, outcome, code, reason)

    def _call_ended(
        self, call_sid: str, outcome: fact_pb2.CallOutcome.ValueType, code: int, reason: str
    ) -> None:
        self._over = True
        self._start_timer.cancel()
        self._told = self._call is not None and self._call.told
        self._call = self._path = None  # freed at once, and not by the garbage collector
        if call_sid:
            guarded(self._log, self._registry.ended, self, call_sid, outcome)
        if not guarded(self._log, self._sink.close, code, reason):
            guarded(self._log, self._sink.abort)


async def serve(
    transport: asyncio.Transport,
    turns: ReadingTurns,
    services: CallServices,
    registry: Registry,
    nonces: NonceChecker | None,
) -> None:
    """Serve a media stream until its socket is closed.

    Args:
        transport: Whose handshake was answered just now.
        turns: Where it is read.
        services: What calls share.
        registry: Where running calls are known.
        nonces: See :class:`MediaConnection`.
    """
    log = get_log(__name__)
    last_line = LastLine(services.links, services.outbox)
    its_services = replace(services, links=last_line, outbox=last_line)
    connection = MediaConnection(MediaSink(transport), its_services, registry, nonces)
    seat: Seat | None = None
    try:
        connection.seat = seat = turns.join(transport, connection.take)
        await seat.lost
    finally:
        connection.seat = None
        if seat is not None:
            guarded(log, seat.leave)
        if not guarded(log, connection.disconnected):
            guarded(log, connection.fail)
            guarded(log, registry.closed, connection)
        guarded(log, last_line.end)
