"""The URLs by which Twilio knows us. Pure.

They are built from ``ASHEARD_PUBLIC_URL``. Without it they follow the request: the Host header,
and X-Forwarded-Proto, which tunnels and load balancers set when they take TLS off.
"""

from __future__ import annotations

VOICE_PATH = "/twilio/voice"
STATUS_PATH = "/twilio/status"
MEDIA_PATH = "/twilio/media"


def base_url(configured: str | None, *, host: str, forwarded_proto: str, scheme: str) -> str:
    """Our public base URL, without a trailing slash.

    Args:
        configured: ``ASHEARD_PUBLIC_URL``; None when it is not set.
        host: The Host header.
        forwarded_proto: X-Forwarded-Proto; empty when there is none. A chain of proxies lists
            its values, ours first.
        scheme: The scheme in which the request reached this process.
    """
    if configured is not None:
        return configured
    first = forwarded_proto.partition(",")[0].strip().lower()
    proto = {"https": "https", "wss": "https", "http": "http", "ws": "http"}.get(first, scheme)
    return f"{proto}://{host}"


def stream_url(base: str) -> str:
    """The URL of our media socket, for a TwiML. Always ``wss``: Twilio takes nothing else (31922),
    and where TLS ends is the proxy's affair."""
    return f"wss://{base.split('://', 1)[1]}{MEDIA_PATH}"


def webhook_urls(base: str, raw_path: str, *, configured: bool) -> list[str]:
    """The URLs that Twilio may have signed for a webhook.

    Args:
        base: From :func:`base_url`.
        raw_path: The request's path and query, as it came.
        configured: Whether ``base`` was configured. If not, a proxy may have taken TLS off and
            not told.
    """
    urls = [base + raw_path]
    if not configured and base.startswith("http://"):
        urls.append("https://" + base.removeprefix("http://") + raw_path)
    return urls
