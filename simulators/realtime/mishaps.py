"""What goes wrong with each request, turn, result and reply: by the script's numbers, or drawn. Pure.

A fault that the script gives by number goes before one that is drawn. Every draw has a generator of
its own (see :class:`~simulators.realtime.faults.RandomFaults`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from random import Random

from simulators.realtime.faults import (
    EventFault,
    RandomFaults,
    RequestFault,
    ResultFault,
    TurnFault,
)
from simulators.realtime.script import AgentScript, Failure, Reply
from simulators.realtime.session_truth import SessionTruth

_WAITS_S = (0.3, 0.8, 1.5, 3.0)
"""Waits that a drawn refusal or failure names."""
_CUT_MS = (0, 500, 1_500)
"""Audio before a drawn end."""
_ODD_DONE = (
    {"response.status_details": "internal error"},
    {"response.status_details": {"type": "failed", "error": "overloaded"}},
    {"response.status_details": ["odd"]},
    {"response.usage": "none"},
    {"response.output": None},
    {"response.output.0.id": None},
    {"response.metadata": 1.5},
)
_QUIET = RandomFaults()


class Mishaps:
    """Asked once about each thing, in the order they happen; it counts for itself."""

    def __init__(self, script: AgentScript, truth: SessionTruth, number: int) -> None:
        """Begin with nothing counted.

        Args:
            script: What goes wrong.
            truth: Where it is noted.
            number: Which session this is, counted over all of the simulator, for the draws.
        """
        self._script = script
        self._faults = script.faults or _QUIET
        self._truth = truth
        self._number = number
        self._counts: Counter[str] = Counter()
        self._refused_until_ms: list[int] = [0] * len(script.refusals)

    def of_request(self, now_ms: int) -> RequestFault | None:
        """The next request of the client."""
        number = self._count("request")
        for index, fault in enumerate(self._script.refusals):
            if number == fault.nth and fault.for_ms:
                self._refused_until_ms[index] = now_ms + fault.for_ms
            if fault.nth <= number < fault.nth + fault.times:
                return fault
            if now_ms < self._refused_until_ms[index]:
                return fault
        random = self._random("request", number)
        share = random.random()
        if share < self._faults.unanswered:
            return RequestFault(answer="none")
        if share < self._faults.unanswered + self._faults.refuse:
            return _refusal(random)
        return None

    def of_turn(self, recognised: str) -> TurnFault | None:
        """The next sound of the caller's, and the words recognised in it."""
        number = self._count("turn")
        if not recognised and self._script.wordless is not None:
            return self._script.wordless
        if number <= len(self._script.turns):
            return self._script.turns[number - 1]
        if self._random("turn", number).random() < self._faults.no_response:
            return TurnFault(no_response=True)
        return None

    def of_result(self) -> ResultFault | None:
        """The next output of a function that the client sends."""
        number = self._count("result")
        if number <= len(self._script.results):
            return self._script.results[number - 1]
        if self._random("result", number).random() < self._faults.overtaken:
            return ResultFault(overtaken=True)
        return None

    def of_reply(self, reply: Reply) -> tuple[Reply, str | None]:
        """The next response's reply as it will be given, and what was drawn against it.

        Replies that the script has spoiled already are left as they are.
        """
        number = self._count("reply")
        faults = self._faults
        if reply.failure or reply.text_only or reply.events or not reply.parts:
            return reply, None
        random = self._random("reply", number)
        share = random.random()
        for name in _SPOILERS:
            share -= getattr(faults, name)
            if share < 0:
                return _spoiled(reply, name, random, self._script, faults.slow_start_ms), name
        return reply, None

    def _count(self, what: str) -> int:
        self._counts[what] += 1
        return self._counts[what]

    def _random(self, what: str, number: int) -> Random:
        return Random(f"{self._faults.seed}/{self._number}/{what}/{number}")


SPEECHLESS = frozenset({"fail", "cut_short", "text_only", "empty"})
"""Drawn faults after which the same reply is given again when the client asks."""

_SPOILERS = (
    "fail",
    "cut_short",
    "text_only",
    "empty",
    "slow_start",
    "missing_created",
    "missing_done",
    "odd_done",
)


def _refusal(random: Random) -> RequestFault:
    names_request = random.random() < 0.5
    if random.random() < 0.5:
        return RequestFault(names_request=names_request)
    wait_s = random.choice(_WAITS_S)
    return RequestFault(
        code="rate_limit_exceeded",
        message=f"Rate limit reached. Please try again in {wait_s:g}s.",
        names_request=names_request,
    )


def _spoiled(
    reply: Reply, name: str, random: Random, script: AgentScript, slow_start_ms: int
) -> Reply:
    match name:
        case "fail":
            message = "The model is overloaded."
            if random.random() < 0.5:
                wait_ms = int(1000 * random.choice(_WAITS_S))
                message = f"Rate limit reached. Please try again in {wait_ms}ms."
            return dataclasses.replace(reply, failure=Failure(message=message))
        case "cut_short":
            reason = random.choice(("content_filter", "max_output_tokens"))
            failure = Failure("incomplete", reason, "", random.choice(_CUT_MS))
            return dataclasses.replace(reply, failure=failure)
        case "text_only":
            return dataclasses.replace(reply, text_only=True)
        case "empty":
            return dataclasses.replace(reply, parts=())
        case "slow_start":
            at_ms = script.first_text_ms if reply.first_text_ms is None else reply.first_text_ms
            return dataclasses.replace(
                reply,
                first_text_ms=at_ms + slow_start_ms,
                first_audio_ms=at_ms + slow_start_ms,
            )
        case "missing_created":
            rule = EventFault("response.created", lose=True)
        case "missing_done":
            rule = EventFault("response.done", lose=True)
        case _:
            rule = EventFault("response.done", set=random.choice(_ODD_DONE))
    return dataclasses.replace(reply, events=(rule,))
