"""A simulated call from Twilio: webhook, TwiML, WebSocket, media. The shell around ``carrier.py``.

``truth = await TwilioCaller(url, script).run()`` places one call. The URL is either the voice
webhook (``http``, ``https``), whose TwiML then says where the stream goes, or the media socket
itself (``ws``, ``wss``). TLS is never spoken: a ``wss`` or ``https`` URL of a loopback host, or
of any host when ``connect_to`` is given, is reached in the clear, as behind a proxy that ends
TLS, and signed as written.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import heapq
import itertools
import random
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from simulators.network import PERFECT, Link, Network
from simulators.twilio import messages, signature, twiml
from simulators.twilio.call_truth import CallTruth, Ending, Request
from simulators.twilio.caller import Caller
from simulators.twilio.carrier import FRAME_MS, Carrier
from simulators.twilio.script import CallerScript, Drop, HangUp
from simulators.twilio.stream_truth import Outgoing

USER_AGENT = "Twilio.TmeWs/1.0"
"""As captured from a live upgrade request."""
OPEN_TIMEOUT_S = 10
ACTION_AFTER_LOSS_S = 1.2
"""Time from a lost socket to the request of ``action``, as recorded for ConversationRelay."""
SEND_QUEUE_FRAMES = 250
"""Five seconds; when the server reads no faster, Twilio discards caller audio (31930)."""
READ_TOO_SLOWLY = 31930
CONNECTION_TIMEOUT = 31901
MAX_REDIRECTED_STREAMS = 10
"""A call whose every stream ends at once would go round for ever."""


@dataclass(frozen=True, slots=True)
class CarrierOptions:
    """Choices of :class:`~simulators.twilio.carrier.Carrier` for the streams of a call."""

    first_timestamp_ms: int = 63
    omit_silence: bool = False
    close_on_violation: bool = False
    tag_frames: bool = True
    keep_audio: bool = True


class TwilioCaller:
    """One simulated caller on one call."""

    def __init__(
        self,
        url: str,
        script: CallerScript,
        *,
        network: Network = PERFECT,
        auth_token: str | None = None,
        connect_to: str | None = None,
        parameters: Mapping[str, str] | None = None,
        call_sid: str | None = None,
        account_sid: str = "AC" + "5" * 32,
        options: CarrierOptions | None = None,
    ) -> None:
        """Prepare a call; :meth:`run` places it.

        Args:
            url: Voice webhook (http, https) or media socket (ws, wss), as Twilio would know it.
            script: What the caller does.
            network: Conditions between Twilio and the server.
            auth_token: Signs every request; without it a made-up token does, as if from a stranger.
            connect_to: ``host:port`` to reach instead of the URL's own host.
            parameters: ``customParameters`` when ``url`` is the socket itself.
            call_sid: Name of the call; a random one if absent.
            account_sid: Name of the account.
            options: How the carrier behaves.
        """
        self._random = random.Random(network.seed)
        self._url = url
        self._network = network
        self._auth_token = auth_token if auth_token is not None else "no token was given"
        self._connect_to = connect_to
        self._parameters = dict(parameters or {})
        self._options = options or CarrierOptions()
        self._caller = Caller(script)
        call_sid = call_sid or f"CA{random.getrandbits(128):032x}"
        self.truth = CallTruth(
            call_sid=call_sid,
            account_sid=account_sid,
            from_number=script.from_number,
            to_number=script.to_number,
            tag=zlib.crc32(call_sid.encode()),
            steps=self._caller.taken,
        )
        """Grows while the call goes on."""
        self.carrier: Carrier | None = None
        """The present stream's carrier."""
        self._began_s = 0.0

    async def run(self) -> CallTruth:
        """Place the call and see it through; cancelling it drops the socket.

        Failures of the server are in the truth (``ending``, ``errors``, ``warnings``), not raised.
        """
        self._began_s = asyncio.get_running_loop().time()
        scheme = urlsplit(self._url).scheme
        if scheme in ("ws", "wss"):
            verb = twiml.StreamVerb(
                url=self._url,
                query_dropped=False,
                name=None,
                status_callback=None,
                status_callback_method="POST",
                parameters=self._parameters,
                action=None,
                action_method="POST",
            )
            self.truth.ending = await self._stream(verb, None)
            return self.truth
        async with aiohttp.ClientSession() as http:
            await self._follow(http)
        return self.truth

    async def _follow(self, http: aiohttp.ClientSession) -> None:
        """Webhook, stream, ``action``, next stream, … until the call ends."""
        kind: Literal["voice", "action"] = "voice"
        url, method, status = self._url, "POST", "ringing"
        for _ in range(MAX_REDIRECTED_STREAMS):
            document = await self._request(http, kind, method, url, {"CallStatus": status})
            if document is None:
                return
            try:
                answer = twiml.parse(document, url)
            except twiml.BadTwiml as error:
                self.truth.errors.append(str(error))
                return
            verb = answer.stream
            if verb is None:
                self.truth.ending = "no_stream" if kind == "voice" else self.truth.ending
                return
            if verb.query_dropped:
                self.truth.errors.append("31920: the query of the stream's URL was dropped")
            ending = await self._stream(verb, http)
            self.truth.ending = ending
            if ending == "hung_up" or verb.action is None:
                return
            if ending in ("server_lost", "dropped"):
                await asyncio.sleep(ACTION_AFTER_LOSS_S)
            kind, url, method, status = "action", verb.action, verb.action_method, "in-progress"

    # --- HTTP ---------------------------------------------------------------------------------

    async def _request(
        self,
        http: aiohttp.ClientSession,
        kind: Literal["voice", "action", "status"],
        method: str,
        url: str,
        extra: Mapping[str, str],
    ) -> str | None:
        """A signed webhook request; the answer's body, or None if it was no success."""
        form = {
            "CallSid": self.truth.call_sid,
            "AccountSid": self.truth.account_sid,
            "From": self.truth.from_number,
            "To": self.truth.to_number,
            "Direction": "inbound",
            "ApiVersion": "2010-04-01",
            **extra,
        }
        event = extra.get("StreamEvent", "")
        if method == "GET":
            url += ("&" if urlsplit(url).query else "?") + urlencode(form)
        signed = signature.sign(self._auth_token, url, form if method == "POST" else None)
        headers = {"X-Twilio-Signature": signed, "User-Agent": "TwilioProxy/1.1"}
        reached = self._reach(url, headers)
        try:
            async with http.request(
                method,
                reached,
                data=form if method == "POST" else None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=15),  # Twilio's own limit for a webhook
                allow_redirects=False,
            ) as response:
                body = await response.text()
                self.truth.requests.append(Request(kind, response.status, event))
                if response.status == 200:
                    return body
                if kind != "status":
                    self.truth.errors.append(f"11200: the {kind} URL answered {response.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.truth.requests.append(Request(kind, 0, event))
            self.truth.errors.append(f"11200: the {kind} URL: {type(error).__name__}")
        return None

    def _reach(self, url: str, headers: dict[str, str]) -> str:
        """The URL to connect to in the clear; adds what a TLS-ending proxy would add."""
        parts = urlsplit(url)
        scheme = {"https": "http", "wss": "ws"}.get(parts.scheme, parts.scheme)
        if scheme != parts.scheme:
            headers["X-Forwarded-Proto"] = "https"
        if self._connect_to is None:
            return urlunsplit(parts._replace(scheme=scheme))
        headers["Host"] = parts.netloc
        return urlunsplit(parts._replace(scheme=scheme, netloc=self._connect_to))

    async def _stream_event(
        self, http: aiohttp.ClientSession | None, verb: twiml.StreamVerb, sid: str, event: str
    ) -> None:
        if http is None or verb.status_callback is None:
            return
        extra = {
            "StreamSid": sid,
            "StreamName": verb.name or sid,
            "StreamEvent": event,
            "Timestamp": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        if event == "stream-error":
            extra["StreamError"] = self.truth.errors[-1]
        await self._request(
            http, "status", verb.status_callback_method, verb.status_callback, extra
        )

    # --- the stream ---------------------------------------------------------------------------

    async def _stream(self, verb: twiml.StreamVerb, http: aiohttp.ClientSession | None) -> Ending:
        sid = f"MZ{random.getrandbits(128):032x}"
        self.truth.parameters = dict(verb.parameters)
        headers = {"X-Twilio-Signature": signature.sign(self._auth_token, verb.url)}
        reached = self._reach(verb.url, headers)
        # `Host` must not be doubled: the library writes it from the URL, so the URL keeps the host
        # and only the connection goes elsewhere.
        elsewhere: dict[str, Any] = {}
        if headers.pop("Host", None) is not None:
            target = urlsplit(reached)
            elsewhere = {"host": target.hostname, "port": target.port}
            reached = urlunsplit(target._replace(netloc=urlsplit(verb.url).netloc))
        try:
            socket = await connect(
                reached,
                additional_headers=headers,
                user_agent_header=USER_AGENT,
                compression=None,
                proxy=None,
                max_size=None,
                ping_interval=None,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=2,
                **elsewhere,
            )
        except (OSError, InvalidHandshake) as error:
            code = messages.CONNECTION_REFUSED
            if isinstance(error, TimeoutError):
                code = CONNECTION_TIMEOUT
            elif isinstance(error, InvalidHandshake):
                code = messages.HANDSHAKE_FAILED
            self.truth.errors.append(f"{code}: {error}")
            await self._stream_event(http, verb, sid, "stream-error")
            return "failed"
        carrier = Carrier(
            stream_sid=sid,
            call_sid=self.truth.call_sid,
            account_sid=self.truth.account_sid,
            parameters=verb.parameters,
            first_timestamp_ms=self._options.first_timestamp_ms,
            close_on_violation=self._options.close_on_violation,
            omit_silence=self._options.omit_silence,
            tag=self.truth.tag if self._options.tag_frames else None,
            first_frame=self.truth.frames_sent,
            keep_audio=self._options.keep_audio,
        )
        self.carrier = carrier
        self.truth.streams.append(carrier.truth)
        if self._caller.taken:
            self._caller.new_stream()
        stream = _LiveStream(socket, carrier, self._caller, self._network, self._random)
        callbacks = asyncio.create_task(self._stream_event(http, verb, sid, "stream-started"))
        try:
            ending = await stream.run(began_s=self._began_s)
        finally:
            await callbacks
        self.truth.close_code = socket.close_code
        if carrier.truth.warnings and carrier.truth.warnings[-1].code == messages.PROTOCOL_ERROR:
            self.truth.errors.append(f"{messages.PROTOCOL_ERROR}: WebSocket protocol error")
            await self._stream_event(http, verb, sid, "stream-error")
        await self._stream_event(http, verb, sid, "stream-stopped")
        return ending


class _LiveStream:
    """One open socket: moves messages between it and the carrier at the right times."""

    def __init__(
        self,
        socket: ClientConnection,
        carrier: Carrier,
        caller: Caller,
        network: Network,
        random_source: random.Random,
    ) -> None:
        self._socket = socket
        self._carrier = carrier
        self._caller = caller
        self._marks = network.marks
        self._random = random_source
        self._outward = Link(network.to_server, random_source)
        self._inward = Link(network.from_server, random_source)
        self._began_s = asyncio.get_running_loop().time()
        self._wake = asyncio.Event()
        self._numbers = itertools.count()
        self._emissions: list[tuple[int, int, Outgoing]] = []
        """Heap by the time of leaving the carrier: late marks wait here."""
        self._travelling: deque[tuple[int, str]] = deque()
        """Messages on the way to the server, with their times of arrival."""
        self._arriving: deque[tuple[int, str | bytes]] = deque()
        """Messages on the way to the carrier."""
        self._to_write: deque[str] = deque()
        self._written = asyncio.Event()
        self._closed = False

    def _now(self) -> int:
        return int((asyncio.get_running_loop().time() - self._began_s) * 1000)

    async def run(self, *, began_s: float) -> Ending:
        """Live until one side ends it."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        try:
            return await self._play(began_s)
        finally:
            for task in (reader, writer):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                    await task
            if self._socket.transport is not None and not self._closed:
                self._socket.transport.abort()

    async def _play(self, began_s: float) -> Ending:
        carrier = self._carrier
        age_ms = int((self._began_s - began_s) * 1000)
        heard_ms = 0
        while True:
            now = max(self._now(), carrier.now_ms)
            self._deliver(now)
            carrier.advance(now)
            if self._closed and not self._arriving:
                carrier.lose_socket(now)
                return self._how_closed()
            if carrier.close_wanted:
                await self._close()
                return "failed"
            if now - heard_ms >= FRAME_MS:
                heard_ms = now
                action = self._caller.listen(carrier, now, call_ms=age_ms + now)
                if isinstance(action, HangUp):
                    carrier.hang_up(now)
                    self._dispatch(now)
                    await self._drain()
                    await self._close()
                    return "hung_up"
                if isinstance(action, Drop):
                    carrier.lose_socket(now)
                    self._socket.transport.abort()
                    self._closed = True
                    return "dropped"
            self._dispatch(now)
            await self._sleep_until(self._next_due_ms(heard_ms))

    def _next_due_ms(self, heard_ms: int) -> int:
        due = min(self._carrier.next_due_ms(), heard_ms + FRAME_MS)
        if self._emissions:
            due = min(due, self._emissions[0][0])
        for queue in (self._travelling, self._arriving):
            if queue:
                due = min(due, queue[0][0])
        return due

    async def _sleep_until(self, due_ms: int) -> None:
        self._wake.clear()
        wait_s = self._began_s + due_ms / 1000 - asyncio.get_running_loop().time()
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        handle = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            handle.cancel()

    def _deliver(self, now: int) -> None:
        """Hand over what has arrived at the carrier, each at its own time."""
        while self._arriving and self._arriving[0][0] <= now:
            at, message = self._arriving.popleft()
            self._carrier.receive(message, max(at, self._carrier.now_ms))

    def _dispatch(self, now: int) -> None:
        """Send what the carrier has said, through mark faults and the network's delay."""
        for outgoing in self._carrier.take():
            fates: tuple[int, ...] = (0,)
            if outgoing.message["event"] == "mark":
                fates = self._marks.fate(self._random)
            for delay_ms in fates:
                entry = (outgoing.at_ms + delay_ms, next(self._numbers), outgoing)
                heapq.heappush(self._emissions, entry)
        while self._emissions and self._emissions[0][0] <= now:
            at, _, outgoing = heapq.heappop(self._emissions)
            if outgoing.message["event"] == "media" and len(self._to_write) > SEND_QUEUE_FRAMES:
                self._carrier.warn(READ_TOO_SLOWLY, "the server reads too slowly")
                continue
            self._travelling.append((self._outward.arrival_ms(at), outgoing.text))
        while self._travelling and self._travelling[0][0] <= now:
            self._to_write.append(self._travelling.popleft()[1])
            self._written.set()

    async def _drain(self) -> None:
        """Before the last close: let everything on its way arrive, ``stop`` last."""
        while self._emissions or self._travelling or self._to_write:
            if self._closed:
                return
            await asyncio.sleep(0.005)
            self._dispatch(max(self._now(), self._carrier.now_ms))

    async def _close(self) -> None:
        await self._socket.close()
        self._closed = True

    async def _write(self) -> None:
        while True:
            while self._to_write:
                await self._socket.send(self._to_write[0])
                self._to_write.popleft()
            self._written.clear()
            await self._written.wait()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._socket.recv()
                now = max(self._now(), self._carrier.now_ms)
                if self._inward.instant and not self._arriving:
                    self._carrier.receive(message, now)
                else:
                    self._arriving.append((self._inward.arrival_ms(now), message))
                self._wake.set()
        except ConnectionClosed:
            self._closed = True
            self._wake.set()

    def _how_closed(self) -> Ending:
        closed = self._socket.close_code
        sent = self._socket.protocol.close_sent
        if sent is not None and sent.code in (1002, 1007):
            self._carrier.warn(messages.PROTOCOL_ERROR, "the server broke the WebSocket protocol")
            return "failed"
        return "server_lost" if closed in (None, 1006) else "server_closed"
