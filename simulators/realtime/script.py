"""What the simulated model says and does, and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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
