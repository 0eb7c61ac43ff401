"""When the caller is told that a function is still at work, and in which words. Pure.

The conversation goes on while functions work: the caller may speak and the model answers. Only where
nobody is heard, a word is owed, once a round; the functions that one response called are a round.

=====================================  ============================================================
what happens                           what follows
=====================================  ============================================================
a function is called                   its word is due after ``after_s`` of silence, however much
                                       of it was before the call, but not in the first half
                                       second of the call, unless that makes 6 s of silence
somebody is heard                      the silence begins anew with its end
several functions are at work          one word: that of the one whose time comes first, for all
a response is under way or asked for   the word waits, since that may be heard next
a round has had its word               none for it any more, however long it takes
the model does not say it              a notice stands in for it, :mod:`~session.realtime.dead_air`
a function has answered, or was        no word for it; those that are still at work keep theirs
given up
no function is at work any more        nothing is due; a word that is owed and not asked for gives
                                       way to the results
=====================================  ============================================================

How the conversation uses it: :mod:`~session.realtime.functions` reports calls and their ends. After
each event and timer the conversation calls :meth:`Waiting.next` and says since when the line is
quiet; what comes back are the instructions of a response that is owed now. :meth:`Waiting.next_timer`
says when there will be some, if nothing happens before.
"""

from __future__ import annotations

from dataclasses import dataclass

from session.agent import Agent, WhileWaiting
from session.realtime.dead_air import PATIENCE_S
from session.realtime.state import remember

SAY = """A function that you called is still at work. Say this to the caller, in these words, and \
nothing else: """

INSTRUCT = """A function that you called is still at work. Tell the caller in one short sentence, in \
the language of the conversation, that you are still on it and will say what comes of it. If another \
function has answered meanwhile, say first what it brought. Invent no result."""

MOMENT_S = 0.5
"""How long a function is waited for at least, when the model was long in calling it: most answer
sooner, and then the result is what the caller hears."""


@dataclass(frozen=True, slots=True)
class Word:
    """One that is owed."""

    instructions: str
    """Of its response."""
    after_s: float
    """Of silence, after which it was to be said."""


@dataclass(frozen=True, slots=True)
class _AtWork:
    """A function that has not answered yet."""

    round_id: str
    called_at: float
    """Monotonic seconds."""
    word: WhileWaiting

    def due_at(self, quiet_since: float) -> float:
        """When the word is owed, if nobody is heard before."""
        moment = min(self.called_at + MOMENT_S, quiet_since + PATIENCE_S)
        return max(quiet_since + self.word.after_s, moment)


class Waiting:
    """Decides when a word is owed; see the module for the rules.

    Args:
        agent: With what is said while a function works, its own and its tools'.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._words = {tool.name: tool.while_waiting or agent.while_waiting for tool in agent.tools}
        self._at_work: dict[str, _AtWork] = {}
        """By ``call_id``."""
        self._told: dict[str, None] = {}
        """Rounds that have had their word; the newest."""
        self._quiet_since: float | None = None
        """When the silence began that goes on. None: somebody was heard when that was looked at."""

    @property
    def working(self) -> bool:
        """Whether a function is at work: what the caller waits for then is its result."""
        return bool(self._at_work)

    def called(self, call_id: str, name: str, *, round_id: str, now: float) -> None:
        """A function is called.

        Args:
            call_id: The call.
            name: The function; one that the agent does not have answers at once.
            round_id: The response that called it.
            now: Monotonic seconds.
        """
        word = self._words.get(name, self._agent.while_waiting)
        self._at_work[call_id] = _AtWork(round_id, now, word)

    def over(self, call_id: str) -> None:
        """A function has answered, or was given up; an unknown call is ignored."""
        self._at_work.pop(call_id, None)

    def next(self, *, quiet_since: float | None, held: bool, now: float) -> Word | None:
        """The word that is owed now, given out once; None: none is.

        Args:
            quiet_since: When the last sound of caller or agent ended, in monotonic seconds. None:
                somebody is heard.
            held: A response is under way, or asked for, or voice detection is about to create one.
            now: Monotonic seconds.
        """
        self._quiet_since = quiet_since
        due_at = self.next_timer(held=held)
        if quiet_since is None or due_at is None or now < due_at:
            return None
        word = min(self._untold(), key=lambda call: call.due_at(quiet_since)).word
        for call in self._at_work.values():
            remember(self._told, call.round_id)
        return Word(self._instructions(word), word.after_s)

    def next_timer(self, *, held: bool) -> float | None:
        """When :meth:`next` has something, in monotonic seconds; None: not without an event."""
        quiet_since = self._quiet_since
        if held or quiet_since is None:
            return None
        return min((call.due_at(quiet_since) for call in self._untold()), default=None)

    def _untold(self) -> list[_AtWork]:
        return [call for call in self._at_work.values() if call.round_id not in self._told]

    def _instructions(self, word: WhileWaiting) -> str:
        """A response's instructions stand in place of the session's, so these hold both."""
        wanted = f'{SAY}"{word.say}"' if word.say is not None else word.instruct or INSTRUCT
        return f"{self._agent.instructions}\n\n{wanted}"
