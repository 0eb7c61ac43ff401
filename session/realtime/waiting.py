"""When the caller is told that a function is still at work, and in which words. Pure.

The conversation goes on while functions work: the caller may speak and the model answers. Only where
nobody is heard, a word is owed, once a round; the functions that one response called are a round.

=====================================  ============================================================
what happens                           what follows
=====================================  ============================================================
a function is called                   its word is due after ``after_s`` of silence, which begins
                                       with the call; with an earlier call, if nothing was heard
                                       between the two
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
from session.realtime.state import remember

SAY = """A function that you called is still at work. Say this to the caller, in these words, and \
nothing else: """

INSTRUCT = """A function that you called is still at work. Tell the caller in one short sentence, in \
the language of the conversation, that you are still on it and will say what comes of it. If another \
function has answered meanwhile, say first what it brought. Invent no result."""


@dataclass(frozen=True, slots=True)
class _AtWork:
    """A function that has not answered yet."""

    round_id: str
    called_at: float
    """Monotonic seconds."""
    word: WhileWaiting


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
        self._silent_from: float | None = None
        """When the silence began in which functions work, or worked last. None: it is to begin."""

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

    def next(self, *, quiet_since: float | None, held: bool, now: float) -> str | None:
        """Instructions of the response that is owed now, given out once; None: none is.

        Args:
            quiet_since: When the last sound of caller or agent ended, in monotonic seconds. None:
                somebody is heard.
            held: A response is under way, or asked for, or voice detection is about to create one.
            now: Monotonic seconds.
        """
        if self._silent_from is not None and (
            quiet_since is None or quiet_since > self._silent_from
        ):
            self._silent_from = None
        if self._silent_from is None and quiet_since is not None and self._at_work:
            first = min(call.called_at for call in self._at_work.values())
            self._silent_from = max(quiet_since, first)
        word = None if held else self._first()
        if self._silent_from is None or word is None or now < self._silent_from + word.after_s:
            return None
        for call in self._at_work.values():
            remember(self._told, call.round_id)
        return self._instructions(word)

    def next_timer(self, *, held: bool) -> float | None:
        """When :meth:`next` has something, in monotonic seconds; None: not without an event."""
        word = None if held else self._first()
        if self._silent_from is None or word is None:
            return None
        return self._silent_from + word.after_s

    def _first(self) -> WhileWaiting | None:
        """The word whose time comes first."""
        words = [call.word for call in self._at_work.values() if call.round_id not in self._told]
        return min(words, key=lambda word: word.after_s) if words else None

    def _instructions(self, word: WhileWaiting) -> str:
        """A response's instructions stand in place of the session's, so these hold both."""
        wanted = f'{SAY}"{word.say}"' if word.say is not None else word.instruct or INSTRUCT
        return f"{self._agent.instructions}\n\n{wanted}"
