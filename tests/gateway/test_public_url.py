"""The URLs by which Twilio knows us, whatever stands between."""

from __future__ import annotations

import pytest

from gateway.public_url import base_url, stream_url, webhook_urls


@pytest.mark.parametrize(
    ("configured", "forwarded", "expected"),
    [
        ("https://voice.example.com/prefix", "http", "https://voice.example.com/prefix"),
        (None, "", "http://h.example:8080"),
        (None, "https", "https://h.example:8080"),
        (None, "HTTPS, http", "https://h.example:8080"),
        (None, "wss", "https://h.example:8080"),
        (None, "gopher", "http://h.example:8080"),
    ],
)
def test_base_url(configured: str | None, forwarded: str, expected: str) -> None:
    assert (
        base_url(configured, host="h.example:8080", forwarded_proto=forwarded, scheme="http")
        == expected
    )


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://h.example", "wss://h.example/twilio/media"),
        ("https://h.example/prefix", "wss://h.example/prefix/twilio/media"),
        # A proxy that takes TLS off without telling: Twilio speaks nothing but wss.
        ("http://h.example", "wss://h.example/twilio/media"),
        ("http://127.0.0.1:8080", "wss://127.0.0.1:8080/twilio/media"),
    ],
)
def test_stream_url(base: str, expected: str) -> None:
    assert stream_url(base) == expected


def test_webhook_urls_keep_the_query_as_it_came_and_allow_for_a_silent_proxy() -> None:
    path = "/twilio/voice?attempt=1&x=%2B"
    assert webhook_urls("https://h", path, configured=True) == ["https://h" + path]
    assert webhook_urls("http://h", path, configured=True) == ["http://h" + path]
    assert webhook_urls("http://h", path, configured=False) == [
        "http://h" + path,
        "https://h" + path,
    ]
