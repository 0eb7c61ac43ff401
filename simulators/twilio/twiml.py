"""The TwiML a bridge answers with, as far as a bidirectional stream needs it. Pure.

Verbs run one after the other: ``<Connect><Stream>`` ends the list (what follows runs when the
stream is over), ``<Hangup>`` and ``<Reject>`` end the call, all others (``<Say>``, ``<Pause>``,
``<Play>``) are noted and passed over.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from simulators.twilio import messages

_PARAMETER_LIMIT = 500
"""A parameter's name and value together must be shorter than this."""


class BadTwiml(Exception):
    """Twilio would not run this TwiML; ``code`` is its error."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


DOCUMENT_PARSE_FAILURE = 12100
INVALID_ATTRIBUTE = 12200
"""Twilio's errors for TwiML that is no XML, and for XML that is no TwiML."""


@dataclass(frozen=True, slots=True)
class StreamVerb:
    """``<Connect><Stream>``."""

    url: str
    """Absolute, without a query: Twilio strips it."""
    query_dropped: bool
    name: str | None
    status_callback: str | None
    status_callback_method: str
    parameters: Mapping[str, str]
    action: str | None
    """Where the call goes on when the server has closed the socket; None: the next verb."""
    action_method: str


@dataclass(frozen=True, slots=True)
class Twiml:
    """What a document makes the call do."""

    stream: StreamVerb | None
    """None: the call ends after the verbs in ``passed``."""
    passed: tuple[str, ...] = ()
    """Verbs before the stream, by name."""
    said: tuple[str, ...] = field(default=())
    """Texts of ``<Say>`` among them."""


def parse(document: str, base_url: str) -> Twiml:
    """Read a TwiML document.

    Args:
        document: The body of the webhook's answer.
        base_url: URL of the webhook, which relative URLs are resolved against.

    Raises:
        BadTwiml: Twilio would not run it.
    """
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        raise BadTwiml(DOCUMENT_PARSE_FAILURE, "the answer is not XML") from None
    if root.tag != "Response":
        raise BadTwiml(DOCUMENT_PARSE_FAILURE, "the root element is not <Response>")
    passed: list[str] = []
    said: list[str] = []
    for verb in root:
        if verb.tag == "Connect":
            return Twiml(_stream(verb, base_url), tuple(passed), tuple(said))
        passed.append(verb.tag)
        if verb.tag == "Say":
            said.append((verb.text or "").strip())
        if verb.tag in ("Hangup", "Reject"):
            break
    return Twiml(None, tuple(passed), tuple(said))


def _stream(connect: ElementTree.Element, base_url: str) -> StreamVerb:
    _known(connect, {"action", "method"})
    nouns = list(connect)
    if len(nouns) != 1 or nouns[0].tag != "Stream":
        raise BadTwiml(INVALID_ATTRIBUTE, "<Connect> must hold exactly one <Stream>")
    stream = nouns[0]
    _known(stream, {"url", "name", "track", "statusCallback", "statusCallbackMethod"})
    if stream.get("track", "inbound_track") != "inbound_track":
        raise BadTwiml(messages.INVALID_TRACK, "a bidirectional stream takes inbound_track only")
    parameters = {}
    for parameter in stream:
        if parameter.tag != "Parameter":
            raise BadTwiml(INVALID_ATTRIBUTE, f"<Stream> holds <{parameter.tag}>")
        _known(parameter, {"name", "value"})
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if not name or len(name) + len(value) >= _PARAMETER_LIMIT:
            raise BadTwiml(INVALID_ATTRIBUTE, "a <Parameter> has no name or is too long")
        parameters[name] = value
    url = urlsplit(_absolute(stream.get("url", ""), base_url, websocket=True))
    if url.scheme != "wss":
        raise BadTwiml(messages.SCHEME_UNSUPPORTED, "the stream's URL is not wss://")
    if not url.hostname:
        raise BadTwiml(messages.SCHEME_UNSUPPORTED, "the stream's URL has no host")
    action = connect.get("action")
    status_callback = stream.get("statusCallback")
    if status_callback is not None and not status_callback.startswith(("http://", "https://")):
        raise BadTwiml(INVALID_ATTRIBUTE, "statusCallback must be absolute")
    return StreamVerb(
        url=urlunsplit((url.scheme, url.netloc, url.path, "", "")),
        query_dropped=bool(url.query),
        name=stream.get("name"),
        status_callback=status_callback,
        status_callback_method=_method(stream.get("statusCallbackMethod")),
        parameters=parameters,
        action=None if action is None else _absolute(action, base_url, websocket=False),
        action_method=_method(connect.get("method")),
    )


def _absolute(url: str, base_url: str, *, websocket: bool) -> str:
    """Resolve against the webhook's URL; for a socket, with the scheme's ``ws`` twin."""
    if "://" in url:
        return url
    base = urlsplit(base_url)
    scheme = base.scheme.replace("http", "ws") if websocket else base.scheme
    path = url if url.startswith("/") else base.path.rsplit("/", 1)[0] + "/" + url
    return f"{scheme}://{base.netloc}{path}"


def _known(element: ElementTree.Element, attributes: set[str]) -> None:
    if unknown := set(element.keys()) - attributes:
        raise BadTwiml(
            INVALID_ATTRIBUTE, f"<{element.tag}> has unknown {', '.join(sorted(unknown))}"
        )


def _method(value: str | None) -> str:
    if value not in (None, "GET", "POST"):
        raise BadTwiml(INVALID_ATTRIBUTE, "a method is GET or POST")
    return value or "POST"
