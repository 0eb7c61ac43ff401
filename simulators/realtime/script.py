"""What the simulated model says and does, and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from simulators.realtime.faults import (
    EventFault,
    RandomFaults,
    RateLimits,
    RequestFault,
    ResultFault,
    TurnFault,
)


@dataclass(frozen=True, slots=True)
class Speak:
    """An assistant message: spoken in a session with audio output, else written."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """A function call."""

    name: str
    arguments: str = "{}"
    """JSON, as the model would write it."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Generation stands still once, long enough for the line to run dry."""

    at_audio_ms: int
    for_ms: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The response ends as ``failed`` or ``incomplete``."""

    status: Literal["failed", "incomplete"] = "failed"
    code: str = "inference_rate_limit_exceeded"
    """Error code of a failed response, reason of an incomplete one."""
    message: str = "The model is overloaded."
    after_audio_ms: int = 0
    """How much audio comes first."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is lost while this reply is generated."""

    after_audio_ms: int = 0
    close_code: int | None = None
    """None: the socket is reset without a close frame."""
    times: int = 1
    """In how many sessions of the whole run it happens."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of the model."""

    parts: tuple[Speak | CallTool, ...]
    when: str | None = None
    """Text that the latest input must contain, in any case; None: whatever came."""
    first_text_ms: int | None = None
    first_audio_ms: int | None = None
    speed: float | None = None
    """Times real time; below 1 the line runs dry again and again. None: the script's."""
    stall: Stall | None = None
    failure: Failure | None = None
    drop: Drop | None = None
    overlap_items: bool = False
    """An item's closing events come only after the next item's first delta."""
    when_told: str | None = None
    """Given, as often as it fits, to a request whose ``instructions`` contain this text in any case,
    and to nothing else."""
    text_only: bool = False
    """Written, though the session speaks."""
    rate_limits: RateLimits | None = None
    """None: plenty is left, and said after ``response.done``."""
    events: tuple[EventFault, ...] = ()
    """What becomes of its events on their way out."""
    spoiled_times: int | None = None
    """How often it comes with what is wrong with it (``stall``, ``failure``, ``text_only``,
    ``rate_limits``, ``events``) before it is given whole. None: it is given once, wrong."""


def say(text: str, *, when: str | None = None) -> Reply:
    """A plain spoken reply."""
    return Reply((Speak(text),), when=when)


@dataclass(frozen=True, slots=True)
class Hearing:
    """How one turn of the caller is transcribed; the n-th of these is for the n-th turn."""

    text: str | None = None
    """None: what can be recognised in the audio."""
    delay_ms: int | None = None
    """From the commit to the transcript; None: the script's."""
    failure: str | None = None
    """Code of a failed transcription."""


@dataclass(frozen=True, slots=True)
class AgentScript:
    """A simulated model. Times are measured from the start of the response."""

    replies: tuple[Reply, ...] = ()
    fallback: Reply = field(default_factory=lambda: say("I am sorry, could you say that again?"))
    """For input that no reply is for."""
    hearings: tuple[Hearing, ...] = ()
    name: str = "agent"
    first_text_ms: int = 250
    first_audio_ms: int = 400
    """Shorter than the 0.5 and 0.7 s measured on live services, so that tests do not wait."""
    speed: float = 3.5
    """Audio generated per time; 3.2 to 4.2 were measured on a live service."""
    delta_ms: int = 250
    """Audio in one delta; the mean of recorded replies."""
    transcription_delay_ms: int = 300
    stragglers: int = 1
    """Audio deltas of a cancelled response that still come after ``speech_started``."""
    cancel_ms: int = 40
    """From the interruption to the cancelled ``response.done``."""
    expires_after_ms: int = 3_600_000
    """The documented life of a session: 60 minutes."""
    names: Literal["ga", "beta"] = "ga"
    """Names of the events, and shape of the session."""
    vocabulary: tuple[str, ...] = ()
    """Lines of the caller that are not in the corpus and are to be recognised all the same."""
    goes_on: bool = False
    """Asked to speak when nothing new was said, the model goes on with its last message from where
    that was cut, as one does that has been told where."""
    names_in_errors: bool = True
    """An ``error`` bears the ``event_id`` of what it is about; otherwise null."""
    refusals: tuple[RequestFault, ...] = ()
    turns: tuple[TurnFault | None, ...] = ()
    """The n-th is for the n-th time that the caller is heard; None: nothing is wrong with it."""
    wordless: TurnFault | None = None
    """What becomes of each sound of the caller's in which no word was recognised."""
    results: tuple[ResultFault | None, ...] = ()
    """The n-th is for the n-th output of a function that the client sends."""
    events: tuple[EventFault, ...] = ()
    """What becomes of the session's events on their way out."""
    faults: RandomFaults | None = None


def bakery() -> AgentScript:
    """The bakery agent: greets, quotes a price, answers after an interruption."""
    return AgentScript(
        name="bakery",
        replies=(
            say("Yes, I can help you place your order. What would you like?"),
            say(
                "That will be $9.05. Cash or credit? "
                "We also have a store discount you can apply now.",
                when="bagels",
            ),
            say("Sure. What would you like to order?", when="coffee"),
        ),
    )
