"""TwiML and signatures, against Twilio's own package."""

from __future__ import annotations

import pytest
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
from twilio.twiml.voice_response import Connect, VoiceResponse  # type: ignore[import-untyped]

from simulators.twilio import twiml
from simulators.twilio.signature import sign

BASE = "https://bridge.example.org/twilio/voice"


def test_twiml_of_twilios_own_builder_is_understood() -> None:
    response = VoiceResponse()
    response.say("Hello there.")
    connect = Connect(action="/twilio/voice?again=1", method="GET")
    stream = connect.stream(
        url="wss://bridge.example.org/twilio/media",
        name="leg-1",
        status_callback="https://bridge.example.org/status",
    )
    stream.parameter(name="nonce", value="5b1e")
    stream.parameter(name="from", value="x&y")
    response.append(connect)
    parsed = twiml.parse(str(response), BASE)
    assert parsed.passed == ("Say",) and parsed.said == ("Hello there.",)
    assert parsed.stream == twiml.StreamVerb(
        url="wss://bridge.example.org/twilio/media",
        query_dropped=False,
        name="leg-1",
        status_callback="https://bridge.example.org/status",
        status_callback_method="POST",
        parameters={"nonce": "5b1e", "from": "x&y"},
        action="https://bridge.example.org/twilio/voice?again=1",
        action_method="GET",
    )


def stream(attributes: str, inside: str = "", connect: str = "") -> str:
    return (
        f"<Response><Connect {connect}><Stream {attributes}>{inside}</Stream></Connect></Response>"
    )


def test_query_of_the_stream_url_is_dropped_as_twilio_drops_it() -> None:
    verb = twiml.parse(stream('url="wss://h/media?token=1"'), BASE).stream
    assert verb is not None
    assert verb.url == "wss://h/media" and verb.query_dropped


def test_relative_stream_url_goes_to_the_webhooks_host() -> None:
    verb = twiml.parse(stream('url="/media"'), BASE).stream
    assert verb is not None and verb.url == "wss://bridge.example.org/media"


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        ("hello", 12100, "not XML"),
        ("<Reply/>", 12100, "<Response>"),
        ("<Response><Connect/></Response>", 12200, "exactly one <Stream>"),
        (stream('url="ws://h/media"'), 31922, "not wss"),
        (stream('url="https://h/media"'), 31922, "not wss"),
        (stream('url="wss://h/m" track="both_tracks"'), 31941, "inbound_track"),
        (stream('url="wss://h/m" codec="opus"'), 12200, "unknown codec"),
        (stream('url="wss://h/m" statusCallback="/s"'), 12200, "absolute"),
        (
            stream('url="wss://h/m"', f'<Parameter name="n" value="{"x" * 499}"/>'),
            12200,
            "too long",
        ),
        (stream('url="wss://h/m"', connect='action="/a" method="PUT"'), 12200, "GET or POST"),
    ],
)
def test_bad_twiml_has_twilios_error(document: str, code: int, text: str) -> None:
    with pytest.raises(twiml.BadTwiml, match=text) as caught:
        twiml.parse(document, BASE)
    assert caught.value.code == code


def test_twiml_without_a_stream_only_ends_the_call() -> None:
    parsed = twiml.parse("<Response><Say>All busy.</Say><Hangup/><Play/></Response>", BASE)
    assert parsed.stream is None
    assert parsed.passed == ("Say", "Hangup")


TOKEN = "12345"
FORM = {"CallSid": "CA1", "From": "+15550100001", "Body": "ü & =", "To": ""}


def test_webhook_signature_is_the_packages() -> None:
    signature = sign(TOKEN, BASE + "?a=1", FORM)
    validator = RequestValidator(TOKEN)
    assert signature == validator.compute_signature(BASE + "?a=1", FORM)
    assert validator.validate(BASE + "?a=1", FORM, signature)
    assert not validator.validate(BASE + "?a=2", FORM, signature)


def test_socket_signature_is_of_the_wss_url_as_written() -> None:
    url = "wss://bridge.example.org/twilio/media"
    signature = sign(TOKEN, url)
    validator = RequestValidator(TOKEN)
    assert validator.validate(url, {}, signature)
    assert not validator.validate(url.replace("wss", "https"), {}, signature)
    with_port = "wss://bridge.example.org:443/twilio/media"
    assert sign(TOKEN, with_port) != signature
    # The stock validator's trap: for wss it tries no port and 80, never 443.
    assert not validator.validate(url, {}, sign(TOKEN, with_port))
