"""Which of the script's replies comes next. Pure.

After input, the first unused reply whose ``when`` is in it; if none is, the first unused one
without a ``when``; else the fallback. Without input (a greeting, or nothing that could be
recognised) the reply that went wrong last, if one did; else the rest of a message that was cut, if
the script goes on; else simply the next unused one. So an order
of events that the script did not foresee, such as a lost session, is met by the right reply all the
same. A reply with ``when_told`` is for requests that say so, and for nothing else.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from simulators.realtime.script import AgentScript, Reply, Speak, say
from simulators.realtime.session_truth import SessionTruth

_Choice = tuple[int | None, Reply]
"""A reply and its place in the script; None for one that is not in it."""


class Replies:
    """The script's replies in one session, each said once."""

    def __init__(self, script: AgentScript, truth: SessionTruth) -> None:
        """Begin with none said.

        Args:
            script: The replies.
            truth: What has been said, and how far.
        """
        self._script = script
        self._truth = truth
        self._used: set[int | None] = {
            i for i, r in enumerate(script.replies) if r.when_told is not None
        }
        self._given: Counter[int] = Counter()
        self._input: str | None = None
        self._last: _Choice | None = None
        self._again: _Choice | None = None
        """To be given again if nothing new is said."""

    def note_input(self, text: str) -> None:
        """The caller, the client or a tool has said something."""
        self._input = text

    def note_said(self, text: str) -> None:
        """The client has put in what an earlier session said: that is not said again."""
        said = " ".join(text.split()).rstrip(" .-…")
        for index, reply in enumerate(self._script.replies):
            whole = " ".join(part.text for part in reply.parts if isinstance(part, Speak))
            if said and whole.startswith(said):
                self._used.add(index)

    def take_next(self, instructions: str = "") -> Reply:
        """The reply to what has been noted since the last one.

        Args:
            instructions: Those of the client's request, if it has any.
        """
        for reply in self._script.replies:
            if reply.when_told and reply.when_told.casefold() in instructions.casefold():
                return reply
        heard, self._input = (self._input or "").casefold(), None
        again, self._again = self._again, None
        unused = [(i, r) for i, r in enumerate(self._script.replies) if i not in self._used]
        if heard:
            fitting = [(i, r) for i, r in unused if r.when and r.when.casefold() in heard]
            unused = fitting or [(i, r) for i, r in unused if r.when is None]
        elif again is not None:
            index, reply = again
            unused = [(i, r) for i, r in unused if i == index]
            if not unused:
                return reply
        elif self._script.goes_on and (rest := self._rest_of_cut()) is not None:
            return rest
        if not unused:
            return self._script.fallback
        return self._give(*unused[0])

    def give_back(self, reply: Reply) -> None:
        """The reply given last, or one that is not in the script, went wrong: it is given again."""
        if self._last is not None and self._last[1] is reply:
            self._again = self._last
            self._used.discard(self._last[0])
        else:
            self._again = (None, reply)

    def _rest_of_cut(self) -> Reply | None:
        """What was not heard of the last message, if it was cut, from the word under way on."""
        if not self._truth.agent_items:
            return None
        last = self._truth.agent_items[-1]
        heard_ms = None
        if last.deleted:
            heard_ms = 0
        elif last.truncated_ms is not None:
            heard_ms = last.truncated_ms
        elif last.status == "incomplete":
            heard_ms = last.generated_ms
        if heard_ms is None:
            return None
        rest = [word for word, _, end_ms in last.words if end_ms > heard_ms]
        return say(" ".join(rest)) if rest else None

    def _give(self, index: int, reply: Reply) -> Reply:
        self._used.add(index)
        if reply.spoiled_times is None:
            self._last = (index, reply)
            return reply
        self._given[index] += 1
        if self._given[index] > reply.spoiled_times:
            reply = dataclasses.replace(
                reply, stall=None, failure=None, text_only=False, rate_limits=None, events=()
            )
            self._last = (index, reply)
            return reply
        self._last = (index, reply)
        self.give_back(reply)
        return reply
