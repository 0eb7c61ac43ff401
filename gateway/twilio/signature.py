"""X-Twilio-Signature: how a request proves that it comes from Twilio.

The signature is base64(HMAC-SHA1(auth token, URL + name + value of each POST parameter, sorted)).
For a JSON body the URL carries ``bodySHA256=<hex>`` and the parameters are left out. A request
signed with a shared key names its algorithm in X-Twilio-Webhooks-Signature-Settings.

Which URL was signed is the difficulty: Twilio signs the one that was configured or written in the
TwiML, and proxies, default ports and empty paths make that ambiguous. So every spelling of *our
own* URL is tried. That weakens nothing: each of them names us, and each needs the secret.

* A WebSocket's URL is signed with the ``wss`` scheme; ``https`` would never match.
* A port may be left out or written out. (Twilio's own validator tries ``:80`` for a ``wss`` URL.)
* A socket's path is accepted with and without a trailing slash.

Source: Twilio, "Webhooks security", and the behaviour of its Python package.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qs, urlunsplit

from runtime.url import split_url

SIGNATURE_HEADER = "X-Twilio-Signature"
SETTINGS_HEADER = "X-Twilio-Webhooks-Signature-Settings"

Parameters = Iterable[tuple[str, str]]

_ALGORITHMS = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


def sign(
    secret: str, url: str, parameters: Parameters = (), *, algorithm: str = "HMAC_SHA1"
) -> str:
    """The signature of a request.

    Args:
        secret: The account's primary auth token, or a shared key.
        url: The full URL with its query.
        parameters: Names and values of the POST parameters; repeated pairs count once.
        algorithm: ``HMAC_SHA1`` or ``HMAC_SHA256``.

    Raises:
        KeyError: There is no such algorithm.
    """
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    digest = hmac.new(secret.encode(), text.encode(), _ALGORITHMS[algorithm]).digest()
    return base64.b64encode(digest).decode()


def algorithm_of(settings: str) -> str:
    """The algorithm that X-Twilio-Webhooks-Signature-Settings names; empty means the legacy one."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"


def is_valid(
    secret: str,
    urls: Iterable[str],
    signature: str,
    *,
    parameters: Parameters = (),
    body: bytes = b"",
    settings: str = "",
) -> bool:
    """Whether a request was signed with ``secret``.

    Args:
        secret: The account's primary auth token, or a shared key.
        urls: The request's URL, in as many spellings as the proxies before us leave open.
        signature: Value of X-Twilio-Signature.
        parameters: Names and values of the POST parameters. Empty for GET and for sockets.
        body: The raw body, looked at only when the URL carries ``bodySHA256``.
        settings: Value of X-Twilio-Webhooks-Signature-Settings; empty when there is none.
    """
    algorithm = algorithm_of(settings)
    if algorithm not in _ALGORITHMS:
        return False
    pairs = list(parameters)
    return any(
        _matches(secret, variant, signature, pairs, body, algorithm)
        for url in urls
        for variant in port_variants(url)
    )


def _matches(
    secret: str, url: str, signature: str, pairs: list[tuple[str, str]], body: bytes, algorithm: str
) -> bool:
    parts = split_url(url)
    if parts is None:
        return False  # as the Host header of a stranger may have it
    body_hash = parse_qs(parts.query).get("bodySHA256")
    if body_hash is not None:
        if not hmac.compare_digest(
            body_hash[0].lower().encode(), hashlib.sha256(body).hexdigest().encode()
        ):
            return False
        pairs = []
    expected = sign(secret, url, pairs, algorithm=algorithm)
    return hmac.compare_digest(expected.encode(), signature.encode())


def socket_urls(base_url: str, path: str) -> Iterator[str]:
    """The URLs that Twilio may have signed for a WebSocket at ``path`` below ``base_url``."""
    scheme, rest = base_url.split("://", 1)
    for socket_scheme in ("wss", "ws") if scheme == "http" else ("wss",):
        yield f"{socket_scheme}://{rest}{path.rstrip('/')}"
        yield f"{socket_scheme}://{rest}{path.rstrip('/')}/"


def port_variants(url: str) -> Iterator[str]:
    """``url`` as it is, without its port, and with the default port of its scheme."""
    yield url
    parts = split_url(url)
    if parts is None:
        return
    host, colon, port = parts.netloc.rpartition(":")
    if colon and port.isdigit():
        yield urlunsplit(parts._replace(netloc=host))
    elif parts.scheme in _DEFAULT_PORTS:
        netloc = f"{parts.netloc}:{_DEFAULT_PORTS[parts.scheme]}"
        yield urlunsplit(parts._replace(netloc=netloc))
