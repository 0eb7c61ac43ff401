"""Calls in which somebody had reason to fall silent for ever: what people who run such bridges report.

Each report is a case, with at least two further orders of events of its kind. What the caller is to
hear in the end is part of the case; how it comes about is the conversation's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from simulators.realtime.faults import (
    EventFault,
    RateLimits,
    RequestFault,
    ResultFault,
    TurnFault,
)
from simulators.realtime.script import AgentScript, CallTool, Failure, Hearing, Reply, Speak, say
from simulators.twilio.script import (
    AgentPlayed,
    AgentSilent,
    AgentWord,
    CallerScript,
    Elapsed,
    HangUp,
    Noise,
    Say,
    Step,
)

GREETING = "Yes, I can help you place your order. What would you like?"
ORDER = "I want bagels and a soda."
QUOTE = "That will be $9.05. Cash or credit? We also have a store discount you can apply now."
THANKS = "Sorry for interrupting, do you also have coffee?"
SURE = "Sure. What would you like to order?"
SORRY = "I am sorry, something went wrong. Could you say that again?"
HOLD = "One moment, please."

PATIENT = Step(HangUp(), AgentSilent(8_000), timeout_ms=25_000)
"""The caller waits for longer than the agent may be silent."""

KEEPS_TALKING = "turn_detection: {type: server_vad, interrupt_response: false}\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A call."""

    name: str
    model: AgentScript
    heard: tuple[str, ...]
    """What the caller hears in the end, line by line, but for being told to hold; a line may end in
    an ellipsis."""
    steps: tuple[Step, ...] = ()
    agent: str = ""
    """More keys of the agent file."""
    tool_ms: tuple[int, ...] = (300,)
    tool_answers: Mapping[str, str] = field(default_factory=dict)
    longest_ms: int = 6_800
    """No silence is longer: six seconds of patience, and voice detection's half second."""
    requests: int = 12
    """At most so many."""
    end: Step = PATIENT
    waited_after: tuple[str, ...] = ("", "caller", "noise")
    """After whose sound the caller waits for something."""

    @property
    def caller(self) -> CallerScript:
        """Does its steps, waits for an answer, and hangs up."""
        return CallerScript(self.steps, end=self.end)


def model(*replies: Reply, **more: Any) -> AgentScript:
    """A model that gives these replies, or those of a good call."""
    given = replies or (say(GREETING), say(QUOTE, when="bagels"), say(SURE, when="coffee"))
    return replace(AgentScript(replies=given), **more)


def order() -> Step:
    """The caller orders, once the agent has spoken."""
    return Step(Say(ORDER), AgentSilent(700), timeout_ms=25_000)


# --- the greeting is refused --------------------------------------------------------------------

_GREETED = (GREETING, QUOTE)
REFUSED_GREETINGS = (
    Case("the greeting is refused once", model(refusals=(RequestFault(),)), _GREETED, (order(),)),
    Case(
        "the greeting is refused in an error that names nothing",
        model(refusals=(RequestFault(names_request=False),)),
        _GREETED,
        (order(),),
    ),
    Case(
        "the greeting's request is never answered",
        model(refusals=(RequestFault(answer="none"),)),
        _GREETED,
        (order(),),
    ),
    Case(
        "the greeting's request is answered after it was given up",
        model(
            say(GREETING),
            say(QUOTE, when="bagels"),
            refusals=(RequestFault(answer="response", after_ms=5_200),),
        ),
        _GREETED,
        (order(),),
    ),
)

# --- rate limits --------------------------------------------------------------------------------

_LIMIT = "rate_limit_exceeded"
RATE_LIMITS = (
    Case(
        "a rate limit that names no wait",
        model(refusals=(RequestFault(code=_LIMIT, message="Slow down.", for_ms=1_200),)),
        _GREETED,
        (order(),),
        requests=3,
    ),
    Case(
        "a rate limit that names its wait",
        model(
            refusals=(RequestFault(code=_LIMIT, message="Try again in 3s.", for_ms=3_000),),
        ),
        _GREETED,
        (order(),),
        requests=2,
    ),
    Case(
        "no requests left after the greeting, and a function's result to speak of",
        model(
            Reply((Speak(GREETING),), rate_limits=RateLimits(reset_s=9.0)),
            Reply((CallTool("quote"),), when="bagels"),
            say(QUOTE, when="9.05"),
        ),
        _GREETED,
        (order(),),
        tool_answers={"quote": "$9.05"},
        requests=2,
    ),
    Case(
        "every request is refused: the caller is told",
        model(refusals=(RequestFault(code=_LIMIT, times=99),)),
        (SORRY,),
        requests=4,
    ),
    Case(
        "three refusals in a moment, and the fourth request is answered",
        model(refusals=(RequestFault(code=_LIMIT, times=3),)),
        (GREETING, QUOTE),
        (order(),),
        requests=4,
    ),
)

# --- a function's result and a response that cannot know it --------------------------------------

