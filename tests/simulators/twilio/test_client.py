"""The simulated call as a server sees it: webhook, socket, callbacks, and what may go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from simulators.twilio import CallerScript, CarrierOptions, TwilioCaller
from simulators.twilio.script import AgentSilent, Drop, Elapsed, HangUp, Say, Step
from tests.simulators.twilio.drive import clear, mark, media

TOKEN = "12345"
PUBLIC = "https://voice.example.com"

Media = Callable[[web.WebSocketResponse, str], Awaitable[None]]


def brief(ms: int = 100) -> CallerScript:
    """A caller who hangs up after so long."""
    return CallerScript(end=Step(HangUp(), Elapsed(ms)))


@dataclass
class Server:
    """A bridge's outside: records what came, answers as the test says."""

    on_start: Media
    """Called with the socket and the streamSid."""
    stream: str = f'url="wss://voice.example.com/twilio/media" statusCallback="{PUBLIC}/status"'
    action: str | None = None
    later_twiml: str = "<Response><Say>Goodbye.</Say></Response>"
    """Answer to every webhook but the first."""
    port: int = 0
    requests: list[tuple[str, dict[str, str], bool]] = field(default_factory=list)
    """Path, form and whether the signature is Twilio's, of each webhook."""
    messages: list[dict[str, object]] = field(default_factory=list)
    signed_upgrades: list[bool] = field(default_factory=list)

    async def webhook(self, request: web.Request) -> web.Response:
        form = {k: str(v) for k, v in (await request.post()).items()}
        url = f"{PUBLIC}{request.path_qs}"
        signature = request.headers["X-Twilio-Signature"]
        valid = RequestValidator(TOKEN).validate(url, form, signature)
        assert request.headers["X-Forwarded-Proto"] == "https"
        assert request.host == "voice.example.com"
        first = not any(path == "/voice" for path, _, _ in self.requests)
        self.requests.append((request.path, form, valid))
        if request.path == "/status":
            return web.Response()
        action = "" if self.action is None else f"action={quoteattr(self.action)}"
        document = (
            f"<Response><Connect {action}><Stream {self.stream}>"
            '<Parameter name="nonce" value="5b1e"/></Stream></Connect></Response>'
        )
        return web.Response(text=document if first else self.later_twiml)

    async def media(self, request: web.Request) -> web.WebSocketResponse:
        url = f"wss://{request.host}{request.path_qs}"
        signature = request.headers["X-Twilio-Signature"]
        self.signed_upgrades.append(bool(RequestValidator(TOKEN).validate(url, {}, signature)))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type != WSMsgType.TEXT:
                break
            message = json.loads(frame.data)
            self.messages.append(message)
            if message["event"] == "start":
                await self.on_start(socket, message["streamSid"])
        return socket


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    app = web.Application()
    app.router.add_post("/voice", server.webhook)
    app.router.add_post("/after", server.webhook)
    app.router.add_post("/status", server.webhook)
    app.router.add_get("/twilio/media", server.media)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


async def nothing(socket: web.WebSocketResponse, sid: str) -> None:
    """Say nothing."""


def caller(server: Server, script: CallerScript, url: str = f"{PUBLIC}/voice") -> TwilioCaller:
    return TwilioCaller(url, script, auth_token=TOKEN, connect_to=f"127.0.0.1:{server.port}")


async def test_call_through_the_webhook_is_signed_everywhere() -> None:
    async with serving(Server(nothing)) as server:
        truth = await caller(server, brief(150)).run()
    assert truth.ending == "hung_up" and truth.warnings == []
    assert all(valid for _, _, valid in server.requests) and server.signed_upgrades == [True]
    assert [r.kind for r in truth.requests] == ["voice", "status", "status"]
    path, form, _ = server.requests[0]
    assert form["CallSid"] == truth.call_sid and form["From"] == "+15550100001"
    events = [f["StreamEvent"] for p, f, _ in server.requests if p == "/status"]
    assert events == ["stream-started", "stream-stopped"]
    start = next(m for m in server.messages if m["event"] == "start")["start"]
    assert isinstance(start, dict)
    assert start["customParameters"] == {"nonce": "5b1e"}
    assert start["callSid"] == truth.call_sid


async def test_messages_come_in_order_and_end_with_stop() -> None:
    async with serving(Server(nothing)) as server:
        await caller(server, brief(150)).run()
    events = [m["event"] for m in server.messages]
    assert events[:2] == ["connected", "start"]
    assert events[-1] == "stop"
    assert set(events[2:-1]) == {"media"} and len(events) > 5
    numbers = [int(str(m["sequenceNumber"])) for m in server.messages[1:]]
    assert numbers == list(range(1, len(server.messages)))


async def test_signature_of_a_stranger_is_wrong() -> None:
    async with serving(Server(nothing)) as server:
        await TwilioCaller(f"{PUBLIC}/voice", brief(), connect_to=f"127.0.0.1:{server.port}").run()
    assert server.signed_upgrades == [False]
    assert not any(valid for _, _, valid in server.requests)


async def test_server_closes_and_the_action_goes_on() -> None:
    async def close(socket: web.WebSocketResponse, sid: str) -> None:
        await socket.close()

    async with serving(Server(close, action="/after")) as server:
        truth = await caller(server, brief(5_000)).run()
    assert truth.ending == "server_closed"
    assert [r.kind for r in truth.requests if r.kind != "status"] == ["voice", "action"]
    action = next(form for path, form, _ in server.requests if path == "/after")
    assert action["CallSid"] == truth.call_sid and action["CallStatus"] == "in-progress"
    assert len(truth.streams) == 1


