"""What the simulated model may do wrong: the words of a small language, used by ``script.py``.

Most things are said by number ("the second request", "the first turn"), counted in a session from
1, so that a test plays exactly one order of events. :class:`RandomFaults` draws instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class RequestFault:
    """Requests to speak (``response.create`` of the client) that are not simply answered."""

    nth: int = 1
    """Which request of the session, counted from 1."""
    times: int = 1
    """How many in a row, from that one on."""
    for_ms: int = 0
    """From the first of them on, every other request for so long too, as a rate limit does."""
    answer: Literal["error", "none", "response"] = "error"
    """``none``: nothing ever comes. ``response``: it is answered after all, late."""
    after_ms: int = 0
    """From the request to its answer."""
    code: str | None = "server_error"
    message: str = "The server had an error while processing your request. Sorry about that!"
    names_request: bool = True
    """The error bears the request's ``event_id``; otherwise null."""


@dataclass(frozen=True, slots=True)
class TurnFault:
    """A sound of the caller's that does not become a turn with a response."""

    no_commit: bool = False
    """Nothing at all follows ``speech_stopped``: it was noise."""
    no_response: bool = False
    """The turn is committed, and the model does not answer."""
    response_after_ms: int = 0
    """From the commit to the response; a request of the client may come before it."""


@dataclass(frozen=True, slots=True)
class ResultFault:
    """A function call's output that the client has sent and that is long in coming.

    It joins before a later request of the client is taken: a client's events are taken in order.
    """

    overtaken: bool = False
    """It joins the conversation only after the next response that begins unasked, which therefore
    cannot know it."""
    after_ms: int = 0
    """It joins the conversation so much later."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The ``rate_limits.updated`` of a response."""

    name: Literal["requests", "tokens"] = "requests"
    remaining: int = 0
    reset_s: float = 6.0
    """From the event on. While nothing remains, requests of the client are refused until then."""
    at: Literal["created", "done"] = "done"
    """``created`` as documented; ``done`` as recorded."""


_AUDIO = "response.output_audio.delta"


@dataclass(frozen=True, slots=True)
class EventFault:
    """What becomes of some events of the server on their way out.

    Of a script: the session's. Of a reply: those of its response and of its items. The GA name is
    meant, whatever names the session uses. Audio may be late, but is never lost, doubled or
    changed: what the model is known to have said must have been sent.
    """

    type: str
    """``type`` of the events."""
    item: str | None = None
    """Only events about items of this type, such as ``function_call_output``."""
    nth: int = 1
    """The first one, counted from 1."""
    times: int | None = 1
    """How many in a row from there; None: all."""
    lose: bool = False
    twice: bool = False
    after_ms: int = 0
    """It is sent so much later."""
    after: str | None = None
    """It is sent only after the next event of this type; never, if none comes."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Values by path, such as ``response.status_details`` or ``response.output.0.id``."""
    remove: tuple[str, ...] = ()
    """Paths of fields to leave out."""
    add: tuple[Mapping[str, Any], ...] = ()
    """Events that the server sends right after it."""
    frame: str | None = None
    """What is sent in its place, as it stands: broken JSON, or JSON that is no object."""

    def __post_init__(self) -> None:
        changed = self.lose or self.twice or self.set or self.remove or self.frame is not None
        if self.type == _AUDIO and changed:
            raise ValueError(f"{_AUDIO} may be late, but not lost, doubled or changed")


@dataclass(frozen=True, slots=True)
class RandomFaults:
    """Faults drawn at random; shares between 0 and 1.

    Each is drawn from the seed, the session's number, what it befalls and how many of those came
    before, and from nothing else: what one bridge does differently changes no draw for another.
    """

    seed: int = 0
    refuse: float = 0.0
    """Requests refused: with and without their ``event_id``, some with a wait that is named."""
    unanswered: float = 0.0
    """Requests that are never answered."""
    fail: float = 0.0
    """Responses that fail before their first audio; some name a wait."""
    cut_short: float = 0.0
    """Responses that end as ``incomplete`` in the middle of their audio, or before it."""
    text_only: float = 0.0
    """Responses that are written, not spoken."""
    empty: float = 0.0
    """Responses that complete without any item."""
    slow_start: float = 0.0
    """Responses whose first audio comes late."""
    slow_start_ms: int = 4_000
    missing_created: float = 0.0
    missing_done: float = 0.0
    odd_done: float = 0.0
    """Responses whose ``response.done`` has a field that cannot be read."""
    no_response: float = 0.0
    """Committed turns that the model does not answer."""
    overtaken: float = 0.0
    """Results of functions that a response overtakes."""
