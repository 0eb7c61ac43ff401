"""The one public port: webhooks and media sockets.

``/twilio/voice``   POST, GET   what to do with a call; also asked when a media stream is over
``/twilio/status``  POST        what became of a media stream
``/twilio/media``   GET         the media stream's WebSocket

With an auth token each request must bear a valid signature, or is answered 403.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from asheard.v1 import fact_pb2
from gateway import media_connection, nonce, turns, webhook
from gateway.call import CallServices
from gateway.metrics import outcome_label
from gateway.nonce import NonceChecker
from gateway.public_url import (
    MEDIA_PATH,
    STATUS_PATH,
    VOICE_PATH,
    base_url,
    stream_url,
    webhook_urls,
)
from gateway.registry import Registry
from gateway.turns import ReadingTurns
from gateway.twilio import form, signature, twiml
from gateway.twilio.stream import is_sid
from gateway.websocket_protocol import handshake
from runtime import http
from runtime.config import Address
from runtime.http import HttpPort, descriptor_bound
from runtime.log import get_log

log = get_log(__name__)

MAX_BODY_BYTES = 64 * 1024
"""Twilio's webhooks have some hundred bytes of parameters."""

SHUTDOWN_WAIT_S = 3.0
"""How long open requests may take once the port is closed: a closing handshake."""

STREAM_EVENTS = frozenset({"stream-started", "stream-stopped", "stream-error"})

_LONG_NUMBER = re.compile(r"\+?\d{7,}")
"""What may be a telephone number in a text of Twilio; its error codes have five digits."""

_MAX_URL_CHARS = 200
"""Of what is logged of a URL: its host is whatever the request says."""


class Admission(Protocol):
    """Whether new calls are welcome."""

    @property
    def draining(self) -> bool:
        """Whether this gateway takes no new calls, since it is about to end."""

    @property
    def has_room(self) -> bool:
        """Whether a session worker would take a call."""