_CALLS = Reply((CallTool("quote"),), when="bagels")
_ASIDE = say("Yes, of course.", when="coffee")
_RESULT = say(QUOTE, when="9.05")
_ANSWERS = {"quote": "$9.05"}
_ASKS_ASIDE = Step(Say(THANKS), Elapsed(1_500))
RESULTS = (
    Case(
        "a turn's own response overtakes a result",
        model(say(GREETING), _CALLS, _ASIDE, _RESULT, results=(ResultFault(overtaken=True),)),
        (GREETING, "Yes, of course.", QUOTE),
        (order(), _ASKS_ASIDE),
        tool_ms=(3_000,),
        tool_answers=_ANSWERS,
    ),
    Case(
        "a result would be long in joining, but for the request that follows it",
        model(say(GREETING), _CALLS, _RESULT, results=(ResultFault(after_ms=1_500),)),
        (GREETING, QUOTE),
        (order(),),
        tool_answers=_ANSWERS,
    ),
    Case(
        "a result joins during a response that does not know it",
        model(say(GREETING), _CALLS, _ASIDE, _RESULT, results=(ResultFault(after_ms=1_000),)),
        (GREETING, "Yes, of course.", QUOTE),
        (order(), _ASKS_ASIDE),
        tool_ms=(4_000,),
        tool_answers=_ANSWERS,
    ),
    Case(
        "the response to a result fails",
        model(
            say(GREETING),
            _CALLS,
            Reply((Speak(QUOTE),), when="9.05", failure=Failure(), spoiled_times=1),
        ),
        (GREETING, QUOTE),
        (order(),),
        tool_answers=_ANSWERS,
    ),
)

# --- a request that meets another response -------------------------------------------------------

_ACTIVE = "conversation_already_has_active_response"


def _refused_result(fault: RequestFault) -> AgentScript:
    return model(say(GREETING), _CALLS, _RESULT, refusals=(fault,))


REFUSED_RESULTS = (
    Case(
        "the request to speak of a result is refused with its event_id",
        _refused_result(RequestFault(2, code=_ACTIVE)),
        _GREETED,
        (order(),),
        tool_answers=_ANSWERS,
    ),
    Case(
        "the request to speak of a result is refused in an error that names nothing",
        _refused_result(RequestFault(2, code=_ACTIVE, names_request=False)),
        _GREETED,
        (order(),),
        tool_answers=_ANSWERS,
    ),
    Case(
        "the request to speak of a result is never answered",
        _refused_result(RequestFault(2, answer="none")),
        _GREETED,
        (order(),),
        tool_answers=_ANSWERS,
    ),
    Case(
        "the request to speak of a result is refused late",
        _refused_result(RequestFault(2, code=_ACTIVE, after_ms=2_500)),
        _GREETED,
        (order(),),
        tool_answers=_ANSWERS,
    ),
)

# --- turns without an answer ---------------------------------------------------------------------

_TALKS_OVER = Step(Say(ORDER), AgentPlayed(1_000))
UNANSWERED_TURNS = (
    Case(
        "the caller talks over the agent and is not answered",
        model(turns=(TurnFault(no_response=True),)),
        _GREETED,
        (_TALKS_OVER,),
        KEEPS_TALKING,
        waited_after=("agent",),
    ),
    Case(
        "the caller talks over the agent, and the model's own response is refused",
        model(
            Reply((Speak(GREETING),), speed=0.9),
            say(QUOTE, when="bagels"),
            names_in_errors=False,
        ),
        _GREETED,
        (_TALKS_OVER,),
        KEEPS_TALKING,
    ),
    Case(
        "a turn is not answered",
        model(turns=(TurnFault(no_response=True),)),
        _GREETED,
        (order(),),
    ),
    Case(
        "a turn is answered after we have asked",
        model(turns=(TurnFault(response_after_ms=4_000),)),
        _GREETED,
        (order(),),
    ),
)

# --- responses that fail -------------------------------------------------------------------------


def _failing(failure: Failure, times: int) -> AgentScript:
    reply = Reply((Speak(QUOTE),), when="bagels", failure=failure, spoiled_times=times)
    return model(say(GREETING), reply)


FAILURES = (
    Case(
        "a response fails twice and names a short wait",
        _failing(Failure(message="Rate limit reached. Please try again in 300ms."), 2),
        _GREETED,
        (order(),),
    ),
    Case(
        "a response fails once and names six seconds",
        _failing(Failure(message="Rate limit reached. Please try again in 6s."), 1),
        (GREETING, QUOTE),
        (order(),),
    ),
    Case(
        "a response fails for ever: the caller is told",
        _failing(Failure(message="The model is overloaded."), 99),
        (GREETING, SORRY),
        (order(),),
        requests=4,
    ),
    Case(
        "a response fails in the middle of its audio",
        _failing(Failure(after_audio_ms=1_000), 1),
        (GREETING, "That will be…", QUOTE),
        (order(),),
    ),
)

# --- answers that are none -----------------------------------------------------------------------


def _odd_answer(**what: Any) -> AgentScript:
    reply = replace(Reply((Speak(QUOTE),), when="bagels", spoiled_times=1), **what)
    return model(say(GREETING), reply)


