"""The public port as Twilio meets it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.webhook import LINES_BUSY, OUT_OF_ORDER
from tests.gateway.conftest import World, WorldMaker
from tests.gateway.peers import CALL_SID, ScriptedWorker, TwilioEnd, until

TOKEN = "auth token"
PUBLIC = "https://voice.example.com"
PARAMETERS = {
    "CallSid": CALL_SID,
    "AccountSid": "AC1",
    "From": "+15550100",
    "To": "+15550199",
    "CallStatus": "ringing",
}


def signed(url: str, parameters: dict[str, str] | None = None) -> dict[str, str]:
    signature = RequestValidator(TOKEN).compute_signature(url, parameters or {})
    return {"X-Twilio-Signature": signature}


async def ask(
    here: World, path: str = "/twilio/voice", method: str = "POST", **changed: str
) -> ElementTree.Element:
    parameters = PARAMETERS | changed
    arguments: dict[str, Any] = {"data" if method == "POST" else "params": parameters}
    async with here.http.request(method, here.url + path, **arguments) as response:
        assert response.status == 200
        assert response.content_type == "text/xml"
        return ElementTree.fromstring(await response.text())


def stream_of(response: ElementTree.Element) -> tuple[str, str, dict[str, str]]:
    """Stream URL, action URL and parameters."""
    (verb,) = response.findall("Connect")
    (stream,) = verb.findall("Stream")
    parameters = {p.get("name", ""): p.get("value", "") for p in stream.findall("Parameter")}
    return stream.get("url", ""), verb.get("action", ""), parameters


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_webhook_leads_to_a_call_with_its_numbers(running: World, method: str) -> None:
    url, action, parameters = stream_of(await ask(running, method=method))
    assert url == f"wss://127.0.0.1:{running.gateway.port}/twilio/media"
    assert action == f"http://127.0.0.1:{running.gateway.port}/twilio/voice?attempt=1"
    assert parameters == {"from": "+15550100", "to": "+15550199", "stream": "1"}
    end = TwilioEnd(await running.http.ws_connect(url.replace("wss:", "ws:")))
    await end.start(parameters)
    await end.stop()
    await running.ended()
    started = running.transcript.only("call_started")
    assert (started.from_number, started.stream_number) == ("+15550100", 1)


async def test_behind_a_tunnel_the_urls_are_those_that_twilio_can_reach(running: World) -> None:
    headers = {"Host": "x1.tunnel.example", "X-Forwarded-Proto": "https"}
    async with running.http.post(
        f"{running.url}/twilio/voice", data=PARAMETERS, headers=headers
    ) as response:
        url, action, _ = stream_of(ElementTree.fromstring(await response.text()))
    assert url == "wss://x1.tunnel.example/twilio/media"
    assert action == "https://x1.tunnel.example/twilio/voice?attempt=1"


async def test_signed_all_the_way(make_world: WorldMaker) -> None:
    """Webhook, socket, nonce and callback, all signed as Twilio's package signs."""
    async with make_world(auth_token=TOKEN, public_url=PUBLIC) as here:
        async with here.http.post(
            f"{here.url}/twilio/voice",
            data=PARAMETERS,
            headers=signed(f"{PUBLIC}/twilio/voice", PARAMETERS),
        ) as response:
            assert response.status == 200
            url, action, parameters = stream_of(ElementTree.fromstring(await response.text()))
        assert url == "wss://voice.example.com/twilio/media"
        assert parameters["nonce"]

        end = await here.connect(**signed(url))
        await end.start(parameters)
        await until(lambda: here.worker.opened, "the call")

        thief = await here.connect(**signed(url + "/"))
        thief.stream_sid = "MZ_thief"
        with capture_logs() as lines:
            await thief.start(parameters)
            assert await thief.close_code() == 1008
        assert "used before" in lines[0]["fault"]
        assert parameters["nonce"] not in str(lines)
        assert len(here.worker.opened) == 1

        await end.stop()
        await here.ended()
        parameters = PARAMETERS | {"CallStatus": "completed"}
        async with here.http.post(
            f"{here.url}/twilio/voice?attempt=1",
            data=parameters,
            headers=signed(action, parameters),
        ) as response:
            assert response.status == 200
            assert "<Response/>" in await response.text()


@pytest.mark.parametrize(
    ("given", "call_sid", "named"),
    [
        ({}, CALL_SID, "missing"),
        ({"nonce": "1.2.3"}, CALL_SID, "not ours"),
        ({"nonce": None}, CALL_SID, "missing"),
        ("theirs", "CA_other", "not ours, or of another call"),
    ],
)
async def test_with_a_token_start_needs_a_nonce_of_its_call(
    make_world: WorldMaker, given: Any, call_sid: str, named: str
) -> None:
    async with make_world(auth_token=TOKEN, public_url=PUBLIC) as here:
        if given == "theirs":
            headers = signed(f"{PUBLIC}/twilio/voice", PARAMETERS)
            async with here.http.post(
                f"{here.url}/twilio/voice", data=PARAMETERS, headers=headers
            ) as response:
                _, _, given = stream_of(ElementTree.fromstring(await response.text()))
        end = await here.connect(**signed("wss://voice.example.com/twilio/media"))
        with capture_logs() as lines:
            await end.start(given, call_sid=call_sid)
            assert await end.close_code() == 1008
        (line,) = lines
        assert named in line["fault"] and line["call"] == call_sid
        assert not here.worker.opened
        assert here.metric("asheard_twilio_rejected_requests_total", reason="nonce") == 1


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "bm90IGl0"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/twilio/voice"),
        ("GET", "/twilio/voice"),
        ("POST", "/twilio/status"),
        ("GET", "/twilio/media"),
    ],
)
async def test_without_a_good_signature_nothing_is_served(
    make_world: WorldMaker, method: str, path: str, headers: dict[str, str]
) -> None:
    async with make_world(auth_token=TOKEN) as here:
        with capture_logs() as lines:
            if path == "/twilio/media":
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await here.connect(**headers)
                assert refused.value.status == 403
            else:
                async with here.http.request(
                    method, here.url + path, params={"From": "+15550100"}, headers=headers
                ) as response:
                    assert response.status == 403
        (line,) = lines
        assert "X-Twilio-Signature" in line["event"] and line["path"] == path
        assert "5550100" not in str(line)
        assert here.metric("asheard_twilio_rejected_requests_total", reason="signature") == 1