class PublicServer:
    """Serves Twilio.

    Args:
        address: Where to listen; port 0 lets the system choose.
        services: What calls share.
        registry: Where running calls are known.
        admission: Whether new calls are welcome.
        configured_url: ``ASHEARD_PUBLIC_URL``; None: derived from each request.
        auth_token: None: no signature and no nonce is looked at.
        reuse_port: Other processes of this gateway listen at the same port.
    """

    def __init__(
        self,
        address: Address,
        services: CallServices,
        registry: Registry,
        admission: Admission,
        *,
        configured_url: str | None,
        auth_token: str | None,
        reuse_port: bool = False,
    ) -> None:
        self._services = services
        self._metrics = services.metrics
        self._registry = registry
        self._admission = admission
        self._configured_url = configured_url
        self._auth_token = auth_token
        self._nonces = NonceChecker(auth_token) if auth_token is not None else None
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(VOICE_PATH, self._voice)
        app.router.add_get(VOICE_PATH, self._voice)
        app.router.add_post(STATUS_PATH, self._status)
        app.router.add_get(MEDIA_PATH, self._media)
        app.router.add_get(MEDIA_PATH + "/", self._media)
        app.middlewares.append(_refuse_malformed)
        self._http = HttpPort(
            app,
            address,
            called=f"ASHEARD_GATEWAY_LISTEN={address}",
            reuse_port=reuse_port,
            max_connections=descriptor_bound(),
            on_closed=lambda reason: self._metrics.closed_connections.labels(reason).inc(),
            shutdown_s=SHUTDOWN_WAIT_S,
        )
        self._turns = ReadingTurns(in_turns=os.environ.get(turns.SWITCH) != "off")

    @property
    def port(self) -> int:
        """The port it listens at, once started."""
        return self._http.port

    @property
    def fault(self) -> str | None:
        """Why calls are not served although the event loop turns; None: they are."""
        return self._turns.fault

    async def start(self) -> None:
        """Open the port.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        await self._http.start()

    async def close(self) -> None:
        """Close the port and what is still open there."""
        await self._http.close()
        self._turns.close()

    # -- webhooks ------------------------------------------------------------------------------

    async def _voice(self, request: web.Request) -> web.Response:
        parameters = await self._signed_parameters(request)
        call_sid = parameters.get("CallSid", "")
        attempt_text = request.query.get(webhook.ATTEMPT_PARAMETER)
        if attempt_text is None:
            attempt = 0
            answer = webhook.answer_new_call(
                has_room=self._admission.has_room and not self._admission.draining
            )
            if answer is webhook.Answer.LINES_BUSY:
                log.warning("call turned away: all lines are busy", call=call_sid)
                self._metrics.calls.labels(outcome_label(fact_pb2.CALL_OUTCOME_REFUSED)).inc()
        else:
            attempt = webhook.attempt_of(attempt_text)
            status = parameters.get("CallStatus", "")
            self._stream_is_over(call_sid, status, attempt)
            registry = self._registry
            answer = webhook.answer_after_stream(
                status, registry.ending(call_sid), attempt, told=registry.was_told(call_sid)
            )
            log.info("media stream is over", call=call_sid, attempt=attempt, answer=answer.value)
        text = self._twiml(answer, request, parameters, call_sid, attempt + 1)
        return web.Response(text=text, content_type=twiml.CONTENT_TYPE, charset="utf-8")

    def _twiml(
        self,
        answer: webhook.Answer,
        request: web.Request,
        parameters: Mapping[str, str],
        call_sid: str,
        attempt: int,
    ) -> str:
        match answer:
            case webhook.Answer.NOTHING:
                return twiml.EMPTY
            case webhook.Answer.HANG_UP:
                return twiml.hang_up()
            case webhook.Answer.LINES_BUSY:
                return twiml.say_and_hang_up(webhook.LINES_BUSY)
            case webhook.Answer.OUT_OF_ORDER:
                return twiml.say_and_hang_up(webhook.OUT_OF_ORDER)
            case webhook.Answer.STREAM:
                pass
        base = self._base_url(request)
        given_back = {
            "from": parameters.get("From", ""),
            "to": parameters.get("To", ""),
            webhook.STREAM_PARAMETER: str(attempt),
        }
        if self._auth_token is not None:
            given_back["nonce"] = nonce.mint(
                self._auth_token,
                call_sid,
                now_s=int(time.time()),
                random=os.urandom(nonce.RANDOM_BYTES),
            )
        return twiml.connect(
            stream_url(base),
            action_url=f"{base}{VOICE_PATH}?{webhook.ATTEMPT_PARAMETER}={attempt}",
            status_url=base + STATUS_PATH,
            parameters=given_back,
        )

    async def _status(self, request: web.Request) -> web.Response:
        parameters = await self._signed_parameters(request)
        event = parameters.get("StreamEvent", "")
        self._metrics.stream_events.labels(event if event in STREAM_EVENTS else "other").inc()
        if event == webhook.ERROR_EVENT:
            log.error(
                "Twilio reports a stream error",
                call=parameters.get("CallSid", ""),
                stream=parameters.get("StreamSid", ""),
                error=_LONG_NUMBER.sub("…", parameters.get("StreamError", ""))[:300],
            )
        call_sid, stream_sid = parameters.get("CallSid", ""), parameters.get("StreamSid", "")
        if event in webhook.OVER_EVENTS and call_sid and stream_sid:
            failed = event == webhook.ERROR_EVENT
            if not self._registry.stream_stopped(call_sid, stream_sid, failed=failed):
                self._services.links.announce_stopped(call_sid, stream_sid)
        return web.Response(status=204)

    def _stream_is_over(self, call_sid: str, status: str, attempt: int) -> None:
        """End a call's stream, wherever it is, if its socket did not say that it is over."""
        if not call_sid:
            return
        if status in webhook.OVER_STATUSES:
            if not self._registry.call_over(call_sid, attempt):
                self._services.links.announce_stopped(call_sid, "")
        elif status == "in-progress":
            self._registry.stream_lost(call_sid, attempt)

    async def _signed_parameters(self, request: web.Request) -> Mapping[str, str]:
        """The parameters of a webhook, once its signature is found good; 403 otherwise, 400 when
        they cannot be read, 408 and 413 when their body is too slow or too large."""
        posted, body = request.method == "POST", b""
        pairs: list[tuple[str, str]] = []
        if posted:
            body = await _read_body(request)
            try:
                pairs = form.read(body, request.content_type, request.charset)
            except form.BadForm as error:
                raise web.HTTPBadRequest(text=f"{error}\n") from error
        if self._auth_token is not None:
            urls = webhook_urls(
                self._base_url(request),
                request.raw_path,
                configured=self._configured_url is not None,
            )
            self._check_signature(request, urls, pairs, body)
        parameters = dict(pairs) if posted else dict(request.query)
        for name in ("CallSid", "StreamSid"):
            if parameters.get(name) and not is_sid(parameters[name]):
                raise web.HTTPBadRequest(text=f"{name} is malformed\n")
        return parameters

    # -- media sockets -------------------------------------------------------------------------

    async def _media(self, request: web.Request) -> web.StreamResponse:
        if self._auth_token is not None:
            urls = list(signature.socket_urls(self._base_url(request), MEDIA_PATH))
            self._check_signature(request, urls, [], b"")
        status, answer = handshake(request.method, request.headers.items())
        if status == HTTPStatus.UPGRADE_REQUIRED:
            return web.Response(status=status, text="this is a WebSocket\n")
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise web.HTTPBadRequest(text="the handshake cannot be read\n")
        if self._admission.draining:
            # Twilio asks the action URL then, and another replica answers with a new stream.
            return web.Response(status=503, text="the gateway is draining\n")
        transport = request.transport
        if transport is not None:  # else the peer has gone already
            transport.write(answer)
            await media_connection.serve(
                transport, self._turns, self._services, self._registry, self._nonces
            )
        return web.Response()  # which nobody gets: the connection is closed

    # -- what both have in common --------------------------------------------------------------

    def _base_url(self, request: web.Request) -> str:
        return base_url(
            self._configured_url,
            host=request.host,
            forwarded_proto=request.headers.get("X-Forwarded-Proto", ""),
            scheme=request.scheme,
        )

    def _check_signature(
        self, request: web.Request, urls: list[str], pairs: list[tuple[str, str]], body: bytes
    ) -> None:
        given = request.headers.get(signature.SIGNATURE_HEADER, "")
        if self._auth_token is not None and signature.is_valid(
            self._auth_token,
            urls,
            given,
            parameters=pairs,
            body=body,
            settings=request.headers.get(signature.SETTINGS_HEADER, ""),
        ):
            return
        self._metrics.rejected_requests.labels("signature").inc()
        log.warning(
            "request rejected: X-Twilio-Signature is " + ("wrong" if given else "missing"),
            method=request.method,
            path=request.path,
            expected_url=urls[0].partition("?")[0][:_MAX_URL_CHARS],
        )
        raise web.HTTPForbidden(text="X-Twilio-Signature is missing or wrong\n")


async def _read_body(request: web.Request) -> bytes:
    """A request's body: at most :data:`MAX_BODY_BYTES`, within :data:`runtime.http.BODY_S`."""
    try:
        async with asyncio.timeout(http.BODY_S):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the body took too long\n") from error


@web.middleware
async def _refuse_malformed(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """400 for what cannot be read: a body whose coding is broken, a header or a URL that is no
    text."""
    try:
        return await handler(request)
    except (UnicodeError, web.RequestPayloadError) as error:
        raise web.HTTPBadRequest(text="the request cannot be read\n") from error