async def test_action_may_open_a_second_stream_of_the_same_call() -> None:
    sids: list[str] = []

    async def close_first(socket: web.WebSocketResponse, sid: str) -> None:
        sids.append(sid)
        if len(sids) == 1:
            await asyncio.sleep(0.1)
            await socket.close()

    again = (
        '<Response><Connect><Stream url="wss://voice.example.com/twilio/media"/></Connect>'
        "</Response>"
    )
    async with serving(Server(close_first, action="/after", later_twiml=again)) as server:
        truth = await caller(server, brief(200)).run()
    assert truth.ending == "hung_up"
    assert [t.stream_sid for t in truth.streams] == sids and len(set(sids)) == 2
    calls = {m["start"]["callSid"] for m in server.messages if m["event"] == "start"}  # type: ignore[index]
    assert calls == {truth.call_sid}
    sent = sum(m["event"] == "media" for m in server.messages)
    assert truth.frames_sent >= sent > 5


async def test_abrupt_drop_sends_no_stop_and_then_asks_the_action() -> None:
    script = CallerScript((Step(Drop(), Elapsed(100)),))
    async with serving(Server(nothing, action="/after")) as server:
        truth = await caller(server, script).run()
    assert truth.ending == "dropped"
    assert "stop" not in [m["event"] for m in server.messages]
    assert [path for path, _, _ in server.requests if path != "/status"] == ["/voice", "/after"]


async def test_media_marks_and_clear_over_the_socket() -> None:
    async def speak(socket: web.WebSocketResponse, sid: str) -> None:
        await socket.send_str(mark("first", sid=sid))
        await socket.send_str(media(1_600).replace("MZ" + "0" * 31 + "1", sid))
        await socket.send_str(mark("played", sid=sid))
        await socket.send_str(media(80_000).replace("MZ" + "0" * 31 + "1", sid))
        await socket.send_str(mark("cleared", sid=sid))
        await asyncio.sleep(0.4)
        await socket.send_str(clear(sid=sid))

    async with serving(Server(speak)) as server:
        truth = await caller(server, brief(700)).run()
    echoes = truth.streams[0].echoes
    assert [(e.name, e.flushed) for e in echoes] == [
        ("first", False),
        ("played", False),
        ("cleared", True),
    ]
    first, played, cleared = echoes
    assert 200 <= played.at_ms - first.at_ms <= 221
    (flush,) = truth.streams[0].flushes
    stretch = truth.streams[0].played[-1]
    assert stretch.end_ms == flush.at_ms == cleared.at_ms
    assert truth.warnings == []


async def test_mistakes_are_warned_of_or_end_a_strict_stream() -> None:
    async def blunder(socket: web.WebSocketResponse, sid: str) -> None:
        await socket.send_bytes(b"\x00")
        await socket.send_str(mark("m", sid="MZ-another"))

    async with serving(Server(blunder)) as server:
        lenient = await caller(server, brief(150)).run()
        server.requests.clear()
        strict_caller = TwilioCaller(
            f"{PUBLIC}/voice",
            brief(5_000),
            auth_token=TOKEN,
            connect_to=f"127.0.0.1:{server.port}",
            options=CarrierOptions(close_on_violation=True),
        )
        strict = await strict_caller.run()
    assert [w.code for w in lenient.streams[0].warnings] == [31950, 31951]
    assert lenient.ending == "hung_up"
    assert [w.code for w in strict.streams[0].warnings] == [31950]
    assert strict.ending == "failed"


async def test_failures_before_the_stream_have_twilios_errors() -> None:
    server = Server(nothing, stream='url="ws://voice.example.com/twilio/media"')
    async with serving(server):
        insecure = await caller(server, brief()).run()
        assert insecure.ending == "failed" and insecure.warnings[0].startswith("31922")
        nowhere = await caller(server, brief(), f"{PUBLIC}/nothing-here").run()
        assert nowhere.ending == "failed" and "404" in nowhere.warnings[0]
        no_socket = await caller(server, brief(), "wss://voice.example.com/nothing-here").run()
        assert no_socket.ending == "failed" and no_socket.warnings[0].startswith("31920")
    refused = await TwilioCaller("ws://127.0.0.1:1/media", brief()).run()
    assert refused.warnings[0].startswith("31902")


async def test_failed_handshake_is_told_to_the_status_callback() -> None:
    stream = f'url="wss://voice.example.com/no-such-socket" statusCallback="{PUBLIC}/status"'
    async with serving(Server(nothing, stream=stream)) as server:
        truth = await caller(server, brief()).run()
    assert truth.ending == "failed"
    (status,) = [form for path, form, _ in server.requests if path == "/status"]
    assert status["StreamEvent"] == "stream-error" and status["StreamError"].startswith("31920")


async def test_call_refused_by_twiml_has_no_stream() -> None:
    async with serving(Server(nothing, later_twiml="<Response><Reject/></Response>")) as server:
        server.requests.append(("/voice", {}, True))
        truth = await caller(server, brief()).run()
    assert truth.ending == "no_stream"


async def test_cancelled_call_leaves_nothing_running() -> None:
    async with serving(Server(nothing)) as server:
        call = asyncio.create_task(
            caller(server, CallerScript((Step(Say("Yes."), AgentSilent()),))).run()
        )
        while not server.messages:
            await asyncio.sleep(0.01)
        before = asyncio.all_tasks()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert call.cancelled()
        assert asyncio.all_tasks() < before