ANSWERS = (
    Case("an answer is text only", _odd_answer(text_only=True), _GREETED, (order(),)),
    Case(
        "an answer is filtered before its first word",
        _odd_answer(failure=Failure("incomplete", "content_filter")),
        _GREETED,
        (order(),),
    ),
    Case(
        "an answer ends in the middle of a sentence",
        model(
            say(GREETING),
            Reply(
                (Speak(QUOTE),),
                when="bagels",
                failure=Failure("incomplete", "max_output_tokens", after_audio_ms=1_500),
            ),
            say(QUOTE),
        ),
        (GREETING, "That will be…", QUOTE),
        (order(),),
    ),
    Case(
        "an answer has nothing in it",
        model(say(GREETING), Reply((), when="bagels"), say(QUOTE)),
        _GREETED,
        (order(),),
    ),
)

# --- events that cannot be read ------------------------------------------------------------------


def _tampered(*faults: EventFault) -> AgentScript:
    return model(events=faults)


_DONE = "response.done"
ODD_EVENTS = (
    Case(
        "the error of a failed response is a string",
        model(
            Reply(
                (Speak(GREETING),),
                failure=Failure(),
                spoiled_times=1,
                events=(EventFault(_DONE, set={"response.status_details.error": "overloaded"}),),
            ),
            say(QUOTE, when="bagels"),
        ),
        _GREETED,
        (order(),),
    ),
    Case(
        "the details of a response are a string",
        _tampered(EventFault(_DONE, times=None, set={"response.status_details": "fine"})),
        _GREETED,
        (order(),),
    ),
    Case(
        "numbers are floats",
        _tampered(
            EventFault("response.output_audio.delta", nth=10**6, times=None),
            EventFault("response.output_item.added", times=None, set={"output_index": 0.0}),
            EventFault("response.content_part.added", times=None, set={"content_index": 0.0}),
            EventFault("input_audio_buffer.speech_stopped", set={"audio_end_ms": 9_000.5}),
        ),
        _GREETED,
        (order(),),
    ),
    Case(
        "a function's arguments are an object",
        model(
            say(GREETING),
            _CALLS,
            _RESULT,
            events=(
                EventFault("response.function_call_arguments.done", set={"arguments": {"a": 1}}),
            ),
        ),
        _GREETED,
        (order(),),
        tool_answers=_ANSWERS,
    ),
    Case(
        "an item has no id",
        _tampered(
            EventFault("conversation.item.added", times=None, remove=("item.id",)),
            EventFault("conversation.item.done", times=None, remove=("item.id",)),
        ),
        _GREETED,
        (order(),),
    ),
    Case(
        "a frame is cut off",
        _tampered(EventFault("rate_limits.updated", times=None, frame='{"type": "rate_li')),
        _GREETED,
        (order(),),
    ),
    Case(
        "the end of the greeting is lost",
        model(
            Reply((Speak(GREETING),), events=(EventFault(_DONE, lose=True),)),
            say(QUOTE, when="bagels"),
        ),
        _GREETED,
        (order(),),
    ),
    Case(
        "the beginnings of all responses are lost",
        _tampered(EventFault("response.created", times=None, lose=True)),
        _GREETED,
        (order(),),
    ),
    Case(
        "the end of the greeting comes as something that nobody can read",
        model(
            Reply((Speak(GREETING),), events=(EventFault(_DONE, set={"response": "done"}),)),
            say(QUOTE, when="bagels"),
        ),
        _GREETED,
        (order(),),
    ),
    Case(
        "an end comes twice, and after the next beginning",
        _tampered(EventFault(_DONE, times=None, twice=True, after_ms=200)),
        _GREETED,
        (order(),),
    ),
)

# --- turns in which nobody spoke -----------------------------------------------------------------

IDLE = (
    "turn_detection: {type: server_vad, threshold: 0.5, prefix_padding_ms: 300,"
    " silence_duration_ms: 500, idle_timeout_ms: 5000}\n"
)
NOBODY = (
    Case(
        "a long silence is a turn of nobody",
        model(say(GREETING), say("Are you still there?"), say(QUOTE, when="bagels")),
        (GREETING, "Are you still there?", QUOTE),
        (Step(Say(ORDER), AgentWord("Are you still there?", "there?"), timeout_ms=25_000),),
        IDLE,
        end=Step(HangUp(), AgentSilent(3_000), timeout_ms=25_000),
    ),
    Case(
        "noise is transcribed as nothing, and answered",
        model(say(GREETING), say("Hello?"), say(QUOTE, when="bagels")),
        (GREETING, "Hello?", QUOTE),
        (Step(Noise(300), AgentSilent(800)), order()),
    ),
    Case(
        "a turn's transcription fails",
        model(hearings=(Hearing(failure="server_error"),)),
        _GREETED,
        (order(),),
    ),
)

CASES = (
    *REFUSED_GREETINGS,
    *RATE_LIMITS,
    *RESULTS,
    *REFUSED_RESULTS,
    *UNANSWERED_TURNS,
    *FAILURES,
    *ANSWERS,
    *ODD_EVENTS,
    *NOBODY,
)
