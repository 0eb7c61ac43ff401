"""``X-Twilio-Signature``: what Twilio signs, so that a server's check can be put to the test.

base64(HMAC-SHA1(auth token, URL followed by each POST parameter's name and value, by name)). For
the WebSocket upgrade the URL is the ``wss://`` one of the TwiML, and there are no parameters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping


def sign(auth_token: str, url: str, parameters: Mapping[str, str] | None = None) -> str:
    """The signature of a request.

    Args:
        auth_token: The account's primary Auth Token.
        url: The URL exactly as configured at Twilio or written in the TwiML.
        parameters: Form parameters of a POST; none for GET and for a WebSocket.
    """
    signed = url + "".join(name + value for name, value in sorted((parameters or {}).items()))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")
