"""What a voice webhook answers: TwiML.

Source: Twilio, TwiML ``<Stream>``, ``<Connect>``, ``<Parameter>``, ``<Say>``, ``<Hangup>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

CONTENT_TYPE = "text/xml"

PARAMETER_CHARS = 500
"""Name and value of one ``<Parameter>`` together must stay under this."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold, however it is written."""

EMPTY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
"""Nothing more to do: the call is over already."""


def connect(
    stream_url: str, *, action_url: str, status_url: str, parameters: Mapping[str, str]
) -> str:
    """Connect the call to our socket, and ask ``action_url`` what to do when the socket closes.

    Args:
        stream_url: A ``wss`` URL without a query: Twilio drops a query.
        action_url: Asked when the socket was closed.
        status_url: Told when the stream starts, stops or fails.
        parameters: Given back in ``start``. One that is empty, too long, or has a character that
            XML cannot say is left out.

    Raises:
        ValueError: ``stream_url`` has a query.
    """
    if "?" in stream_url:
        raise ValueError("Twilio drops the query of a stream's URL; use parameters")
    inner = "".join(
        f"<Parameter name={quoteattr(name)} value={quoteattr(value)}/>"
        for name, value in parameters.items()
        if value and len(name) + len(value) < PARAMETER_CHARS and not _NOT_XML.search(value)
    )
    return _response(
        f'<Connect action={quoteattr(action_url)} method="POST">'
        f"<Stream url={quoteattr(stream_url)} statusCallback={quoteattr(status_url)}"
        f' statusCallbackMethod="POST">{inner}</Stream></Connect>'
    )


def hang_up() -> str:
    """End the call."""
    return _response("<Hangup/>")


def say_and_hang_up(text: str) -> str:
    """Say ``text`` with Twilio's own voice, then end the call."""
    return _response(f"<Say>{escape(text)}</Say><Hangup/>")


def _response(inner: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{inner}</Response>'
