"""Our signatures are those of Twilio's own package; our own URL is known in all spellings."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from gateway.twilio.signature import algorithm_of, is_valid, sign, socket_urls

TOKEN = "12345"
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(pairs=st.lists(st.tuples(text, text), max_size=8), path=text)
def test_we_sign_as_the_twilio_package_does(pairs: list[tuple[str, str]], path: str) -> None:
    url = f"https://voice.example.com/{path}"
    theirs = RequestValidator(TOKEN).compute_signature(url, MultiDict(pairs))
    assert sign(TOKEN, url, pairs) == theirs
    assert is_valid(TOKEN, [url], theirs, parameters=pairs)


@pytest.mark.parametrize("algorithm", ["HMAC_SHA1", "HMAC_SHA256"])
def test_a_request_signed_with_a_shared_key_names_its_algorithm(algorithm: str) -> None:
    url = "https://voice.example.com/twilio/voice"
    theirs = RequestValidator(TOKEN).compute_signature(url, {"CallSid": "CA1"}, algorithm)
    settings = f"key=webhooks_1, algorithm={algorithm.lower()}"
    assert is_valid(TOKEN, [url], theirs, parameters=[("CallSid", "CA1")], settings=settings)


def test_an_algorithm_that_does_not_exist_is_not_valid() -> None:
    assert algorithm_of("algorithm=MD5") == "MD5"
    assert not is_valid(TOKEN, ["https://h/p"], "x", settings="algorithm=MD5")


@pytest.mark.parametrize(
    ("signed", "known_as"),
    [
        ("https://h.example/p", "https://h.example/p"),
        ("https://h.example/p", "https://h.example:443/p"),
        ("https://h.example:443/p", "https://h.example/p"),
        ("http://h.example:80/p", "http://h.example/p"),
        ("https://h.example/p?a=b&c=%20", "https://h.example:8443/p?a=b&c=%20"),
    ],
)
def test_a_port_may_be_left_out_or_written_out(signed: str, known_as: str) -> None:
    signature = sign(TOKEN, signed, [("a", "b")])
    assert is_valid(TOKEN, [known_as], signature, parameters=[("a", "b")])


@pytest.mark.parametrize(
    "signed",
    [
        "wss://voice.example.com/twilio/media",
        "wss://voice.example.com/twilio/media/",
        "wss://voice.example.com:443/twilio/media",
    ],
)
def test_a_socket_is_signed_as_wss_with_or_without_slash_and_port(signed: str) -> None:
    urls = list(socket_urls("https://voice.example.com", "/twilio/media"))
    assert is_valid(TOKEN, urls, RequestValidator(TOKEN).compute_signature(signed, {}))


@pytest.mark.parametrize(
    "signed",
    [
        "https://voice.example.com/twilio/media",
        "ws://voice.example.com/twilio/media",
        "wss://voice.example.com/twilio/other",
        "wss://other.example.com/twilio/media",
        "wss://voice.example.com:80/twilio/media",
    ],
)
def test_a_signature_of_another_url_is_not_ours(signed: str) -> None:
    urls = list(socket_urls("https://voice.example.com", "/twilio/media"))
    assert not is_valid(TOKEN, urls, sign(TOKEN, signed))


@pytest.mark.parametrize("host", ["[", "[::1", "h:port", "h:99999", "]"])
def test_a_host_that_makes_no_url_signs_nothing(host: str) -> None:
    assert not is_valid(
        TOKEN, [f"https://{host}/twilio/voice"], sign(TOKEN, "https://h/twilio/voice")
    )


def test_a_path_prefix_that_a_proxy_strips_belongs_to_the_signed_url() -> None:
    urls = list(socket_urls("https://example.com/voice-bridge", "/twilio/media"))
    assert is_valid(TOKEN, urls, sign(TOKEN, "wss://example.com/voice-bridge/twilio/media"))


def test_a_json_body_is_held_against_its_hash_and_its_parameters_are_left_out() -> None:
    body = b'{"a":1}'
    url = f"https://h.example/p?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = RequestValidator(TOKEN).compute_signature(url, {})
    assert RequestValidator(TOKEN).validate(url, body.decode(), signature)
    assert is_valid(TOKEN, [url], signature, body=body, parameters=[("ignored", "x")])
    assert not is_valid(TOKEN, [url], signature, body=b'{"a":2}')


@pytest.mark.parametrize("signature", ["", "x", "ä", "A" * 28])
def test_anything_else_is_not_valid(signature: str) -> None:
    assert not is_valid(TOKEN, ["https://h.example/p"], signature)
    assert not is_valid(TOKEN, ["https://h.example/p"], sign("other", "https://h.example/p"))
