"""What a simulated caller does, step by step, and on what occasion.

A script is a list of :class:`Step`: wait for an occasion, then act. Occasions look only at what the
carrier has really played, as a person hears it, never at what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AgentSilent:
    """The agent has spoken since the caller's last line, and then not for a while."""

    ms: int = 700


@dataclass(frozen=True, slots=True)
class AgentWord:
    """The agent has been heard to say a word of a line; the audio is recognised by its bytes."""

    line: str
    """The whole line of the agent, as ``speech.spoken`` knows it."""
    word: str
    occurrence: int = 1
    plus_ms: int = 80
    """Time after the end of the word; a person needs a moment."""


@dataclass(frozen=True, slots=True)
class AgentPlayed:
    """So much of the agent's audio has been played since the caller's last line."""

    ms: int


@dataclass(frozen=True, slots=True)
class Elapsed:
    """So much time has gone by since the last step, or since the stream began."""

    ms: int


Occasion = AgentSilent | AgentWord | AgentPlayed | Elapsed


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a line. The next step's occasion is looked for from the line's end on."""

    text: str


@dataclass(frozen=True, slots=True)
class Noise:
    """Make a noise without a word in it, loud enough to be taken for a voice."""

    ms: int


@dataclass(frozen=True, slots=True)
class Echo:
    """Let the last so many ms of the agent's voice come back from the caller's loudspeaker."""

    ms: int


@dataclass(frozen=True, slots=True)
class Press:
    """Press keys, one after the other."""

    digits: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call: ``stop``, then the socket is closed."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Lose the socket without ``stop`` and without a close frame; the call goes on."""


@dataclass(frozen=True, slots=True)
class ShiftTimestamps:
    """Make the media timestamps jump, forwards or (negative) backwards."""

    by_ms: int


@dataclass(frozen=True, slots=True)
class OmitSilence:
    """Begin or cease to leave out silent frames."""

    omit: bool = True


Action = Say | Noise | Echo | Press | HangUp | Drop | ShiftTimestamps | OmitSilence


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the caller does."""

    action: Action
    when: Occasion = AgentSilent()
    timeout_ms: int = 20_000
    """If the occasion has not come by then, act all the same; the truth says so."""


@dataclass(frozen=True, slots=True)
class CallerScript:
    """A caller. After the last step: hang up once the agent has spoken and fallen silent."""

    steps: tuple[Step, ...] = ()
    name: str = "caller"
    from_number: str = "+15550100001"
    to_number: str = "+15550100002"
    end: Step = field(default_factory=lambda: Step(HangUp(), AgentSilent(1_200)))
    max_call_ms: int = 120_000
    """The caller hangs up then in any case."""


BAKERY_GREETING = "Yes, I can help you place your order. What would you like?"
BAKERY_QUOTE = (
    "That will be $9.05. Cash or credit? We also have a store discount you can apply now."
)
BAKERY_SURE = "Sure. What would you like to order?"
BAKERY_ORDER = "I want bagels and a soda."
BAKERY_COFFEE = "Sorry for interrupting, do you also have coffee?"


def bakery() -> CallerScript:
    """The bakery call: the caller orders, and cuts in right after "credit?"."""
    return CallerScript(
        name="bakery",
        steps=(
            Step(Say(BAKERY_ORDER), AgentSilent(700)),
            # At once: half a second later the agent goes on, and a slow machine needs some of it.
            Step(Say(BAKERY_COFFEE), AgentWord(BAKERY_QUOTE, "credit?", plus_ms=0)),
        ),
    )
