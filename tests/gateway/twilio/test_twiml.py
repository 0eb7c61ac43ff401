"""The TwiML says what we mean, whatever characters are in it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.twilio import twiml

xml_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=60
)


def connect(**parameters: str) -> ElementTree.Element:
    return ElementTree.fromstring(
        twiml.connect(
            "wss://h.example/twilio/media",
            action_url="https://h.example/twilio/voice?attempt=1&x=2",
            status_url="https://h.example/twilio/status",
            parameters=parameters,
        )
    )


def test_the_call_is_connected_to_our_socket() -> None:
    response = connect(nonce="n1", **{"from": "+15550100", "to": "+15550199"})
    verb = response.find("Connect")
    assert verb is not None
    assert verb.get("action") == "https://h.example/twilio/voice?attempt=1&x=2"
    assert verb.get("method") == "POST"
    stream = verb.find("Stream")
    assert stream is not None
    assert stream.get("url") == "wss://h.example/twilio/media"
    assert stream.get("statusCallback") == "https://h.example/twilio/status"
    assert {p.get("name"): p.get("value") for p in stream.findall("Parameter")} == {
        "nonce": "n1",
        "from": "+15550100",
        "to": "+15550199",
    }


@given(xml_text, xml_text)
def test_any_text_comes_back_as_it_was(name: str, value: str) -> None:
    parameters = {p.get("name"): p.get("value") for p in connect(**{name: value}).iter("Parameter")}
    assert parameters == ({name: value} if value else {})


@pytest.mark.parametrize(("length", "there"), [(495, True), (496, False), (2000, False)])
def test_a_parameter_stays_under_500_characters(length: int, there: bool) -> None:
    assert (connect(**{"from": "1" * length}).find(".//Parameter") is not None) is there


def test_a_stream_url_with_a_query_is_refused_here_and_not_by_twilio() -> None:
    with pytest.raises(ValueError, match="query"):
        twiml.connect("wss://h/p?token=1", action_url="", status_url="", parameters={})


def test_the_other_answers() -> None:
    assert ElementTree.fromstring(twiml.EMPTY.encode()).tag == "Response"
    assert [verb.tag for verb in ElementTree.fromstring(twiml.hang_up().encode())] == ["Hangup"]
    say, hang_up = ElementTree.fromstring(twiml.say_and_hang_up("a < b & c").encode())
    assert (say.tag, say.text, hang_up.tag) == ("Say", "a < b & c", "Hangup")