@pytest.mark.parametrize("host", ["[", "h:port"])
async def test_a_host_that_makes_no_url_is_refused_like_a_bad_signature(
    make_world: WorldMaker, host: str
) -> None:
    async with make_world(auth_token=TOKEN) as here:
        with capture_logs() as lines:
            async with here.http.get(
                f"{here.url}/twilio/voice",
                headers=signed("https://h/twilio/voice") | {"Host": host},
            ) as response:
                assert response.status == 403
        assert "X-Twilio-Signature" in lines[0]["event"]


async def test_a_signature_by_the_requests_own_host_is_good(make_world: WorldMaker) -> None:
    """No ASHEARD_PUBLIC_URL, a proxy that takes TLS off and does not tell."""
    async with make_world(auth_token=TOKEN) as here:
        url = "https://voice.example.com/twilio/voice?x=1"
        async with here.http.get(
            f"{here.url}/twilio/voice?x=1",
            headers=signed(url) | {"Host": "voice.example.com"},
        ) as response:
            assert response.status == 200
        socket = "wss://voice.example.com/twilio/media"
        await here.connect(**signed(socket), Host="voice.example.com")


async def test_without_room_all_lines_are_busy(make_world: WorldMaker) -> None:
    worker = ScriptedWorker()
    worker.load = session_service_pb2.LoadReport(active_calls=3, max_calls=3)
    await worker.start()
    async with make_world(workers=(worker,)) as here:
        with capture_logs() as lines:
            say, hang_up = await ask(here)
        assert (say.tag, say.text, hang_up.tag) == ("Say", LINES_BUSY, "Hangup")
        assert [line["event"] for line in lines] == ["call turned away: all lines are busy"]
        assert here.metric("asheard_calls_total", outcome="refused") == 1


async def test_without_a_worker_all_lines_are_busy_and_the_gateway_is_not_ready(
    make_world: WorldMaker,
) -> None:
    worker = ScriptedWorker()
    await worker.start()
    await worker.stop()
    async with make_world(workers=(worker,), linked=False) as here:
        assert (await ask(here))[0].text == LINES_BUSY
        assert here.gateway.not_ready() == "no session worker is linked"
        end = await here.connect()
        await end.start()
        assert await end.close_code() == 1013
        await here.ended()
        assert here.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_REFUSED
        again = await ask(here, "/twilio/voice?attempt=1", CallStatus="in-progress")
        assert again[0].text == LINES_BUSY


async def test_a_dropped_stream_is_replaced_and_not_for_ever(running: World) -> None:
    _, action, _ = stream_of(await ask(running))
    for attempt in range(2, 6):
        path = action.removeprefix(running.url)
        _, action, parameters = stream_of(await ask(running, path, CallStatus="in-progress"))
        assert action.endswith(f"attempt={attempt}")
        assert parameters["stream"] == str(attempt)
        assert parameters["from"] == "+15550100"
    path = action.removeprefix(running.url)
    assert (await ask(running, path, CallStatus="in-progress"))[0].text == OUT_OF_ORDER


@pytest.mark.parametrize("told", [False, True])
async def test_a_caller_who_was_told_of_the_end_is_only_hung_up_on(
    running: World, told: bool
) -> None:
    end = await running.connect()
    await end.start()
    await until(lambda: running.worker.opened, "the worker has the call")
    running.worker.speak("notice_1", 400, last=True)
    running.worker.finish(outcome=fact_pb2.CALL_OUTCOME_MODEL_FAILED, told=told)
    for name in await end.receive_audio(400):
        await end.echo(name)
    assert await end.close_code() == 1000
    await running.ended()
    sid = {"CallSid": CALL_SID, "CallStatus": "in-progress"}
    answer = await ask(running, "/twilio/voice?attempt=1", **sid)
    assert [verb.tag for verb in answer] == (["Hangup"] if told else ["Say", "Hangup"])


async def test_stream_callbacks_are_counted_and_errors_said_without_numbers(
    running: World,
) -> None:
    error = "31921 - Stream - WebSocket - Close Error for +15550100200"
    with capture_logs() as lines:
        for event, text in [
            ("stream-started", ""),
            ("stream-error", error),
            ("stream-stopped", ""),
            ("made-up", ""),
        ]:
            async with running.http.post(
                f"{running.url}/twilio/status",
                data={"StreamEvent": event, "StreamError": text, "CallSid": CALL_SID},
            ) as response:
                assert response.status == 204
    (line,) = lines
    assert line["log_level"] == "error" and line["call"] == CALL_SID
    assert line["error"] == "31921 - Stream - WebSocket - Close Error for …"
    for event in ("stream-started", "stream-error", "stream-stopped", "other"):
        assert running.metric("asheard_twilio_stream_events_total", event=event) == 1


async def test_the_media_path_is_for_sockets(running: World) -> None:
    async with running.http.get(f"{running.url}/twilio/media") as response:
        assert response.status == 426


async def test_compression_is_not_agreed_to(running: World) -> None:
    socket = await running.http.ws_connect(f"{running.url}/twilio/media", compress=15)
    assert not socket.compress
    await socket.close()
